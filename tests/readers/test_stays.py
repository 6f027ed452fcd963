"""Stays that contradict each other or a death are kept and counted, whatever the format that tells of them."""

from datetime import datetime

import pytest

from mera_core.readers import read
from mera_core.readers.common.assemble import AFTER_DEATH, OVERLAPPING
from tests.readers import test_synpuf as synpuf
from tests.readers.fhir import test_reader as fhir
from tests.readers.meds import test_reader as meds
from tests.readers.mimic import test_mimic3 as mimic3
from tests.readers.omop import test_reader as omop

DIED = "2020-02-01"
STAYS = (  # the second and third begin before the first ends; the last begins after the death, the one before it on its day
    ("2020-01-01", "2020-01-10"), ("2020-01-05", "2020-01-08"), ("2020-01-09", "2020-01-12"),
    ("2020-01-12", "2020-01-13"), ("2020-02-01", "2020-02-02"), ("2020-03-01", "2020-03-02"),
)  # fmt: skip
OTHER = (90, 2, "2020-01-05", "2020-01-06")  # another patient overlaps nobody
ROWS = [*((n, 1, *stay) for n, stay in enumerate(STAYS)), OTHER]


def _mimic3(path):
    people = f"subject_id,gender,dob,dod\n1,F,1950-01-01,{DIED} 00:00:00\n2,F,1950-01-01,\n"
    stays = "".join(f"{who},{n},{begun},{ended}\n" for n, who, begun, ended in ROWS)
    codes = "".join(f"{who},{n},1,4280\n" for n, who, *_ in ROWS)
    heads = ("subject_id,hadm_id,admittime,dischtime\n", "subject_id,hadm_id,seq_num,icd9_code\n")
    mimic3.folder(path, patients=people, admissions=heads[0] + stays, diagnoses_icd=heads[1] + codes)


def _omop(path):
    stays = "".join(f"{n},{who},{begun},{ended}\n" for n, who, begun, ended in ROWS)
    head = "person_id,condition_concept_id,condition_start_date,visit_occurrence_id,condition_source_value\n"
    tables = {"PERSON": "person_id,gender_concept_id,year_of_birth\n1,8532,1950\n2,8532,1950\n"}
    tables |= {"DEATH": f"person_id,death_date\n1,{DIED}\n", "CONCEPT": None, "CONCEPT_RELATIONSHIP": None}
    tables["VISIT_OCCURRENCE"] = "visit_occurrence_id,person_id,visit_start_date,visit_end_date\n" + stays
    omop.folder(path, CONDITION_OCCURRENCE=f"{head}1,0,{STAYS[0][0]},0,I10\n2,0,2020-01-05,90,I10\n", **tables)


def _fhir(path):
    met = [fhir.encounter(f"e{n}", begun, ended, f"Patient/{who}") for n, who, begun, ended in ROWS]
    fhir.put(path / "all.ndjson", fhir.patient("1", deceasedDateTime=DIED), fhir.patient("2"), *met)


def _meds(path):
    rows = [(1, DIED, "MEDS_DEATH", None)]
    for n, who, begun, ended in ROWS:
        rows += [(who, begun, "HOSPITAL_ADMISSION//X", n), (who, ended, "HOSPITAL_DISCHARGE//Y", n)]
        rows.append((who, ended, "DIAGNOSIS//ICD//9//4280", n))
    dated = [(who, datetime.fromisoformat(when), *more) for who, when, *more in rows]
    meds.put(path / "data" / "0.parquet", meds.table(dated, meds.COLUMNS[:4]))


def _synpuf(path):
    people = f"DESYNPUF_ID,BENE_BIRTH_DT,BENE_DEATH_DT\n1,19500101,{DIED}\n2,19500101,\n"
    claims = "DESYNPUF_ID,CLM_ID,CLM_FROM_DT,CLM_THRU_DT,CLM_ADMSN_DT,ICD9_DGNS_CD_1\n"
    claims += "".join(f"{who},{n},{begun},{ended},{begun},4280\n" for n, who, begun, ended in ROWS)
    tables = {"DE1_0_2008_Beneficiary_Summary_File_Sample_1": people}
    tables["DE1_0_2008_to_2010_Inpatient_Claims_Sample_1"] = claims
    synpuf.folder(path, **{name: content.replace("-", "") for name, content in tables.items()})


@pytest.mark.parametrize("write", [_mimic3, _omop, _fhir, _meds, _synpuf], ids=lambda write: write.__name__[1:])
def test_a_stay_after_death_and_overlapping_stays_are_counted(tmp_path, write):
    write(tmp_path)
    report = read(tmp_path).report
    assert (report.aside[OVERLAPPING], report.aside[AFTER_DEATH]) == (2, 1)
    assert report.visits >= len(STAYS)
    assert any("begin before an earlier one of their patient ended" in line for line in report.lines())

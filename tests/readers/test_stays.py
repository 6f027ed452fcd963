"""Stays that contradict each other or a death are kept and counted, whatever the format that tells of them."""

import json
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mera_core.readers import read
from mera_core.readers.common.assemble import AFTER_DEATH, OVERLAPPING

DIED = "2020-02-01"
STAYS = (  # the second and third begin before the first ends; the last begins after the death, the one before it on its day
    ("2020-01-01", "2020-01-10"),
    ("2020-01-05", "2020-01-08"),
    ("2020-01-09", "2020-01-12"),
    ("2020-01-12", "2020-01-13"),
    ("2020-02-01", "2020-02-02"),
    ("2020-03-01", "2020-03-02"),
)


def _mimic3(path):
    (path / "patients.csv").write_text(f"subject_id,gender,dob,dod\n1,F,1950-01-01,{DIED} 00:00:00\n2,F,1950-01-01,\n")
    rows = [f"1,{n},{begun},{ended}" for n, (begun, ended) in enumerate(STAYS)]
    rows += ["2,90,2020-01-05,2020-01-06"]  # another patient overlaps nobody
    (path / "admissions.csv").write_text("\n".join(["subject_id,hadm_id,admittime,dischtime", *rows]))
    codes = [f"{row.split(',')[0]},{row.split(',')[1]},1,4280" for row in rows]
    (path / "diagnoses_icd.csv").write_text("\n".join(["subject_id,hadm_id,seq_num,icd9_code", *codes]))


def _omop(path):
    (path / "person.csv").write_text("person_id,gender_concept_id,year_of_birth\n1,8532,1950\n2,8532,1950\n")
    (path / "death.csv").write_text(f"person_id,death_date\n1,{DIED}\n")
    rows = ["visit_occurrence_id,person_id,visit_start_date,visit_end_date"]
    rows += [f"{n},1,{begun},{ended}" for n, (begun, ended) in enumerate(STAYS, 1)] + ["90,2,2020-01-05,2020-01-06"]
    (path / "visit_occurrence.csv").write_text("\n".join(rows))
    head = "person_id,condition_concept_id,condition_start_date,visit_occurrence_id,condition_source_value\n"
    (path / "condition_occurrence.csv").write_text(head + f"1,0,{STAYS[0][0]},1,I10\n2,0,2020-01-05,90,I10\n")


def _fhir(path):
    people = [{"resourceType": "Patient", "id": "1", "deceasedDateTime": DIED}, {"resourceType": "Patient", "id": "2"}]
    stays = [("1", *stay) for stay in STAYS] + [("2", "2020-01-05", "2020-01-06")]
    met = [
        {"resourceType": "Encounter", "id": f"e{n}", "status": "finished", "subject": {"reference": f"Patient/{who}"},
         "period": {"start": begun, "end": ended}}
        for n, (who, begun, ended) in enumerate(stays)
    ]  # fmt: skip
    (path / "all.ndjson").write_text("\n".join(json.dumps(each) for each in people + met))


def _meds(path):
    rows = [(1, DIED, "MEDS_DEATH", None), (2, "2020-01-05", "HOSPITAL_ADMISSION//X", 90)]
    for n, (begun, ended) in enumerate(STAYS):
        rows += [(1, begun, "HOSPITAL_ADMISSION//X", n), (1, ended, "HOSPITAL_DISCHARGE//Y", n)]
        rows += [(1, ended, "DIAGNOSIS//ICD//9//4280", n)]
    who, when, code, stay = zip(*rows, strict=True)
    times = pa.array([datetime.fromisoformat(each) for each in when], pa.timestamp("us"))
    columns = {"subject_id": pa.array(who), "time": times, "code": code, "hadm_id": pa.array(stay, pa.int64())}
    (path / "data").mkdir()
    pq.write_table(pa.table(columns), path / "data" / "0.parquet")


def _synpuf(path):
    people = f"DESYNPUF_ID,BENE_BIRTH_DT,BENE_DEATH_DT\nA,19500101,{DIED.replace('-', '')}\nB,19500101,\n"
    (path / "DE1_0_2008_Beneficiary_Summary_File_Sample_1.csv").write_text(people)
    rows = ["DESYNPUF_ID,CLM_ID,CLM_FROM_DT,CLM_THRU_DT,CLM_ADMSN_DT,ICD9_DGNS_CD_1"]
    for n, (begun, ended) in enumerate(STAYS, 1):
        begun, ended = begun.replace("-", ""), ended.replace("-", "")
        rows.append(f"A,{n},{begun},{ended},{begun},4280")
    rows.append("B,90,20200105,20200106,20200105,4280")
    (path / "DE1_0_2008_to_2010_Inpatient_Claims_Sample_1.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("write", [_mimic3, _omop, _fhir, _meds, _synpuf], ids=lambda write: write.__name__[1:])
def test_a_stay_after_death_and_overlapping_stays_are_counted(tmp_path, write):
    write(tmp_path)
    report = read(tmp_path).report
    assert (report.aside[OVERLAPPING], report.aside[AFTER_DEATH]) == (2, 1)
    assert report.visits >= len(STAYS)
    assert any("begin before an earlier one of their patient ended" in line for line in report.lines())

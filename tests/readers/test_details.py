"""What each reader tells of a visit beside its codes: one key a fact in every format, as docs/data/README.md lists them."""

import json
import re
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mera_core.readers import read
from mera_core.readers.common.record_words import LISTS, word
from mera_core.readers.uci_diabetes130 import _READ
from tests.readers.shapes import write_csv

PAGE = Path(__file__).resolve().parents[2] / "docs/data/README.md"
AFTER = ("readmitted", "readmission", "death", "dod", "deathtime", "hospital_expire_flag")  # what came after a visit
TIMES = ("2012-03-01 10:00:00", "2012-03-05 09:00:00")


def uci(folder: Path) -> Path:
    known = {"diag_1": "428", "age": "[70-80)", "gender": "Female", "race": "Other", "metformin": "Steady"}
    known |= {"admission_type_id": "1", "admission_source_id": "7", "discharge_disposition_id": "1", "a1cresult": ">8"}
    known |= {"max_glu_serum": "Norm", "insulin": "Up", "diabetesmed": "Yes", "medical_specialty": "Cardiology"}
    columns = [*_READ, "readmitted"]
    write_csv(folder / "diabetic_data.csv", " ".join(columns), [tuple(known.get(name, "3") for name in columns)])
    return folder


def mimic3(folder: Path) -> Path:
    write_csv(folder / "PATIENTS.csv", "subject_id gender dob dod", [(1, "F", "1950-01-01 00:00:00", "2012-04-01")])
    columns = "subject_id hadm_id admittime dischtime admission_type admission_location discharge_location insurance"
    row = (1, 5, *TIMES, "EMERGENCY", "EMERGENCY ROOM ADMIT", "HOME", "Medicare", "", 0)
    write_csv(folder / "ADMISSIONS.csv", f"{columns} deathtime hospital_expire_flag", [row])
    write_csv(folder / "DIAGNOSES_ICD.csv", "subject_id hadm_id seq_num icd9_code", [(1, 5, 1, "4280")])
    return folder


def mimic4(folder: Path) -> Path:
    columns = "subject_id gender anchor_age anchor_year anchor_year_group dod"
    write_csv(folder / "hosp/patients.csv", columns, [(1, "F", 60, 2012, "2011 - 2013", "2012-04-01")])
    columns = "subject_id hadm_id admittime dischtime admission_type admission_location discharge_location insurance"
    row = (1, 5, *TIMES, "EW EMER.", "EMERGENCY ROOM", "HOME", "Medicare", "", 0)
    write_csv(folder / "hosp/admissions.csv", f"{columns} deathtime hospital_expire_flag", [row])
    columns = "subject_id hadm_id seq_num icd_code icd_version"
    write_csv(folder / "hosp/diagnoses_icd.csv", columns, [(1, 5, 1, "4280", 9)])
    return folder


def eicu(folder: Path) -> Path:
    columns = (
        "patientunitstayid patienthealthsystemstayid uniquepid gender age hospitaladmitoffset hospitaldischargeoffset "
        "hospitaladmitsource hospitaldischargelocation hospitaldischargestatus unitvisitnumber"
    )
    row = (11, 9, "1", "Female", 60, 0, 1440 * 3, "Emergency Department", "Home", "Alive", 1)
    write_csv(folder / "patient.csv", columns, [row])
    write_csv(folder / "diagnosis.csv", "patientunitstayid icd9code", [(11, "428.0")])
    return folder


def meds(folder: Path) -> Path:
    came, left = (datetime.fromisoformat(time) for time in TIMES)
    codes = ("HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM", "DIAGNOSIS//ICD//9//4280", "HOSPITAL_DISCHARGE//HOME")
    table = pa.table(
        {
            "subject_id": [1] * 4,
            "time": [came, left, left, datetime(2012, 4, 1)],
            "code": [*codes, "MEDS_DEATH"],
            "numeric_value": pa.nulls(4, pa.float32()),
            "hadm_id": [5, 5, 5, None],
            "insurance": ["Medicare", None, None, None],
        }
    )
    path = folder / "data/train/0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    return folder


def omop(folder: Path) -> Path:
    write_csv(folder / "person.csv", "person_id gender_concept_id year_of_birth", [(1, 8532, 1950)])
    columns = (
        "visit_occurrence_id person_id visit_concept_id visit_start_date visit_end_date admitted_from_source_value "
        "discharged_to_source_value"
    )
    row = (5, 1, 9203, "2012-03-01", "2012-03-05", "EMERGENCY ROOM", "HOME")
    write_csv(folder / "visit_occurrence.csv", columns, [row])
    columns = "condition_occurrence_id person_id condition_concept_id condition_start_date visit_occurrence_id"
    row = (1, 1, 0, "2012-03-01", 5, "ICD9CM:428.0", 0)
    write_csv(
        folder / "condition_occurrence.csv", f"{columns} condition_source_value condition_source_concept_id", [row]
    )
    return folder


def fhir(folder: Path) -> Path:
    encounter = {
        "resourceType": "Encounter",
        "id": "e",
        "status": "finished",
        "class": {"code": "EMER"},
        "subject": {"reference": "Patient/p"},
        "period": {"start": "2012-03-01T10:00:00Z", "end": "2012-03-05T09:00:00Z"},
        "hospitalization": {
            "admitSource": {"coding": [{"code": "emd"}]},
            "dischargeDisposition": {"coding": [{"code": "home", "display": "Home"}]},
            "reAdmission": {"coding": [{"code": "R"}]},
        },
    }
    code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-9-cm", "code": "428.0"}]}
    condition = {"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p"}, "code": code}
    condition["encounter"] = {"reference": "Encounter/e"}
    person = {"resourceType": "Patient", "id": "p", "deceasedDateTime": "2012-04-01"}
    entries = [{"resource": resource} for resource in (person, encounter, condition)]
    folder.mkdir()
    path = folder / "bundle.json"
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}))
    return path


def synpuf(folder: Path) -> Path:
    columns = "DESYNPUF_ID BENE_BIRTH_DT BENE_DEATH_DT"
    name = folder / "DE1_0_2008_Beneficiary_Summary_File_Sample_1.csv"
    write_csv(name, columns, [("1", "19400101", "20120401")])
    columns = "DESYNPUF_ID CLM_ID SEGMENT CLM_FROM_DT CLM_THRU_DT CLM_ADMSN_DT CLM_UTLZTN_DAY_CNT ICD9_DGNS_CD_1"
    claim = ("1", 5, 1, "20090301", "20090305", "20090301", 4, "4280")
    write_csv(folder / "DE1_0_2008_to_2010_Inpatient_Claims_Sample_1.csv", columns, [claim])
    return folder


SOURCES = {
    "MIMIC-III": mimic3,
    "MIMIC-IV": mimic4,
    "eICU": eicu,
    "MEDS": meds,
    "OMOP": omop,
    "FHIR R4": fhir,
    "Diabetes 130": uci,
    "DE-SynPUF": synpuf,
}


def listed() -> dict[str, set[str]]:
    """Source -> keys, of the table in the documentation."""
    section = PAGE.read_text(encoding="utf-8").split("## Details of a visit")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")][2:]
    return {source.strip(): set(re.findall(r"`(\w+)`", keys)) for source, keys in rows}


@pytest.mark.parametrize("name", SOURCES)
def test_a_reader_tells_the_listed_details_and_nothing_from_after_the_visit(tmp_path, name):
    (person,) = read(SOURCES[name](tmp_path / "source")).patients
    (visit,) = person.visits
    assert set(visit.details) == listed()[name]
    assert not set(AFTER) & set(visit.details)
    assert visit.details.get("source", "emergency room") == "emergency room"
    assert visit.details.get("discharge", "home") == "home"
    assert visit.details.get("admission", "emergency") == "emergency"


def test_the_table_lists_every_reader_under_keys_of_diabetes_130():
    """`year`, which tells the cohort rules what MIMIC-IV may share with MIMIC-III, is the one key of a single source."""
    assert set(listed()) == set(SOURCES)
    for keys in listed().values():
        assert keys - {"year"} <= listed()["Diabetes 130"]


def test_the_words_of_fhir_are_those_of_uci():
    source, discharge = LISTS["UCI source"], LISTS["UCI discharge"]
    assert word("source", "hosp-trans") == word("source", "Transferred from other hospital") == source["4"]
    assert word("source", "emd") == word("source", "From accident/emergency department") == source["7"]
    assert word("source", "born") == word("source", "Born in hospital") == source["11"]
    assert word("source", "gp") == word("source", "Medical Practitioner/physician referral") == source["1"]
    assert word("discharge", "exp") == word("discharge", "Expired") == discharge["11"]
    assert word("discharge", "aadvice") == word("discharge", "Left against advice") == discharge["7"]
    assert word("discharge", "psy") == word("discharge", "Psychiatric hospital") == discharge["28"]
    assert word("discharge", "hosp") == word("discharge", "Hospice") == discharge["13"]
    assert word("discharge", "other-hcf") == word("discharge", "Other healthcare facility") == discharge["30"]

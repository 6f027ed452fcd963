"""The MIMIC-IV reader: two code systems, anchored years, hosp/ or flat, and every row of diagnoses_icd accounted for."""
# ruff: noqa: E501 (the rows of a source are as wide as they are)

import gzip
from datetime import datetime

import pytest

from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.readers import read
from tests.readers import shapes

PATIENTS = """subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod
10000032,F,52,2180,2014 - 2016,2180-09-09
10000068,M,91,2160,2008 - 2010,
10000084,F,40,2150,2011 - 2013,
"""
ADMISSIONS = """subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admission_location,discharge_location,insurance,language,marital_status,race
10000032,29079034,2181-07-23 12:35:00,2181-07-25 17:55:00,,EW EMER.,EMERGENCY ROOM,HOME,Medicaid,ENGLISH,WIDOWED,WHITE
10000032,22595853,2180-05-06 22:23:00,2180-05-07 17:15:00,,URGENT,TRANSFER FROM HOSPITAL,REHAB,Medicaid,ENGLISH,WIDOWED,WHITE
10000068,25022803,2161-01-01 00:00:00,2160-12-31 00:00:00,,EU OBSERVATION,,,Other,,,UNKNOWN
"""
DIAGNOSES = """subject_id,hadm_id,seq_num,icd_code,icd_version
10000032,22595853,1,5723   ,9
10000032,22595853,2,00845,9
10000032,22595853,3,E8021,9
10000032,29079034,1,I5022,10
10000032,29079034,2,E8021,10
10000032,29079034,2,E8021,10
10000032,29079034,3,4280,9
10000032,29079034,4,,10
10000032,29079034,5,ZZZ99,10
10000068,25022803,1,I10,10
10000068,25022803,2,I10,11
10000068,25022803,3,I10,
10000084,29079034,1,I10,10
10000084,99,1,I10,10
10000084,,1,I10,10
"""


def folder(path, inside="hosp", packed=False, **changes):
    (path / inside).mkdir(parents=True, exist_ok=True)
    tables = {"patients": PATIENTS, "admissions": ADMISSIONS, "diagnoses_icd": DIAGNOSES, **changes}
    for name, content in tables.items():
        content = gzip.compress(content.encode()) if packed else content.encode()
        (path / inside / f"{name}.csv{'.gz' * packed}").write_bytes(content)
    return path


def test_visits_codes_and_systems(tmp_path):
    cohort = read(folder(tmp_path))
    assert cohort.report.format == "mimic4"
    first, second = cohort.patients
    assert [visit.time for visit in first.visits] == [datetime(2180, 5, 6, 22, 23), datetime(2181, 7, 23, 12, 35)]
    assert first.visits[0].codes == (Code("ICD9", "572.3"), Code("ICD9", "008.45"), Code("ICD9", "E802.1"))
    assert first.visits[1].codes == (Code("ICD10", "I50.22"), Code("ICD10", "E80.21"), Code("ICD9", "428.0"))
    assert [visit.age for visit in first.visits] == [52.0, 53.0]
    assert (first.id, first.sex, first.age, first.details) == ("10000032", "F", 53.0, {"ethnicity": "white"})
    assert (second.sex, second.age, second.details) == ("M", 92.0, {})


def test_words_and_the_earliest_calendar_year(tmp_path):
    first, second = read(folder(tmp_path)).patients
    assert first.visits[1].details == {
        "admission": "emergency",
        "source": "emergency room",
        "discharge": "home",
        "stay": "2",
        "payer": "medicaid",
        "year": "2015",  # a year after the anchor, which is 2014 at the earliest
    }
    assert first.visits[0].details["source"] == "transfer from hospital"
    assert second.visits[0].details == {"admission": "observation", "payer": "other", "year": "2009"}


def test_every_row_is_kept_or_left_out_with_its_reason(tmp_path):
    report = read(folder(tmp_path)).report
    assert (report.rows, report.patients, report.visits, report.codes) == (15, 2, 3, 7)
    assert report.left_out == {
        "row is repeated": 1,
        "no code recorded": 1,
        "code not in the ICD code set": 1,
        "icd_version is neither 9 nor 10": 1,
        "no icd_version recorded": 1,
        "admission belongs to another patient in ADMISSIONS": 1,
        "admission not in ADMISSIONS": 1,
        "no admission recorded": 1,
    }
    assert report.unknown_codes == {"ZZZ99": 1}
    assert report.systems == {"ICD9": 4, "ICD10": 3}
    assert report.aside == {
        "patients without a visit": 1,
        "visits begin after the day of their patient's death, and are kept": 1,
    }
    assert any("1 visits hold codes of ICD-9-CM and of ICD-10-CM" in said for said in report.remarks)
    assert any("admissions.csv, line 4, column 'dischtime'" in said for said in report.remarks)
    assert any("1 visits are at 91 years or more" in said for said in report.remarks)


@pytest.mark.parametrize(("inside", "packed"), [("", False), ("hosp", True), ("HOSP", False)])
def test_flat_and_packed_folders_are_the_same(tmp_path, inside, packed):
    plain = read(folder(tmp_path / "a"))
    other = read(folder(tmp_path / "b", inside, packed), "mimic4")
    assert other.patients == plain.patients


def test_older_releases_keep_patients_in_core_and_call_race_ethnicity(tmp_path):
    folder(tmp_path, "core", admissions=ADMISSIONS.replace("race", "ethnicity"))
    (tmp_path / "hosp").mkdir()
    (tmp_path / "core/diagnoses_icd.csv").rename(tmp_path / "hosp/diagnoses_icd.csv")
    assert read(tmp_path).patients == read(folder(tmp_path / "new")).patients


def test_mimic3_beside_it_is_another_data_set(tmp_path):
    folder(tmp_path, "hosp")
    shapes.mimic3([Patient([Visit([Code("ICD9", "428.0")], datetime(2100, 1, 1))], "F", None, "1")], tmp_path)
    with pytest.raises(InputError, match=r"more than one format .mimic3: .*; mimic4: "):
        read(tmp_path)
    assert read(tmp_path, "mimic4").patients == read(folder(tmp_path / "alone")).patients
    other = read(tmp_path, "mimic3").report
    assert (other.codes, len(other.remarks)) == (1, 1)
    assert "the folder holds records as mimic4, not read" in other.remarks[0]


def test_a_missing_file_is_told(tmp_path):
    folder(tmp_path)
    (tmp_path / "hosp/admissions.csv").unlink()
    with pytest.raises(InputError, match=r"no file admissions\.csv"):
        read(tmp_path, "mimic4")

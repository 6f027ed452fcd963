"""The MIMIC-III reader, on a small invented folder in its shape."""

from datetime import datetime

import pytest

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Code
from mera_core.readers import read

PATIENTS = """row_id,subject_id,gender,dob,dod
1,7,F,2094-03-05 00:00:00,
2,8,M,1850-01-01 00:00:00,
3,9,F,2150-01-01 00:00:00,
"""
ADMISSIONS = (
    "row_id,subject_id,hadm_id,admittime,dischtime,admission_type,admission_location,discharge_location,"
    """insurance,ethnicity
1,7,102,2165-01-02 10:00:00,2165-01-05 09:00:00,ELECTIVE,PHYS REFERRAL/NORMAL DELI,DEAD/EXPIRED,Medicare,WHITE
2,7,101,2164-10-23 21:09:00,2164-11-01 17:15:00,EMERGENCY,EMERGENCY ROOM ADMIT,HOME HEALTH CARE,Medicare,WHITE
3,8,103,2150-01-01 00:00:00,,URGENT,,SNF,,UNKNOWN/NOT SPECIFIED
4,99,104,2150-01-01 00:00:00,,URGENT,,SNF,,
"""
)
DIAGNOSES = """row_id,subject_id,hadm_id,seq_num,icd9_code
1,7,101,2,0389
2,7,101,1,99591
3,7,101,3,0389
4,7,101,4,
5,7,102,1,E8021
6,7,102,2,XX9
7,8,103,,4280
8,8,103,1,V1582
9,8,555,1,4280
10,7,103,1,4280
11,99,104,1,4280
"""


def folder(path, **changes):
    path.mkdir(exist_ok=True)
    for name, content in {
        "patients": PATIENTS,
        "admissions": ADMISSIONS,
        "diagnoses_icd": DIAGNOSES,
        **changes,
    }.items():
        (path / f"{name}.csv").write_text(content)
    return path


def test_visits_are_ordered_by_admission_and_codes_by_rank(tmp_path):
    first, second = read(folder(tmp_path)).patients
    assert [visit.time for visit in first.visits] == [datetime(2164, 10, 23, 21, 9), datetime(2165, 1, 2, 10)]
    assert first.visits[0].codes == (Code("ICD9", "995.91"), Code("ICD9", "038.9"))
    assert first.visits[1].codes == (Code("ICD9", "E802.1"),)
    assert second.visits[0].codes == (Code("ICD9", "V15.82"), Code("ICD9", "428.0"))


def test_profile_ages_and_words(tmp_path):
    first, second = read(folder(tmp_path)).patients
    assert (first.id, first.sex, first.details) == ("7", "F", {"ethnicity": "white"})
    assert [visit.age for visit in first.visits] == [70.64, 70.83]
    assert first.age == 70.83
    assert (second.age, second.details) == (91.4, {})
    assert first.visits[0].details == {
        "admission": "emergency",
        "source": "emergency room",
        "discharge": "home health care",
        "stay": "8",
        "payer": "medicare",
    }
    assert first.visits[1].details["discharge"] == "died"
    assert second.visits[0].details == {"admission": "urgent", "discharge": "skilled nursing facility"}


def test_every_row_is_kept_or_left_out_with_its_reason(tmp_path):
    report = read(folder(tmp_path)).report
    assert report.rows == 11
    assert (report.patients, report.visits, report.codes) == (2, 3, 5)
    assert report.left_out == {
        "named twice in one visit": 1,
        "no code recorded": 1,
        "code not in the ICD code set": 1,
        "admission not in ADMISSIONS": 1,
        "admission belongs to another patient in ADMISSIONS": 1,
        "patient not in PATIENTS": 1,
    }
    assert report.codes + report.left_out.total() == report.rows
    assert report.unknown_codes == {"XX9": 1}
    assert report.aside == {"patients without a visit": 1, "admissions: patient not in PATIENTS": 1}
    assert report.systems == {"ICD9": 5}
    assert any("1 visits are of patients over 89" in line and "91.4" in line for line in report.lines())


def test_stays_that_end_before_they_begin_and_visits_before_birth_are_told(tmp_path):
    backwards = ADMISSIONS.replace("2165-01-05 09:00:00", "2164-12-31 09:00:00")
    (said,) = [line for line in read(folder(tmp_path, admissions=backwards)).report.remarks if "end before" in line]
    assert "1 stays end before they begin" in said and "line 2, column 'dischtime'" in said
    head, *rows = backwards.split("\n")
    again = "\n".join([head, rows[1], rows[1], *rows])  # a repeated row before it moves the line, and only the line
    assert "line 4, column 'dischtime'" in " ".join(read(folder(tmp_path, admissions=again)).report.remarks)
    unborn = PATIENTS.replace("2094-03-05", "2164-12-01")
    report = read(folder(tmp_path, patients=unborn)).report
    assert report.left_out["visit before birth"] == 3
    assert report.aside["admissions: visit before birth"] == 1
    assert report.rows == report.codes + report.left_out.total()
    undated = read(folder(tmp_path, admissions=ADMISSIONS.replace("2165-01-02 10:00:00", ""))).report
    assert (undated.left_out["no date"], undated.aside["admissions: no date"]) == (2, 1)


def test_rows_that_stand_twice_count_once(tmp_path):
    once = {"patients": PATIENTS, "admissions": ADMISSIONS, "diagnoses_icd": DIAGNOSES}
    twice = {name: content + content.split("\n")[1] + "\n" for name, content in once.items()}
    plain, cohort = read(folder(tmp_path / "a")), read(folder(tmp_path / "b", **twice))
    assert cohort.patients == plain.patients
    assert cohort.report.rows == 12 == cohort.report.codes + cohort.report.left_out.total()
    assert cohort.report.left_out["row is repeated"] == 1
    assert cohort.report.aside["repeated rows of PATIENTS"] == cohort.report.aside["repeated rows of ADMISSIONS"] == 1


def test_a_missing_file_or_a_single_file_is_told(tmp_path):
    folder(tmp_path)
    with pytest.raises(InputError, match="needs the folder"):
        read(tmp_path / "patients.csv", "mimic3")
    (tmp_path / "admissions.csv").unlink()
    with pytest.raises(InputError, match=r"no file admissions\.csv"):
        read(tmp_path, "mimic3")

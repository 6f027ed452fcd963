"""The eICU reader: unit stays joined to hospital stays, pairs of codes, and an order that is partly a guess."""
# ruff: noqa: E501 (the rows of a source are as wide as they are)

import pytest

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Code
from mera_core.readers import read

PATIENT = """patientunitstayid,patienthealthsystemstayid,gender,age,ethnicity,hospitaladmitoffset,hospitaladmitsource,hospitaldischargeyear,hospitaldischargeoffset,hospitaldischargelocation,hospitaldischargestatus,unitvisitnumber,uniquepid
11,900,Female,87,Caucasian,-60,Emergency Department,2015,4260,Home,Alive,2,002-1
12,900,Female,87,Caucasian,-60,Emergency Department,2015,4260,Home,Alive,1,002-1
13,800,Female,> 89,Caucasian,-10,,2014,-500,,Alive,1,002-1
14,700,Male,60,,0,,2014,1440,Death,Expired,1,002-2
15,701,Male,60,,0,,2014,1440,,Alive,1,002-2
"""
DIAGNOSIS = """diagnosisid,patientunitstayid,activeupondischarge,diagnosisoffset,diagnosisstring,icd9code,diagnosispriority
1,11,True,10,a|b,"401.9, I10",Other
2,12,True,20,a|c,"428.0, I50.9",Primary
3,12,True,30,a|c,"428.0, I50.9",Other
4,12,True,40,a|d,,Major
5,13,True,5,a|e,"V45.1, Z99.2",Major
6,14,True,5,a|e,"E870.0",Major
7,77,True,5,a|e,"038.9, A41.9",Major
"""


def folder(path, **changes):
    for name, content in {"patient": PATIENT, "diagnosis": DIAGNOSIS, **changes}.items():
        (path / f"{name}.csv").write_text(content)
    return path


def test_one_visit_a_hospital_stay_ordered_by_year(tmp_path):
    cohort = read(folder(tmp_path))
    assert cohort.report.format == "eicu"
    woman, man = cohort.patients
    assert (woman.id, woman.sex, woman.details) == ("002-1", "F", {"ethnicity": "white"})
    assert [visit.codes for visit in woman.visits] == [
        (Code("ICD9", "V45.1"), Code("ICD10", "Z99.2")),
        (Code("ICD9", "428.0"), Code("ICD10", "I50.9"), Code("ICD9", "401.9"), Code("ICD10", "I10")),
    ]
    assert [visit.age for visit in woman.visits] == [90.0, 87.0]
    assert [visit.time for visit in woman.visits] == [None, None]
    assert man.visits[0].codes == (Code("ICD9", "E870.0"),)
    assert man.visits[0].details == {"discharge": "died", "stay": "1"}
    assert woman.visits[1].details == {"source": "emergency room", "discharge": "home", "stay": "3"}


def test_every_code_of_every_row_is_accounted_for(tmp_path):
    report = read(folder(tmp_path)).report
    assert (report.rows, report.patients, report.visits, report.codes) == (12, 2, 4, 7)
    assert report.left_out == {"no code recorded": 1, "named twice in one visit": 2, "unit stay not in patient": 2}
    assert report.guessed_order == 2  # both stays of the man end in one year at one age
    assert report.aside == {"visits kept without any code": 1}
    assert any("patient.csv, line 4" in said and "end before they begin" in said for said in report.remarks)
    assert any("over 89" in said for said in report.remarks)


def test_one_system_can_be_asked_for(tmp_path):
    report = read(folder(tmp_path), systems="ICD9").report
    assert report.systems == {"ICD9": 4}
    assert report.left_out["code of another system than ICD9, which was asked for"] == 5
    with pytest.raises(InputError, match="systems must be both"):
        read(tmp_path, systems="ICD11")

"""The DE-SynPUF reader: claims as visits, second segments, and what the beneficiary summaries add."""
# ruff: noqa: E501 (the rows of a source are as wide as they are)

from datetime import datetime

import pytest

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Code
from mera_core.readers import read

PEOPLE = """"DESYNPUF_ID","BENE_BIRTH_DT","BENE_DEATH_DT","BENE_SEX_IDENT_CD","BENE_RACE_CD"
00A,19430101,,1,1
00B,20090601,,2,5
"""
CLAIMS = """"DESYNPUF_ID","CLM_ID","SEGMENT","CLM_FROM_DT","CLM_THRU_DT","CLM_ADMSN_DT","ADMTNG_ICD9_DGNS_CD","CLM_UTLZTN_DAY_CNT","ICD9_DGNS_CD_1","ICD9_DGNS_CD_2","ICD9_DGNS_CD_3"
00A,2,1,20090831,20090902,20090831,6186,2,6186,2948,6186
00A,1,1,20090412,20090410,20090412,7866,6,1970,,0389
00A,1,2,,,,7866,,4019,,
00A,3,1,20100101,20100102,20100101,,1,,,
00B,4,1,20080101,20080102,20080101,,1,4280,XX99,
00C,5,1,20080101,20080102,20080101,,1,4280,XX99,
"""


def folder(path, **changes):
    tables = {
        "DE1_0_2008_Beneficiary_Summary_File_Sample_1": PEOPLE,
        "DE1_0_2008_to_2010_Inpatient_Claims_Sample_1": CLAIMS,
        **changes,
    }
    for name, content in tables.items():
        (path / f"{name}.csv").write_text(content)
    return path


def test_claims_are_visits_in_order_of_admission(tmp_path):
    cohort = read(folder(tmp_path))
    assert cohort.report.format == "synpuf"
    first, other = cohort.patients
    assert [visit.time for visit in first.visits] == [
        datetime(2009, 4, 12),
        datetime(2009, 8, 31),
        datetime(2010, 1, 1),
    ]
    assert first.visits[0].codes == (Code("ICD9", "197.0"), Code("ICD9", "038.9"))
    assert first.visits[0].positions == (1, 3)
    assert (first.sex, first.age, first.details) == ("M", 67.0, {"ethnicity": "white"})
    assert first.visits[1].details == {"stay": "2"}
    assert (other.id, other.sex, other.age) == ("00C", "U", None)


def test_every_cell_is_accounted_for(tmp_path):
    report = read(folder(tmp_path)).report
    assert (report.rows, report.patients, report.visits, report.codes) == (11, 2, 4, 5)
    assert report.left_out == {
        "wrong segment": 1,
        "named twice in one visit": 1,
        "no code recorded": 1,
        "visit before birth": 2,
        "code not in the ICD code set": 1,
    }
    assert report.aside == {
        "claims: wrong segment": 1,
        "claims: visit before birth": 1,
        "patients without a visit": 1,
        "visits kept without any code": 1,
    }
    assert any("line 3, column 'clm_thru_dt'" in said for said in report.remarks)
    assert any("1 patients with claims are in no beneficiary summary" in said for said in report.remarks)


def test_a_single_claims_file_and_other_claims(tmp_path):
    outpatient = {"DE1_0_2008_to_2010_Outpatient_Claims_Sample_1": CLAIMS.replace("CLM_ADMSN_DT", "X")}
    folder(tmp_path, **outpatient)
    alone = read(tmp_path / "DE1_0_2008_to_2010_Inpatient_Claims_Sample_1.csv")
    assert alone.report.patients == 3  # without the summary nobody is known to be unborn
    assert any("outpatient" in said for said in read(tmp_path).report.remarks)
    assert read(tmp_path, claims="inpatient,outpatient").report.visits == 8
    with pytest.raises(InputError, match="claims must be of"):
        read(tmp_path, claims="dental")

"""The generator of test tables: the sizes asked for, the real tables' shape, and nothing that readers leave out."""

import gzip

import pytest

from mera_core.common.errors import InputError
from mera_core.readers import read
from mera_core.readers.common.assemble import OVERLAPPING
from tests.readers.invented_mimic4 import invent, write_mimic4


@pytest.fixture(scope="module")
def tables():
    return invent(400, 700, 8_000, seed=5)


def test_mimic4_shape_is_read_to_the_last_row(tables, tmp_path):
    write_mimic4(tables, tmp_path)
    cohort = read(tmp_path)
    report = cohort.report
    assert (report.format, report.rows, report.codes, report.visits) == ("mimic4", 8_000, 8_000, 700)
    assert report.patients == 244  # 61 % of 400 have an admission, as in MIMIC-IV
    assert report.aside == {"patients without a visit": 156, OVERLAPPING: 6}
    assert set(report.systems) == {"ICD9", "ICD10"}
    header = gzip.decompress((tmp_path / "hosp/diagnoses_icd.csv.gz").read_bytes()).split(b"\n")[0]
    assert header == b"subject_id,hadm_id,seq_num,icd_code,icd_version"


def test_codes_change_system_in_october_2015(tables, tmp_path):
    write_mimic4(tables, tmp_path)
    for patient in read(tmp_path).patients:
        systems = [{code.system for code in visit.codes} for visit in patient.visits]
        assert all(len(each) == 1 for each in systems)
        assert systems == sorted(systems, key=lambda each: each == {"ICD10"})  # nobody goes back


def test_the_same_seed_makes_the_same_tables_and_sizes_must_go_together(tables):
    again = invent(400, 700, 8_000, seed=5)
    assert all(one.equals(other) for one, other in zip(again, tables, strict=True))
    with pytest.raises(InputError, match="from 1 to 39 diagnoses"):
        invent(10, 10, 1_000)

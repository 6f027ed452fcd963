"""Differences between files that mean nothing, and the place of a fault far into one. Faults are in `test_broken_sources`."""

import gzip
import shutil

import pytest

from mera_core.readers import read
from tests.readers.invented_mimic4 import invent, write_mimic4


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_mimic4(invent(60, 90, 900, seed=2), folder, packed=False)
    return folder


@pytest.fixture
def source(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "source")


def changed(source, name, change):
    path = source / "hosp" / f"{name}.csv"
    path.write_bytes(change(path.read_bytes()))
    return path


def quoted(content):
    rows = [row.split(b",") for row in content.strip().split(b"\n")]
    return b"\n".join(b",".join(b'"' + cell + b'"' for cell in row) for row in rows) + b"\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda c: b"\xef\xbb\xbf" + c,
        lambda c: c.replace(b"\n", b"\r\n"),
        lambda c: c.removesuffix(b"\n"),
        lambda c: c.replace(b"\n", b"\n\n", 3),
        lambda c: c.split(b"\n", 1)[0].upper() + b"\n" + c.split(b"\n", 1)[1],
        lambda c: quoted(c),
        gzip.compress,
    ],
    ids=["bom", "crlf", "no last newline", "blank lines", "capitals", "all quoted", "gzip under the plain name"],
)
def test_harmless_differences_change_nothing(whole, source, change):
    for name in ("patients", "admissions", "diagnoses_icd"):
        changed(source, name, change)
    assert read(source).patients == read(whole).patients


def test_a_place_far_into_a_packed_file_is_the_right_one(tmp_path):
    write_mimic4(invent(20_000, 40_000, 400_000), tmp_path, packed=False)
    path = tmp_path / "hosp/diagnoses_icd.csv"
    lines = path.read_bytes().split(b"\n")
    lines[350_000] = lines[350_000].replace(b",", b",x", 1)
    path.write_bytes(gzip.compress(b"\n".join(lines), 1))
    report = read(tmp_path).report
    assert report.left_out["admission not in ADMISSIONS"] == 1
    lines[350_000] = b"1,2,3"
    path.write_bytes(gzip.compress(b"\n".join(lines), 1))
    with pytest.raises(ValueError, match="line 350001 has 3 cells"):
        read(tmp_path)

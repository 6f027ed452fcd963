"""Files as they should not be, through the command line: one sentence with file, line and column, status 2, nothing left."""

import gzip
import shutil

import pytest

import mera_core.__main__ as cli
from mera_core.readers import read
from training.tools.make_test_tables import invent, write_mimic4


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


def insert(line, text):
    def change(content):
        lines = content.split(b"\n")
        lines[line - 1] = text
        return b"\n".join(lines)

    return change


def quoted(content):
    rows = [row.split(b",") for row in content.strip().split(b"\n")]
    return b"\n".join(b",".join(b'"' + cell + b'"' for cell in row) for row in rows) + b"\n"


FAULTS = {
    "cut gzip": ("diagnoses_icd", lambda c: gzip.compress(c)[:-500], "damaged gzip file"),
    "semicolons": ("admissions", lambda c: c.replace(b",", b";"), "line 1 is separated by semicolons"),
    "missing column": ("diagnoses_icd", lambda c: c.replace(b"icd_version", b"version"), "no column 'icd_version'"),
    "long row": ("diagnoses_icd", insert(7, b"1,2,3,4,9,9"), "line 7 has 6 cells where the header has 5"),
    "short last row": ("diagnoses_icd", lambda c: c + b"1,2\n", "line 902 has 2 cells where the header has 5"),
    "open quote": ("diagnoses_icd", insert(9, b'1,2,3,"4,9'), "line 9: a quote is left open"),
    "open quote in the last cell": ("diagnoses_icd", insert(9, b'1,2,3,4,"9'), "line 9: a quote is left open"),
    "open quote among quotes": (
        "diagnoses_icd",
        lambda c: insert(9, b'1,2,3,"4,9')(quoted(c)),
        "line 9: a quote is left open",
    ),
    "zero bytes": ("patients", insert(5, b"\0\0"), "line 5: it holds zero bytes"),
    "endless line": ("diagnoses_icd", insert(4, b"9" * 3_000_000), "line 4 is longer than 1,048,576 bytes"),
    "bad rank": ("diagnoses_icd", insert(6, b"1,2,first,4280,9"), "line 6, column 'seq_num'"),
    "bad date": ("admissions", lambda c: c.replace(b":", b"h", 4), "line 2, column 'admittime'"),
    "empty": ("patients", lambda c: b"", "is empty"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_and_leaves_nothing(source, tmp_path, capsys, fault):
    name, change, said = FAULTS[fault]
    path = changed(source, name, change)
    out = tmp_path / "out.parquet"
    status = cli.main(["convert", str(source), "--format", "mimic4", "--out", str(out), "--report", f"{out}.json"])
    told = capsys.readouterr()
    assert status == 2
    assert told.out == ""
    assert said in told.err
    assert path.name in told.err
    assert told.err.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["source"]


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


def test_shuffled_rows_give_the_same_visits(whole, source):
    def backwards(content):
        head, *rows = content.strip().split(b"\n")
        return b"\n".join([head, *rows[::-1]]) + b"\n"

    for name in ("patients", "admissions", "diagnoses_icd"):
        changed(source, name, backwards)
    there, here = ({patient.id: patient for patient in read(each).patients} for each in (whole, source))
    assert here == there


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

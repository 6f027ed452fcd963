"""A broken file of each format, its format not named: one sentence with the file's name, status 2, nothing left behind."""

import gzip
import json
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mera_core.__main__ as cli
from mera_core.common.errors import InputError
from mera_core.history.columns import VisitColumns
from mera_core.history.records import Patient, Visit
from mera_core.history.visits_file import write_visits
from mera_core.icd.ontology import Code
from mera_core.readers import Cohort, detect, read
from mera_core.readers.common.base import ImportReport
from mera_core.writers import write
from tests.readers import shapes
from tests.readers import test_eicu as eicu
from tests.readers import test_synpuf as synpuf
from tests.readers.mimic import test_mimic3 as mimic3
from tests.readers.mimic import test_mimic4 as mimic4
from tests.readers.omop import test_reader as omop

FIRST = datetime(2012, 3, 4, 5, 6)
CODES = tuple(Code("ICD9", code) for code in ("428.0", "250.00", "038.9"))
PATIENTS = [
    Patient([Visit(CODES[: 1 + at], FIRST + timedelta(days=40 * at)) for at in range(2)], "F", None, str(100 + row))
    for row in range(5)
]
CLAIMS = "DE1_0_2008_to_2010_Inpatient_Claims_Sample_1.csv"
BENEFICIARIES = "DE1_0_2008_Beneficiary_Summary_File_Sample_1.csv"
SOURCES = {  # format -> how it is written, the files that are broken in turn, and a column that each can't do without
    "mimic3": (shapes.mimic3, {"DIAGNOSES_ICD.csv": "icd9_code", "ADMISSIONS.csv": "admittime", "PATIENTS.csv": "dob"}),
    "mimic4": (shapes.mimic4, {"hosp/diagnoses_icd.csv": "icd_version", "hosp/admissions.csv": "hadm_id"}),
    "eicu": (shapes.eicu, {"patient.csv": "uniquepid", "diagnosis.csv": "icd9code"}),
    "synpuf": (shapes.synpuf, {CLAIMS: "CLM_ID", BENEFICIARIES: "BENE_BIRTH_DT"}),
    "uci_diabetes130": (shapes.uci, {"diabetic_data.csv": "patient_nbr"}),
    "omop": (shapes.omop, {"PERSON.csv": "person_id", "CONDITION_OCCURRENCE.csv": "condition_concept_id"}),
}
PLACES = [(format, name) for format, (_, names) in SOURCES.items() for name in names]
FAULTS = {
    "cut gzip": (lambda content, column: gzip.compress(content)[:-20], "damaged gzip file"),
    "missing column": (
        lambda content, column: content.replace(column.encode(), b"other", 1),
        "no column '{column}' in its",
    ),
    "UTF-16": (lambda content, column: content.decode().encode("utf-16"), "UTF-16 text (line 1)"),
    "empty": (lambda content, column: b"", "is empty"),
    "open quote": (lambda content, column: content.replace(b"\n", b'\n"', 2).replace(b'\n"', b"\n", 1), "line 3"),
    "zero byte": (lambda content, column: content[:-30] + b"\0" + content[-30:], "zero bytes"),
}


HEADER, ROWS = b"encounter_id,patient_nbr,diag_1,diag_2,diag_3\n", b"1,10,428,250.01,?\n2,10,8,V27,401\n"
KINDS = {  # what may be wrong with a delimited file, in one format
    "wrong delimiter": (HEADER.replace(b",", b";") + ROWS.replace(b",", b";"), "line 1 is separated by semicolons"),
    "tabs": (HEADER.replace(b",", b"\t"), "separated by tabs"),
    "column twice": (HEADER[:-1] + b",diag_3\n1,1,1,1,1,1\n", "line 1 has the column 'diag_3' more than once"),
    "short line": (HEADER + b"1,10,428,250.01,?\n2,10,8\n", "line 3 has 3 cells where the header has 5"),
    "long line": (HEADER + b"1,10,428,250.01,?,7\n", "line 2 has 6 cells where the header has 5"),
    "altered gzip": (gzip.compress(HEADER + ROWS)[:-8] + b"\0" * 8, "damaged gzip"),
    "open quote": (HEADER + b'1,10,428,250.01,"?\n2,10,8,V27,401\n', "a quote is left open"),
    "open quote among quotes": (
        HEADER + b'"1","10","428","250","?"\n"2","10","8,"V27","401"\n"3","10","8","V27","401"\n',
        "line 3: a quote is left open",
    ),
    "endless line": (HEADER + b"1,10,428,250.01," + b"9" * 3_000_000, "line 2 is longer than 1,048,576 bytes"),
    "endless header": (b"encounter_id," + b"9" * 3_000_000, "line 1 is longer than 1,048,576 bytes"),
    "zero bytes": (HEADER + b"1,10,428,\0,?\n", "line 2: it holds zero bytes"),
}


def convert(source, tmp_path, capsys) -> str:
    """The one sentence with which `convert` refuses a source, of which nothing is left behind."""
    out = tmp_path / "out"
    out.mkdir()
    assert cli.main(["convert", str(source), "--out", str(out / "v.parquet"), "--report", str(out / "r.json")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and list(out.iterdir()) == []
    return said.err


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("format", "name"), PLACES, ids=[f"{format}-{name}" for format, name in PLACES])
def test_a_broken_table_is_named_though_its_format_is_not(format, name, fault, tmp_path, capsys):
    made, names = SOURCES[format]
    path = made(PATIENTS, tmp_path / "source") / name
    change, said = FAULTS[fault]
    path.write_bytes(change(path.read_bytes(), names[name]))
    told = convert(tmp_path / "source", tmp_path, capsys)
    assert path.name in told and said.format(column=names[name].lower()) in told


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fault_is_named_by_its_line(kind, tmp_path, capsys):
    content, said = KINDS[kind]
    (tmp_path / "diabetic_data.csv").write_bytes(content)
    told = convert(tmp_path / "diabetic_data.csv", tmp_path, capsys)
    assert "diabetic_data.csv" in told and said in told


FOLDERS = {"mimic3": mimic3, "mimic4": mimic4, "eicu": eicu, "omop": omop, "synpuf": synpuf}


@pytest.mark.parametrize(
    ("format", "name", "old", "new", "said"),
    [
        ("mimic3", "diagnoses_icd", "101,2,", "101,x,", "line 2, column 'seq_num': there is no whole number"),
        ("mimic3", "admissions", "2164-10-23 21:09:00", "soon", "line 3, column 'admittime': there is no date"),
        ("mimic3", "admissions", "1,7,102", "1,7,101", "line 3, column 'hadm_id': this hadm_id is repeated"),
        ("mimic3", "patients", "2,8,M", "2,7,M", "line 3, column 'subject_id': this subject_id is repeated"),
        ("mimic4", "diagnoses_icd", ",2,00845", ",b,00845", "line 3, column 'seq_num': there is no whole"),
        ("mimic4", "diagnoses_icd", ",2,00845", ",99999999999,00845", "line 3, column 'seq_num': there is a n"),
        ("mimic4", "admissions", "2180-05-06 22:23:00", "yesterday", "line 3, column 'admittime'"),
        ("mimic4", "patients", ",91,", ",old,", "line 3, column 'anchor_age': there is no number"),
        ("mimic4", "patients", "10000084,", "10000032,", "line 4, column 'subject_id': this subject_id"),
        ("eicu", "patient", "002-2", "", "line 5, column 'uniquepid'"),
        ("eicu", "patient", "11,900", "12,900", "line 3, column 'patientunitstayid'"),
        ("eicu", "patient", "14,700", "14,800", "line 5, column 'patienthealthsystemstayid': this hospital"),
        ("eicu", "patient", ",87,", ",old,", "line 2, column 'age': there is no number"),
        ("omop", "PERSON", "1990", "1990s", "line 3, column 'year_of_birth': there is no number"),
        ("omop", "VISIT_OCCURRENCE", "2010-01-01,,", "1/1/10,,", "line 3, column 'visit_start_date'"),
        ("synpuf", CLAIMS[:-4], "410,20090412", "410,12/04/09", "line 3, column 'clm_admsn_dt': there is no date"),
    ],
)
def test_a_wrong_value_is_named_by_file_line_and_column(tmp_path, format, name, old, new, said):
    FOLDERS[format].folder(tmp_path)
    (path,) = tmp_path.rglob(f"{name}.csv")
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=said) as error:
        read(tmp_path, format)
    assert path.name in str(error.value)


def test_a_claim_that_stands_twice_is_one_visit(tmp_path):
    path = shapes.synpuf(PATIENTS, tmp_path) / CLAIMS
    whole = read(tmp_path)
    head, *rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, *(row for row in rows for _ in range(2))]))
    twice = read(tmp_path)
    assert twice.patients == whole.patients
    assert (twice.report.codes, twice.report.left_out) == (15, {"row is repeated": 15})
    assert twice.report.aside["repeated rows of claims"] == 10


# --- FHIR


@pytest.fixture
def export(tmp_path):
    cohort = Cohort.of(VisitColumns.of(PATIENTS), ImportReport("table", ""))
    write(cohort, tmp_path / "source", "fhir")
    return tmp_path / "source"


@pytest.mark.parametrize("kind", ["Patient", "Encounter", "Condition"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.decode().encode("utf-16"), "UTF-16 text"),
        (lambda content: b"<!DOCTYPE html><html>moved</html>", "a web page"),
        (lambda content: gzip.compress(content)[:-20], "damaged"),
        (lambda content: content.replace(b'"', b"'"), "line 1 is no FHIR resource"),
        (lambda content: content[:-50], "not JSON"),
        (lambda content: content.replace(b"\n", b"\xff\n", 2).replace(b"\xff\n", b"\n", 1), "line 2 is not UTF-8 text"),
    ],
)
def test_a_broken_file_of_an_export_is_never_passed_over(export, kind, change, said, tmp_path, capsys):
    path = export / f"{kind}.ndjson"
    path.write_bytes(change(path.read_bytes()))
    told = convert(export, tmp_path, capsys)
    assert path.name in told and said in told


def test_json_files_of_other_things_are_set_aside(export):
    (export / "package.json").write_text(json.dumps({"name": "export"}))
    cohort = read(export)
    assert len(cohort.patients) == 5 and cohort.report.aside["JSON files that hold no FHIR resources"] == 1


# --- parquet


def changed(path, name, values):
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    table = table.remove_column(place) if values is None else table.set_column(place, name, values(len(table)))
    pq.write_table(table, path)


DATA, METADATA = "data/*/*.parquet", "metadata/codes.parquet"


@pytest.mark.parametrize(
    ("files", "name", "values", "said"),
    [
        (DATA, "code", None, "no column 'code'"),
        (DATA, "subject_id", None, "no column 'subject_id'"),
        (DATA, "code", lambda size: pa.array([[1]] * size), "code as list"),
        (DATA, "code", lambda size: pa.array([4280] * size), "code as int64"),
        (DATA, "subject_id", lambda size: pa.array([2**64 - 1] * size, pa.uint64()), "above 2^63"),
        (DATA, "time", lambda size: pa.array(["today"] * size), "time as string"),
        (DATA, "text_value", lambda size: pa.array([b"\xff"] * size), "text_value as binary"),
        (DATA, "time_invented", lambda size: pa.array(["no"] * size), "time_invented as string"),
        (METADATA, "parent_codes", lambda size: pa.array([1.5] * size), "parent_codes as double, not as text"),
        (METADATA, "code", lambda size: pa.array([[1]] * size), "code as list"),
    ],
)
def test_a_file_of_meds_with_wrong_columns_is_named(files, name, values, said, tmp_path, capsys):
    write(Cohort.of(VisitColumns.of(PATIENTS), ImportReport("table", "")), tmp_path / "source", "meds")
    for path in (tmp_path / "source").glob(files):
        changed(path, name, values)
    told = convert(tmp_path / "source", tmp_path, capsys)
    assert ".parquet" in told and said in told


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("code", None, "v.parquet has no column 'code'"),
        ("age", lambda size: pa.array([[1]] * size), "row 1, column 'age': there are lists"),
        ("age", lambda size: pa.array([b"70", *[b"\xff"] * (size - 1)]), "row 2, column 'age': there is no UTF-8 text"),
        ("age", lambda size: pa.array([{"years": 70}] * size), "row 1, column 'age': there are lists or objects"),
    ],
)
def test_a_column_of_a_visits_table_that_holds_no_values_is_named(name, values, said, tmp_path, capsys):
    people = [Patient(patient.visits, "F", 70.0, patient.id) for patient in PATIENTS]
    write_visits(VisitColumns.of(people), tmp_path / "v.parquet")
    changed(tmp_path / "v.parquet", name, values)
    assert said in convert(tmp_path / "v.parquet", tmp_path, capsys)


def test_nan_is_nothing_in_a_table_of_floats(tmp_path):
    """As pandas writes ids beside missing ones: 7.0 and NaN."""
    shapes.omop(PATIENTS, tmp_path, packed=True)
    whole = read(tmp_path)
    changed(
        tmp_path / "condition_occurrence.parquet",
        "condition_concept_id",
        lambda size: pa.array([float("nan")] * size, pa.float64(), from_pandas=False),
    )
    assert read(tmp_path).patients == whole.patients


# --- what is not a file of ours


def test_the_fallback_says_that_it_goes_by_names(tmp_path):
    path = shapes.mimic3(PATIENTS, tmp_path) / "DIAGNOSES_ICD.csv"
    path.write_bytes(path.read_bytes().replace(b"icd9_code", b"code"))
    assert detect(tmp_path) == ("mimic3", "its files are called as MIMIC-III's are")


def test_unknown_codes_move_no_cursor(tmp_path, capsys):
    path = tmp_path / "v.csv"
    path.write_text(f"patient_id,visit,system,code\na,0,ICD9,\x1b[2J9\na,0,ICD9,{'9' * 5000}\na,0,ICD9,428.0\n")
    assert cli.main(["convert", str(path), "--out", str(tmp_path / "out.csv")]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "�[2J9 (1)" in said and max(map(len, said.splitlines())) < 200

"""readers.read: detection, unknown formats, and the faults that every delimited file can have."""

import gzip
import os
from collections import Counter
from pathlib import Path

import pytest

from mera_core.common.errors import InputError
from mera_core.readers import detect, read
from mera_core.readers.common.base import ImportReport, Source
from mera_core.readers.common.delimited import read_delimited

UCI_HEADER = b"encounter_id,patient_nbr,diag_1,diag_2,diag_3\n"
UCI_ROWS = b"1,10,428,250.01,?\n2,10,8,V27,401\n"


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "format", "why"),
    [
        ("a.csv", UCI_HEADER + UCI_ROWS, "uci_diabetes130", "patient_nbr"),
        ("a.txt", gzip.compress(UCI_HEADER + UCI_ROWS, mtime=0), "uci_diabetes130", "patient_nbr"),
        ("b.csv", b"patient_id,visit,system,code\na,0,ICD9,428.0\n", "table", "columns"),
        ("c.json", b'{"visits": [{"codes": ["428.0"]}]}', "table", "JSON that holds a history"),
        ("c.json", b' \n[{"visits": [{"codes": ["428.0"]}]}]', "table", "JSON that holds a history"),
        ("d.any", b'{"patient_id":"a","visit":0,"system":"ICD9","code":"428.0"}\n', "table", "JSON lines"),
    ],
)
def test_detection_says_which_and_why(tmp_path, name, content, format, why):
    report = read(write(tmp_path / name, content)).report
    assert report.format == format
    assert why in report.why
    assert detect(tmp_path / name)[0] == format


def test_unknown_formats_and_options_say_so(tmp_path):
    source = write(tmp_path / "a.csv", UCI_HEADER + UCI_ROWS)
    with pytest.raises(InputError, match="uci_diabetes130 has no option 'gap'; it has as_category"):
        read(source, gap=3)
    with pytest.raises(InputError, match="no format 'excel'"):
        read(source, "excel")


def test_unrecognised_and_missing_sources(tmp_path):
    with pytest.raises(InputError, match="no file or folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"a\.csv is empty"):
        read(write(tmp_path / "a.csv", b""))
    with pytest.raises(InputError, match="in no format that is known"):
        read(write(tmp_path / "a.csv", b"x,y\n1,2\n"))
    with pytest.raises(InputError, match="in no format that is known"):
        read(tmp_path)
    for content in (b"x" * 2_000_000 + b"\n1\n", b'{"code": "' + b"9" * 2_000_000 + b'"}'):
        with pytest.raises(InputError, match=r"b\.csv: line 1 is longer than 1,048,576 bytes"):
            read(write(tmp_path / "b.csv", content))


def test_messages_carry_no_row_of_a_patient(tmp_path):
    with pytest.raises(InputError) as error:
        read_delimited(Source(write(tmp_path / "a.csv", b"a,b\nsecret,words,more\n")), ["a"])
    assert "secret" not in str(error.value)


def test_a_quoted_cell_may_hold_commas_and_line_breaks(tmp_path):
    path = write(tmp_path / "a.csv", b'"a,1",b\n"x\ny","p,q"\nz,5" tube\n')
    table = read_delimited(Source(path), ["b"], None)
    assert {name: column.to_pylist() for name, column in table.columns.items()} == {
        "a,1": ["x\ny", "z"],
        "b": ["p,q", '5" tube'],
    }
    assert table.line(1) == 4


def test_a_folder_may_hold_names_in_any_case(tmp_path):
    write(tmp_path / "Diabetic_Data.CSV.gz", gzip.compress(UCI_HEADER + UCI_ROWS))
    assert read(tmp_path).report.format == "uci_diabetes130"
    assert Source(tmp_path).file("DIABETIC_DATA.csv").name == "Diabetic_Data.CSV.gz"
    with pytest.raises(InputError, match=r"no file x\.csv or x\.csv\.gz"):
        Source(tmp_path).file("x.csv")


def test_latin_1_is_read_and_the_place_is_told(tmp_path):
    content = UCI_HEADER.replace(b"\n", b",payer_code\n") + b"1,10,428,250.01,?,caf\xe9\n"
    cohort = read(write(tmp_path / "a.csv", content))
    assert cohort.patients[0].visits[0].details == {"payer": "café"}
    assert "a.csv is not UTF-8 text (first at line 2, column 'payer_code')" in cohort.report.remarks[0]


def test_several_gzip_members_in_a_row_are_one_file(tmp_path):
    path = write(tmp_path / "a.csv.gz", gzip.compress(UCI_HEADER) + gzip.compress(UCI_ROWS) + b"\0" * 20)
    assert read(path).report.codes == 5


def test_a_folder_of_several_formats_names_them(tmp_path):
    write(tmp_path / "diabetic_data.csv", UCI_HEADER + UCI_ROWS)
    write(tmp_path / "claims.csv", b"DESYNPUF_ID,CLM_ID,CLM_FROM_DT,ICD9_DGNS_CD_1\na,1,20080101,4280\n")
    with pytest.raises(InputError, match=r"more than one format .uci_diabetes130: .*; synpuf: "):
        read(tmp_path)
    assert read(tmp_path, "synpuf").report.codes == 1


def test_a_table_beside_the_records_is_told_and_not_read(tmp_path):
    write(tmp_path / "diabetic_data.csv", UCI_HEADER + UCI_ROWS)
    write(tmp_path / "visits.csv", b"patient_id,visit,system,code\na,0,ICD9,428.0\n")
    report = read(tmp_path).report
    assert (report.format, report.codes) == ("uci_diabetes130", 5)
    said = "beside what was read the folder holds records as table, not read: visits.csv: its columns are"
    assert [line.startswith(said) for line in report.remarks] == [True]
    assert any("as uci_diabetes130, not read" in line for line in read(tmp_path, "table").report.remarks)


def test_two_files_that_could_be_meant_are_refused(tmp_path):
    write(tmp_path / "X.csv", b"a\n1\n")
    write(tmp_path / "x.csv", b"a\n2\n")
    with pytest.raises(InputError, match=r"holds both X\.csv and x\.csv"):
        Source(tmp_path).file("x.csv")


def test_progress_is_told_in_bytes(tmp_path):
    told = []
    path = write(tmp_path / "a.csv", UCI_HEADER + UCI_ROWS)
    read(path, progress=lambda *step: told.append(step))
    assert told[-1] == ("a.csv", path.stat().st_size, path.stat().st_size)


def test_report_in_words():
    report = ImportReport("uci_diabetes130", "as asked", 1, 2, 3, 1_006)
    report.left_out["code not in the ICD code set"] = 1_003
    report.unknown_codes.update({f"x{n}": 1 for n in range(25)})
    lines = report.lines()
    assert lines[1] == "kept: 1 patient, 2 visits, 3 codes of 1,006 diagnosis entries"
    assert lines[2] == "left out: 1,003 entries: code not in the ICD code set"
    assert lines[3].endswith("and 5 more")
    written = report.to_dict()
    assert written["left_out"] == {"code not in the ICD code set": 1003}
    assert (len(written["unknown_codes"]), written["unknown_codes_distinct"]) == (20, 25)
    endless = ImportReport("table", unknown_codes=Counter({"9" * 5_000: 2, "9" * 6_000: 1, "\x1b[2J": 1}))
    assert endless.to_dict()["unknown_codes"] == {"9" * 60 + " ...": 3, "\ufffd[2J": 1}
    frame = report.to_frame()
    assert frame.loc[frame["kind"] == "left out", ["what", "count"]].values.tolist() == [
        ["code not in the ICD code set", 1_003]
    ]


@pytest.mark.skipif("MERA_DATA" not in os.environ, reason="MERA_DATA names no folder with the real data sets")
def test_real_files_are_accounted_for_to_the_row():
    data = Path(os.environ["MERA_DATA"])
    for name, patients, visits, codes in [
        ("mimic_iii_demo", 100, 129, 1_761),
        ("uci_diabetes130", 64_069, 91_160, 266_865),
        ("cms_desynpuf", 9_718, 17_260, 139_301),
        ("mimic_iv_demo_meds", 20, 37, None),
        ("synthea_fhir_r4", 3, 60, 0),
    ]:
        report = read(data / name).report
        assert (report.patients, report.visits) == (patients, visits)
        assert report.rows == report.codes + report.left_out.total() and codes in (None, report.codes)
        assert not report.unknown_codes or name in ("cms_desynpuf", "synthea_fhir_r4")

"""Each limit: its default is documented, its name changes it, and what passes it is refused in a sentence that says so."""

from __future__ import annotations

import gzip
import io
import json
import re
import threading
import zipfile
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mera_core.__main__ as cli
from mera_core.audit.file import from_sqlite, to_sqlite
from mera_core.audit.groups import Judgement
from mera_core.common.errors import InputError
from mera_core.common.limits import PREFIX, Limits, applied, gunzipped_size, in_force, refuse_depth
from mera_core.history.history_json import parse_json, patient_from_json
from mera_core.history.records import Patient, Visit, to_table, write_table
from mera_core.icd.ontology import Ontology
from mera_core.readers import read
from pages.shared.editor.pasted_list import read_list
from pages.shared.widgets.upload import read_uploads

ROOT = Path(__file__).resolve().parents[2]
ROWS = "patient_id,visit,system,code\n" + "".join(f"p{n},0,ICD9,428.0\n" for n in range(200))
CHECKPOINT = {"checkpoint_files", "checkpoint_json_bytes", "checkpoint_header_bytes", "checkpoint_rows"}


class Sent:
    """A file as the browser sends it."""

    def __init__(self, name: str, content: bytes | str) -> None:
        self.name, self._content = name, content.encode() if isinstance(content, str) else content

    def getvalue(self) -> bytes:
        return self._content


@pytest.fixture
def limit(monkeypatch):
    """Set one limit for a test, as an operator does."""

    def put(name: str, value: int) -> None:
        monkeypatch.setenv(PREFIX + name.upper(), str(value))

    return put


def packed(content: bytes | str, name: str = "t.csv") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


# --- the settings themselves


def test_every_limit_says_what_it_is_for_and_stands_in_the_documentation():
    source = (ROOT / "mera_core" / "limits.py").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    for each in fields(Limits):
        assert re.search(rf'    {each.name}: int = .*\n    """\S', source), each.name
        row = re.search(rf"^\| `{PREFIX}{each.name.upper()}` \| ([\d,]+) \|", page, re.MULTILINE)
        assert row and int(row[1].replace(",", "")) == each.default, f"docs/deploy.md: {each.name}"


def test_each_limit_is_overridden_by_its_variable():
    for number, each in enumerate(fields(Limits), start=50_000_000):
        assert getattr(Limits.of({f"{PREFIX}{each.name.upper()}": f"{number}"}), each.name) == number
    assert Limits.of({"PATH": "/x", "MERA_CHECKPOINT": "y"}) == Limits()
    assert Limits.of({f"{PREFIX}ROWS": "2_000"}).rows == 2_000


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MERA_LIMIT_ROWS", "many", "MERA_LIMIT_ROWS must be a whole number, not 'many'"),
        ("MERA_LIMIT_ROWS", "0", "rows must be a whole number above zero"),
        ("MERA_LIMIT_ROWS", "-5", "rows must be a whole number above zero"),
        ("MERA_LIMIT_ROW", "5", "MERA_LIMIT_ROW names no limit; known are"),
        ("MERA_LIMIT_UPLOAD_BYTES", "999999999999", "is below upload_bytes"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told_and_does_not_go_unnoticed(variable, value, said):
    with pytest.raises(InputError, match=said):
        Limits.of({variable: value})


def test_the_command_line_tells_a_setting_that_makes_no_sense(limit, capsys, tmp_path):
    limit("visitz", 3)
    (tmp_path / "h.json").write_text('{"visits": [{"codes": ["428.0"]}]}')
    assert cli.main(["rank", str(tmp_path / "h.json")]) == 2
    assert capsys.readouterr().err.startswith("MERA_LIMIT_VISITZ names no limit")


def test_limits_that_are_applied_hold_in_this_thread_and_end_with_the_block():
    seen = []
    with applied(Limits(rows=7)):
        assert in_force().rows == 7
        other = threading.Thread(target=lambda: seen.append(in_force().rows))
        other.start()
        other.join()
    assert (in_force().rows, seen) == (Limits().rows, [Limits().rows])


def test_uploads_are_held_to_tighter_limits_than_files_of_this_machine():
    here, sent = Limits(), Limits().for_uploads()
    assert sent.unpacked_bytes == sent.document_bytes == here.upload_unpacked_bytes < here.document_bytes
    assert sent.rows == here.upload_rows < here.rows


# --- what a browser sends


def test_upload_bytes(limit):
    limit("upload_bytes", 1_000)
    with pytest.raises(InputError, match=r"The file big\.csv is above the limit upload_bytes: at most 1,000 bytes"):
        read_uploads([Sent("big.csv", ROWS)])


def test_upload_files(limit):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(5):
            archive.writestr(f"{number}.csv", "a\n")
    limit("upload_files", 4)
    with pytest.raises(InputError, match="above the limit upload_files: at most 4 files"):
        read_uploads([Sent("many.zip", buffer.getvalue())])


@pytest.mark.parametrize("pack", [packed, lambda text: gzip.compress(text.encode())], ids=["zip", "gz"])
def test_upload_unpacked_bytes(limit, pack):
    assert len(read_uploads([Sent("t.csv.zip", pack(ROWS))]).patients) == 200
    limit("upload_bytes", 3_000)
    limit("upload_unpacked_bytes", 3_500)
    with pytest.raises(InputError, match=r"unpacked, is above the limit upload_unpacked_bytes: at most 3,500 bytes"):
        read_uploads([Sent("t.csv.zip", pack(ROWS))])


def test_a_bomb_is_counted_while_it_is_unpacked_and_not_believed():
    bomb = gzip.compress(bytes(50_000_000))
    assert gunzipped_size(bomb, 10**9) == 50_000_000
    assert 1_000_000 < gunzipped_size(bomb, 1_000_000) < 10_000_000
    assert gunzipped_size(bomb * 3, 10**9) == 150_000_000
    assert gunzipped_size(gzip.compress(b"abc") + bytes(10_000), 10**9) == 3
    assert gunzipped_size(bomb[:-9], 10**9) <= 50_000_000
    assert gunzipped_size(b"\x1f\x8bnothing", 10**9) == 0


def test_a_packed_bomb_within_an_archive_is_counted_too(limit):
    limit("upload_unpacked_bytes", 50_000_000)
    nested = packed(gzip.compress(bytes(60_000_000)), "t.csv.gz")
    assert len(nested) < 100_000
    with pytest.raises(InputError, match=r"t\.csv\.gz, unpacked, is above the limit upload_unpacked_bytes"):
        read_uploads([Sent("bomb.zip", nested)])


def test_many_files_that_are_small_one_by_one_are_added_up(limit):
    limit("upload_bytes", 1_000)
    limit("upload_unpacked_bytes", 10_000)
    with pytest.raises(InputError, match="above the limit upload_unpacked_bytes"):
        read_uploads([Sent(f"{n}.csv", "a,b\n" * 200) for n in range(20)])


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_upload_rows(limit, tmp_path, ending):
    table = tmp_path / f"t.{ending}"
    write_table(to_table([Patient([Visit(["428.0"])], id=f"p{n}") for n in range(200)]), table)
    limit("upload_rows", 150)
    with pytest.raises(InputError, match="above the limit rows: at most 150 rows"):
        read_uploads([Sent(table.name, table.read_bytes())])
    assert len(read(table).patients) == 200  # the same file on this machine is within its limits


# --- files read by commands


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_unpacked_bytes(limit, tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    path.write_bytes(gzip.compress(ROWS.encode()) if ending.endswith("gz") else ROWS.encode())
    limit("unpacked_bytes", 2_000)
    with pytest.raises(InputError, match="unpacked, is above the limit unpacked_bytes: at most 2,000 bytes"):
        read(path, "table")


def test_unpacked_bytes_of_ndjson_and_of_parquet(limit, tmp_path):
    lines = tmp_path / "Patient.ndjson"
    lines.write_text('{"resourceType": "Patient", "id": "a"}\n' * 100)
    limit("unpacked_bytes", 1_000)
    with pytest.raises(InputError, match=r"Patient\.ndjson, unpacked, is above the limit unpacked_bytes"):
        read(lines, "fhir")
    pq.write_table(pa.table({"patient_id": ["x" * 50] * 9_999}), tmp_path / "t.parquet", use_dictionary=False)
    with pytest.raises(InputError, match=r"t\.parquet, unpacked, is above the limit unpacked_bytes"):
        read(tmp_path / "t.parquet", "table")


@pytest.mark.parametrize("name", ["histories.json", "t.jsonl", "bundle.json"])
def test_document_bytes(limit, tmp_path, name):
    path = tmp_path / name
    bundle = {
        "resourceType": "Bundle",
        "entry": [{"resource": {"resourceType": "Patient", "id": f"{n}"}} for n in range(99)],
    }
    content = {
        "histories.json": json.dumps([{"id": f"{n}", "visits": [{"codes": ["428.0"]}]} for n in range(99)]),
        "t.jsonl": '{"patient_id": "a", "visit": 0, "system": "ICD9", "code": "428.0"}\n' * 99,
        "bundle.json": json.dumps(bundle),
    }
    path.write_text(content[name])
    limit("document_bytes", 1_000)
    with pytest.raises(
        InputError, match=r"limit document_bytes: at most 1,000 bytes|1,000 bytes.*MERA_LIMIT_DOCUMENT_BYTES changes it"
    ):
        read(path)


def test_rows(limit, tmp_path):
    (tmp_path / "t.csv").write_text(ROWS)
    limit("rows", 199)
    with pytest.raises(InputError, match=r"t\.csv is above the limit rows: at most 199 rows"):
        read(tmp_path / "t.csv")
    limit("rows", 200)
    assert len(read(tmp_path / "t.csv").patients) == 200


def test_line_bytes(limit, tmp_path):
    (tmp_path / "t.csv").write_text(ROWS + "p,0,ICD9," + "9" * 5_000 + "\n")
    limit("line_bytes", 4_000)
    with pytest.raises(
        InputError, match=r"t\.csv: line 202 is longer than 4,000 bytes.*MERA_LIMIT_LINE_BYTES changes it"
    ):
        read(tmp_path / "t.csv", "table")


def test_line_bytes_holds_for_a_header_and_for_json_lines(limit, tmp_path):
    limit("line_bytes", 300)
    (tmp_path / "t.csv").write_text("patient_id,visit,system,code," + "x" * 300 + "\np,0,ICD9,428.0,\n")
    with pytest.raises(InputError, match=r"t\.csv: line 1 is longer than 300 bytes.*MERA_LIMIT_LINE_BYTES"):
        read(tmp_path / "t.csv", "table")
    row = {"patient_id": "a", "visit": 0, "system": "ICD9", "code": "428.0"}
    (tmp_path / "t.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(row | {'note': 'x' * 300})}\n")
    with pytest.raises(InputError, match=r"t\.jsonl: line 2 is longer than 300 bytes.*MERA_LIMIT_LINE_BYTES"):
        read(tmp_path / "t.jsonl", "table")


def test_a_header_longer_than_the_default_is_read_where_the_limit_was_raised(limit, tmp_path):
    (tmp_path / "t.csv").write_text("patient_id,visit,system,code," + "x" * (2 << 20) + "\np,0,ICD9,428.0,\n")
    with pytest.raises(InputError, match="line 1 is longer than 1,048,576 bytes"):
        read(tmp_path / "t.csv", "table")
    limit("line_bytes", 8 << 20)
    assert len(read(tmp_path / "t.csv", "table").patients) == 1


def test_fhir_line_bytes_and_fhir_document_bytes(limit, tmp_path):
    patient = json.dumps({"resourceType": "Patient", "id": "a", "note": "x" * 200})
    (tmp_path / "Patient.ndjson").write_text(f"{patient}\n{patient}\n")
    (tmp_path / "b.json").write_text(patient)
    limit("fhir_line_bytes", 100)
    with pytest.raises(
        InputError, match=r"Patient\.ndjson: line 1 is above the limit fhir_line_bytes: at most 100 bytes"
    ):
        read(tmp_path / "Patient.ndjson", "fhir")
    limit("fhir_document_bytes", 100)
    with pytest.raises(
        InputError, match=r"b\.json holds more than 100 bytes.*MERA_LIMIT_FHIR_DOCUMENT_BYTES changes it"
    ):
        read(tmp_path / "b.json", "fhir")


# --- a history


def test_history_bytes(limit, tmp_path, capsys):
    (tmp_path / "h.json").write_text('{"visits": [{"codes": ["428.0"]}]}' + " " * 500)
    limit("history_bytes", 100)
    assert cli.main(["rank", str(tmp_path / "h.json")]) == 2
    told = capsys.readouterr().err
    assert "is larger than 100 bytes" in told and "MERA_LIMIT_HISTORY_BYTES changes it" in told


def test_visits(limit):
    limit("visits", 3)
    patient_from_json({"visits": [{"codes": ["428.0"]}] * 3})
    with pytest.raises(
        InputError, match=r"the history has 4 visits, and at most 3 can be read \(MERA_LIMIT_VISITS changes it\)"
    ):
        patient_from_json({"visits": [{"codes": ["428.0"]}] * 4})


def test_codes(limit):
    limit("codes", 3)
    patient_from_json({"visits": [{"codes": ["428.0"] * 3}]})
    with pytest.raises(
        InputError, match=r"the history has 4 codes, and at most 3 can be read \(MERA_LIMIT_CODES changes it\)"
    ):
        patient_from_json({"visits": [{"codes": ["428.0"] * 2}] * 2})


@pytest.mark.parametrize(
    ("history", "place"),
    [
        ({"id": "x" * 51, "visits": [{"codes": ["428.0"]}]}, "id has 51 characters"),
        ({"visits": [{"codes": ["428.0", "x" * 60]}]}, r"visits\[0\]\.codes\[1\] has 60 characters"),
        ({"visits": [{"codes": [{"system": "ICD9", "code": "x" * 60}]}]}, r"codes\[0\]\.code has 60 characters"),
        ({"visits": [{"codes": ["428.0"]}], "details": {"a": "x" * 60}}, r"details\.a has 60 characters"),
        ({"visits": [{"codes": ["428.0"]}], "details": {"x" * 60: "a"}}, "details has a key of 60 characters"),
        ({"visits": [{"codes": ["428.0"], "time": "x" * 60}]}, r"visits\[0\]\.time has 60 characters"),
    ],
)
def test_text_characters(limit, history, place):
    limit("text_characters", 50)
    with pytest.raises(InputError, match=f"{place}.*MERA_LIMIT_TEXT_CHARACTERS changes it"):
        patient_from_json(history)


def test_a_complaint_quotes_no_more_than_a_few_words():
    long = "x" * 9_000
    for history in (
        {"visits": [{"codes": ["428.0"], "time": long}]},
        {"visits": [{"codes": [{"system": [long] * 9, "code": "x"}]}]},
        {"visits": [{"codes": ["428.0"]}], "sex": long},
        {"visits": [{"codes": ["428.0"]}], "age": int("9" * 4_000)},
        {"visits": [{"codes": ["428.0"]}], long: 1},
    ):
        with pytest.raises(InputError) as told:
            patient_from_json(history)
        assert len(str(told.value)) < 300


def test_json_depth(limit):
    limit("json_depth", 5)
    assert parse_json(b"[[[[[1]]]]]", "h.json") == [[[[[1]]]]]
    for text in (b"[" * 6 + b"]" * 6, b'{"a":' * 6 + b"1" + b"}" * 6):
        with pytest.raises(
            InputError, match=r"h\.json is nested too deeply: at most 5 levels are read \(MERA_LIMIT_JSON_DEPTH"
        ):
            parse_json(text, "h.json")
    with pytest.raises(InputError, match="nested too deeply"):
        parse_json(b"[" * 1_000_000, "h.json")
    refuse_depth({"a": [1, {"b": "x"}]}, "x")


def test_json_depth_of_fhir(limit, tmp_path):
    nested: object = "x"
    for _ in range(70):
        nested = {"extension": [nested]}
    (tmp_path / "p.json").write_text(json.dumps({"resourceType": "Patient", "id": "a", "x": nested}))
    with pytest.raises(InputError, match="nested too deeply: at most 64 levels"):
        read(tmp_path / "p.json", "fhir")


def test_a_key_that_comes_twice_among_very_many_is_found_at_once():
    text = "{" + ",".join(f'"{n}":1' for n in range(300_000)) + ',"7":2}'
    with pytest.raises(InputError, match="gives '7' more than once"):
        parse_json(text.encode(), "h.json")


# --- what is pasted, and judgements


def test_list_characters(limit):
    limit("list_characters", 10)
    assert len(read_list("428.0, I10", Ontology.load())) == 2
    with pytest.raises(InputError, match=r"The list has 11 characters, and at most 10 .*\(MERA_LIMIT_LIST_CHARACTERS"):
        read_list("428.0, I10 ", Ontology.load())


def test_list_pieces(limit):
    limit("list_pieces", 2)
    with pytest.raises(InputError, match=r"The list has more than 2 pieces, and at most 2 .*\(MERA_LIMIT_LIST_PIECES"):
        read_list("428.0, I10, 250.00", Ontology.load())


def test_audit_bytes_and_audit_judgements(limit):
    judgements = [
        Judgement("g", 2, "c", "n", ("a", "b"), "a", "a", "agree", "r", "tiny", datetime(2026, 1, 1, 1, n))
        for n in range(4)
    ]
    content = to_sqlite(judgements)
    assert len(from_sqlite(content, "a.sqlite")) == 4
    limit("audit_judgements", 3)
    with pytest.raises(InputError, match=r"more than 3 judgements \(MERA_LIMIT_AUDIT_JUDGEMENTS"):
        from_sqlite(content, "a.sqlite")
    limit("audit_bytes", 100)
    with pytest.raises(InputError, match=r"at most 100 can be read \(MERA_LIMIT_AUDIT_BYTES"):
        from_sqlite(content, "a.sqlite")


def test_the_limits_of_checkpoints_are_tested_where_checkpoints_are():
    tests = (ROOT / "tests" / "test_checkpoint_files.py").read_text(encoding="utf-8")
    assert all(name in tests for name in CHECKPOINT)
    own = Path(__file__).read_text(encoding="utf-8")
    assert [
        each.name for each in fields(Limits) if each.name not in CHECKPOINT and f'limit("{each.name}"' not in own
    ] == []

"""What passes a limit is refused in a sentence that names it, and one who runs the app can change those that may be in the way."""

from __future__ import annotations

import gzip
import io
import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mera_core.__main__ as cli
from mera_core.audit.file import from_json, to_json
from mera_core.audit.groups import Judgement
from mera_core.common.errors import InputError
from mera_core.common.limits import PREFIX, SETTINGS, Limits, applied, current_limits, gunzipped_size
from mera_core.history.history_json import parse_json, patient_from_json
from mera_core.history.records import Patient, Visit, write_visits
from mera_core.icd.ontology import Ontology
from mera_core.readers import read
from pages.shared.editor.pasted_list import read_list
from pages.shared.widgets.upload import read_uploads
from tests.uploads import Sent, zipped

ROOT = Path(__file__).resolve().parents[2]
ROWS = "patient_id,visit,system,code\n" + "".join(f"p{n},0,ICD9,428.0\n" for n in range(200))
VISIT = {"codes": ["428.0"]}
NDJSON = json.dumps({"resourceType": "Patient", "id": "a", "note": "x" * 200}) + "\n"
JUDGEMENTS = [
    Judgement("g", 2, "c", "n", ("a", "b"), "a", "a", "agree", "r", "tiny", datetime(2026, 1, 1, 1, n))
    for n in range(4)
]


def sent(*files: tuple[str, bytes | str]) -> Callable[[Path], object]:
    return lambda folder: read_uploads([Sent(*file) for file in files])


def on_disk(name: str, content: bytes | str, format: str = "auto") -> Callable[[Path], object]:
    def call(folder: Path) -> object:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return read(folder / name, format)

    return call


def table(ending: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"patient_id": ["x" * 50] * 9_999}), sink, use_dictionary=False)
    return {"csv": ROWS.encode(), "csv.gz": gzip.compress(ROWS.encode()), "parquet": sink.getvalue()}[ending]


def test_every_setting_stands_in_the_documentation():
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `{PREFIX}(\w+)` \| ([\d,]+) \|", page, re.MULTILINE)
    assert {name.lower(): int(number.replace(",", "")) for name, number in rows} == {
        name: getattr(Limits(), name) for name in SETTINGS
    }


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MERA_LIMIT_LINE_BYTES", "many", "MERA_LIMIT_LINE_BYTES must be a whole number, not 'many'"),
        ("MERA_LIMIT_LINE_BYTES", "0", "line_bytes must be a whole number above zero"),
        ("MERA_LIMIT_LINE", "5", "MERA_LIMIT_LINE names no limit that can be changed; these are"),
        ("MERA_LIMIT_VISITS", "5", "MERA_LIMIT_VISITS names no limit that can be changed; these are"),
        ("MERA_LIMIT_UPLOAD_BYTES", "999999999999", "is below upload_bytes"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told_and_does_not_go_unnoticed(
    variable, value, said, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv(variable, value)
    (tmp_path / "h.json").write_text('{"visits": [{"codes": ["428.0"]}]}')
    assert cli.main(["rank", str(tmp_path / "h.json")]) == 2
    assert said in capsys.readouterr().err


def test_limits_that_are_applied_hold_in_this_thread_and_end_with_the_block():
    seen = []
    with applied(Limits(rows=7)):
        assert current_limits().rows == 7
        other = threading.Thread(target=lambda: seen.append(current_limits().rows))
        other.start()
        other.join()
    assert (current_limits().rows, seen) == (Limits().rows, [Limits().rows])


def test_uploads_are_held_to_tighter_limits_than_files_of_this_machine():
    here, uploaded = Limits(), Limits().for_uploads()
    assert uploaded.unpacked_bytes == uploaded.document_bytes == here.upload_unpacked_bytes < here.document_bytes
    assert uploaded.rows == here.upload_rows < here.rows


HISTORIES = json.dumps([{"id": f"{n}", "visits": [VISIT]} for n in range(99)])
BUNDLE = json.dumps({"resourceType": "Bundle", "entry": [{"resource": json.loads(NDJSON)}] * 9})
LINE = json.dumps({"patient_id": "a", "visit": 0, "system": "ICD9", "code": "428.0", "note": "x" * 300}) + "\n"
NESTED = json.dumps({"resourceType": "Patient", "id": "a", "x": [[[[["x"]]]]]})
REFUSED = [
    # what a browser sends
    ("upload_bytes", 1_000, sent(("big.csv", ROWS)), r"^The file big\.csv is above the limit upload_bytes: at most 1,000 bytes"),
    ("upload_files", 4, sent(("a.zip", zipped({f"{name}.csv": name for name in "abcde"}))), "limit upload_files: at most 4"),
    ("upload_unpacked_bytes", 3_000, sent(("t.csv.zip", zipped({"t.csv": ROWS}))), "above the limit upload_unpacked_bytes"),
    ("upload_unpacked_bytes", 3_000, sent(("t.csv.gz", table("csv.gz"))), "unpacked, is above the limit upload_unpacked_bytes"),
    ("upload_unpacked_bytes", 3_000, sent(("t.zip", zipped({"t.csv.gz": table("csv.gz")}))), r"t\.csv\.gz, unpacked, is above"),
    ("upload_unpacked_bytes", 3_000, sent(*((f"{n}.csv", "a,b\n" * 200) for n in range(20))), "limit upload_unpacked_bytes"),
    ("upload_rows", 150, sent(("t.csv", ROWS)), "above the limit rows: at most 150 rows"),
    # a file of this machine
    ("unpacked_bytes", 2_000, on_disk("t.csv", ROWS), "unpacked, is above the limit unpacked_bytes: at most 2,000 bytes"),
    ("unpacked_bytes", 2_000, on_disk("t.csv.gz", table("csv.gz"), "table"), r"t\.csv\.gz, unpacked, is above the limit"),
    ("unpacked_bytes", 2_000, on_disk("Patient.ndjson", NDJSON * 99), r"Patient\.ndjson, unpacked, is above the limit"),
    ("unpacked_bytes", 2_000, on_disk("t.parquet", table("parquet"), "table"), r"t\.parquet, unpacked, is above the limit"),
    ("document_bytes", 1_000, on_disk("histories.json", HISTORIES), "above the limit document_bytes: at most 1,000 bytes"),
    ("document_bytes", 1_000, on_disk("t.jsonl", LINE * 99), "above the limit document_bytes: at most 1,000 bytes"),
    ("document_bytes", 1_000, on_disk("bundle.json", BUNDLE), r"more than 1,000 bytes.*\(MERA_LIMIT_DOCUMENT_BYTES changes it\)"),
    ("rows", 199, on_disk("t.csv", ROWS), r"t\.csv is above the limit rows: at most 199 rows are read\.$"),
    ("line_bytes", 300, on_disk("t.csv", ROWS + "p,0,ICD9," + "9" * 500 + "\n", "table"), r"line 202 is longer than 300 bytes"),
    ("line_bytes", 300, on_disk("t.csv", "patient_id,visit,system,code," + "x" * 300 + "\n", "table"), "line 1 is longer than 300"),
    ("line_bytes", 300, on_disk("t.jsonl", LINE, "table"), r"line 1 is longer than 300 .*\(MERA_LIMIT_LINE_BYTES changes it\)"),
    ("fhir_line_bytes", 100, on_disk("Patient.ndjson", NDJSON, "fhir"), "line 1 is above the limit fhir_line_bytes: at most 100"),
    ("fhir_document_bytes", 100, on_disk("b.json", NDJSON, "fhir"), r"more than 100 bytes.*\(MERA_LIMIT_FHIR_DOCUMENT_BYTES"),
    ("json_depth", 5, on_disk("p.json", NESTED, "fhir"), "nested too deeply: at most 5 levels are read"),
    # a history, a list, judgements
    ("json_depth", 5, lambda _: parse_json(b'{"a":' * 6 + b"1" + b"}" * 6, "h.json"), r"h\.json is nested too deeply: at most 5"),
    ("json_depth", 64, lambda _: parse_json(b"[" * 1_000_000, "h.json"), "nested too deeply"),
    ("visits", 3, lambda _: patient_from_json({"visits": [VISIT] * 4}), "limit visits: at most 3"),
    ("codes", 3, lambda _: patient_from_json({"visits": [VISIT] * 4}), "limit codes: at most 3"),
    ("list_characters", 10, lambda _: read_list("428.0, I10 ", Ontology.load()), "The list has 11 characters, and at most 10"),
    ("list_pieces", 2, lambda _: read_list("428.0, I10, 250.00", Ontology.load()), "The list has more than 2 pieces"),
    ("audit_judgements", 3, lambda _: from_json(to_json(JUDGEMENTS), "a.json"), r"a\.json holds more than 3 judgements"),
    ("audit_bytes", 100, lambda _: from_json(to_json(JUDGEMENTS), "a.json"), "and at most 100 can be read"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "call", "said"), REFUSED, ids=[f"{n}-{case[0]}" for n, case in enumerate(REFUSED)]
)
def test_what_passes_a_limit_is_refused_by_its_name(name, value, call, said, tmp_path):
    more = {"upload_bytes": 2_900} if name == "upload_unpacked_bytes" else {}
    with applied(replace(Limits(), **{name: value}, **more)), pytest.raises(InputError, match=said):
        call(tmp_path)


def test_what_is_as_large_as_a_limit_is_read(tmp_path):
    with applied(
        Limits(rows=200, visits=3, codes=3, list_pieces=2, list_characters=10, json_depth=5, audit_judgements=4)
    ):
        assert len(on_disk("t.csv", ROWS)(tmp_path).patients) == 200
        assert len(patient_from_json({"visits": [VISIT] * 3}).visits) == 3
        assert len(read_list("428.0, I10", Ontology.load())) == 2
        assert parse_json(b"[[[[[1]]]]]", "h.json") == [[[[[1]]]]]
        assert len(from_json(to_json(JUDGEMENTS), "a.json")) == 4
    assert len(sent(("t.csv.zip", zipped({"t.csv": ROWS})))(tmp_path).patients) == 200


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_rows_of_an_upload_are_counted_in_every_format(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    write_visits([Patient([Visit(["428.0"])], id=f"p{n}") for n in range(200)], path)
    with applied(Limits(upload_rows=150)), pytest.raises(InputError, match="above the limit rows: at most 150 rows"):
        read_uploads([Sent(path.name, path.read_bytes())])


def test_a_bomb_is_counted_while_it_is_unpacked_and_not_believed():
    bomb = gzip.compress(bytes(50_000_000))
    assert gunzipped_size(bomb, 10**9) == 50_000_000
    assert 1_000_000 < gunzipped_size(bomb, 1_000_000) < 10_000_000
    assert gunzipped_size(bomb * 3, 10**9) == 150_000_000
    assert gunzipped_size(gzip.compress(b"abc") + bytes(10_000), 10**9) == 3
    assert gunzipped_size(bomb[:-9], 10**9) <= 50_000_000
    assert gunzipped_size(b"\x1f\x8bnothing", 10**9) == 0


def test_a_line_longer_than_the_default_is_read_where_the_limit_was_raised(monkeypatch, tmp_path):
    call = on_disk("t.csv", "patient_id,visit,system,code," + "x" * (2 << 20) + "\np,0,ICD9,428.0,\n", "table")
    monkeypatch.setenv("MERA_LIMIT_LINE_BYTES", str(8 << 20))
    assert len(call(tmp_path).patients) == 1


def test_a_history_that_is_too_large_is_refused_unread(tmp_path, capsys):
    (tmp_path / "h.json").write_text('{"visits": [{"codes": ["428.0"]}]}' + " " * 500)
    with applied(Limits(history_bytes=100)):
        assert cli.main(["rank", str(tmp_path / "h.json")]) == 2
    assert "is larger than 100 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("history", "place"),
    [
        ({"id": "x" * 51, "visits": [VISIT]}, "id has 51 characters"),
        ({"visits": [{"codes": ["428.0", "x" * 60]}]}, r"visits\[0\]\.codes\[1\] has 60 characters"),
        ({"visits": [{"codes": [{"system": "ICD9", "code": "x" * 60}]}]}, r"codes\[0\]\.code has 60 characters"),
        ({"visits": [VISIT], "details": {"a": "x" * 60}}, r"details\.a has 60 characters"),
        ({"visits": [VISIT], "details": {"x" * 60: "a"}}, r"details\.x+ as a key has 60 characters"),
        ({"visits": [VISIT | {"time": "x" * 60}]}, r"visits\[0\]\.time has 60 characters"),
    ],
)
def test_text_characters(history, place):
    with applied(Limits(text_characters=50)), pytest.raises(InputError, match=f"{place}, and at most 50 can be read"):
        patient_from_json(history)


def test_a_complaint_quotes_no_more_than_a_few_words():
    long = "x" * 9_000
    for history in (
        {"visits": [VISIT | {"time": long}]},
        {"visits": [{"codes": [{"system": [long] * 9, "code": "x"}]}]},
        {"visits": [VISIT], "sex": long},
        {"visits": [VISIT], "age": int("9" * 4_000)},
        {"visits": [VISIT], long: 1},
    ):
        with pytest.raises(InputError) as told:
            patient_from_json(history)
        assert len(str(told.value)) < 300


def test_a_key_that_comes_twice_among_very_many_is_found_at_once():
    text = "{" + ",".join(f'"{n}":1' for n in range(300_000)) + ',"7":2}'
    with pytest.raises(InputError, match="gives '7' more than once"):
        parse_json(text.encode(), "h.json")

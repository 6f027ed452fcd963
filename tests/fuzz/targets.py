"""What is fuzzed, and what must hold of any bytes at all: a plain refusal or a whole result, soon, with nothing dropped in silence.

A target is a function of bytes. It returns where the bytes were read, or refused with one sentence; anything else that it
raises is a fault of ours. Knows no engine of fuzzing: hypothesis, atheris and a loop of mutation all call the same.
"""

from __future__ import annotations

import atexit
import csv
import io
import json
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mera_core.checkpoint.folder import load_checkpoint, read_manifest, save_checkpoint
from mera_core.checkpoint.verify import MANIFEST, check_files, sha256
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.history_json import parse_json, patient_from_json, patient_to_json
from mera_core.history.patient import READ_OTHERWISE, Note, Patient, Visit, resolve
from mera_core.icd.ontology import Ontology
from mera_core.model.network import HEAD_FILE
from mera_core.readers import read
from pages.shared.editor import pasted_list
from pages.shared.widgets.upload import read_uploads
from tests.fuzz.grown import grown
from tests.tiny import tiny_manifest, tiny_model
from tests.uploads import Sent

SLOWEST = 1.0  # seconds of the processor's time for one input; the wall clock also counts other programs
LONGEST_SENTENCE = 2_000  # characters
CORPUS = Path(__file__).with_name("corpus")
BOOK = Ontology.load()
_SYSTEMS = (None, "ICD9", "ICD10")


@dataclass(frozen=True)
class Target:
    """What to call, and the most bytes of one input."""

    check: Callable[[bytes], bool]
    longest: int

    @property
    def name(self) -> str:
        return self.check.__name__

    def seeds(self) -> list[bytes]:
        """The committed inputs to begin with, each once broken or a plain example of what is read."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]

    def run(self, data: bytes) -> bool:
        """Whether the bytes were read (False: refused in a sentence). Raises AssertionError for whatever must not be."""
        began = time.thread_time()
        with _nothing_printed_of_errors():
            try:
                accepted = self.check(data)
            except InputError as refused:
                words = str(refused)
                assert words.strip() and "\n" not in words.strip(), f"no plain sentence: {words!r}"
                assert len(words) < LONGEST_SENTENCE, f"a sentence of {len(words)} characters"
                accepted = False
        taken = time.thread_time() - began
        assert taken < SLOWEST, f"one input took {taken:.1f} s"
        return accepted


@contextmanager
def _nothing_printed_of_errors() -> Iterator[None]:
    """Raises AssertionError for an error that Python itself would print with its traceback, because nobody can catch it."""
    lost: list[str] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda found: lost.append(f"{found.exc_value!r} in {found.object!r}")
    try:
        yield
    finally:
        sys.unraisablehook = before
    assert not lost, f"a traceback is printed: {lost[0]}"


def _resolved(patient: Patient) -> tuple[Patient, list[Note]]:
    """The history with its codes, and the notes on those left out."""
    known, notes = resolve(patient, BOOK)
    return known, [note for note in notes if note.kind not in READ_OTHERWISE.values()]


def codes(data: bytes) -> bool:
    """One code as it may be typed."""
    choice, text = data[:1] or b"\0", _text(data[1:])
    system, padded = _SYSTEMS[choice[0] % 3], choice[0] % 2 == 1
    if text.strip():
        patient, notes = _resolved(Patient((Visit((text,)),)))
        kept = sum(len(visit.codes) for visit in patient.visits)
        assert kept + len(notes) == 1, f"{kept} codes and {len(notes)} notes of one code"
    code = BOOK.parse(text, system=system, icd9_three_digit=padded)
    assert code in BOOK
    assert BOOK.parse(str(code)) == code
    return True


def pasted(data: bytes) -> bool:
    """A list of codes as it may be pasted: every letter and digit turns up in a piece."""
    text = _text(data)
    pieces = pasted_list.read_list(text, BOOK)
    lines = (pasted_list._PREFIX.sub(r"ICD\1:", line) for line in pasted_list._LINES.split(text))
    given = Counter(letter for line in lines for letter in line if letter.isalnum())
    shown = Counter()
    for piece in pieces:
        assert (piece.code is None) == bool(piece.problem), piece
        aside = "" if piece.typed.endswith(f" {piece.words}") else piece.words  # an ambiguous code's stand apart
        shown.update(letter for letter in piece.typed + aside if letter.isalnum())
    assert shown == given, f"dropped {given - shown}, invented {shown - given}"
    return any(piece.code is not None for piece in pieces)


def history(data: bytes) -> bool:
    """HISTORY.json: what is read comes back the same, and each code is kept or noted."""
    decoded = parse_json(_json(data, "history"), "history.json")
    patient = patient_from_json(decoded)
    typed = sum(len(visit["codes"]) for visit in decoded["visits"])
    assert typed == sum(len(visit.codes) for visit in patient.visits)
    assert patient_from_json(json.loads(json.dumps(patient_to_json(patient)))) == patient
    known, notes = _resolved(patient)
    assert typed == sum(len(visit.codes) for visit in known.visits) + len(notes)
    return True


def fhir(data: bytes) -> bool:
    """A Bundle, or NDJSON: entries read are entries kept and entries left out with a reason."""
    path = _folder() / ("b.ndjson" if data[:1] == b"\n" else "b.json")
    content = data[1:] if data[:1] == b"\n" else _json(data, "fhir")
    path.write_bytes(content)
    report = read(path, "fhir").report
    assert report.rows == report.codes + sum(report.left_out.values())
    return True


def table(data: bytes) -> bool:
    """A visits table as CSV: every row that names a code is counted."""
    path = _folder() / "t.csv"
    path.write_bytes(data)
    report = read(path, "table").report
    assert report.rows == report.codes + sum(report.left_out.values())
    if report.why == "as asked" and data[:1] not in b"[{P\x1f" and (rows := _rows_with_code(data)) is not None:
        assert report.rows == rows, f"{rows} rows name a code, and {report.rows} are accounted for"
    return True


def checkpoint(data: bytes) -> bool:
    """A folder of which one file is as the attacker likes it; the hashes in the manifest are right."""
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", MANIFEST, "note.md")
    name, content = names[(data[:1] or b"\0")[0] % len(names)], data[1:]
    folder = _checkpoint_folder()
    path = folder / name
    kept = path.read_bytes() if path.exists() else None
    try:
        path.write_bytes(_json(content, "config") if name.endswith(".json") else content)
        if name == MANIFEST:
            check_files(folder, read_manifest(folder).files)
        else:
            files = {each.name: sha256(each) for each in folder.iterdir() if each.name != MANIFEST}
            check_files(folder, files)
        return True
    finally:
        path.unlink() if kept is None else path.write_bytes(kept)


def loader(data: bytes) -> bool:
    """A small checkpoint, whole and hashed, with one value or some bytes of it changed: refused, or loaded and it ranks."""
    names = ("config.json", MANIFEST, "tokenizer.json", "tokenizer_config.json", "model.safetensors", HEAD_FILE)
    choices = iter(data)
    folder = _whole_checkpoint()
    name = names[next(choices, 0) % len(names)]
    path = folder / name
    kept, kept_manifest = path.read_bytes(), (folder / MANIFEST).read_bytes()
    try:
        path.write_bytes(_altered(kept, choices, name.endswith(".json")))
        if name != MANIFEST:
            manifest = json.loads(kept_manifest)
            (folder / MANIFEST).write_text(json.dumps(manifest | {"files": manifest["files"] | {name: sha256(path)}}))
        model, manifest = load_checkpoint(folder)
        ranking = Engine(model, manifest, BOOK).rank(Patient((Visit(("428.0",)),)))
        assert len(ranking.codes) == len(manifest.label_space) and np.isfinite(ranking.scores).all()
        return True
    finally:
        path.write_bytes(kept)
        (folder / MANIFEST).write_bytes(kept_manifest)


def upload(data: bytes) -> bool:
    """A file as a browser sends it, under one of the names that are taken; an archive's entries are counted like a file's."""
    endings = ("zip", "csv", "csv.gz", "json", "jsonl", "ndjson", "parquet")
    name = f"u.{endings[(data[:1] or b'z')[0] % len(endings)]}"
    report = read_uploads([Sent(name, data[1:])]).report
    assert report.rows == report.codes + sum(report.left_out.values())
    return True


_LONGEST = {
    codes: 64, pasted: 400, history: 2_000, checkpoint: 2_000, table: 2_000, fhir: 4_000, upload: 2_000, loader: 300,
}  # fmt: skip
TARGETS = {check.__name__: Target(check, longest) for check, longest in _LONGEST.items()}


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _json(data: bytes, kind: str) -> bytes:
    """The bytes themselves where they begin as JSON does; else a value grown from them, so that most are well-formed."""
    if data[:1] in (b"{", b"[", b'"', b"\xef", b" ", b"\n", b""):
        return data
    return json.dumps(grown(data, kind)).encode("utf-8", errors="replace")


def _altered(content: bytes, choices: Iterator[int], is_json: bool) -> bytes:
    """A value of the JSON put in place of another, or taken away; or some bytes written over, elsewhere."""
    if not is_json:
        changed = bytearray(content)
        for _ in range(1 + next(choices, 0) % 8):
            at = int.from_bytes(bytes(next(choices, 0) for _ in range(3)))
            changed[at % (1 << (1 + at % 20)) % len(changed)] = next(choices, 0)  # more often near the header
        cut = next(choices, 0)
        return bytes(changed[: -cut or None] if cut < 20 else changed)
    whole = json.loads(content)
    inner: object = whole
    while isinstance(inner, (dict, list)) and inner:
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        key = keys[int.from_bytes(bytes(next(choices, 0) for _ in range(2))) % len(keys)]
        deeper = inner[key]
        if isinstance(deeper, (dict, list)) and deeper and next(choices, 0) % 3:
            inner = deeper
            continue
        if next(choices, 0) % 5:
            inner[key] = grown(bytes(choices), "config")
        else:
            del inner[key]
        break
    return json.dumps(whole).encode("utf-8", errors="replace")


def _rows_with_code(data: bytes) -> int | None:
    """Rows of a plain table with something in the column `code`, by another parser; None where that one can't tell."""
    try:
        text = data.decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (csv.Error, UnicodeDecodeError):
        return None
    place = [name.strip().lower() for name in rows[0]].index("code")
    return sum(bool(row[place].strip()) for row in rows[1:])


@cache
def _folder() -> Path:
    """A folder in memory where there is one, so that a million inputs wear no disk; removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="mera-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _whole_checkpoint() -> Path:
    """An untrained model of the real code, in a folder that loads."""
    folder = _folder() / "whole"
    save_checkpoint(tiny_model(), tiny_manifest(), folder)
    load_checkpoint(folder)
    return folder


@cache
def _checkpoint_folder() -> Path:
    """The smallest folder that passes every check of files."""
    folder = _folder() / "checkpoint"
    folder.mkdir()
    header = json.dumps({"a": {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 2, "vocab_size": 4}')
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}, "merges": []}}')
    (folder / "tokenizer_config.json").write_text("{}")
    manifest = {"format": 1, "name": "x", "stage": "rank", "systems": ["ICD9"], "icd_release": {}, "sequence": {}}
    files = {each.name: sha256(each) for each in folder.iterdir()}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"files": files}))
    check_files(folder, read_manifest(folder).files)
    return folder

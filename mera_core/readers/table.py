"""The project's own files: the visits table (parquet, CSV, JSON lines) and HISTORY.json, one or a list.

Says what each file is by its content, not by its name alone.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mera_core.errors import InputError
from mera_core.history import parse_json
from mera_core.ontology import Code, Ontology
from mera_core.readers.base import (
    CodeReader,
    Cohort,
    ImportReport,
    Reader,
    Source,
    open_bytes,
    read_bytes,
    read_delimited,
)
from mera_core.records import VISITS_TABLE_COLUMNS, Patient, Visit, from_table, patient_from_json

FORMAT = "table"
_KEYS = ("patient_id", "visit", "system", "code")
_PARQUET_MAGIC = b"PAR1"


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    kind = _kind(source)
    if kind == "parquet":
        try:
            names = {name.lower() for name in pq.read_schema(source.path).names}
        except (pa.ArrowInvalid, OSError):
            return "it is a parquet file, though a damaged one"
        return "a parquet file with the columns of the visits table" if set(_KEYS) <= names else None
    if kind == "json":
        return "JSON that holds a history or a list of them"
    if kind == "jsonl":
        return "JSON lines with patient_id, as in the visits table"
    if kind == "csv" and set(_KEYS) <= set(source.header):
        return "its columns are those of the visits table"
    return None


def read(source: Source, ontology: Ontology | None = None) -> Cohort:
    """Read a visits table or histories; every code is checked against the code books.

    A history without an id is named history-1, history-2 ... by its place.
    Raises InputError naming the file and the row, line or place.
    """
    path = source.path
    kind = _kind(source)
    if kind is None:
        raise InputError(f"{path} is no visits table (parquet, CSV, JSON lines) and no HISTORY.json.")
    report = ImportReport(FORMAT)
    try:
        patients = _histories(read_bytes(path), report) if kind == "json" else from_table(_table(path, kind))
    except InputError as error:
        message = str(error)
        raise error if str(path) in message else InputError(f"{path}: {message}") from error
    if not patients:
        raise InputError(f"{path} holds no patient.")
    report.rows = sum(len(visit.codes) for patient in patients for visit in patient.visits)
    code_of = CodeReader(report, ontology)
    patients = [
        replace(patient, visits=tuple(_checked(visit, code_of, report) for visit in patient.visits))
        for patient in patients
    ]
    report.count(patients)
    return Cohort(patients, report)


def _kind(source: Source) -> str | None:
    """'parquet' | 'json' | 'jsonl' | 'csv', by the first bytes."""
    if not source.path.is_file():
        return None
    try:
        with open_bytes(source.path) as stream:
            head = stream.read(1 << 16)
    except (OSError, EOFError, zlib.error):
        return "csv"  # damaged: let the reading say so
    if head.startswith(_PARQUET_MAGIC):
        return "parquet"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"[":
        return "json"
    if start[:1] == b"{":
        return "jsonl" if b'"patient_id"' in start.split(b"\n", 1)[0] else "json"
    return "csv"


def _table(path: Path, kind: str) -> pd.DataFrame:
    if kind == "parquet":
        try:
            table = pd.read_parquet(io.BytesIO(read_bytes(path)))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is a damaged parquet file.") from error
    elif kind == "jsonl":
        lines = read_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
        rows = [_row(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
        table = pd.DataFrame(rows, dtype=object)
    else:
        table = pd.DataFrame(read_delimited(path, _KEYS, lower=False), dtype="str")
    known = {name: name.lower() for name in map(str, table.columns) if name.lower() in VISITS_TABLE_COLUMNS}
    return table.rename(columns=known)


def _row(line: bytes, place: str) -> dict[str, Any]:
    row = parse_json(line, place)
    if not isinstance(row, dict) or any(isinstance(value, (dict, list, bool)) for value in row.values()):
        raise InputError(f"{place} must be one flat JSON object.")
    return row


def _histories(content: bytes, report: ImportReport) -> list[Patient]:
    decoded = parse_json(content, "it")
    histories = decoded if isinstance(decoded, list) else [decoded]
    patients = []
    for number, history in enumerate(histories):
        try:
            patients.append(patient_from_json(history))
        except InputError as error:
            place = f"history {number + 1}: " if isinstance(decoded, list) else ""
            raise InputError(f"{place}{error}") from error
    named = [patient.id for patient in patients if patient.id]
    if len(set(named)) != len(named):
        raise InputError(f"two histories share the id {next(name for name in named if named.count(name) > 1)!r}.")
    unnamed = [number for number, patient in enumerate(patients) if not patient.id]
    for number in unnamed:
        name = f"history-{number + 1}"
        patients[number] = replace(patients[number], id=name if name not in named else f"{name}-unnamed")
    if unnamed:
        report.remarks.append(f"{len(unnamed):,} histories had no id and are named by their place, history-1 ...")
    return patients


def _checked(visit: Visit, code_of: CodeReader, report: ImportReport) -> Visit:
    """The visit with codes of the code books only, each once; what is left out is counted."""
    kept: dict[Code, int] = {}
    for typed, position in zip(visit.codes, visit.positions or range(1, len(visit.codes) + 1), strict=True):
        code = code_of(typed.code, typed.system) if isinstance(typed, Code) else code_of(typed)
        if code is None:
            continue
        if code in kept:
            report.left_out["named twice in one visit"] += 1
        else:
            kept[code] = position
    if not kept:
        report.aside["visits kept without any code"] += 1
    return replace(visit, codes=tuple(kept), positions=tuple(kept.values()))


READER = Reader(FORMAT, detect, read)

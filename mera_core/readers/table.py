"""The project's own files, and plain tables of one row a diagnosis: parquet, CSV, JSON lines; HISTORY.json, one or a list.

Says what each file is by its content, not by its name alone. A table whose columns are called otherwise is read through a
map of column names; see `readers.table_columns` for what the columns may hold.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mera_core.errors import InputError
from mera_core.history import parse_json
from mera_core.limits import in_force
from mera_core.ontology import Code, Ontology
from mera_core.readers.assemble import Entries, People, Visits, assemble
from mera_core.readers.base import BOM, Cohort, ImportReport, Source, open_bytes, read_bytes, refuse_large_parquet
from mera_core.readers.delimited import read_delimited
from mera_core.readers.table_columns import Table, cohort_of
from mera_core.records import VISITS_TABLE_COLUMNS, Patient, patient_from_json

FORMAT = "table"
_KEYS = ("patient_id", "visit", "system", "code")
_PARQUET_MAGIC = b"PAR1"
_DELIMITERS = ",;\t|"


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    kind = _kind(source)
    if kind == "parquet":
        try:
            names = {name.lower() for name in pq.read_schema(source.path).names}
        except (pa.ArrowInvalid, OSError):
            return "it is a parquet file, though a damaged one"
        return "a parquet file with the columns of the visits table" if set(_KEYS) <= names else None
    if kind == "json" and b'"visits"' in _head(source):
        return "JSON that holds a history or a list of them"
    if kind == "jsonl" and b'"patient_id"' in _head(source):
        return "JSON lines with patient_id, as in the visits table"
    if kind == "csv" and set(_KEYS) <= set(source.header):
        return "its columns are those of the visits table"
    return None


def expects(source: Source) -> str | None:
    """Why a file that can't be recognised is meant for this format: it has columns of the visits table, if not all."""
    kind = _kind(source)
    if kind == "parquet":
        named = " ".join(pq.read_schema(source.path).names).lower()
    elif kind in ("csv", "jsonl"):
        named = _head(source).split(b"\n", 1)[0].decode("latin-1").lower()
    else:
        return None
    return "it has columns of the visits table" if sum(key in named for key in _KEYS) > 1 else None


def read(
    source: Source,
    report: ImportReport,
    ontology: Ontology | None = None,
    columns: Mapping[str, str] | None = None,
) -> Cohort:
    """Read a visits table or histories; every code is checked against the code books.

    columns: our name of a column -> the file's name, for tables that are not of our making; then only these are read, and
    visits may be told by `visit_id` or by `time` alone (see `readers.table_columns`). A history without an id is named
    history-1, history-2 ... by its place.
    Raises InputError naming the file and the line, row or place.
    """
    path = source.path
    kind = _kind(source)
    if kind is None:
        raise InputError(f"{path} is no visits table (parquet, CSV, JSON lines) and no HISTORY.json.")
    if kind == "json":
        if columns:
            raise InputError(f"{path} holds histories, not a table, so it has no columns to name.")
        patients = _histories(read_bytes(path), report, str(path))
        return _of_histories(patients, report, ontology)
    return cohort_of(_table(source, kind, columns, report), report, ontology)


def _kind(source: Source) -> str | None:
    """'parquet' | 'json' | 'jsonl' | 'csv', by the first bytes."""
    if not source.path.is_file():
        return None
    head = _head(source)
    if head.startswith(_PARQUET_MAGIC):
        return "parquet"
    start = head.removeprefix(BOM).lstrip()
    if start[:1] == b"[":
        return "json"
    if start[:1] == b"{":
        return "jsonl" if b'"patient_id"' in start.split(b"\n", 1)[0] or b'"visits"' not in start else "json"
    return "csv"


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _head(source: Source) -> bytes:
    """The first bytes, unpacked; none of a damaged file, which the reading will name."""
    try:
        with open_bytes(source.path) as stream:
            return stream.read(1 << 16)
    except (OSError, EOFError, zlib.error):
        return b""


def _table(source: Source, kind: str, named: Mapping[str, str] | None, report: ImportReport) -> Table:
    path = source.path
    if kind == "parquet":
        try:
            content = pa.BufferReader(read_bytes(path))  # bytes, because a gzipped parquet file is unpacked first
            refuse_large_parquet(path, pq.read_metadata(content))
            content.seek(0)
            texts = [field.name for field in pq.read_schema(content) if _is_text(field.type)]
            content.seek(0)
            whole = pq.read_table(content, read_dictionary=texts)  # a text is held once, however often it stands there
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is a damaged parquet file.") from error
        table = Table(path, {name: whole.column(name) for name in whole.column_names}, "row", 1)
    elif kind == "jsonl":
        table = Table(path, _json_lines(read_bytes(path), str(path)), "line", 1)
    else:
        required = _KEYS if named is None else list(named.values())
        cells = read_delimited(source, required, None, report, "," if named is None else _DELIMITERS)
        table = Table(path, cells.columns, "line", 2, cells.line)
    if named is None:
        ours = {name.lower(): name for name in table.columns if name.lower() in VISITS_TABLE_COLUMNS}
        table.columns = {
            name.lower() if name.lower() in ours else name: column for name, column in table.columns.items()
        }
        return table
    return table.renamed(named)


def _json_lines(content: bytes, path: str) -> dict[str, pa.Array]:
    """Column -> values; a value that a line lacks is null."""
    columns: dict[str, list[Any]] = {}
    limits, size = in_force(), 0
    for number, line in enumerate(content.removeprefix(BOM).split(b"\n"), 1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict) or any(isinstance(value, (dict, list, bool)) for value in row.values()):
            raise InputError(f"{path}, line {number} must be one flat JSON object.")
        for name, value in row.items():
            if name.lower() == "code" and isinstance(value, (int, float)):  # 428.0 and 428 are two codes
                raise InputError(f"{path}: line {number}, column 'code': the code stands as a number; it must be text.")
            column = columns.setdefault(name, [])
            column += [None] * (size - len(column))
            column.append(value)
        size += 1
        limits.refuse_above("rows", size, path)
    arrays = {}
    for name, column in columns.items():
        column += [None] * (size - len(column))
        kinds = {type(value) for value in column if value is not None}
        as_text = len(kinds) > 1 or any(isinstance(value, int) and abs(value) >= 2**63 for value in column)
        arrays[name] = pa.array([None if v is None else str(v) for v in column] if as_text else column)
    return arrays


def _histories(content: bytes, report: ImportReport, path: str) -> list[Patient]:
    try:
        decoded = parse_json(content, "it")
        patients = []
        for number, history in enumerate(decoded if isinstance(decoded, list) else [decoded]):
            try:
                patients.append(patient_from_json(history))
            except InputError as error:
                place = f"history {number + 1}: " if isinstance(decoded, list) else ""
                raise InputError(f"{place}{error}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not patients:
        raise InputError(f"{path} holds no patient.")
    named = [patient.id for patient in patients if patient.id]
    if len(set(named)) != len(named):
        double = next(name for name in named if named.count(name) > 1)
        raise InputError(f"{path}: two histories share the id {double!r}.")
    unnamed = [number for number, patient in enumerate(patients) if not patient.id]
    for number in unnamed:
        name = f"history-{number + 1}"
        patients[number] = replace(patients[number], id=name if name not in named else f"{name}-unnamed")
    if unnamed:
        report.remarks.append(f"{len(unnamed):,} histories had no id and are named by their place, history-1 ...")
    return patients


def _of_histories(patients: list[Patient], report: ImportReport, ontology: Ontology | None) -> Cohort:
    visits = [(row, visit) for row, patient in enumerate(patients) for visit in patient.visits]
    codes = [
        (number, code, position)
        for number, (_, visit) in enumerate(visits)
        for code, position in zip(visit.codes, visit.positions or range(1, len(visit.codes) + 1), strict=True)
    ]
    report.rows += len(codes)
    person_words = dict.fromkeys(name for patient in patients for name in patient.details)
    visit_words = dict.fromkeys(name for _, visit in visits for name in visit.details)
    return assemble(
        report,
        People(
            [patient.id for patient in patients],
            [patient.sex for patient in patients],
            {name: [patient.details.get(name) for patient in patients] for name in person_words},
            [patient.age for patient in patients],
        ),
        Visits(
            [row for row, _ in visits],
            [visit.time for _, visit in visits],
            list(range(len(visits))),
            [visit.age for _, visit in visits],
            {name: [visit.details.get(name) for _, visit in visits] for name in visit_words},
            by_order=True,
        ),
        Entries(
            [number for number, _, _ in codes],
            [code.code if isinstance(code, Code) else code for _, code, _ in codes],
            [code.system if isinstance(code, Code) else None for _, code, _ in codes],
            [position for _, _, position in codes],
        ),
        ontology,
    )

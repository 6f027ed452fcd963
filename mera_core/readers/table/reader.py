"""The project's own files, and plain tables of one row a diagnosis or a stay; HISTORY.json, one or a list.

A table is parquet, CSV, JSON lines or a JSON list. Says what each file is by its content, not by its name alone. A table whose
columns are called otherwise is read through a map of column names; see `readers.table.columns` for what they may hold.
"""

from __future__ import annotations

import csv
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mera_core.common.errors import InputError
from mera_core.common.limits import changed_by, current_limits
from mera_core.history.columns import VisitColumns, words
from mera_core.history.history_json import parse_json
from mera_core.history.records import VISITS_TABLE_COLUMNS, Patient, patient_from_json
from mera_core.icd.ontology import Code, Ontology
from mera_core.readers.common.assemble import Entries, People, Visits, assemble
from mera_core.readers.common.base import BOM, Cohort, ImportReport, Source, open_bytes, read_bytes, too_long
from mera_core.readers.common.code_systems import icd_named
from mera_core.readers.common.delimited import read_delimited
from mera_core.readers.common.parquet import damage_told, refuse_large, schema_of, sound
from mera_core.readers.common.table import Table
from mera_core.readers.table.columns import cohort_of
from mera_core.readers.table.wide import WideTableError, is_code, is_pattern, lengthened, patterns_of

FORMAT = "table"
_KEYS = ("patient_id", "visit", "system", "code")
_PARQUET_MAGIC = b"PAR1"
_DELIMITERS = ",;\t|"
_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")  # of the tables that a folder may hold
_LOOKED_AT = 50  # files of a folder


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    if source.path.is_dir():
        found = [(part, why) for part in _parts(source) if (why := detect(part))]
        return "; ".join(f"{part.path.name}: {why}" for part, why in found) or None
    kind = _kind(source)
    if kind == "parquet":
        try:
            names = {name.lower() for name in schema_of(source.path).names}
        except InputError:
            return "it is a parquet file, though a damaged one"
        return "a parquet file with the columns of the visits table" if set(_KEYS) <= names else None
    if kind == "csv":
        return "its columns are those of the visits table" if set(_KEYS) <= set(source.header) else None
    head = _head(source)
    if kind == "json" and b'"visits"' in head:
        return "JSON that holds a history or a list of them"
    shape = "a JSON list of rows" if kind == "json" else "JSON lines"
    return f"{shape} with patient_id, as in the visits table" if b'"patient_id"' in head else None


def expects(source: Source) -> str | None:
    """Why a file that can't be recognised is meant for this format: it has columns of the visits table, if not all."""
    if source.path.is_dir():
        parts = _parts(source)
        return expects(parts[0]) if len(parts) == 1 else None
    names = _names(source)
    named = " ".join(names).lower()
    if sum(key in named for key in _KEYS) > 1:
        return "it has columns of the visits table"
    return "it has numbered columns of diagnoses" if patterns_of(names) else None


def read(
    source: Source,
    report: ImportReport,
    ontology: Ontology | None = None,
    columns: Mapping[str, str] | None = None,
    system: str | None = None,
) -> Cohort:
    """Read a visits table or histories, or the one of them that a folder holds; every code is checked against the code sets.

    columns: our name of a column -> the file's name, for tables that are not of our making; then only these are read, and
    visits may be told by `visit_id` or by `time` alone (see `readers.table.columns`). `code` may be a pattern of numbered
    columns (see `readers.table.wide`). system: of the codes whose row names none. A history without an id is named
    history-1, history-2 ... by its place.
    Raises InputError naming the file and the line, row or place.
    """
    given = icd_named(system) if system else None
    if system and not given:
        raise InputError(f"the option system must be ICD9 or ICD10, not {system!r}.")
    source = _one(source, columns) if source.path.is_dir() else source
    path, kind = source.path, _kind(source)
    if kind != "json":
        return cohort_of(_table(source, kind, columns, given, report), report, ontology, given)
    decoded = parse_json(read_bytes(path), str(path))
    if _are_rows(decoded):
        rows = _columns(enumerate(decoded, start=1), str(path), "row", columns)
        return cohort_of(_in_our_names(Table(path, rows), columns, report), report, ontology, given)
    if columns or system:
        raise InputError(f"{path} holds histories, not a table, so it has no columns or system to name.")
    return _of_histories(_histories(decoded, report, str(path)), report, ontology)


def _parts(source: Source) -> list[Source]:
    """The files of a folder that may be tables; FHIR is JSON too, and is none."""
    named = [path for name, path in sorted(source.files.items()) if name.endswith(_SUFFIXES)]
    filled = [source.within(path) for path in named[:_LOOKED_AT] if path.stat().st_size]
    return [part for part in filled if b'"resourceType"' not in _head(part)]


def _one(source: Source, named: Mapping[str, str] | None) -> Source:
    """The one table that a folder holds; where columns are named, its one file that can be a table."""
    found = [part for part in _parts(source) if named or detect(part)] or _parts(source)[:1]
    if not found:
        raise InputError(f"{source.path} holds no visits table (parquet, CSV, JSON lines) and no HISTORY.json.")
    if len(found) > 1:
        names = ", ".join(part.path.name for part in found)
        raise InputError(f"{source.path} holds several tables ({names}); name the one to read.")
    return found[0]


def _kind(source: Source) -> str:
    """'parquet' | 'json' | 'jsonl' | 'csv' for a file, by its first bytes."""
    head = _head(source)
    if head.startswith(_PARQUET_MAGIC):
        return "parquet"
    start = head.removeprefix(BOM).lstrip()
    if start[:1] == b"[":
        return "json"
    if start[:1] == b"{":
        return "jsonl" if b'"patient_id"' in start.split(b"\n", 1)[0] or b'"visits"' not in start else "json"
    return "csv"


def _names(source: Source) -> list[str]:
    """The columns of a table as the file writes them; none of what is no table."""
    kind = _kind(source)
    line = _head(source).removeprefix(BOM).split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    try:
        if kind == "parquet":
            return schema_of(source.path).names
        if kind == "csv":
            rows = (next(csv.reader([line], delimiter=delimiter), []) for delimiter in _DELIMITERS)
            return [name.strip() for name in max(rows, key=len)]
        row = json.loads(line) if kind == "jsonl" else None
        return list(row) if isinstance(row, dict) else []
    except (csv.Error, ValueError, RecursionError):
        return []


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _head(source: Source) -> bytes:
    """The first bytes, unpacked; none of a damaged file, which the reading will name."""
    try:
        with open_bytes(source.path) as stream:
            return stream.read(1 << 16)
    except (OSError, EOFError, zlib.error):
        return b""


def _table(
    source: Source, kind: str, named: Mapping[str, str] | None, system: str | None, report: ImportReport
) -> Table:
    path, names = source.path, _names(source)
    if named is None and "code" not in map(str.lower, names) and (patterns := patterns_of(names)):
        raise WideTableError(path, names, patterns)
    if kind == "parquet":
        content = pa.BufferReader(read_bytes(path))  # bytes, because a gzipped parquet file is unpacked first
        with damage_told(path):
            refuse_large(path, pq.read_metadata(content))
            content.seek(0)
            texts = [field.name for field in schema_of(path, content) if _is_text(field.type)]
            content.seek(0)
            whole = sound(
                pq.read_table(content, read_dictionary=texts)
            )  # a text is held once, however often it stands there
        table = Table(path, {name: whole.column(name) for name in whole.column_names})
    elif kind == "jsonl":
        table = Table(path, _columns(_json_lines(read_bytes(path), str(path)), str(path), "line", named), unit="line")
    else:
        required = [key for key in _KEYS if key != "system"] if named is None else list(named.values())
        if named and is_pattern(named.get("code"), names):
            required.remove(named["code"])
        cells = read_delimited(source, required, None, report, "," if named is None else _DELIMITERS)
        if named is None and system is None and "system" not in map(str.lower, cells.columns):
            raise InputError(f"{path} has no column 'system'; --option system=ICD10 names the one of all codes.")
        table = Table(path, cells.columns, unit="line", place=cells.line)
    return _in_our_names(table, named, report)


def _in_our_names(table: Table, named: Mapping[str, str] | None, report: ImportReport) -> Table:
    """The table with our columns in our names: by the map, or, where there is none, in any case."""
    if named is None:
        ours = {name.lower(): name for name in table.columns if name.lower() in VISITS_TABLE_COLUMNS}
        table.columns = {
            name.lower() if name.lower() in ours else name: column for name, column in table.columns.items()
        }
        return table
    if is_pattern(named.get("code"), table.columns):
        return lengthened(table, named, report)
    return table.renamed(named)


def _json_lines(content: bytes, path: str) -> Iterable[tuple[int, Any]]:
    """(number, decoded value) of each line that holds something."""
    most = current_limits().line_bytes
    for number, line in enumerate(content.removeprefix(BOM).split(b"\n"), 1):
        if len(line) > most:
            raise too_long(path, number, most)
        if line.strip():
            yield number, parse_json(line, f"{path}, line {number}")


def _columns(
    rows: Iterable[tuple[int, Any]], path: str, unit: str, named: Mapping[str, str] | None
) -> dict[str, pa.Array]:
    """Column -> values of numbered rows; a value that a row lacks is null."""
    columns: dict[str, list[Any]] = {}
    code = (named or {}).get("code", "code")
    limits, size = current_limits(), 0
    for number, row in rows:
        if not isinstance(row, dict) or any(isinstance(value, (dict, list, bool)) for value in row.values()):
            raise InputError(f"{path}, {unit} {number} must be one flat JSON object.")
        for name, value in row.items():
            if isinstance(value, (int, float)) and is_code(name, code):  # 428.0 and 428 are two codes
                raise InputError(
                    f"{path}: {unit} {number}, column {name!r}: the code stands as a number; it must be text."
                )
            if isinstance(value, str) and len(value) > limits.line_bytes:
                raise InputError(
                    f"{path}: {unit} {number}: a text is longer than {limits.line_bytes:,} bytes{changed_by('line_bytes')}."
                )
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


def _are_rows(decoded: Any) -> bool:
    """Whether a JSON list holds rows of a table and no histories."""
    return (
        isinstance(decoded, list)
        and bool(decoded)
        and all(isinstance(each, dict) and "visits" not in each for each in decoded)
    )


def _histories(decoded: Any, report: ImportReport, path: str) -> list[Patient]:
    listed = decoded if isinstance(decoded, list) else [decoded]
    patients = []
    for number, history in enumerate(listed, start=1):
        try:
            patients.append(patient_from_json(history))
        except InputError as error:
            place = f"history {number}: " if isinstance(decoded, list) else ""
            raise InputError(f"{path}: {place}{error}") from error
    if not patients:
        raise InputError(f"{path} holds no patient.")
    named = Counter(patient.id for patient in patients if patient.id)
    if double := next((name for name, times in named.items() if times > 1), None):
        raise InputError(f"{path}: two histories share the id {double!r}.")
    unnamed = [number for number, patient in enumerate(patients) if not patient.id]
    for number in unnamed:
        name = f"history-{number + 1}"
        patients[number] = replace(patients[number], id=name if name not in named else f"{name}-unnamed")
    if unnamed:
        report.remarks.append(f"{len(unnamed):,} histories had no id and are named by their place, history-1 ...")
    return patients


def _of_histories(patients: list[Patient], report: ImportReport, ontology: Ontology | None) -> Cohort:
    read = VisitColumns.of(patients)
    report.rows += len(read.code)
    at = pa.array(read.code)
    return assemble(
        report,
        People(read.ids, read.sex, read.person_words, read.age),
        Visits(read.person, read.time, None, read.visit_age, read.visit_words, by_order=True),
        Entries(
            read.visit,
            words([code.code if isinstance(code, Code) else code for code in read.codes]).take(at),
            words([code.system if isinstance(code, Code) else None for code in read.codes]).take(at),
            read.position,
        ),
        ontology,
    )

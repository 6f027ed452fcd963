"""Patients, visits and the one visits-table schema that every reader and trainer shares.

Holds the table and its files (parquet, CSV, JSON lines), and is the one place to import records from. Knows
nothing of source formats (see `readers`), tokens or models.

The table has one row a diagnosis, in the columns of VISITS_TABLE_COLUMNS:
    patient_id text · visit int, 0-based in time order · time timestamp or empty · system 'ICD9' | 'ICD10',
    empty where the code is text that nobody resolved yet · code dotted, upper case · position int, the rank
    recorded in the source · age years at the last visit · sex 'F' | 'M' | 'U'
then further profile words, one text column each, then facts of the single visit in columns whose name begins
with 'visit.' ('visit.age' in years, the rest text: 'visit.admission', 'visit.discharge' ...). A visit without
codes is one row with neither system, code nor position, so that writing and reading lose nothing.
"""

from __future__ import annotations

import csv
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mera_core.common.errors import InputError
from mera_core.history.history_json import (
    DEMO_PATIENTS,
    MAX_CODES,
    MAX_VISITS,
    DemoPatient,
    demo_patients,
    parse_json,
    patient_from_json,
    patient_to_json,
    refuse_disorder,
    settled,
)
from mera_core.history.patient import SEXES, Note, Patient, Visit, in_utc, resolve, with_visits
from mera_core.icd.ontology import SYSTEMS, Code

__all__ = [
    "DEMO_PATIENTS", "MAX_CODES", "MAX_VISITS", "TABLE_SUFFIXES", "VISITS_TABLE_COLUMNS", "DemoPatient",
    "Note", "Patient", "Visit", "demo_patients", "from_table", "parse_json", "patient_from_json",
    "patient_to_json", "read_table", "resolve", "to_table", "with_visits", "write_table",
]  # fmt: skip

VISITS_TABLE_COLUMNS = ("patient_id", "visit", "time", "system", "code", "position", "age", "sex")
TABLE_SUFFIXES = (".parquet", ".csv", ".jsonl")
_REQUIRED = ("patient_id", "visit", "system", "code")
_VISIT_PREFIX = "visit."
_VISIT_AGE = "visit.age"


def to_table(patients: Iterable[Patient]) -> pd.DataFrame:
    """The visits table of a cohort, patients in the order given.

    Raises InputError for a patient without an id or without visits, an id used twice, or a detail whose name
    is a column of the schema.
    """
    patients = list(patients)
    profile_keys = list(dict.fromkeys(key for patient in patients for key in patient.details))
    visit_keys = list(dict.fromkeys(key for patient in patients for visit in patient.visits for key in visit.details))
    for key in profile_keys:
        if key in VISITS_TABLE_COLUMNS or key.startswith(_VISIT_PREFIX):
            raise InputError(f"a detail of a patient can't be called {key!r}: the visits table uses that name.")
    if "age" in visit_keys:
        raise InputError("a detail of a visit can't be called 'age': the visits table uses that name.")
    seen: set[str] = set()
    rows: dict[str, list[Any]] = {column: [] for column in VISITS_TABLE_COLUMNS}
    visit_ages: list[float | None] = []
    owners: list[Patient] = []  # the patient and the visit behind each row, for the columns of details
    stays: list[Visit] = []
    for patient in patients:
        if not patient.id:
            raise InputError("every patient in a visits table needs an id, and one has none.")
        if patient.id in seen:
            raise InputError(f"two patients share the id {patient.id!r}.")
        if not patient.visits:
            raise InputError(f"patient {patient.id!r} has no visits, so the visits table has no row for them.")
        seen.add(patient.id)
        for number, visit in enumerate(patient.visits):
            size = max(len(visit.codes), 1)
            rows["patient_id"] += [patient.id] * size
            rows["visit"] += [number] * size
            rows["time"] += [visit.time] * size
            rows["system"] += [code.system if isinstance(code, Code) else None for code in visit.codes or (None,)]
            rows["code"] += [code.code if isinstance(code, Code) else code for code in visit.codes or (None,)]
            rows["position"] += visit.positions or (range(1, size + 1) if visit.codes else (None,))
            rows["age"] += [patient.age] * size
            rows["sex"] += [patient.sex] * size
            visit_ages += [visit.age] * size
            owners += [patient] * size
            stays += [visit] * size
    table = pd.DataFrame(
        {
            "patient_id": _text(rows["patient_id"]),
            "visit": np.array(rows["visit"], dtype=np.int64),
            "time": pd.Series(rows["time"], dtype="datetime64[us]"),
            "system": _text(rows["system"]),
            "code": _text(rows["code"]),
            "position": pd.array(rows["position"], dtype="Int64"),
            "age": pd.Series(rows["age"], dtype="float64"),
            "sex": _text(rows["sex"]),
            **{key: _text([owner.details.get(key) for owner in owners]) for key in profile_keys},
        }
    )
    if any(age is not None for age in visit_ages):
        table[_VISIT_AGE] = pd.Series(visit_ages, dtype="float64")
    details = {_VISIT_PREFIX + key: _text([stay.details.get(key) for stay in stays]) for key in visit_keys}
    return table.assign(**details)


def from_table(table: pd.DataFrame) -> list[Patient]:
    """The patients of a visits table, in order of their first row; the inverse of `to_table`.

    Rows may come in any order: `visit` orders visits (gaps are closed), `position` the codes within one.
    An `age` that differs between a patient's visits is the age at each; the last is the patient's.
    Raises InputError for a missing column, an empty patient_id, a visit that is no whole number, an unknown
    system, visits out of time order, or a profile or visit fact that contradicts itself.
    """
    for column in _REQUIRED:
        if column not in table.columns:
            raise InputError(f"the visits table has no column {column!r}; it needs {', '.join(_REQUIRED)}.")
    size = len(table)
    absent = [None] * size
    columns = {name: _values(table, name) for name in map(str, table.columns)}
    ids = [_identity(value, row) for row, value in enumerate(columns["patient_id"])]
    numbers = [_whole(value, "visit", row) for row, value in enumerate(columns["visit"])]
    if None in numbers:
        raise InputError(f"row {numbers.index(None) + 1} of the visits table has no visit number.")
    positions = [_whole(value, "position", row) for row, value in enumerate(columns.get("position", absent))]
    times = [_moment(value, row) for row, value in enumerate(columns.get("time", absent))]
    ages = [_years(value, "age", row) for row, value in enumerate(columns.get("age", absent))]
    visit_ages = [_years(value, _VISIT_AGE, row) for row, value in enumerate(columns.get(_VISIT_AGE, absent))]
    codes = [
        _table_code(system, code, row)
        for row, (system, code) in enumerate(zip(columns["system"], columns["code"], strict=True))
    ]
    profile_keys = [key for key in columns if key not in VISITS_TABLE_COLUMNS and not key.startswith(_VISIT_PREFIX)]
    visit_keys = [key for key in columns if key.startswith(_VISIT_PREFIX) and key != _VISIT_AGE]
    first_row: dict[str, int] = {}
    for row, identity in enumerate(ids):
        first_row.setdefault(identity, row)
    last = 2**62  # a row without a position comes after those with one
    order = sorted(
        range(size),
        key=lambda row: (
            first_row[ids[row]],
            numbers[row],
            last if positions[row] is None else positions[row],
        ),
    )
    patients = []
    for identity, group in groupby(order, key=ids.__getitem__):
        rows = list(group)
        stays = [list(stay) for _, stay in groupby(rows, key=numbers.__getitem__)]
        stay_ages = [_one(ages, stay, "age", identity) for stay in stays]
        age_moves = len(set(stay_ages)) > 1
        visits = [
            Visit(
                codes=[codes[row] for row in stay if codes[row] is not None],
                time=_one(times, stay, "time", identity),
                age=stay_age if age_moves else _one(visit_ages, stay, _VISIT_AGE, identity),
                details={
                    key.removeprefix(_VISIT_PREFIX): value
                    for key in visit_keys
                    if (value := _one(columns[key], stay, key, identity)) is not None
                },
                positions=[positions[row] for row in stay if codes[row] is not None and positions[row] is not None],
            )
            for stay, stay_age in zip(stays, stay_ages, strict=True)
        ]
        refuse_disorder(visits, f"visit {{}} of patient {identity!r}")
        sex = _one(columns.get("sex", absent), rows, "sex", identity) or "U"
        if sex not in SEXES:
            raise InputError(f"patient {identity!r} has sex {sex!r}; it must be F, M or U (unknown).")
        details = {key: value for key in profile_keys if (value := _one(columns[key], rows, key, identity)) is not None}
        patients.append(Patient(tuple(visits), sex=sex, age=stay_ages[-1], id=identity, details=details))
    return patients


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a visits table as .parquet, .csv or .jsonl, whole or not at all (written aside, then renamed).

    Raises InputError for another suffix or a folder that can't be written to.
    """
    target = Path(path)
    if target.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(f"{target.name} must end in {', '.join(TABLE_SUFFIXES)} to be written.")
    write: dict[str, Callable[[str], None]] = {
        ".parquet": lambda aside: table.to_parquet(aside, index=False),
        ".csv": lambda aside: _write_csv(table, aside),
        ".jsonl": lambda aside: _write_json_lines(table, aside),
    }
    try:
        handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        os.close(handle)
        try:
            write[target.suffix.lower()](aside)
            os.chmod(aside, 0o644)
            os.replace(aside, target)
        finally:
            Path(aside).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{target} can't be written: {error.strerror or error}.") from error


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The rows of a visits-table file written by `write_table`, as text where the format knows no types.

    For files of unknown origin use `mera_core.readers.read(path, "table")`, whose errors name the file.
    """
    source = Path(path)
    if source.suffix.lower() == ".parquet":
        return pd.read_parquet(source)
    if source.suffix.lower() == ".jsonl":
        with open(source, encoding="utf-8") as lines:
            return pd.DataFrame([json.loads(line) for line in lines if line.strip()], dtype=object)
    with open(source, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(f"{source}: record {line} has {len(row)} cells where the header has {len(header)}.")
    return pd.DataFrame(rows, columns=header, dtype="str")


def _write_csv(table: pd.DataFrame, path: str) -> None:
    # Python's writer quotes a carriage return only when it is part of the line ending.
    cells = (cell for name in table.columns for cell in (name, *table[name].dropna().unique()))
    texts = (cell for cell in cells if isinstance(cell, str))
    ending = "\r\n" if any("\r" in text for text in texts) else "\n"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator=ending)
        writer.writerow(table.columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in _plain_rows(table))


def _write_json_lines(table: pd.DataFrame, path: str) -> None:
    names = list(table.columns)
    with open(path, "w", encoding="utf-8") as file:
        for row in _plain_rows(table):
            cells = {
                name: cell
                for name, cell in zip(names, row, strict=True)
                if cell is not None or name in VISITS_TABLE_COLUMNS
            }
            file.write(json.dumps(cells, ensure_ascii=False) + "\n")


def _plain_rows(table: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Rows of str, int, float and None; times as ISO text. Floats keep every digit when written as `repr`."""
    columns = []
    for name in table.columns:
        values = _values(table, name)
        columns.append([value.isoformat() if isinstance(value, datetime) else value for value in values])
    return zip(*columns, strict=True)


def _text(values: list[str | None]) -> pd.Series:
    return pd.Series(values, dtype="str")


def _values(table: pd.DataFrame, name: str) -> list[Any]:
    """A column as Python values; every way to say 'missing' (None, NaN, NaT, <NA>, '') becomes None."""
    column = table[name]
    if isinstance(column, pd.DataFrame):
        raise InputError(f"the visits table has the column {name!r} more than once.")
    if pd.api.types.is_datetime64_any_dtype(column):
        return [None if missing else time.to_pydatetime() for time, missing in zip(column, column.isna(), strict=True)]
    missing = column.isna().to_numpy()
    return [None if gone or value == "" else value for value, gone in zip(column.tolist(), missing, strict=True)]


def _identity(value: Any, row: int) -> str:
    if value is None:
        raise InputError(f"row {row + 1} of the visits table has no patient_id.")
    if isinstance(value, float) and not value.is_integer():
        raise InputError(f"row {row + 1} of the visits table has patient_id {value!r}, which is no name or number.")
    return str(int(value)) if isinstance(value, float) else str(value)


def _whole(value: Any, column: str, row: int) -> int | None:
    if value is None:
        return None
    try:
        number = float(value) if not isinstance(value, str) else int(value)
        if not isinstance(value, bool) and number == int(number):
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"row {row + 1} of the visits table has {column} {value!r}, which is no whole number.")


def _years(value: Any, column: str, row: int) -> float | None:
    if value is None:
        return None
    try:
        years = float(value)
        if math.isfinite(years):
            return years
    except (TypeError, ValueError):
        pass
    raise InputError(f"row {row + 1} of the visits table has {column} {value!r}, which is no number of years.")


def _moment(value: Any, row: int) -> datetime | None:
    if value is None:
        return None
    try:
        return in_utc(value if isinstance(value, datetime) else datetime.fromisoformat(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"row {row + 1} of the visits table has time {value!r}, which is no date such as 2026-01-31."
        ) from error


def _table_code(system: Any, code: Any, row: int) -> Code | str | None:
    if code is None:
        if system is not None:
            raise InputError(f"row {row + 1} of the visits table has a system but no code.")
        return None
    if not isinstance(code, str):  # 428.0 read as a number has lost its zeros: 428.0 and 428 are two codes
        raise InputError(f"row {row + 1} of the visits table has code {code!r} as a number; codes must be text.")
    if system is None:
        return code
    if system not in SYSTEMS:
        raise InputError(f"row {row + 1} of the visits table has system {system!r}; it must be ICD9 or ICD10.")
    return settled(system, code)


def _one(values: list[Any], rows: list[int], column: str, identity: str) -> Any:
    """The one value that these rows share."""
    first = values[rows[0]]
    for row in rows:
        if values[row] != first:
            raise InputError(
                f"patient {identity!r} has more than one {column!r} ({first!r} and {values[row]!r}) where "
                "the visits table allows one; name a column 'visit.…' if it differs between visits."
            )
    return str(first) if first is not None and column not in ("time", "age", _VISIT_AGE) else first

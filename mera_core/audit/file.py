"""Judgements of the hierarchy audit as a SQLite file: bytes out, bytes in. Nothing is written to disk here.

One table `judgement`, a row a verdict, whose columns are the fields of `audit.Judgement`; the table `about` says what the
file is. A file that is read is data only: its schema is not trusted, and a view or trigger in it is never run.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields
from datetime import datetime

from mera_core.audit.groups import Judgement
from mera_core.common.errors import InputError
from mera_core.common.limits import current_limits
from mera_core.ranking.ranking import NOTICE

FORMAT = "mera hierarchy audit 1"
_MAGIC = b"SQLite format 3\0"
_LONGEST_VALUE = 1_000_000  # bytes of one value or row
_COLUMNS = tuple(field.name for field in fields(Judgement))
_SCHEMA = f"""
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE judgement ({", ".join(f'"{name}" {"INTEGER" if name == "level" else "TEXT"} NOT NULL' for name in _COLUMNS)},
  PRIMARY KEY (reader, "group", time));
"""


def to_sqlite(judgements: Sequence[Judgement]) -> bytes:
    """The judgements as the bytes of a SQLite database."""
    with closing(sqlite3.connect(":memory:")) as base:
        base.executescript(_SCHEMA)
        base.executemany("INSERT INTO about VALUES (?, ?)", [("format", FORMAT), ("notice", NOTICE)])
        marks = ", ".join("?" * len(_COLUMNS))
        base.executemany(f"INSERT OR REPLACE INTO judgement VALUES ({marks})", [_row(each) for each in judgements])
        base.commit()
        return base.serialize()


def from_sqlite(content: bytes, name: str) -> list[Judgement]:
    """The judgements of a database made by `to_sqlite`, oldest first.

    name: of the file, for messages.
    Raises InputError where the bytes are no such database, are too many, or a row does not fit together.
    """
    largest, most = current_limits().audit_bytes, current_limits().audit_judgements
    if len(content) > largest:
        raise InputError(f"{name} has {len(content):,} bytes, and at most {largest:,} can be read.")
    if not content.startswith(_MAGIC):
        raise InputError(f"{name} is not a file of the hierarchy audit: it is no SQLite database.")
    with closing(sqlite3.connect(":memory:")) as base:
        try:
            base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            base.deserialize(content)
            base.execute("PRAGMA trusted_schema = OFF")
            base.execute("PRAGMA query_only = ON")
            # word for word: a column that is computed, a view or a trigger would be code of somebody else's
            made = [
                sql for (sql,) in base.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")
            ]
            if made != [statement.strip() for statement in _SCHEMA.split(";") if statement.strip()]:
                raise InputError(f"{name} is not a file of the hierarchy audit.")
            about = dict(base.execute("SELECT key, value FROM about"))
            if about.get("format") != FORMAT:
                raise InputError(f"{name} is of a format that this version does not read (it reads {FORMAT!r}).")
            wanted = ", ".join(f'judgement."{column}"' for column in _COLUMNS)  # qualified, or SQLite may read a text
            rows = base.execute(f"SELECT {wanted} FROM judgement ORDER BY time, reader LIMIT {most + 1}").fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise InputError(f"{name} is not a file of the hierarchy audit: it can't be read as SQLite.") from error
    if len(rows) > most:
        raise InputError(f"{name} holds more than {most:,} judgements.")
    return [_judgement(row, name, number) for number, row in enumerate(rows, start=1)]


def _row(each: Judgement) -> list[str | int]:
    values = {name: getattr(each, name) for name in _COLUMNS}
    values |= {"codes": json.dumps(each.codes), "time": each.time.isoformat()}
    return [values[name] for name in _COLUMNS]


def _judgement(row: tuple, name: str, number: int) -> Judgement:
    values = dict(zip(_COLUMNS, row, strict=True))
    try:
        if not isinstance(values["level"], int) or not all(
            isinstance(value, str) for key, value in values.items() if key != "level"
        ):
            raise TypeError
        codes = json.loads(values["codes"])
        if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
            raise TypeError
        time = datetime.fromisoformat(values["time"])
        if time.tzinfo is not None:
            raise ValueError
        return Judgement(**(values | {"codes": tuple(codes), "time": time}))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{name}, judgement {number}, does not fit together and was not read.") from error

"""Tables of one row a stay, with a column for each of its diagnoses -> tables of one row a diagnosis.

In a pattern such as DIAG* the star stands for a number, with or without a mark before it: diag_1, DIAG 02. The number is the
position of the code. Knows no file format and no code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
import pyarrow as pa

from mera_core.common.errors import InputError
from mera_core.readers.common.base import ImportReport
from mera_core.readers.common.table import Table

_DIAGNOSES = re.compile(r"(.*?(?:diag|dgns|dx|icd).*?)0*\d{1,2}((?:[\W_]*(?:code|cd))?)", re.IGNORECASE)
_NAMED = 5  # columns that a remark names


class WideTableError(InputError):
    """A table with numbered columns of diagnoses that nobody has named. names: all its columns; patterns: for those."""

    def __init__(self, path: object, names: list[str], patterns: list[str]) -> None:
        super().__init__(
            f"{path} has numbered columns of diagnoses; say which, as in --column patient_id=NAME "
            f'--column "code={patterns[0]}" --option system=ICD10.'
        )
        self.names, self.patterns = names, patterns


def patterns_of(names: Iterable[str]) -> list[str]:
    """Patterns for the numbered columns that are called as diagnoses usually are, that of the most columns first."""
    families = Counter(f"{match[1]}*{match[2]}" for name in names if (match := _DIAGNOSES.fullmatch(name)))
    return [pattern for pattern, columns in families.most_common() if columns > 1]


def is_pattern(code: str | None, names: Iterable[str]) -> bool:
    """Whether what is to be read as the code is a pattern, or a list of columns, rather than one of these columns."""
    return code is not None and ("*" in code or "," in code) and code.lower() not in map(str.lower, names)


def is_code(name: str, patterns: str) -> bool:
    """Whether a column is one of those that are read as the code."""
    return name.lower() == patterns.lower() or any(_numbers([name], each) for each in patterns.split(","))


def lengthened(table: Table, named: Mapping[str, str], report: ImportReport) -> Table:
    """The table with a row for each code, in our names; a stay without codes keeps one row.

    named: our names -> the table's, of which `code` is a pattern, or several parted by commas, which are numbered on. Where
    none tells visits, each row is one. Raises InputError for a pattern that no column or two of one number match.
    """
    if "position" in named:
        raise InputError(
            f"{table.path}: a code's position is its column's number, so 'position' can't be another column."
        )
    columns = _positions(table, named["code"])
    texts = [table.codes(name) for name in columns]
    told = [np.flatnonzero(np.asarray(column.is_valid())) for column in texts]
    bare = np.setdiff1d(np.arange(len(table)), np.concatenate(told))
    row = np.concatenate([*told, bare])
    order = np.argsort(row, kind="stable")
    row, empty = row[order], (np.arange(len(row)) >= len(row) - len(bare))[order]
    codes = [column.take(pa.array(rows)) for column, rows in zip(texts, told, strict=True)]
    codes = pa.chunked_array([*codes, pa.nulls(len(bare), codes[0].type)]).unify_dictionaries().combine_chunks()
    position = np.repeat([*columns.values(), 0], [*map(len, told), len(bare)])[order]
    others = table.renamed({ours: name for ours, name in named.items() if ours != "code"}).columns
    long = {
        ours: column.take(pa.array(row, mask=empty if ours == "system" else None)) for ours, column in others.items()
    }
    long |= {"code": codes.take(pa.array(order)), "position": pa.array(position, mask=empty)}
    if not {"visit", "visit_id", "time"} & set(long):
        long["visit_id"] = pa.array(row).cast(pa.string())
    _remark(table, named["code"], list(columns), report)
    return Table(table.path, long, unit=table.unit, place=lambda at: table.line(int(row[at])))


def _positions(table: Table, patterns: str) -> dict[str, int]:
    """The columns of codes in the order of their positions."""
    found: dict[int, str] = {}
    for pattern in patterns.split(","):
        numbers = _numbers(table.columns, pattern)
        if not numbers:
            raise InputError(
                f"{table.path} has no column such as {pattern!r}, with a number for the star, which is to be read as 'code'."
            )
        ahead = max(found) + 1 - min(numbers.values()) if found else 0
        for name, number in numbers.items():
            if name != found.setdefault(ahead + number, name):
                raise InputError(
                    f"{table.path}: the columns {found[ahead + number]!r} and {name!r} have the same number, which is to be "
                    "their codes' position."
                )
    return {found[position]: position for position in sorted(found)}


@lru_cache(maxsize=64)
def _shape(pattern: str) -> re.Pattern[str]:
    return re.compile(r"[\W_]*(\d+)".join(map(re.escape, pattern.strip().split("*", 1))), re.IGNORECASE)


def _numbers(names: Iterable[str], pattern: str) -> dict[str, int]:
    """The columns that a pattern means, and the number of each; 1 where it has no star."""
    matches = ((name, _shape(pattern).fullmatch(name)) for name in names)
    return {name: int(match[1]) if "*" in pattern else 1 for name, match in matches if match}


def _remark(table: Table, patterns: str, read: list[str], report: ImportReport) -> None:
    """Say which columns were read, and which look alike and were not."""
    starts = tuple(pattern.strip().split("*")[0].lower() for pattern in patterns.split(","))
    others = [name for name in table.columns if name not in read and name.lower().startswith(starts)]
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    passed = f"; not read as codes: {', '.join(others[:_NAMED])}{more}" if others else ""
    report.remarks.append(f"codes are those of {len(read)} columns, {read[0]} to {read[-1]}{passed}")

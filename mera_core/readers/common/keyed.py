"""Text columns as ids, times and numbers, and the joins between tables by id or time; a bad value is named by file and line.

Works on the dictionaries of `readers.delimited`: a text is looked at once, however often it stands in the table. Knows no
format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mera_core.history.columns import LARGEST_POSITION, words
from mera_core.history.patient import in_utc
from mera_core.readers.common.base import ImportReport
from mera_core.readers.common.delimited import Delimited
from mera_core.readers.common.record_words import word

NOWHERE = -1
DAY = np.timedelta64(1, "D")
_DAYS_A_YEAR = 365.2425
_LATEST = np.iinfo(np.int64).max
# ISO 8601, and how SAS writes a date: 19-Mar-2017 (the claims that CMS publishes) or 19MAR2017.
_WRITTEN = (
    datetime.fromisoformat,
    lambda text: datetime.strptime(text, "%d-%b-%Y"),
    lambda text: datetime.strptime(text, "%d%b%Y"),
)


def rows_at(column: pa.DictionaryArray) -> np.ndarray:
    """For each row the index of its text among the distinct texts."""
    return column.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def is_empty(column: pa.DictionaryArray) -> np.ndarray:
    """Whether each row's text is empty."""
    texts = np.array([not text for text in column.dictionary.to_pylist()], bool)
    return texts[rows_at(column)] if len(texts) else np.zeros(len(column), bool)


def taken(column: pa.DictionaryArray, rows: np.ndarray) -> pa.DictionaryArray:
    """The texts of some rows; NOWHERE gives null."""
    return column.take(pa.array(rows, mask=rows < 0))


def distinct(table: Delimited, key: str, report: ImportReport, what: str) -> Delimited:
    """The table with each id once: rows that are wholly the same count once, and the report says so.

    Raises InputError for an empty id, or one that stands again with other values.
    """
    column = table[key]
    empty = is_empty(column)
    if empty.any():
        raise table.fault(int(np.argmax(empty)), key, f"{what} without {key}")
    indices = rows_at(column)
    _, first = np.unique(indices, return_index=True)
    if len(first) == len(indices):
        return table
    first_of = np.zeros(len(column.dictionary), np.int64)
    first_of[indices[first]] = first
    original = first_of[indices]
    again = original != np.arange(len(indices))
    for name, each in table.columns.items():
        differs = again & (rows_at(each) != rows_at(each)[original])
        if differs.any():
            raise table.fault(
                int(np.argmax(differs)), key, f"this {key} is repeated, with another {name!r} than where it stood first"
            )
    report.set_aside(f"repeated rows of {what}", int(again.sum()))
    return taken_rows(table, np.sort(first))


def taken_rows(table: Delimited, kept: np.ndarray) -> Delimited:
    """Some rows of a table, whose places in the file stay known."""
    columns = {name: each.take(pa.array(kept)) for name, each in table.columns.items()}
    return replace(table, columns=columns, rows=kept if table.rows is None else table.rows[kept])


def rows_of(column: pa.DictionaryArray, among: pa.DictionaryArray) -> np.ndarray:
    """For each row the row of `among` with the same text (each once there), NOWHERE where there is none."""
    row_by_text = np.full(len(among.dictionary) + 1, NOWHERE, np.int64)
    row_by_text[rows_at(among)] = np.arange(len(among))
    return row_by_text[same_text(column, among)]


def same_text(column: pa.DictionaryArray, among: pa.DictionaryArray) -> np.ndarray:
    """For each row the index of its text among the distinct texts of `among`, NOWHERE where it is not there."""
    if not len(column.dictionary):
        return np.zeros(0, np.int64)
    found = pc.index_in(column.dictionary, value_set=among.dictionary).fill_null(NOWHERE)
    return found.to_numpy(zero_copy_only=False).astype(np.int64)[rows_at(column)]


def plain_id(text: str) -> str:
    """An id without the decimal point that pandas gives to whole numbers beside missing ones: 10.0 is 10."""
    return text[:-2] if text.endswith(".0") and text[:-2].isdecimal() else text


def holding(
    owner: np.ndarray, begun: np.ndarray, ended: np.ndarray, asked_owner: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """For each asked moment (whole numbers) the stay of its owner that holds it, NOWHERE where none does.

    owner, begun, ended: of each stay; stays may overlap or lie within each other, and of several the latest begun is meant.
    """
    size = len(owner)
    if not size or not len(asked):
        return np.full(len(asked), NOWHERE, np.int64)
    moments, rank = np.unique(np.concatenate([begun, asked]), return_inverse=True)
    # One number for person and moment, so that one search finds both.
    key, ask = owner * len(moments) + rank[:size], asked_owner * len(moments) + rank[size:]
    order = np.argsort(key, kind="stable")
    at = np.searchsorted(key[order], ask, side="right") - 1
    person, end = owner[order], ended[order]
    at = np.where((at >= 0) & (person[at] == asked_owner), at, NOWHERE)
    # The nearest stay begun before that ends later; with it, a stay that is over leads to the one around it.
    around = np.where(np.r_[False, person[1:] == person[:-1]], np.arange(size) - 1, NOWHERE)
    while (inner := (around >= 0) & (end[around] <= end)).any():
        around[inner] = around[around[inner]]
    while (over := (at >= 0) & (end[at] < asked)).any():
        at[over] = around[at[over]]
    return np.where(at >= 0, order[at], NOWHERE)


def first_rows(group: np.ndarray, size: int) -> np.ndarray:
    """[size] the first row of each group, the number of rows for a group without any. group: of each row."""
    first = np.full(size, len(group), np.int64)
    np.minimum.at(first, group, np.arange(len(group)))
    return first


def earliest(time: np.ndarray, group: np.ndarray, size: int) -> np.ndarray:
    """[size] the first known time of each group, NaT where there is none; rows of a negative group are in none."""
    known = ~np.isnat(time) & (group >= 0)
    found = np.full(size, _LATEST)
    np.minimum.at(found, group[known], time[known].astype(np.int64))
    return np.where(found == _LATEST, np.datetime64("NaT", "us"), found.astype("datetime64[us]"))


def years(born: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Years from one time to another, NaN where either is unknown."""
    return (time - born) / DAY / _DAYS_A_YEAR


def ids_in_order(column: pa.DictionaryArray) -> np.ndarray:
    """Ids as numbers where all are, so that 9 comes before 10; else as texts."""
    texts = column.to_pylist()
    whole = all(text.isascii() and text.isdecimal() and len(text) < 19 for text in texts)
    return np.array([int(text) for text in texts], np.int64) if whole else np.array(texts, dtype=str)


def times(table: Delimited, name: str) -> np.ndarray:
    """A column of dates, with or without time of day and zone (`in_utc`), as microseconds; NaT where empty.

    Raises InputError naming the first line that has something else.
    """
    column = table.get(name)
    texts = column.dictionary
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    try:
        moments = texts.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        found = [_moment(text) for text in texts.to_pylist()]
        _refuse(table, name, found, "no date such as 2150-01-31 or 2150-01-31 10:00:00")
        moments = pa.array(found, pa.timestamp("us"))
    values = np.asarray(moments).astype("datetime64[us]")
    return values[rows_at(column)] if len(values) else np.zeros(len(column), "datetime64[us]")


def _moment(text: str | None) -> datetime | bool | None:
    """The moment that a text writes, in UTC. None for none, False for something else."""
    if text is None:
        return None
    for read in _WRITTEN:
        try:
            return in_utc(read(text))
        except (ValueError, OverflowError):
            pass
    return False


def whole_numbers(table: Delimited, name: str) -> pa.Array:
    """A column of whole numbers, null where empty; `1.0` counts as 1. Raises InputError naming the first other line."""

    def read(text: str) -> int | bool | None:
        if not text:
            return None
        digits = text.removesuffix(".0")
        return int(digits) if digits.removeprefix("-").isdecimal() and len(digits) < 19 else False

    return _each(table, name, read, pa.int64(), "no whole number")


def ranks(table: Delimited, name: str) -> pa.Array:
    """The same for numbers of visits and ranks of codes. Raises InputError for one above what 32 bits hold."""
    found = whole_numbers(table, name)
    beyond = np.abs(found.fill_null(0).to_numpy()) > LARGEST_POSITION
    if beyond.any():
        raise table.fault(int(np.argmax(beyond)), name, f"there is a number above {LARGEST_POSITION:,}")
    return found


def numbers(table: Delimited, name: str) -> np.ndarray:
    """A column of numbers, NaN where empty. Raises InputError naming the first line that has something else."""

    def read(text: str) -> float | bool | None:
        try:
            return float(text) if text else None
        except ValueError:
            return False

    return _each(table, name, read, pa.float64(), "no number").to_numpy(zero_copy_only=False).astype(float)


def _each(table: Delimited, name: str, read: Callable[[str], object], kind: pa.DataType, wrong: str) -> pa.Array:
    column = table.get(name)
    found = [read(text) for text in column.dictionary.to_pylist()]
    _refuse(table, name, found, wrong)
    return pa.array(found, kind).take(column.indices)


def _refuse(table: Delimited, name: str, found: Sequence[object], wrong: str) -> None:
    """Raises InputError naming the first row whose text was read as False; the value itself may be a patient's."""
    bad = np.array([value is False for value in found], bool)
    if bad.any():
        raise table.fault(int(np.argmax(bad[rows_at(table.get(name))])), name, f"there is {wrong}")


def in_words(column: pa.DictionaryArray, name: str) -> pa.DictionaryArray:
    """Texts of a source in the words that all readers use (`record_words.word`); null for those that say nothing."""
    return replaced(column, lambda text: word(name, text))


def replaced(column: pa.DictionaryArray, change: Callable[[str], str | None]) -> pa.DictionaryArray:
    """Each distinct text changed once."""
    changed = words([change(text) for text in column.dictionary.to_pylist()])
    return changed.take(column.indices)


def latest(person: np.ndarray, time: np.ndarray, column: pa.DictionaryArray, people: int) -> pa.DictionaryArray:
    """Each person's last text that says something, by time and then by row."""
    told = np.flatnonzero(np.asarray(column.is_valid()) & (person >= 0))
    order = told[np.lexsort((told, time[told], person[told]))]
    row = np.full(people, NOWHERE, np.int64)
    row[person[order]] = order  # the last one written stays
    return taken(column, row)


def leave_out_by(report: ImportReport, reasons: Mapping[str, np.ndarray]) -> np.ndarray:
    """Count each entry under the first reason whose mask names it; the mask of entries that none names."""
    open_ = np.ones(len(next(iter(reasons.values()))), bool)
    for reason, mask in reasons.items():
        report.leave_out(reason, int((open_ & mask).sum()))
        open_ &= ~mask
    return open_


def remark_backwards(
    report: ImportReport,
    what: str,
    backwards: np.ndarray,
    table: Delimited,
    column: str,
    rest: str = ", the length of stay is not",
) -> None:
    """Say how many stays end before they begin, and where the first stands."""
    if backwards.any():
        first = f"{table.path.name}, line {table.line(int(np.argmax(backwards)))}, column {column!r}"
        report.remarks.append(
            f"{int(backwards.sum()):,} {what} end before they begin (first: {first}); they are kept{rest}"
        )

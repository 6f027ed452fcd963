"""Tables of one row a diagnosis -> a cohort: what their columns may hold, and how visits are told.

`visit` numbers a patient's visits in time order. Where a table that is not ours lacks it, `visit_id` tells visits apart
and `time` orders them; where that is lacking too, rows of one patient and time are one visit. Knows no file format.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from mera_core.common.errors import InputError
from mera_core.history.columns import words
from mera_core.history.patient import OLDEST_AGE
from mera_core.history.records import VISITS_TABLE_COLUMNS
from mera_core.icd.ontology import Ontology
from mera_core.readers.common.assemble import Entries, People, Visits, assemble
from mera_core.readers.common.base import Cohort, ImportReport
from mera_core.readers.common.code_systems import icd_named
from mera_core.readers.common.keyed import earliest, first_rows, numbers, ranks, rows_at, times
from mera_core.readers.common.table import Table

VISIT_AGE = "visit.age"
_DIFFERS = "this differs from an earlier row of the same patient or visit; name a column 'visit.…' if it differs between visits"
_ROUNDED = re.compile(r"-?\d(?:[.,]\d+e\+?|e\+)\d+", re.IGNORECASE)  # as spreadsheets write long ids
_SEXES = {"": "U", "f": "F", "female": "F", "m": "M", "male": "M", "u": "U", "unknown": "U", "other": "U"}


def cohort_of(table: Table, report: ImportReport, ontology: Ontology | None, system: str | None = None) -> Cohort:
    """The cohort of a table; every row with a code is an entry, a row without one keeps its visit.

    system: of the codes whose row names none.
    Raises InputError naming file, place and column for an empty patient_id, a visit that is no whole number, a code that is
    a number, an unknown system, visits out of time order, or a fact that contradicts itself.
    """
    for name in ("patient_id", "code"):
        if name not in table:
            raise InputError(f"{table.path} has no column {name!r}.")
    if not len(table):
        raise InputError(f"{table.path} holds no patient.")
    ids = _ids(table, "patient_id")
    if len(np.unique(rows_at(ids))) < len(ids.dictionary):  # a category that no row has
        ids = words(ids.cast(pa.string()))
    person = rows_at(ids)
    time = times(table, "time")
    number, by_order = _numbers(table, person, time)
    texts, systems = _codes(table, system)
    report.rows += int((~_null(texts)).sum())
    dated = np.ones(len(table), bool)
    if not by_order and "visit_id" not in table:
        dated = ~np.isnat(time)
        report.leave_out("no date", int((~dated & ~_null(texts)).sum()))
    rows = np.flatnonzero(dated)
    _, first, visit = np.unique((person[rows] << 32) + number[rows], return_index=True, return_inverse=True)
    visit_of = np.full(len(table), -1, np.int64)
    visit_of[rows] = visit
    first = rows[first]
    person_first = first_rows(person, len(ids.dictionary))
    began = earliest(time, visit_of, len(first))
    if len(began):
        moment = np.where(np.isnat(time), began[visit_of], time).astype(np.int64)
        _refuse_many(table, "time", moment, visit_of, first, "this visit has another time in an earlier row")
    if by_order:
        _refuse_disorder(table, person[first], began, first)
    age, visit_age = _ages(table, person, visit_of, first)
    entries = np.flatnonzero(dated & ~_null(texts))
    position = ranks(table, "position") if "position" in table else None
    profile = [name for name in table.columns if _is_profile(name)]
    of_visit = [name for name in table.columns if name.startswith("visit.") and name != VISIT_AGE]
    kept = pa.array(entries)
    return assemble(
        report,
        People(
            ids.dictionary,
            _sexes(table, person, person_first),
            {name: _one(table, name, person, person_first) for name in profile},
            age,
        ),
        Visits(
            person[first],
            began,
            number[first] if by_order else first,
            visit_age,
            {name.removeprefix("visit."): _one(table, name, visit_of, first) for name in of_visit},
            by_order=by_order,
        ),
        Entries(
            visit_of[entries],
            texts.take(kept),
            systems.take(kept),
            position.take(kept) if position is not None else None,
        ),
        ontology,
    )


def _ids(table: Table, name: str) -> pa.DictionaryArray:
    ids = table.text(name)
    if ids.null_count:
        raise table.fault(int(np.argmax(_null(ids))), name, f"there is no {name}")
    rounded = np.array([_ROUNDED.fullmatch(text) is not None for text in ids.dictionary.to_pylist()], bool)[
        rows_at(ids)
    ]
    if rounded.any():
        row = int(np.argmax(rounded))
        what = "a number that was rounded, so that ids that differ may be one; export the ids as text"
        raise table.fault(row, name, f"there is {ids[row].as_py()!r}, {what}")
    return ids


def _numbers(table: Table, person: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, bool]:
    """What tells each row's visit from the patient's others, and whether it orders them too."""
    if "visit" in table:
        number = ranks(table, "visit")
        if number.null_count:
            raise table.fault(int(np.argmax(_null(number))), "visit", "there is no visit number")
        return number.to_numpy(), True
    if "visit_id" in table:
        return rows_at(_ids(table, "visit_id")), False
    if "time" not in table:
        raise InputError(f"{table.path} has no column 'visit', 'visit_id' or 'time' to tell visits by.")
    return np.unique(time, return_inverse=True)[1], False


def _codes(table: Table, system: str | None) -> tuple[pa.DictionaryArray, pa.DictionaryArray]:
    texts, systems = table.codes("code"), table.text("system")
    names = systems.dictionary.to_pylist()
    read = [icd_named(name) if name else None for name in names]
    wrong = np.array([name is None for name in read] + [False], bool)[_indices(systems, len(names))]
    if wrong.any():
        row = int(np.argmax(wrong))
        raise table.fault(row, "system", f"there is {systems[row].as_py()!r}; it must be ICD9 or ICD10")
    lonely = _null(texts) & ~_null(systems)
    if lonely.any():
        raise table.fault(int(np.argmax(lonely)), "system", "there is a system but no code")
    told = pa.array([*read, system], pa.string()).take(pa.array(_indices(systems, len(names))))
    return texts, words(told)


def _ages(
    table: Table, person: np.ndarray, visit: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    """(age of each patient or None, age at each visit). An `age` that moves between visits is that at each."""
    ages, at_visit = numbers(table, "age"), numbers(table, VISIT_AGE)
    for name, values in (("age", ages), (VISIT_AGE, at_visit)):
        wrong = (values < 0) | (values > OLDEST_AGE)
        if wrong.any():
            raise table.fault(int(np.argmax(wrong)), name, f"an age must be between 0 and {OLDEST_AGE:.0f} years")
        _refuse_many(table, name, values, visit, first)
    of_person = ages[first_rows(person, int(person.max()) + 1)]
    moves = ~_same(ages, of_person[person])
    moving = np.zeros(len(of_person), bool)
    moving[person[moves]] = True
    visit_age = np.where(moving[person[first]], ages[first], at_visit[first])
    last = np.full(len(of_person), np.nan)
    order = np.arange(len(first))
    last[person[first][order]] = ages[first][order]  # visits stand in order, so the last one stays
    return np.where(moving, last, of_person), visit_age


def _sexes(table: Table, person: np.ndarray, first: np.ndarray) -> list[str]:
    texts = _one(table, "sex", person, first)
    found = []
    for row, text in zip(first.tolist(), texts.to_pylist(), strict=True):
        sex = _SEXES.get((text or "").strip().lower())
        if sex is None:
            raise table.fault(row, "sex", f"there is {text!r}; it must be F, M or U (unknown)")
        found.append(sex)
    return found


def _one(table: Table, name: str, group: np.ndarray, first: np.ndarray) -> pa.DictionaryArray:
    """The one text that the rows of each group share."""
    texts = table.text(name)
    _refuse_many(table, name, _indices(texts, len(texts.dictionary)), group, first)
    return texts.take(pa.array(first))


def _refuse_many(
    table: Table, name: str, values: np.ndarray, group: np.ndarray, first: np.ndarray, what: str = _DIFFERS
) -> None:
    """Raises InputError where rows of one group differ."""
    grouped = group >= 0
    differs = np.zeros(len(values), bool)
    differs[grouped] = ~_same(values[grouped], values[first[group[grouped]]])
    if differs.any():
        raise table.fault(int(np.argmax(differs)), name, what)


def _refuse_disorder(table: Table, person: np.ndarray, time: np.ndarray, row: np.ndarray) -> None:
    told = np.flatnonzero(~np.isnat(time))  # visits stand in order of person and number
    later = (person[told][1:] == person[told][:-1]) & (time[told][1:] < time[told][:-1])
    if later.any():
        raise table.fault(row[told][1:][later][0], "time", "this visit lies before the one that is numbered before it")


def _same(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left == right) | ((left != left) & (right != right))


def _null(column: pa.DictionaryArray) -> np.ndarray:
    return np.asarray(column.is_null())


def _indices(column: pa.DictionaryArray, null: int) -> np.ndarray:
    return column.indices.fill_null(null).to_numpy(zero_copy_only=False).astype(np.int64)


def _is_profile(name: str) -> bool:
    return name not in VISITS_TABLE_COLUMNS and name != "visit_id" and not name.startswith("visit.")

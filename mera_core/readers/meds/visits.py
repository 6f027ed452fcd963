"""Which MEDS events make a visit: those of one name, an admission and its discharge, or diagnoses near in time.

Boundary: columns of events in, stays out; knows no files and no code set. Visits are told by a column such as hadm_id. An
admission that names no visit makes one with the discharge that follows it. Diagnoses that name no visit belong to the admission
within which they are dated, at a discharge to the one that ends; those of none are grouped by time: one more than a gap after
the one before it begins a new visit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mera_core.readers.common.base import ImportReport
from mera_core.readers.common.keyed import earliest, holding
from mera_core.readers.meds.codes import Kind
from mera_core.readers.meds.tables import NONE, Gathered

_NEVER = np.iinfo(np.int64).min


@dataclass
class Stays:
    """m visits, and for each of the `rows` that belong to one its index.

    left: microsecond up to which diagnoses that name no visit belong to it; before its time where it holds none of them.
    """

    rows: np.ndarray
    stay: np.ndarray
    person: np.ndarray
    time: np.ndarray
    order: np.ndarray
    left: np.ndarray


def named_visits(events: Gathered, entry: np.ndarray) -> Stays:
    """Visits that a column names. A visit's time is its admission's, or its first diagnosis's, or its first event's.

    entry: rows of the diagnoses.
    """
    diagnosed = np.zeros(len(events.code), dtype=bool)
    diagnosed[entry] = True
    of_visit = diagnosed | np.isin(events.kinds, (Kind.START, Kind.END, Kind.VISIT_WORD))
    rows = np.flatnonzero(of_visit & (events.visit != NONE))
    number, names = pd.factorize(events.visit[rows])
    width = max(len(names), 1)
    stay, first = pd.factorize(events.person[rows].astype(np.int64) * width + number)
    starts, time = events.kinds[rows] == Kind.START, events.time[rows]
    found = earliest(time[starts], stay[starts], len(first))
    for others in (diagnosed[rows], ~starts):
        found = np.where(np.isnat(found), earliest(time[others], stay[others], len(first)), found)
    order = names[first % width] if len(names) else first
    ends = (events.kinds[rows] == Kind.END) & ~np.isnat(time)
    left = np.full(len(first), _NEVER)
    np.maximum.at(left, stay[ends], time[ends].astype(np.int64))
    return Stays(rows, stay, first // width, found, order.astype(np.int64), left)


def paired_visits(events: Gathered, gap: np.timedelta64, report: ImportReport) -> Stays:
    """Visits of the admissions that name none, each with the discharge that closes it: the next that closes no later one.

    An admission without a discharge holds what is dated within the gap after it. What makes no visit is counted.
    """
    loose = np.isin(events.kinds, (Kind.START, Kind.END)) & (events.visit == NONE)
    undated = loose & np.isnat(events.time)
    report.set_aside("admissions and discharges without a date, that name no visit", int(undated.sum()))
    rows = np.flatnonzero(loose & ~undated)
    rows = rows[np.lexsort((events.kinds[rows] == Kind.START, events.time[rows], events.person[rows]))]
    starts = events.kinds[rows] == Kind.START
    stay = _paired(events.person[rows].tolist(), events.time[rows].tolist(), starts.tolist())
    lost = stay < 0
    report.set_aside("discharges without an admission, that name no visit", int(lost.sum()))
    begun, time = rows[starts], events.time[rows].astype(np.int64)
    left = events.time[begun].astype(np.int64) + gap.astype(np.int64)
    closing = ~starts & ~lost
    left[stay[closing]] = time[closing]
    return Stays(rows[~lost], stay[~lost], events.person[begun], events.time[begun], begun, left)


def _paired(person: list[int], time: list[int], starts: list[bool]) -> np.ndarray:
    """For each event of a person, the ends of a moment first, the number of its visit; visits may be nested.

    An end that nothing began before closes a visit that begins with it; where there is none, its number is -1.
    """
    found, begun = [], 0
    of, open_, lone = None, [], []
    for who, when, start in zip(person, time, starts, strict=True):
        if who != of:
            of, open_, lone = who, [], []
        if not start:
            if not open_:
                lone.append((when, len(found)))
            found.append(open_.pop() if open_ else -1)
            continue
        if lone and lone[-1][0] == when:
            found[lone.pop()[1]] = begun
        else:
            open_.append(begun)
        found.append(begun)
        begun += 1
    return np.array(found, dtype=np.int64)


def together(first: Stays, second: Stays) -> Stays:
    """Both, the visits of the second numbered after those of the first."""
    return Stays(
        np.concatenate([first.rows, second.rows]),
        np.concatenate([first.stay, second.stay + len(first.person)]),
        *(
            np.concatenate([getattr(first, name), getattr(second, name)])
            for name in ("person", "time", "order", "left")
        ),
    )


def within(events: Gathered, rows: np.ndarray, admitted: Stays) -> np.ndarray:
    """For each of the rows the admission of the same person within which it is dated; -1 where none is.

    Of several the latest begun of those whose discharge it is dated at, else the latest begun.
    """
    time = admitted.time.astype(np.int64)
    stays = np.flatnonzero(~np.isnat(admitted.time) & (admitted.left >= time))
    stays = stays[np.argsort(time[stays], kind="stable")]
    ended = stays[np.isin(stays, admitted.stay[events.kinds[admitted.rows] == Kind.END])]
    who, asked = events.person[rows], events.time[rows].astype(np.int64)
    found = np.full(len(rows), -1)
    for these, begun in ((stays, time[stays]), (ended, admitted.left[ended])):
        at = holding(admitted.person[these], begun, admitted.left[these], who, asked)
        found[at >= 0] = these[at[at >= 0]]
    return found


def grouped_by_gap(events: Gathered, rows: np.ndarray, gap: np.timedelta64) -> Stays:
    """Visits of the diagnoses that name none, by time."""
    rows = rows[np.lexsort((events.time[rows], events.person[rows]))]
    person, time = events.person[rows], events.time[rows]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (person[1:] != person[:-1]) | (time[1:] - time[:-1] > gap)
    return Stays(rows, np.cumsum(new) - 1, person[new], time[new], rows[new], time[new].astype(np.int64))

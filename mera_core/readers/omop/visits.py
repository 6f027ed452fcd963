"""OMOP's visits, and those made of the conditions that name none; knows no codes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mera_core.readers.common.assemble import Visits
from mera_core.readers.common.base import ImportReport
from mera_core.readers.common.delimited import Delimited
from mera_core.readers.common.keyed import (
    NOWHERE,
    holding,
    ids_in_order,
    in_words,
    numbers,
    remark_backwards,
    replaced,
    rows_of,
    taken,
    times,
    years,
)

_VISIT_KIND = {
    "9201": "inpatient",
    "9202": "outpatient",
    "9203": "emergency",
    "262": "emergency",
    "32037": "intensive care",
}


class Stays:
    """The visits of the source, and those made of conditions that name none."""

    def __init__(self, person: Delimited, visit: Delimited, report: ImportReport) -> None:
        self.owner = rows_of(visit["person_id"], person["person_id"])
        self.visit = visit
        self.time = either(visit, "visit_start_datetime", "visit_start_date")
        self.ended = times(visit, "visit_end_date")
        last = self.ended.astype("datetime64[D]")
        self.birth, self.exact = _births(person)
        self.faults = {
            "visit's person not in person": self.owner < 0,
            "no date": np.isnat(self.time),
            "visit before birth": self._unborn(self.owner, self.time),
        }
        self.sound = ~np.logical_or.reduce(list(self.faults.values()))
        for reason, mask in self.faults.items():
            report.set_aside(f"visits: {reason}", int(mask.sum()))
        # A moment in UTC may fall on another day than the date, which has no zone.
        self.day = either(visit, "visit_start_date", "visit_start_datetime").astype("datetime64[D]")
        backwards = self.sound & (last < self.day)
        remark_backwards(report, "visits", backwards, visit, "visit_end_date")
        self.days = np.where(np.isnat(last) | backwards, -1, (last - self.day).astype(np.int64))
        self.made_owner, self.made_time = np.zeros(0, np.int64), np.zeros(0, "datetime64[us]")

    def ages(self, owner: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Years of each person at a time, NaN where unknown."""
        age = years(np.append(self.birth, np.datetime64("NaT"))[owner], time)
        return np.where(age > 130, np.nan, age)

    def _unborn(self, owner: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Whether a time lies before the birth, by more than a year where that is not known to the day."""
        return self.ages(owner, time) < np.where(np.append(self.exact, False)[owner], -0.01, -1.01)

    def place(self, owner: np.ndarray, date: np.ndarray, row: np.ndarray, lonely: np.ndarray) -> tuple[np.ndarray, int]:
        """(index of each condition's visit among those that are kept, NOWHERE where it has none; visits made)."""
        number = np.append(np.where(self.sound, np.cumsum(self.sound) - 1, NOWHERE), NOWHERE)
        stay = number[row]
        ask = np.flatnonzero(lonely & (owner >= 0) & ~np.isnat(date))
        if not len(ask):
            return stay, 0
        day = date.astype("datetime64[D]").astype(np.int64)
        stay[ask] = number[self._holding(owner[ask], day[ask])]
        left = ask[stay[ask] < 0]
        left = left[~self._unborn(owner[left], date[left])]
        keys, index = np.unique(np.stack([owner[left], day[left]]), axis=1, return_inverse=True)
        stay[left] = self.sound.sum() + index.reshape(-1)
        self.made_owner, self.made_time = keys[0], keys[1].astype("datetime64[D]").astype("datetime64[us]")
        return stay, keys.shape[1]

    def _holding(self, owner: np.ndarray, day: np.ndarray) -> np.ndarray:
        """Row of the person's latest visit that begins on or before a day and ends on or after it, else NOWHERE."""
        rows = np.flatnonzero(self.sound)
        start = self.day[rows].astype(np.int64)
        at = holding(self.owner[rows], start, start + np.maximum(self.days[rows], 0), owner, day)
        return np.append(rows, NOWHERE)[at]

    def visits(self) -> Visits:
        """Those of the source, then those made of conditions."""
        rows = np.flatnonzero(self.sound)
        owner = np.concatenate([self.owner[rows], self.made_owner])
        time = np.concatenate([self.time[rows], self.made_time])
        at = np.append(rows, np.full(len(self.made_owner), NOWHERE))  # a visit that is made has no row
        days = np.append(self.days, -1)[at]
        return Visits(
            owner,
            time,
            ids_in_order(taken(self.visit["visit_occurrence_id"], at).fill_null("0")),
            np.round(np.maximum(self.ages(owner, time), 0), 2),
            {
                "admission": taken(replaced(self.visit.get("visit_concept_id"), _VISIT_KIND.get), at),
                "source": taken(self._said("source", "admitted_from_source_value", "admitting_source_value"), at),
                "discharge": taken(
                    self._said("discharge", "discharged_to_source_value", "discharge_to_source_value"), at
                ),
                "stay": pa.array(days, mask=days < 0).cast(pa.string()),
            },
            end=np.concatenate([self.ended[rows], self.made_time]),
        )

    def _said(self, kind: str, name: str, earlier: str) -> pa.DictionaryArray:
        return in_words(self.visit.get(name if name in self.visit else earlier), kind)


def _births(person: Delimited) -> tuple[np.ndarray, np.ndarray]:
    """(birth or the middle of what is known of it, whether it is known to the day) of each person."""
    told = times(person, "birth_datetime")
    year, month, day = (numbers(person, f"{part}_of_birth") for part in ("year", "month", "day"))
    known = ~np.isnan(year) & (year > 0)
    months = np.where(np.isnan(month), 7, month) - 1
    days = np.where(np.isnan(day), np.where(np.isnan(month), 1, 15), day) - 1
    start = (np.where(known, year, 1970) - 1970).astype(np.int64).astype("datetime64[Y]").astype("datetime64[M]")
    made = (start + months.astype(np.int64)).astype("datetime64[D]") + days.astype(np.int64)
    made = np.where(known, made, np.datetime64("NaT", "D")).astype("datetime64[us]")
    return np.where(np.isnat(told), made, told), ~np.isnat(told) | ~np.isnan(day)


def either(table: Delimited, first: str, second: str) -> np.ndarray:
    """The times of one column; where it tells none, those of the other."""
    told = times(table, first)
    return np.where(np.isnat(told), times(table, second), told)

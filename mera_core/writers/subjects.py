"""What MEDS wants of a person: a whole number for a name, a part of the data, and a time for every visit.

Boundary: ids and times in, arrays out; knows no file. The rules depend on one person alone, so that a dataset and
predictions that are written at different times agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mera_core.common.errors import InputError
from mera_core.readers.uci_diabetes130 import uci_split

SPLITS = {"train": "train", "validation": "tuning", "test": "held_out"}
_DAY = np.timedelta64(86_400_000_000, "us")
_EPOCH = np.datetime64("1970-01-01", "us")
_LARGEST = 2**63 - 1


def subject_number(identity: str) -> int:
    """The number itself where the id is one, else the first 63 bits of its SHA-256."""
    if (
        identity.isascii()
        and identity.isdecimal()
        and str(int(identity[:20])) == identity
        and int(identity) <= _LARGEST
    ):
        return int(identity)
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") >> 1


def subject_numbers(ids: Sequence[str]) -> np.ndarray:
    """int64 [n]. Raises InputError where two people get one number, which is to say almost never."""
    numbers = np.array([subject_number(identity) for identity in ids], dtype=np.int64)
    if len(np.unique(numbers)) != len(numbers):
        raise InputError("two patients would get the same subject_id; give patients ids that are whole numbers.")
    return numbers


def meds_split(identity: str) -> str:
    """'train', 'tuning' or 'held_out', by the rule that every checkpoint here is trained by (`uci_split`)."""
    return SPLITS[uci_split(identity)]


def dated(person: np.ndarray, time: np.ndarray) -> np.ndarray:
    """[m] the times of visits that stand in order, with a time for each that has none.

    Between two dated visits the times are evenly spread, before the first and after the last they are a day apart, and
    those of a person without any date begin in 1970. person: [m] never falling. time: [m] microseconds, NaT where unknown.
    """
    known, at = ~np.isnat(time), np.arange(len(time))
    if known.all():
        return time
    before = np.maximum.accumulate(np.where(known, at, -1))
    after = np.minimum.accumulate(np.where(known, at, len(time))[::-1])[::-1]
    has_before = (before >= 0) & (person[before] == person)
    has_after = after < len(time)
    has_after[has_after] = person[after[has_after]] == person[has_after]
    earlier, later = time[before], time[np.minimum(after, len(time) - 1)]
    first = np.searchsorted(person, person)
    found = _EPOCH + (at - first) * _DAY
    found = np.where(has_after, later - (after - at) * _DAY, found)
    found = np.where(has_before, earlier + (at - before) * _DAY, found)
    parts = np.maximum(after - before, 1)
    between = has_before & has_after
    steps = ((later - earlier).astype(np.int64) // parts).astype("timedelta64[us]")
    found = np.where(between, earlier + steps * (at - before), found)
    return np.where(known, time, found)


def completed(time: np.ndarray, stay: pa.DictionaryArray | None) -> np.ndarray:
    """[m] when visits that began at `time` were complete: after `stay` whole days where that is known, else at once.

    A diagnosis is coded at discharge; to date it at admission would tell a model of the future.
    """
    if stay is None:
        return time
    days = np.array([_days(text) for text in stay.dictionary.to_pylist()] + [0], dtype=np.int64)
    at = stay.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    return time + days[at] * _DAY


def _days(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and int(text) <= 36_525 else 0

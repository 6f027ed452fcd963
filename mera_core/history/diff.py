"""What differs between two histories, in words. Knows patients only."""

from __future__ import annotations

from collections import Counter

from mera_core.history.records import Patient
from mera_core.icd.ontology import Code

_NAMED = 3
_SEXES = {"F": "female", "M": "male", "U": "not stated"}


def history_changes(before: Patient, after: Patient) -> str:
    """What was done to a history, e.g. 'without 401.9; age 60 instead of 72'; "" where the two are the same.

    A code counts as often as visits hold it; where codes are the same, another grouping or order of visits is said.
    """
    if before == after:
        return ""
    held, holds = (Counter(code for visit in each.visits for code in visit.codes) for each in (before, after))
    said = []
    for word, codes in (("with", holds - held), ("without", held - holds)):
        if codes:
            said.append(f"{word} {_named(codes)}")
    if len(before.visits) != len(after.visits):
        said.append(f"{_visits(len(after.visits))} instead of {len(before.visits)}")
    elif not said and [v.codes for v in before.visits] != [v.codes for v in after.visits]:
        said.append("the same codes in another order")
    else:
        for number, (old, new) in enumerate(zip(before.visits, after.visits, strict=True), start=1):
            if keys := [key for key in {**old.details, **new.details} if old.details.get(key) != new.details.get(key)]:
                words = (f"{key} {new.details.get(key, 'not told')}" for key in keys)
                said.append(f"visit {number}: {', '.join(words)}")
    if [(v.time, v.age) for v in before.visits] != [(v.time, v.age) for v in after.visits] and len(
        before.visits
    ) == len(after.visits):
        said.append("other dates")
    if before.age != after.age:
        said.append(f"age {_age(after.age)} instead of {_age(before.age)}")
    if before.sex != after.sex:
        said.append(f"sex {_SEXES[after.sex]} instead of {_SEXES[before.sex]}")
    return "; ".join(said) or "other details"


def _named(codes: Counter) -> str:
    names = [code.code if isinstance(code, Code) else str(code) for code in codes.elements()]
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _visits(count: int) -> str:
    return f"{count} visit" if count == 1 else f"{count} visits"


def _age(age: float | None) -> str:
    return "not stated" if age is None else f"{age:.0f}"

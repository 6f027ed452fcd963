"""What a record says of a visit beside its codes, as short facts: "discharge: home", "stay: 4". Knows no tokens and no model."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence

from mera_core.history.records import Patient, Visit

AGE = "age"
"""The key under which a visit's age, in decades, is a fact as well."""
EDGES = (0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 25, 30, 40, 50, 60, 75, 100, 150, 200, 300, 500, 1000)
"""Where the bins of numbers begin; a fact names the beginning of its bin."""
LEAST_VISITS = 30
"""Training visits that must have a fact for a model to be told it."""
UNTOLD = ("0", "no")
"""Values that are no fact: most visits have nothing of most kinds, and a visit's tokens are few."""


def facts(visit: Visit, keys: Sequence[str]) -> list[str]:
    """The facts of a completed visit under these keys of `Visit.details`, in their order.

    A value with commas holds several ("metformin steady, glipizide up"). Numbers are put in the bins of `EDGES`.
    """
    found = []
    for key in keys:
        if key == AGE:
            if visit.age is not None:
                found.append(f"{AGE}: {int(visit.age // 10) * 10}s")
            continue
        for part in visit.details.get(key, "").split(","):
            value = part.strip().lower()
            number = _number(value)
            if number is not None:
                value = str(EDGES[max(0, bisect_right(EDGES, number) - 1)])
            if value and value not in UNTOLD:
                found.append(f"{key}: {value}")
    return found


def known_facts(patients: Iterable[Patient], keys: Sequence[str], least: int = LEAST_VISITS) -> tuple[str, ...]:
    """The facts that at least so many visits of these patients have, sorted."""
    counts = Counter(fact for patient in patients for visit in patient.visits for fact in set(facts(visit, keys)))
    return tuple(sorted(fact for fact, count in counts.items() if count >= least))


def nearest(fact: str, known: Iterable[str]) -> str | None:
    """The fact itself where it is known; of a number the highest known bin below it; None where there is neither.

    >>> nearest("stay: 40", {"stay: 4", "stay: 11"}), nearest("source: comet", {"source: clinic"})
    ('stay: 11', None)
    """
    if fact in known:
        return fact
    key, _, value = fact.rpartition(": ")
    number = _number(value)
    if number is None:
        return None
    lower = (f"{key}: {edge}" for edge in reversed(EDGES) if 0 < edge < number)
    return next((each for each in lower if each in known), None)


def _number(value: str) -> float | None:
    if not value.isascii() or not value.replace(".", "", 1).isdigit():
        return None
    return float(value)

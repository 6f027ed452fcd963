"""How far readers agree: with the tree, and with each other (Cohen's and Fleiss' kappa). Labels and counts in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two readers on the same items beyond chance (Cohen 1960).

    (p_o − p_e) / (1 − p_e) with p_o the share of equal verdicts and p_e the one expected of each reader's own habits.
    None without items, or where both always give one and the same verdict (chance alone explains it all).
    Raises ValueError for lists of different length.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} verdicts of one reader and {len(second)} of the other.")
    if not first:
        return None
    size = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / size
    left, right = Counter(first), Counter(second)
    expected = sum(left[verdict] * right[verdict] for verdict in left) / size**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def fleiss_kappa(items: Sequence[Sequence[Hashable]]) -> float | None:
    """Agreement of several readers beyond chance (Fleiss 1971); each item holds one verdict a reader.

    None without items, or where all verdicts are the same.
    Raises ValueError where items differ in their number of verdicts or have fewer than two.
    """
    if not items:
        return None
    readers = len(items[0])
    if readers < 2 or any(len(item) != readers for item in items):
        raise ValueError("Every item needs the same number of verdicts, at least two.")
    counts = [Counter(item) for item in items]
    pairs = readers * (readers - 1)
    observed = sum(sum(n * (n - 1) for n in count.values()) / pairs for count in counts) / len(items)
    total = Counter(verdict for item in items for verdict in item)
    expected = sum((n / (readers * len(items))) ** 2 for n in total.values())
    return None if expected == 1 else (observed - expected) / (1 - expected)


def kappa_of_readers(verdicts: Mapping[str, Mapping[Any, Hashable]]) -> tuple[float | None, int]:
    """Kappa over the items that every reader judged, and their number: Cohen's for two readers, Fleiss' for more.

    verdicts: reader -> item -> verdict. None with fewer than two readers.
    """
    if len(verdicts) < 2:
        return None, 0
    shared = sorted(set.intersection(*(set(of_one) for of_one in verdicts.values())), key=str)
    rows = [[of_one[item] for of_one in verdicts.values()] for item in shared]
    if len(verdicts) == 2:
        return cohen_kappa([row[0] for row in rows], [row[1] for row in rows]), len(shared)
    return fleiss_kappa(rows), len(shared)

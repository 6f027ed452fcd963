"""How far readers agree: with the tree, and with each other (Cohen's and Fleiss' kappa). Labels and counts in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from sklearn.metrics import cohen_kappa_score


def fleiss_kappa(items: Sequence[Sequence[Hashable]]) -> float:
    """Agreement of several readers beyond chance (Fleiss 1971); each item holds one verdict a reader, not all the same.

    Raises ValueError where items differ in their number of verdicts or have fewer than two.
    """
    readers = len(items[0])
    if readers < 2 or any(len(item) != readers for item in items):
        raise ValueError("Every item needs the same number of verdicts, at least two.")
    counts = [Counter(item) for item in items]
    pairs = readers * (readers - 1)
    observed = sum(sum(n * (n - 1) for n in count.values()) / pairs for count in counts) / len(items)
    total = Counter(verdict for item in items for verdict in item)
    expected = sum((n / (readers * len(items))) ** 2 for n in total.values())
    return (observed - expected) / (1 - expected)


def kappa_of_readers(verdicts: Mapping[str, Mapping[Any, Hashable]]) -> tuple[float | None, int]:
    """Kappa over the items that every reader judged, and their number: Cohen's for two readers, Fleiss' for more.

    verdicts: reader -> item -> verdict. None with fewer than two readers, without such items, and where all verdicts are the
    same, which chance alone explains.
    """
    if len(verdicts) < 2:
        return None, 0
    shared = sorted(set.intersection(*(set(of_one) for of_one in verdicts.values())), key=str)
    rows = [[of_one[item] for of_one in verdicts.values()] for item in shared]
    if len({verdict for row in rows for verdict in row}) < 2:
        return None, len(shared)
    kappa = cohen_kappa_score(*zip(*rows, strict=True)) if len(verdicts) == 2 else fleiss_kappa(rows)
    return float(kappa), len(shared)

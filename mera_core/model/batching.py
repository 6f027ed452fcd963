"""Sequences of unlike length -> batches that waste little on padding. Lengths in, indices out; knows no tokens."""

from __future__ import annotations

from collections.abc import Sequence

SLACK = 1.25  # the longest of a batch over its shortest
FEW = 16  # tokens of padding that cost less than one more pass


def by_length(lengths: Sequence[int], rows: int, tokens: int) -> list[list[int]]:
    """Indices in batches of like length, shortest first; equal lengths keep their order, so that batches never vary.

    rows: most of a batch. tokens: most of a batch with its padding; a longer sequence has a batch of its own.

    >>> by_length([3, 90, 4, 3], rows=8, tokens=1000)
    [[0, 3, 2], [1]]
    """
    batches: list[list[int]] = []
    shortest = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        fits = batches and len(batches[-1]) < rows and (len(batches[-1]) + 1) * length <= tokens
        if fits and length <= SLACK * shortest + FEW:
            batches[-1].append(index)
        else:
            batches.append([index])
            shortest = length
    return batches

"""Two Rankings side by side: the lists joined, differences first, and the ranking mass of each medical field.

Boundary: knows rankings and chapters; no screen, no model. The rankings may be of two histories or of two checkpoints
with different label spaces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mera_core.icd.chapters import FIELDS, field_of
from mera_core.icd.ontology import Code
from mera_core.ranking.listing import strengths
from mera_core.ranking.ranking import Ranking


@dataclass(frozen=True, slots=True)
class Side:
    """Where a code stands in one of the rankings: rank from 1, score 0 to 100, share of ranking mass."""

    rank: int
    strength: float
    share: float
    above: bool
    recurrent: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """A code in both rankings; a side is None where that checkpoint does not rank the code."""

    code: Code
    first: Side | None
    second: Side | None

    @property
    def climbed(self) -> int | None:
        """Places won from the first ranking to the second (negative: lost)."""
        return self.first.rank - self.second.rank if self.first and self.second else None

    @property
    def gained(self) -> float | None:
        """Points of score won from the first ranking to the second (negative: lost)."""
        return self.second.strength - self.first.strength if self.first and self.second else None

    @property
    def crossed(self) -> bool:
        """Whether exactly one of the rankings predicts the code."""
        return bool(self.first and self.first.above) != bool(self.second and self.second.above)

    @property
    def best_rank(self) -> int:
        """The better of the two ranks."""
        return min(side.rank for side in (self.first, self.second) if side)


class Joined(Mapping[Code, Pair]):
    """Every code of either ranking with its place in both, in the order of the second, then of the first.

    A pair is made when it is asked for: a screen shows a few dozen of a label space of thousands.
    """

    def __init__(self, first: Ranking, second: Ranking):
        self._rankings = (first, second)
        self._places = [{code: place for place, code in enumerate(ranking.codes)} for ranking in self._rankings]
        self._strengths = [strengths(ranking) for ranking in self._rankings]

    def __getitem__(self, code: Code) -> Pair:
        sides = self._side(0, code), self._side(1, code)
        if sides == (None, None):
            raise KeyError(code)
        return Pair(code, *sides)

    def __iter__(self) -> Iterator[Code]:
        first, second = self._rankings
        yield from dict.fromkeys((*second.codes, *first.codes))

    def __len__(self) -> int:
        return len(self._places[0].keys() | self._places[1].keys())

    def leading(self, top: int) -> list[Pair]:
        """The codes among the `top` of either ranking, or predicted by one."""
        second_then_first = [ranking.codes[: max(top, ranking.predicted)] for ranking in reversed(self._rankings)]
        return [self[code] for code in dict.fromkeys(code for codes in second_then_first for code in codes)]

    def _side(self, which: int, code: Code) -> Side | None:
        ranking, place = self._rankings[which], self._places[which].get(code)
        if place is None:
            return None
        return Side(
            place + 1,
            float(self._strengths[which][place]),
            float(ranking.share[place]),
            place < ranking.predicted,
            bool(ranking.recurrent[place]),
        )


def join(first: Ranking, second: Ranking) -> Joined:
    """Both rankings as one mapping from code to its place in each."""
    return Joined(first, second)


def differences_first(joined: Joined, top: int) -> list[Pair]:
    """The codes among the `top` of either ranking or predicted by one; the largest difference stands first.

    Codes that only one ranking predicts come first, then codes that only one ranks at all; within each by how far the
    score moved, then by the better rank.
    """
    return sorted(
        joined.leading(top),
        key=lambda pair: (
            not pair.crossed,
            pair.gained is not None,
            -abs(pair.gained or 0.0),
            pair.best_rank,
            pair.code,
        ),
    )


def field_masses(first: Ranking, second: Ranking) -> list[tuple[str, float, float]]:
    """(field, share in the first, share in the second) of each medical field, largest of the two together first.

    field: a key of `chapters.FIELDS`, so that ICD-9-CM and ICD-10-CM stand side by side. Shares of ranking mass, 0 to 1.
    """
    sums: list[dict[str, list[float]]] = []
    for ranking in (first, second):
        found: dict[str, list[float]] = {}
        for code, share in zip(ranking.codes, ranking.share.tolist(), strict=True):
            found.setdefault(field_of(code), []).append(share)
        sums.append(found)
    rows = [(field, *(math.fsum(side.get(field, ())) for side in sums)) for field in FIELDS]
    return sorted((row for row in rows if row[1] or row[2]), key=lambda row: (-row[1] - row[2], row[0]))


def overlap(first: Ranking, second: Ranking, top: int) -> int:
    """How many codes the first `top` places of both rankings share."""
    return len(set(first.codes[:top]) & set(second.codes[:top]))

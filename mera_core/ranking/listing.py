"""A Ranking as the lines of a list: scored from 0 to 100, filtered, rolled up to categories. Pure; no screen, no model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from mera_core.icd.chapters import field_of
from mera_core.icd.ontology import Code, Ontology
from mera_core.ranking.ranking import Ranking

CATEGORY = 3  # level of the three-character categories in both systems
MIDDLE = 50.0  # the cut-off on the scale of `strengths`


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the list.

    rank: place in the whole ranking, from 1; in a list rolled up to categories, the place among those. strength: the
    score from 0 to 100, the cut-off at 50. probability: calibrated, of the code, or at least that where `members` > 1.
    members: ranked codes that a category stands for.
    """

    rank: int
    code: Code
    strength: float
    share: float
    above: bool
    recurrent: bool
    probability: float | None = None
    members: int = 1


@dataclass(frozen=True, slots=True)
class Filter:
    """Which lines to show. field: a key of `chapters.FIELDS`, None for all. roll_up: to three-character categories."""

    field: str | None = None
    new_only: bool = False
    roll_up: bool = False

    def keeps(self, line: Line) -> bool:
        """Whether a line passes (rolling up is not this method's business)."""
        return not (self.new_only and line.recurrent) and self.field in (None, field_of(line.code))


def points(margin: np.ndarray) -> np.ndarray:
    """Scores from 0 to 100 with the cut-off at 50: the logistic of their distance to it, in logits. No probability."""
    return 100 / (1 + np.exp(-np.clip(np.asarray(margin, np.float64), -500, 500)))


def strengths(ranking: Ranking) -> np.ndarray:
    """The score of each code [C] from 0 to 100, the cut-off at 50."""
    return points(np.asarray(ranking.scores, np.float64) - ranking.cut)


def lines(ranking: Ranking, chosen: Filter | None = None, most: int | None = None) -> list[Line]:
    """The lines that `chosen` keeps, best first: all above the cut-off, and the rest up to `most` in all."""
    chosen = chosen or Filter()
    source = rolled_up(ranking) if chosen.roll_up else _all(ranking)
    kept: list[Line] = []
    for line in source:
        if most is not None and len(kept) >= most and not line.above:
            break
        if chosen.keeps(line):
            kept.append(line)
    return kept


def rolled_up(ranking: Ranking) -> list[Line]:
    """One line a category, in the order of each one's best code; shares are added up, the rest is the best code's.

    A category is recurrent when one of its codes is; its probability is at least its best code's.
    """
    found: dict[Code, Line] = {}
    for line in _all(ranking):
        category = _category(line.code)
        known = found.get(category)
        if known is None:
            found[category] = replace(line, rank=len(found) + 1, code=category)
        else:
            found[category] = replace(
                known,
                share=known.share + line.share,
                recurrent=known.recurrent or line.recurrent,
                members=known.members + 1,
            )
    return list(found.values())


def _all(ranking: Ranking) -> Iterator[Line]:
    strength = strengths(ranking).tolist()
    probability = ranking.probability.tolist() if ranking.probability is not None else None
    share, recurrent, predicted = ranking.share.tolist(), ranking.recurrent.tolist(), ranking.predicted
    for place, code in enumerate(ranking.codes):
        yield Line(
            place + 1,
            code,
            strength[place],
            share[place],
            place < predicted,
            recurrent[place],
            probability[place] if probability else None,
        )


@cache
def _category(code: Code) -> Code:
    """The category of a code; the code itself where it stands above or beside the categories."""
    return Ontology.load().ancestor_at(code, CATEGORY) or code

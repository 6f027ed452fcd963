"""What each past code and visit does to the ranking: the history is ranked again without it, all in one batch.

Boundary: asks the engine, knows no screen. This is sensitivity of the model's score, not a cause of a diagnosis: two
codes that say the same can each seem to matter little, and the effects do not add up to the score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.model.sequence import Encoded
from mera_core.ranking.listing import points

MOST_PARTS = 256  # codes and visits that are left out in turn; of a longer history the newest
BATCH = 128
STEP = 16  # histories between two words on the progress: about a second with the bundled checkpoint on a slow core


@dataclass(frozen=True, slots=True)
class Effect:
    """What one code, or one visit as a whole, does to the score and rank of a diagnosis.

    visit: 0-based. place: 0-based place in the visit, None for the whole visit. code: as it stands in the history, ""
    for a visit. added: points of score (0 to 100, the cut-off at 50) that the diagnosis has more with it than without it;
    negative where it speaks against the diagnosis. rank_without: rank of the diagnosis where it is left out. Both are
    None where nothing that can be ranked would be left.
    """

    visit: int
    place: int | None
    code: Code | str
    added: float | None
    rank_without: int | None

    @property
    def whole_visit(self) -> bool:
        return self.place is None


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """The scores of a history, and of the same history without each code and each visit.

    labels: the label space. parts: (visit, place or None, code) in the order of the history, each visit before its codes.
    rows: for each part its row of the arrays, None where nothing would be left. margins: [N, C] distance of each score to
    the cut-off, in logits, as the list is sorted by; row 0 is the whole history. untested: how many older parts of a very
    long history were not left out in turn.
    """

    labels: tuple[Code, ...]
    parts: tuple[tuple[int, int | None, Code | str], ...]
    rows: tuple[int | None, ...]
    margins: np.ndarray
    untested: int = 0

    def strength(self, code: Code) -> float:
        """The score (0 to 100) of a diagnosis with the whole history."""
        return float(points(self.margins[0, self._column(code)]))

    def rank(self, code: Code) -> int:
        """The rank of a diagnosis with the whole history."""
        return int(self._ranks(self._column(code))[0])

    def of(self, code: Code) -> list[Effect]:
        """The effect of every visit and code on one diagnosis, in the order of the history.

        Raises InputError for a code outside the label space.
        """
        column = self._column(code)
        strength, ranks = points(self.margins[:, column]), self._ranks(column)
        return [
            Effect(visit, place, left_out, None, None)
            if row is None
            else Effect(visit, place, left_out, float(strength[0] - strength[row]), int(ranks[row]))
            for (visit, place, left_out), row in zip(self.parts, self.rows, strict=True)
        ]

    def _column(self, code: Code) -> int:
        try:
            return self.labels.index(code)
        except ValueError:
            raise InputError(f"{code} is not ranked by this model.") from None

    def _ranks(self, column: int) -> np.ndarray:
        """Rank [N] of a label in each row; equal scores stand in the order of their codes, as in the list."""
        own = self.margins[:, column, None]
        before = (self.margins > own).sum(1) + (self.margins[:, :column] == own).sum(1)
        return before + 1


def leave_one_out(engine: Engine, patient: Patient, told: Callable[[float], None] | None = None) -> Sensitivity:
    """Rank a history, and again without each of its codes and without each of its visits, in one batch.

    What is left out is left out of the history as it was typed, which is then read anew: of two codes that are read as
    one broader code, leaving out either changes nothing. Histories that are read alike are ranked once. Of a history
    with more than `MOST_PARTS` codes and visits, only the newest are left out.

    told: is given the share that is done after every few histories, for a progress bar; what it raises ends the work.

    Raises:
        InputError: the history can't be ranked (see `Engine.rank`).
    """
    whole, _ = engine.read_history(patient)
    if not engine.label_space or not whole.visits:
        engine.rank(patient)  # says why, in its own words
    row_of: dict[Patient, int] = {whole: 0}
    every = tuple(_parts(patient))
    parts = every[-MOST_PARTS:]
    rows: list[int | None] = []
    read_as = [_read_alone(engine, patient, visit) for visit in patient.visits]
    for visit, place, _ in parts:
        rest = () if place is None else _read_alone(engine, patient, _without(patient.visits[visit], place))
        visits = tuple(chain.from_iterable((*read_as[:visit], rest, *read_as[visit + 1 :])))
        rows.append(row_of.setdefault(replace(whole, visits=visits), len(row_of)) if visits else None)
    read = [(history, engine.encode(history)) for history in row_of]
    scores, eov = engine.scores(read, batch_size=BATCH) if told is None else _in_steps(engine, read, told)
    held = engine.held([history for history, _ in read])
    margins = engine.ranked(scores, eov, held) - eov[:, None]
    return Sensitivity(engine.label_space, parts, tuple(rows), margins, len(every) - len(parts))


def _in_steps(
    engine: Engine, read: list[tuple[Patient, Encoded]], told: Callable[[float], None]
) -> tuple[np.ndarray, np.ndarray]:
    """`Engine.scores`, a few histories at a time; the whole one goes with each, so that what they share is computed once."""
    scores, eov = [], []
    told(0.0)
    for first in range(0, len(read), STEP):
        again = int(first > 0)
        some_scores, some_eov = engine.scores([*read[:again], *read[first : first + STEP]], batch_size=BATCH)
        scores.append(some_scores[again:])
        eov.append(some_eov[again:])
        told(min(1.0, (first + STEP) / len(read)))
    return np.concatenate(scores), np.concatenate(eov)


def _parts(patient: Patient) -> Iterator[tuple[int, int | None, Code | str]]:
    for number, visit in enumerate(patient.visits):
        yield number, None, ""
        for place, code in enumerate(visit.codes):
            yield number, place, code


def _read_alone(engine: Engine, patient: Patient, visit: Visit) -> tuple[Visit, ...]:
    """A visit as the checkpoint reads it, which does not depend on its neighbours; empty where it reads none of it."""
    return engine.read_history(replace(patient, visits=(visit,)))[0].visits


def _without(visit: Visit, place: int) -> Visit:
    return replace(visit, codes=(*visit.codes[:place], *visit.codes[place + 1 :]), positions=())

"""What a record says of a patient up to a visit, as 0/1 features: codes, sex, details, and facts of the past visits."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import sparse

from mera_core.history.details import AGE, LEAST_VISITS, facts, known_facts, nearest
from mera_core.history.records import Patient
from training.baselines.samples import CODES_ALONE, histories

if TYPE_CHECKING:
    from mera_core.model.sequence import SequenceConfig

FUTURE = ("readmitted",)
"""Keys of `Visit.details` that tell what happened after the visit, should a record hold them: never read."""
Feature: TypeAlias = tuple[str, Hashable]  # kind, and code, word or fact


@dataclass(frozen=True)
class Told:
    """Which details a model is told: keys of `Patient.details`, and of `Visit.details` for each past visit.

    profile: whether sex and age, which are no details, are told as well.
    """

    patient: tuple[str, ...] = ()
    visit: tuple[str, ...] = ()
    profile: bool = True

    @classmethod
    def by(cls, sequence: SequenceConfig) -> Told:
        """What a checkpoint is told, by how it puts a history into words."""
        visit = dict.fromkeys((*sequence.visit_details, *sequence.detail_tokens))
        visit.pop(AGE, None)
        return cls(tuple(sequence.patient_details) if sequence.profile else (), tuple(visit), sequence.profile)

    def or_all(self, patients: Iterable[Patient]) -> Told:
        """The same, with every key that these patients' visits have in the place of none; ages and sexes always."""
        held = {key for patient in patients for visit in patient.visits for key in visit.details}
        return replace(self, visit=self.visit or tuple(sorted(held.difference(FUTURE))), profile=True)

    def __str__(self) -> str:
        person = ", ".join([CODES_ALONE, *(["sex", "age"] if self.profile else []), *self.patient])
        return f"{person}; of each past visit {', '.join(self.visit)}" if self.visit else person


@dataclass(frozen=True, eq=False)
class RecordFeatures:
    """The features that training patients have, numbered. A feature is 1 where the history up to a visit has it.

    A code counts in any past visit and again in the newest one, and so do facts: the newest visit's, and those of visits
    before it. Age, in decades, is a fact. A fact that too few training visits have is read as `nearest` reads it.
    """

    told: Told
    index: dict[Feature, int]
    known: frozenset[str]

    @classmethod
    def fit(
        cls,
        patients: Sequence[Patient],
        keys: Sequence[str],
        patient_keys: Sequence[str] = ("ethnicity",),
        least: int = LEAST_VISITS,
    ) -> RecordFeatures:
        """From training patients: facts under `keys` of `Visit.details` that at least so many of their visits have."""
        known = known_facts(patients, (AGE, *keys), least)
        made = cls(Told(tuple(patient_keys), tuple(keys)), {}, frozenset(known))
        seen = {feature for history, _ in histories(patients) for feature in made._of(history)}
        made.index.update((feature, number) for number, feature in enumerate(sorted(seen, key=str)))
        return made

    def numbers(self, history: Patient) -> list[int]:
        """Numbers of a history's features, rising; those that no training patient has are left out."""
        return sorted({self.index[feature] for feature in self._of(history) if feature in self.index})

    def rows(self, histories: Sequence[Patient]) -> sparse.csr_matrix:
        """Float32 0/1 [histories, features]. A history is a patient whose visits are all past."""
        rows = [self.numbers(history) for history in histories]
        ends = np.cumsum([0, *map(len, rows)])
        columns = np.fromiter((number for row in rows for number in row), np.int64, ends[-1])
        return sparse.csr_matrix((np.ones(ends[-1], np.float32), columns, ends), (len(rows), len(self.index)))

    def _of(self, history: Patient) -> Iterator[Feature]:
        yield "sex", history.sex
        for key in self.told.patient:
            if value := history.details.get(key):
                yield f"patient {key}", value
        for back, visit in enumerate(reversed(history.visits)):
            yield from (("code", code) for code in visit.codes)
            if not back:
                yield from (("newest code", code) for code in visit.codes)
            for fact in facts(visit, (AGE, *self.told.visit)):
                if known := nearest(fact, self.known):
                    yield "earlier" if back else "newest", known

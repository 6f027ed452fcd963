"""Baselines without a fitted model: how often a code occurs, and what the patient had before. Two counts, no weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mera_core.history.records import Patient
from mera_core.icd.ontology import Code
from training.baselines.samples import CODES_ALONE, index_of, last_visit, samples


class CodeFrequency:
    """The same ranking for all: the share of training patients' next visits that hold a label."""

    name = "code frequency"
    told = "nothing of the patient"

    def __init__(self, labels: Sequence[Code]):
        self.labels = tuple(labels)
        self.rate = np.zeros(len(self.labels))
        self.settings: dict[str, float | int | str] = {}

    def fit(self, patients: Sequence[Patient], validation: Sequence[Patient] = ()) -> CodeFrequency:
        pairs = samples(patients)
        counts = Counter(code for _, target in pairs for code in set(target.codes))
        self.rate = np.array([counts[code] for code in self.labels]) / len(pairs)
        return self

    def scores(self, patients: Sequence[Patient]) -> np.ndarray:
        return np.tile(self.rate, (len(patients), 1))

    def probability(self, scores: np.ndarray) -> np.ndarray:
        return scores


class CopyThePast:
    """Past codes first, the newest before older ones, then by how often; then the rest by frequency.

    order: "recency" as said; "count" puts how often before how recently. Equal ones stand by frequency.
    """

    name = "copy the past, then frequency"
    told = CODES_ALONE

    def __init__(self, labels: Sequence[Code], order: Literal["recency", "count"] = "recency"):
        self.labels, self.order = tuple(labels), order
        self.settings: dict[str, float | int | str] = {"order": order}
        self._frequency = CodeFrequency(labels)
        self._index = index_of(self.labels)

    def fit(self, patients: Sequence[Patient], validation: Sequence[Patient] = ()) -> CopyThePast:
        self._frequency.fit(patients)
        return self

    def scores(self, patients: Sequence[Patient]) -> np.ndarray:
        scores = self._frequency.scores(patients)  # a rate: never above 1
        for row, patient in enumerate(patients):
            past, _ = last_visit(patient)
            newest = {code: t for t, visit in enumerate(past) for code in visit.codes}
            counts = Counter(code for visit in past for code in set(visit.codes))
            for code, t in newest.items():
                if code in self._index:
                    recency, count = 1 / (len(past) - t), 1 - 1 / (1 + counts[code])
                    first, second = (recency, count) if self.order == "recency" else (count, recency)
                    scores[row, self._index[code]] += 2 + 1e6 * first + 1e2 * second
        return scores

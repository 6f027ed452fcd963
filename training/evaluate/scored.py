"""Patients as a checkpoint ranks them: scores, lists, cuts and probabilities beside the truth. Takes no figures of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from mera_core.engine import Engine
from mera_core.evaluation import metrics
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code
from mera_core.ranking.calibration import Calibration, Calibrations
from training.common.split import histories_and_truth

HEART_FAILURE = {"ICD9": "428", "ICD10": "I50"}
AS_TRAINED = Calibration("platt")  # sigmoid(score - EOV): what the threshold loss makes it


@dataclass(frozen=True, eq=False)
class Scored:
    """N patients with a history and a next visit, as one checkpoint sees them.

    scores: [N, C] logits; eov: [N]; ranked: [N, C], what lists are sorted by in the default order. patients: those that it
    can read.
    """

    engine: Engine
    patients: list[Patient]
    truth: Truth
    scores: np.ndarray
    eov: np.ndarray
    ranked: np.ndarray

    @classmethod
    def of(cls, engine: Engine, patients: Sequence[Patient]) -> Scored:
        """Rank each patient's last visit from all before it; patients that can't be read are left out."""
        histories, truth, kept = histories_and_truth(engine, patients)
        scores, eov = engine.scores(histories)
        return cls(engine, kept, truth, scores, eov, engine.ranked(scores, eov, truth.seen.toarray() > 0))

    def take(self, ids: set[str]) -> Scored:
        """The patients of these ids, in the same order."""
        rows = np.flatnonzero([patient.id in ids for patient in self.patients])
        patients = [self.patients[row] for row in rows]
        return Scored(
            self.engine, patients, self.truth.take(rows), self.scores[rows], self.eov[rows], self.ranked[rows]
        )

    @property
    def margin(self) -> np.ndarray:
        """[N, C] float64: each code's logit minus that of EOV."""
        return self.scores.astype(np.float64) - self.eov[:, None]

    @property
    def held(self) -> np.ndarray:
        """[N, C] bool: the codes that each history holds."""
        return self.truth.seen.toarray() > 0

    @property
    def predicted(self) -> sparse.csr_matrix:
        """The codes above the checkpoint's own cut, as 0/1 sets."""
        return metrics.above_cut(self.ranked, self.eov)

    def in_order(self, order: str) -> Scored:
        """The same patients with lists in another order, a key of `ranking.ORDERS`."""
        return replace(self, ranked=self.engine.ranked(self.scores, self.eov, self.held, order))

    @property
    def calibration(self) -> Calibrations | None:
        """The curves that the checkpoint carries."""
        return self.engine.calibration

    def probability(self) -> np.ndarray:
        """[N, C] as a user sees them, each code's own; without a calibration, sigmoid(margin)."""
        found = self.engine.probability(self.scores, self.eov, self.held)
        return AS_TRAINED.curve(self.margin) if found is None else found

    def event(self, columns: Sequence[int]) -> np.ndarray:
        """[N] probability of the likeliest of some codes."""
        return self.probability()[:, columns].max(1)

    def heart_failure_columns(self) -> list[int]:
        """Labels that are heart failure: ICD-9 428, ICD-10 I50, and all below them."""
        ontology = self.engine.ontology
        return [
            column
            for column, code in enumerate(self.engine.label_space)
            if Code(code.system, HEART_FAILURE[code.system]) in (code, *ontology.ancestors(code))
        ]

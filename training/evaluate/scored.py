"""Patients as a checkpoint ranks them: scores, lists, cuts and probabilities beside the truth. Takes no figures of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from mera_core.engine import Engine
from mera_core.evaluation import metrics
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code
from mera_core.ranking.calibration import Calibration
from mera_core.ranking.ranking import best_first
from training.common.split import histories_and_truth

HEART_FAILURE = {"ICD9": "428", "ICD10": "I50"}
AS_TRAINED = Calibration("platt")  # sigmoid(score - EOV): what the threshold loss makes it


@dataclass(frozen=True, eq=False)
class Scored:
    """N patients with a history and a next visit, as one checkpoint sees them.

    scores: [N, C] logits; eov: [N]; ranked: [N, C], what lists are sorted by. patients: those that it can read.
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
        return cls(engine, kept, truth, scores, eov, engine.ranked(scores, eov))

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
    def predicted(self) -> sparse.csr_matrix:
        """The codes above the checkpoint's own cut, as 0/1 sets."""
        return metrics.above_cut(self.ranked, self.eov)

    @property
    def calibration(self) -> Calibration | None:
        """The curve that the checkpoint carries."""
        return self.engine.calibration

    def probability(self) -> np.ndarray:
        """[N, C] as a user sees them: calibrated and never rising down the list; without a curve, sigmoid(margin)."""
        if self.calibration is None:
            return AS_TRAINED.curve(self.margin)
        return self.calibration.of_lists(self.margin, (best_first(row, self.engine.label_space) for row in self.ranked))

    def event(self, columns: Sequence[int]) -> np.ndarray:
        """[N] probability of the likeliest of some codes, read off the curve itself (no list is involved)."""
        return (self.calibration or AS_TRAINED).curve(self.margin[:, columns]).max(1)

    def heart_failure_columns(self) -> list[int]:
        """Labels that are heart failure: ICD-9 428, ICD-10 I50, and all below them."""
        ontology = self.engine.ontology
        return [
            column
            for column, code in enumerate(self.engine.label_space)
            if Code(code.system, HEART_FAILURE[code.system]) in (code, *ontology.ancestors(code))
        ]

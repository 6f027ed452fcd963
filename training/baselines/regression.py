"""Logistic regression on the history: one convex fit for the whole label space, by L-BFGS. No deep learning."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from scipy.special import expit, logit
from torch import Tensor

from mera_core.common.errors import InputError
from mera_core.evaluation.truth import rows_of_labels
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code
from training.baselines.record_features import RecordFeatures, Told
from training.baselines.samples import CODES_ALONE, histories, history, index_of, truth_of
from training.rank.cut import recall_at_20

log = logging.getLogger(__name__)


class HistoryRegression:
    """One logistic regression a label on the bag of past codes; L2 penalty chosen on validation patients.

    features: "binary", a 1 for each code the history holds; "counts", the number of visits that hold it;
        "recent", the binary ones and again those of the newest visit.
    l2: penalties to try, falling: weights of half the squared norm beside the loss summed over samples. One
        with the best recall@20 stays; without validation patients, the first.
    scores are logits: their sigmoid is each label's probability, as these patients have it. A label that no patient of the
    training has is not fitted: its probability is that of half a visit, whatever the history.
    """

    name = "logistic regression on the history"
    told = CODES_ALONE

    def __init__(
        self,
        labels: Sequence[Code],
        features: Literal["binary", "counts", "recent"] = "binary",
        l2: Sequence[float] = (10.0, 3.0, 1.0),
        max_iterations: int = 60,
    ):
        self.labels, self.features = tuple(labels), features
        self.l2, self.max_iterations = tuple(l2), max_iterations
        self.chosen_l2 = self.l2[0]
        self._codes: Mapping[Code, int] = {}
        self._fitted = np.arange(0)
        self._weight: Tensor = torch.zeros(1, 0)
        self._elsewhere = 0.0

    @property
    def settings(self) -> dict[str, float | int | str]:
        return {"features": self.features, "l2": self.chosen_l2}

    def fit(self, patients: Sequence[Patient], validation: Sequence[Patient] = ()) -> HistoryRegression:
        pairs = histories(patients)
        held = {code for patient in patients for visit in patient.visits for code in visit.codes}
        self._fitted = np.array([label for label, code in enumerate(self.labels) if code in held], np.int64)
        self._elsewhere = float(logit(0.5 / (len(pairs) + 1)))
        index = index_of([self.labels[label] for label in self._fitted])
        pasts = [past for past, _ in pairs]
        self._learn_features(patients, pasts)
        inputs = self._inputs(pasts)
        targets = rows_of_labels(
            [[index[code] for code in target.codes if code in index] for _, target in pairs], len(index)
        )
        truth = truth_of(validation, self.labels) if validation else None
        weight, best = None, -1.0
        for l2 in self.l2 if truth else self.l2[:1]:
            weight = _fit_logistic(inputs, targets, l2, self.max_iterations, weight)
            recall = 0.0
            if truth:
                recall = recall_at_20(self._logits(validation, weight), truth)
                log.info("logistic regression, l2 %g: recall@20 %.4f on validation patients", l2, recall)
            if recall > best:
                best, self.chosen_l2, self._weight = recall, l2, weight
        return self

    def scores(self, patients: Sequence[Patient]) -> np.ndarray:
        return self._logits(patients, self._weight)

    def probability(self, scores: np.ndarray) -> np.ndarray:
        return expit(scores)

    def _logits(self, patients: Sequence[Patient], weight: Tensor) -> np.ndarray:
        inputs = self._inputs([history(patient) for patient in patients])
        logits = np.full((len(patients), len(self.labels)), self._elsewhere, np.float32)
        logits[:, self._fitted] = inputs @ weight.numpy()
        return logits

    def _learn_features(self, patients: Sequence[Patient], pasts: Sequence[Patient]) -> None:
        self._codes = index_of(sorted({code for past in pasts for visit in past.visits for code in visit.codes}))

    def _inputs(self, pasts: Sequence[Patient]) -> sparse.csr_matrix:
        """float32 [histories, features], the last feature 1 for all: the intercept."""
        n = len(self._codes)
        width = (2 * n if self.features == "recent" else n) + 1
        rows, columns = [], []
        for row, past in enumerate(pasts):
            held = [self._codes[code] for visit in past.visits for code in set(visit.codes) if code in self._codes]
            if self.features != "counts":
                held = sorted(set(held))
            if self.features == "recent":
                held += [n + self._codes[code] for code in set(past.visits[-1].codes) if code in self._codes]
            rows += [row] * (len(held) + 1)
            columns += [*held, width - 1]
        return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (len(pasts), width))


class RecordRegression(HistoryRegression):
    """The same on all that `told` names: past codes, the newest visit's again, sex, age, and details (`RecordFeatures`)."""

    name = "logistic regression told the record"

    def __init__(self, labels: Sequence[Code], told: Told, l2: Sequence[float] = (30.0,), max_iterations: int = 60):
        super().__init__(labels, "recent", l2, max_iterations)
        self.told, self._keys = str(told), told
        self._record: RecordFeatures | None = None

    @property
    def settings(self) -> dict[str, float | int | str]:
        return {"l2": self.chosen_l2}

    def _learn_features(self, patients: Sequence[Patient], pasts: Sequence[Patient]) -> None:
        self._record = RecordFeatures.fit(patients, self._keys.visit, self._keys.patient)

    def _inputs(self, pasts: Sequence[Patient]) -> sparse.csr_matrix:
        if self._record is None:
            raise InputError(f"The baseline {self.name} was not fitted yet.")
        rows = self._record.rows(pasts)
        return sparse.hstack([rows, np.ones((len(pasts), 1), np.float32)], "csr")


def _fit_logistic(
    inputs: sparse.csr_matrix,
    targets: sparse.csr_matrix,
    l2: float,
    max_iterations: int,
    start: Tensor | None,
) -> Tensor:
    """Weights float32 [features, labels] that minimise the summed cross-entropy of all labels, by L-BFGS.

    The last feature is the intercept and is not penalised; labels start at their base rate. Rare features and
    rare labels would make L-BFGS crawl, so it works on weights scaled by their curvature at the start.
    """
    n, width = inputs.shape
    if not targets.shape[1]:
        return torch.zeros(width, 0)
    rate = torch.from_numpy((np.asarray(targets.sum(0)).ravel() + 0.5) / (n + 1))
    held = torch.from_numpy(np.asarray(inputs.power(2).sum(0)).ravel())
    penalty = torch.full((width, 1), l2)
    penalty[-1] = 0
    scale = (held[:, None] * (rate * (1 - rate)) + penalty).rsqrt().float()
    if start is None:
        start = torch.zeros(width, len(rate))
        start[-1] = rate.logit().float()
    scaled = (start / scale).contiguous()
    hits = torch.from_numpy((inputs.T @ targets).toarray()).float()
    # In blocks that stay in the processor's cache; products with a sparse matrix are scipy's.
    blocks = [(block, block.T.tocsr()) for block in (inputs[i : i + 1024] for i in range(0, n, 1024))]
    losses: list[float] = []

    def closure() -> Tensor:
        weight = scaled * scale
        pulled = penalty * weight
        loss = ((pulled / 2 - hits) * weight).sum(dtype=torch.float64)
        gradient = pulled - hits
        for forward, back in blocks:
            logits = torch.from_numpy(forward @ weight.numpy())
            loss += torch.nn.functional.softplus(logits).sum(dtype=torch.float64)
            gradient += torch.from_numpy(back @ logits.sigmoid_().numpy())
        scaled.grad = (gradient * scale / n).contiguous()  # a mean: the optimiser's tolerances are absolute
        losses.append(float(loss / n))
        return loss / n

    optimiser = torch.optim.LBFGS(
        [scaled],
        lr=1,
        max_iter=max_iterations,
        history_size=10,
        tolerance_grad=1e-7,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )
    with torch.no_grad():
        optimiser.step(closure)
    log.info("loss %.6f after %d evaluations, from %.6f", losses[-1], len(losses), losses[0])
    return scaled * scale

"""Scores -> probabilities that hold on patients nobody trained on: one fitted curve, and its values in a list's order.

Knows margins (a code's score minus that of EOV) and which codes came true; nothing of codes, models or files. Needs
numpy, and scipy's isotonic regression.

The curve is monotone, but a list is not sorted by the margin alone (`ranking.ranking_scores`: the cut-off weighs a code's
frequency). `of_list` therefore takes the nearest probabilities, in squares, that never rise down the list as it is
shown: a list is never reordered, and the expected number of true codes stays what the curve says it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from mera_core.common.errors import InputError
from mera_core.evaluation.logistic import logistic_lines

KINDS = ("platt", "isotonic")
FOLDS = 5
MOST_KNOTS = 200
_WIDTH, _LIMIT = 0.01, 30.0  # margins are gathered in bins this wide, and clipped at +- the limit
_LEAST, _MOST = 1e-9, 1 - 1e-9


@dataclass(frozen=True)
class Calibration:
    """A curve from margin to probability, fitted on patients that the model was not trained on.

    kind: "platt", `sigmoid(slope * margin + intercept)`, or "isotonic", straight lines between knots.
    margin, probability: the knots, both strictly rising; for "platt" empty. Beyond the outer knots the curve is flat.
    log_loss: mean negative log likelihood of a (patient, code) pair in cross-validation over the patients, for each
        kind and for "as trained" (`sigmoid(margin)`). patients: how many it was fitted on.
    Raises InputError where the curve would fall, or would leave 0 to 1.
    """

    kind: str
    slope: float = 1.0
    intercept: float = 0.0
    margin: tuple[float, ...] = ()
    probability: tuple[float, ...] = ()
    log_loss: Mapping[str, float] = field(default_factory=dict)
    patients: int = 0

    def __post_init__(self) -> None:
        for name in ("margin", "probability"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        values = np.array([self.slope, self.intercept, *self.margin, *self.probability])
        if self.kind not in KINDS or not np.isfinite(values).all():
            raise InputError(f'A calibration is {" or ".join(KINDS)} with finite numbers, not "{self.kind}".')
        if self.kind == "platt" and self.slope <= 0:
            raise InputError(f"A calibration must rise with the score, but its slope is {self.slope:g}.")
        if self.kind == "isotonic":
            rising = all((np.diff(knots) > 0).all() for knots in (self.margin, self.probability))
            if not self.margin or len(self.margin) != len(self.probability) or not rising:
                raise InputError("The knots of an isotonic calibration must rise, as many margins as probabilities.")
            if not 0 <= self.probability[0] <= self.probability[-1] <= 1:
                raise InputError("The probabilities of a calibration must lie between 0 and 1.")

    @classmethod
    def fit(cls, margin: np.ndarray, positive: np.ndarray, seed: int = 0) -> Calibration:
        """Fit both kinds and keep the one with the lower log loss in 5-fold cross-validation over the patients.

        Args:
            margin: [patients, codes], each code's score minus the patient's EOV score.
            positive: bool, same shape (dense, or a scipy sparse matrix): the codes of the target visit.

        Raises:
            InputError: fewer than 5 patients, or nothing or everything came true.
        """
        table = _Table.of(margin, positive, seed)
        folds = range(len(table.size))
        held_out = dict.fromkeys(("as trained", *KINDS), 0.0)
        for fold in folds:
            rest = table.pooled([other for other in folds if other != fold])
            curves = {"as trained": cls("platt")} | {kind: cls._fitted(kind, rest) for kind in KINDS}
            for name, curve in curves.items():
                held_out[name] += _log_loss(curve.curve(table.margin), table.size[fold], table.true[fold])
        log_loss = {name: float(total / table.size.sum()) for name, total in held_out.items()}
        best = min(KINDS, key=lambda kind: log_loss[kind])
        fitted = cls._fitted(best, table.pooled(list(folds)))
        return cls(
            fitted.kind, fitted.slope, fitted.intercept, fitted.margin, fitted.probability, log_loss, len(margin)
        )

    @classmethod
    def _fitted(cls, kind: str, pooled: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Calibration:
        if kind == "platt":
            return cls("platt", *_platt(*pooled))
        margin, probability = _isotonic(*pooled)
        return cls("isotonic", margin=tuple(margin), probability=tuple(probability))

    def curve(self, margin: np.ndarray) -> np.ndarray:
        """Probability at each margin, any shape: never falls as the margin rises."""
        margin = np.asarray(margin, np.float64)
        if self.kind == "isotonic":
            return np.interp(margin, *self._points)
        return 1 / (1 + np.exp(-np.clip(self.slope * margin + self.intercept, -700, 700)))

    @cached_property
    def _points(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.margin, np.float64), np.asarray(self.probability, np.float64)

    def of_list(self, margin: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Probabilities of one list in the order in which it is shown, never rising: margin [C], order int [C]."""
        return never_rising(self.curve(margin[order]))  # in order, so that what stands near is looked up together

    def of_lists(self, margin: np.ndarray, orders: Iterable[np.ndarray]) -> np.ndarray:
        """The same for many patients: margin [N, C], and each one's order [C] -> [N, C], in label order."""
        out = np.empty(margin.shape)
        for row, (values, order) in enumerate(zip(margin, orders, strict=True)):
            out[row, order] = self.of_list(values, order)
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives an equal calibration back."""
        common = {"kind": self.kind, "patients": self.patients, "log_loss": dict(self.log_loss)}
        if self.kind == "platt":
            return common | {"slope": self.slope, "intercept": self.intercept}
        return common | {"margin": list(self.margin), "probability": list(self.probability)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Read what `to_dict` wrote. Raises InputError where it is something else."""
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise InputError(f"The calibration of the checkpoint can't be read: {error}") from error


def never_rising(values: np.ndarray) -> np.ndarray:
    """The nearest sequence, in squares, that never rises: neighbours that do are pooled at their mean. [n] -> [n]."""
    values = np.asarray(values, np.float64)
    return isotonic_regression(values, increasing=False).x if len(values) else values.copy()


@dataclass(frozen=True, eq=False)
class _Table:
    """Pairs counted by fold of patients and by bin of margin: all that a fit needs, small whatever the label space.

    margin: [bins], mean of each bin's pairs, rising. size, true: [folds, bins].
    """

    margin: np.ndarray
    size: np.ndarray
    true: np.ndarray

    @classmethod
    def of(cls, margin: np.ndarray, positive: Any, seed: int) -> _Table:
        if margin.ndim != 2 or margin.shape != positive.shape:
            raise InputError(f"Margins are {margin.shape} and the truth {positive.shape}; both are patients x codes.")
        if len(margin) < FOLDS:
            raise InputError(f"{len(margin)} patients are too few to calibrate a score; {FOLDS} is the least.")
        if np.isnan(margin).any():
            raise InputError("A score that is to be calibrated is no number.")
        fold = np.random.default_rng(seed).permutation(len(margin)) % FOLDS
        bins = round(2 * _LIMIT / _WIDTH) + 1
        total, size, true = np.zeros(bins), np.zeros((FOLDS, bins)), np.zeros((FOLDS, bins))
        for row, (values, part) in enumerate(zip(margin, fold, strict=True)):
            clipped = np.clip(values.astype(np.float64), -_LIMIT, _LIMIT)
            index = np.rint((clipped + _LIMIT) / _WIDTH).astype(np.int64)
            outcome = positive[row].toarray()[0] if hasattr(positive, "toarray") else positive[row]
            total += np.bincount(index, weights=clipped, minlength=bins)
            size[part] += np.bincount(index, minlength=bins)
            true[part] += np.bincount(index, weights=np.asarray(outcome, np.float64), minlength=bins)
        used = size.sum(0) > 0
        table = cls(total[used] / size.sum(0)[used], size[:, used], true[:, used])
        for part in range(FOLDS):
            _, n, came_true = table.pooled([other for other in range(FOLDS) if other != part])
            if not 0 < came_true.sum() < n.sum():
                raise InputError("A score can't be calibrated where no code, or every code, comes true.")
        return table

    def pooled(self, folds: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(margin, size, true) of the bins that some pair of these folds is in."""
        size, true = self.size[folds].sum(0), self.true[folds].sum(0)
        used = size > 0
        return self.margin[used], size[used], true[used]


def _log_loss(probability: np.ndarray, size: np.ndarray, true: np.ndarray) -> float:
    p = np.clip(probability, _LEAST, _MOST)
    return float(-(true * np.log(p) + (size - true) * np.log1p(-p)).sum())


def _platt(margin: np.ndarray, size: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of the outcome on the margin."""
    slope, intercept = (float(found[0]) for found in logistic_lines(margin, size[None], true[None]))
    if not slope > 0:  # the margin says nothing of the outcome: the same probability for all, near enough
        rate = true.sum() / size.sum()
        return 1e-9, float(np.log(rate / (1 - rate)))
    return slope, intercept


def _isotonic(margin: np.ndarray, size: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots of the monotone regression of the outcome on the margin: one at the mean of each pool, at most MOST_KNOTS.

    Pairs are first gathered into bins of about equally many true codes, so that no knot rests on a handful of pairs.
    """
    quota = max(10.0, true.sum() / MOST_KNOTS)  # at least ten true codes behind each knot
    group = np.minimum((true.cumsum() - true) // quota, max(true.sum() // quota - 1, 0)).astype(np.int64)
    _, group = np.unique(group, return_inverse=True)
    n, hits, place = (np.bincount(group, weights=weight) for weight in (size, true, size * margin))
    rates, block = np.unique(isotonic_regression(hits / n, weights=n).x, return_inverse=True)
    return np.bincount(block, weights=place) / np.bincount(block, weights=n), rates

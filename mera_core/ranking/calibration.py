"""Scores -> probabilities that hold on patients nobody trained on: a fitted curve for new codes, one for recorded codes.

Knows margins (a code's score minus that of EOV), which codes a history holds and which came true; nothing of codes, models
or files. Needs numpy, and scipy's isotonic regression.

Curves rise strictly, so that a list sorted by probability has a place for every code: see `Calibration.logit`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
BEYOND = 1e-3
BETTER = 0.005
"""Share of its log loss by which the isotonic curve must beat Platt's: less is luck where few codes came true."""
LEAST_TRUE = 50
"""Codes that must have come true, and that must not have, among new codes and among recorded ones, for two curves."""


@dataclass(frozen=True)
class Calibration:
    """A curve from margin to probability, fitted on patients that the model was not trained on.

    kind: "platt", `sigmoid(slope * margin + intercept)`, or "isotonic", straight lines between knots.
    margin, probability: the knots, both strictly rising; for "platt" empty. Beyond the outer knots the curve is all but
    flat: its log odds rise by `BEYOND` a unit of margin, so that the order of margins is kept.
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
        if not isinstance(self.log_loss, Mapping) or type(self.patients) is not int:
            raise InputError("A calibration names its log losses and says how many patients it was fitted on.")
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
    def fit(cls, margin: np.ndarray, positive: Any, seed: int = 0, among: np.ndarray | None = None) -> Calibration:
        """Fit both kinds; keep Platt's unless the other's log loss in 5-fold cross-validation over patients is clearly lower.

        Args:
            margin: [patients, codes], each code's score minus the patient's EOV score.
            positive: bool, same shape (dense, or a scipy sparse matrix): the codes of the target visit.
            among: bool, same shape: the pairs to fit on; without it, all.

        Raises:
            InputError: fewer than 5 patients, or nothing or everything came true.
        """
        table = _Table.of(margin, positive, seed, among)
        folds = range(len(table.size))
        held_out = dict.fromkeys(("as trained", *KINDS), 0.0)
        for fold in folds:
            rest = table.pooled([other for other in folds if other != fold])
            curves = {"as trained": cls("platt")} | {kind: cls._fitted(kind, rest) for kind in KINDS}
            for name, curve in curves.items():
                held_out[name] += _log_loss(curve.curve(table.margin), table.size[fold], table.true[fold])
        log_loss = {name: float(total / table.size.sum()) for name, total in held_out.items()}
        best = "isotonic" if log_loss["isotonic"] < (1 - BETTER) * log_loss["platt"] else "platt"
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
        """Probability at each margin, any shape: rises with the margin."""
        return 1 / (1 + np.exp(-np.clip(self.logit(margin), -700, 700)))

    def logit(self, margin: np.ndarray) -> np.ndarray:
        """Log odds of the probability at each margin, any shape: no two margins share one, down to float64's last digits."""
        margin = np.asarray(margin, np.float64)
        if self.kind == "platt":
            return self.slope * margin + self.intercept
        knots, probability = self._points
        p = np.clip(np.interp(margin, knots, probability), _LEAST, _MOST)
        return np.log(p) - np.log1p(-p) + BEYOND * (margin - np.clip(margin, knots[0], knots[-1]))

    @cached_property
    def _points(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.margin, np.float64), np.asarray(self.probability, np.float64)

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


@dataclass(frozen=True)
class Calibrations:
    """The two curves of a checkpoint, and the one line in the order that they make.

    new: for codes that the history does not hold; recorded: for those that it does. cut: the log odds above which a code
    is predicted, fitted on validation patients for weighted F1.
    """

    new: Calibration
    recorded: Calibration
    cut: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.cut, bool) or not isinstance(self.cut, int | float) or not np.isfinite(self.cut):
            raise InputError(f"The cut-off of a calibration must be a finite number, not {self.cut!r}.")

    @classmethod
    def fit(cls, margin: np.ndarray, positive: Any, held: np.ndarray, seed: int = 0) -> Calibrations:
        """`Calibration.fit` on new codes and on recorded ones apart; one curve for both where either group is too small.

        held: bool [patients, codes], what each history holds. Too small: see `LEAST_TRUE`. The cut-off is left at 0.
        """
        both = Calibration.fit(margin, positive, seed)
        recurrent = int((positive.multiply(held) if hasattr(positive, "multiply") else positive[held]).sum())
        true, size = np.array([positive.sum() - recurrent, recurrent]), np.array([(~held).sum(), held.sum()])
        if (np.minimum(true, size - true) < LEAST_TRUE).any():
            return cls(both, both)
        try:
            return cls(
                new=Calibration.fit(margin, positive, seed, ~held),
                recorded=Calibration.fit(margin, positive, seed, held),
            )
        except InputError:  # all that came true is of a few patients
            return cls(both, both)

    def logit(self, margin: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Log odds of each code's own probability: margin, and held (bool), of one shape."""
        margin = np.asarray(margin, np.float64)
        if self.new == self.recorded:
            return self.new.logit(margin)
        found = self.new.logit(margin)
        found[held] = self.recorded.logit(margin[held])
        return found

    def probability(self, margin: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Each code's own probability, of the shape of margin and held."""
        return 1 / (1 + np.exp(-np.clip(self.logit(margin, held), -700, 700)))

    def in_words(self) -> str:
        """'platt calibration for new codes, isotonic for recorded ones, fitted on 1,246 validation patients'."""
        kinds = f"{self.new.kind} calibration for new codes, {self.recorded.kind} for recorded ones"
        if self.new == self.recorded:
            kinds = f"{self.new.kind} calibration"
        return f"{kinds}, fitted on {self.new.patients:,} validation patients"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives equal calibrations back."""
        return {"new": self.new.to_dict(), "recorded": self.recorded.to_dict(), "cut": self.cut}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibrations:
        """Read what `to_dict` wrote, or the single curve of an older checkpoint, which is then that of both groups.

        Raises InputError where it is something else.
        """
        if "kind" in values:
            both = Calibration.from_dict(values)
            return cls(both, both)
        new, recorded = values.get("new"), values.get("recorded")
        known = values.keys() <= {"new", "recorded", "cut"}
        if not (isinstance(new, Mapping) and isinstance(recorded, Mapping) and known):
            raise InputError(
                'The calibration of the checkpoint can\'t be read: it must hold "new", "recorded" and "cut".'
            )
        return cls(Calibration.from_dict(new), Calibration.from_dict(recorded), values.get("cut", 0.0))


@dataclass(frozen=True, eq=False)
class _Table:
    """Pairs counted by fold of patients and by bin of margin: all that a fit needs, small whatever the label space.

    margin: [bins], mean of each bin's pairs, rising. size, true: [folds, bins].
    """

    margin: np.ndarray
    size: np.ndarray
    true: np.ndarray

    @classmethod
    def of(cls, margin: np.ndarray, positive: Any, seed: int, among: np.ndarray | None = None) -> _Table:
        if margin.ndim != 2 or margin.shape != positive.shape:
            raise InputError(f"Margins are {margin.shape} and the truth {positive.shape}; both are patients x codes.")
        if len(margin) < FOLDS:
            raise InputError(f"{len(margin)} patients are too few to calibrate a score; {FOLDS} is the least.")
        if np.isnan(margin).any():
            raise InputError("A score that is to be calibrated is no number.")
        fold = np.random.default_rng(seed).permutation(len(margin)) % FOLDS
        bins = round(2 * _LIMIT / _WIDTH) + 1
        total, size, true = np.zeros(bins), np.zeros((FOLDS, bins)), np.zeros((FOLDS, bins))
        for row, part in enumerate(fold):
            kept = slice(None) if among is None else among[row]
            clipped = np.clip(margin[row][kept].astype(np.float64), -_LIMIT, _LIMIT)
            index = np.rint((clipped + _LIMIT) / _WIDTH).astype(np.int64)
            outcome = (positive[row].toarray()[0] if hasattr(positive, "toarray") else positive[row])[kept]
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

"""Patient bootstrap: how far a figure moves when the patients are drawn again.

Knows numbers, not what they measure.
Whole patients are drawn with replacement, as often as there are patients; intervals are percentiles of the
figure over the draws (docs/method.md, "Evaluation"). Two models drawn from one `Bootstrap` are drawn alike, which
is what makes their difference a paired one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import SupportsFloat

import numpy as np

from mera_core.common.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval, and its value in each draw.

    value, low, high: in the figure's own unit; NaN where it is not defined. draws: [n_boot].
    """

    value: float
    low: float
    high: float
    draws: np.ndarray = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, float | None]:
        """JSON-ready: value, low, high; None where not defined."""
        return {
            name: None if np.isnan(number) else float(number)
            for name, number in (("value", self.value), ("low", self.low), ("high", self.high))
        }

    def minus(self, other: Estimate) -> Estimate:
        """Paired difference from the same figure of another model, over the same draws of the patients."""
        if self.draws.shape != other.draws.shape:
            raise InputError("The two figures come from different numbers of draws: they cannot be paired.")
        return estimate(self.value - other.value, self.draws - other.draws)


def estimate(value: SupportsFloat, draws: np.ndarray) -> Estimate:
    """A figure with the 2.5th and 97.5th percentile of its draws; draws that are NaN are left out."""
    defined = draws[~np.isnan(draws)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high), draws)


def over_seeds(estimates: Sequence[Estimate], seed: int = 0) -> Estimate:
    """The mean figure of several runs of one method, with draws in which runs are drawn again as patients are.

    The estimates must come from one Bootstrap. With one run, its own estimate.
    """
    if not estimates or len({one.draws.shape for one in estimates}) > 1:
        raise InputError("Runs can be averaged only over the same draws of the patients.")
    draws = np.stack([one.draws for one in estimates])  # [runs, n_boot]
    runs = np.random.default_rng(seed).integers(len(draws), size=draws.shape)
    mean = np.take_along_axis(draws, runs, axis=0).mean(0)
    return estimate(np.mean([one.value for one in estimates]), mean)


class Bootstrap:
    """How often each patient is drawn, in each draw.

    counts: float32 [n_boot, n_patients], whole numbers that sum to n_patients along a row. The same number of
    patients, n_boot and seed give the same counts.
    """

    def __init__(self, n_patients: int, n_boot: int = 1000, seed: int = 0):
        if n_patients < 1:
            raise InputError("There are no patients to evaluate.")
        rng = np.random.default_rng(seed)
        self.counts = np.zeros((n_boot, n_patients), np.float32)
        for row in self.counts:
            row += np.bincount(rng.integers(n_patients, size=n_patients), minlength=n_patients)

    def sums(self, per_patient: np.ndarray) -> np.ndarray:
        """Sum over the drawn patients: [n_patients, ...] -> float64 [n_boot, ...]."""
        flat = np.asarray(per_patient, np.float64).reshape(len(per_patient), -1)
        return (self.counts.astype(np.float64) @ flat).reshape(-1, *np.shape(per_patient)[1:])

    def ratio(self, numerator: np.ndarray, denominator: np.ndarray) -> Estimate:
        """sum(numerator) / sum(denominator), both [n_patients]; NaN where the denominator is 0."""
        pair = np.stack([numerator, denominator], axis=1).astype(np.float64)
        drawn = self.sums(pair)
        return estimate(divide(*pair.sum(0)), divide(drawn[:, 0], drawn[:, 1]))

    def mean(self, per_patient: np.ndarray) -> Estimate:
        """Mean over the patients that have a value: [n_patients], NaN where one has none."""
        has = ~np.isnan(per_patient)
        return self.ratio(np.where(has, per_patient, 0.0), has)


def divide(numerator: np.ndarray | float, denominator: np.ndarray | float) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.float64(numerator), np.float64(denominator))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def paired_differences(ours: Mapping[str, Estimate], theirs: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Ours minus theirs for each figure both have."""
    return {name: ours[name].minus(theirs[name]) for name in ours if name in theirs}

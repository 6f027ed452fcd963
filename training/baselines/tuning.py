"""The same budget of runs for every baseline, chosen on validation patients; and the best cut each can be given there.

Knows the settings worth trying; fits through the one interface and measures nothing on test patients.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy import sparse

from mera_core.evaluation import metrics
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code
from mera_core.ranking.calibration import Calibration
from training.baselines.architectures import ARCHITECTURES
from training.baselines.goals import GOALS, WHOLE_LIST, Goal
from training.baselines.neural import NeuralBaseline, NeuralSettings, RecordNetwork
from training.baselines.record_features import Told
from training.baselines.regression import HistoryRegression, RecordRegression
from training.baselines.samples import CODES_ALONE, Baseline
from training.baselines.simple import CodeFrequency, CopyThePast
from training.rank.cut import FREQUENCY_EXPONENTS, ORDER_FREQUENCY_EXPONENTS, REACH_SHARES, own_thresholds

log = logging.getLogger(__name__)

BUDGET = 8
BUDGET_IN_WORDS = (
    f"at most {BUDGET} settings each, all fitted on the training patients; figures of whole lists are of the setting with the "
    "best recall@20 on validation patients, figures of new codes only of the one with the best recall@20 of those. Networks: "
    "width 128 or 256, learning rate 0.001 or 0.003, dropout 0.2 or 0.5, stopped when neither recall@20 rises any more on "
    "validation patients; for each of the two the best epoch is kept. Logistic regression: past codes with or without the newest "
    "visit's again, four penalties; told the record: eight penalties. Copying: newest or most frequent first. Code frequency "
    "has nothing to choose. Lists of models that score by logits are sorted, as MERA's are, after the power of the code's "
    "frequency that is best for the same recall@20 on validation patients is taken off."
)
NEURAL_GRID = tuple(
    NeuralSettings(width=width, learning_rate=rate, dropout=dropout)
    for width, rate, dropout in product((128, 256), (1e-3, 3e-3), (0.2, 0.5))
)
RECORD_PENALTIES = (300.0, 200.0, 100.0, 70.0, 50.0, 30.0, 20.0, 10.0)
Make = Callable[[int], Baseline]  # seed -> a baseline that is not fitted yet


@dataclass(frozen=True)
class Family:
    """One baseline with the settings to try, and what it is told; `random` ones are fitted again with each seed."""

    name: str
    candidates: tuple[Make, ...]
    told: str = CODES_ALONE
    random: bool = False
    logits: bool = True  # whether scores are on a scale where frequency may be taken off

    def __post_init__(self) -> None:
        if not 0 < len(self.candidates) <= BUDGET:
            raise ValueError(f"{self.name} has {len(self.candidates)} settings to try; the budget is {BUDGET}.")


def families(labels: Sequence[Code], told: Told, grid: Sequence[NeuralSettings] = NEURAL_GRID) -> list[Family]:
    """Every baseline that runs in this environment, the quick ones first; `told`: what those are told that read details."""

    def network(architecture: str, settings: NeuralSettings) -> Make:
        return lambda seed: NeuralBaseline(labels, architecture, settings, seed)

    def regression(features: Any, l2: float) -> Make:
        return lambda _: HistoryRegression(labels, features, l2=(l2,))

    def told_regression(l2: float) -> Make:
        return lambda _: RecordRegression(labels, told, l2=(l2,))

    def told_network(settings: NeuralSettings) -> Make:
        return lambda seed: RecordNetwork(labels, told, settings, seed)

    return [
        Family(CodeFrequency.name, (lambda _: CodeFrequency(labels),), CodeFrequency.told, logits=False),
        Family(
            CopyThePast.name,
            (lambda _: CopyThePast(labels), lambda _: CopyThePast(labels, order="count")),
            logits=False,
        ),
        Family(
            HistoryRegression.name,
            tuple(regression(*each) for each in product(("binary", "recent"), (10.0, 3.0, 1.0, 0.3))),
        ),
        Family(RecordRegression.name, tuple(map(told_regression, RECORD_PENALTIES)), str(told)),
        Family(RecordNetwork(labels, told).name, tuple(map(told_network, grid)), str(told), random=True),
        *(
            Family(NeuralBaseline(labels, name).name, tuple(network(name, settings) for settings in grid), random=True)
            for name in ARCHITECTURES
        ),
    ]


@dataclass(frozen=True)
class Chosen:
    """The best candidate of a family for one goal: how to make it again, and as it was fitted with the first seed."""

    make: Make
    fitted: Baseline


def tuned(
    family: Family, train: Sequence[Patient], validation: Sequence[Patient], truth: Truth, seed: int
) -> tuple[dict[Goal, Chosen], list[dict[str, Any]]]:
    """The best candidate for each goal, and what each one reached on validation patients. Each is fitted once, with `seed`.

    truth: of the last visits of `validation`.
    """
    tried: list[dict[str, Any]] = []
    best: dict[Goal, float] = {}
    chosen: dict[Goal, Chosen] = {}
    for make in family.candidates:
        fitted = make(seed).fit(train, validation)
        reached = {goal: goal.reached(scores_for(goal, fitted, validation), truth) for goal in GOALS}
        tried.append(
            {"settings": fitted.settings} | {f"validation_{goal.value}": value for goal, value in reached.items()}
        )
        log.info("%s %s: recall@20 %s on validation patients", family.name, fitted.settings, list(reached.values()))
        for goal in GOALS:
            if goal not in chosen or reached[goal] > best[goal]:
                best[goal], chosen[goal] = reached[goal], Chosen(make, fitted)
    return chosen, tried


def scores_for(goal: Goal, fitted: Baseline, patients: Sequence[Patient]) -> np.ndarray:
    """Scores [patients, labels] for a goal: of a network's best pass for it; other baselines have one kind of scores."""
    return fitted.scores(patients, goal) if isinstance(fitted, NeuralBaseline) else fitted.scores(patients)


def best_order_tilt(scores: np.ndarray, truth: Truth, log_rate: np.ndarray, goal: Goal = WHOLE_LIST) -> float:
    """The power of a code's frequency whose removal is best for the goal: scores [patients, C], log_rate [C]."""
    recalls = {tilt: goal.reached(scores - tilt * log_rate, truth) for tilt in ORDER_FREQUENCY_EXPONENTS}
    return max(recalls, key=recalls.get)


@dataclass(frozen=True, eq=False)
class Cut:
    """Which codes of a scored list are predicted: the best `size`, or those whose score passes a threshold for each code.

    The threshold of a code is `threshold + offset`, `offset` [C] being `tilt` times the log of its frequency and
    `reach_share` of its own best threshold, as MERA's cut has them (`training.rank.cut.fit_cut`). validation_f1: weighted F1
    on the patients that the cut-off was chosen on.
    """

    size: int | None
    threshold: float | None
    tilt: float
    reach_share: float
    validation_f1: float
    offset: np.ndarray | float = 0.0

    @classmethod
    def fit(cls, scores: np.ndarray, truth: Truth, log_rate: np.ndarray | None = None) -> Cut:
        """The cut-off with the highest weighted F1: any fixed size, any threshold, and, where scores are logits, the whole
        family of MERA's own cut: any of FREQUENCY_EXPONENTS with any of REACH_SHARES. log_rate: [C], given for logits alone.
        """
        size, f1 = metrics.best_fixed_size(scores, truth)
        best = cls(size, None, 0.0, 0.0, f1)
        for tilt, share, offset in [(0.0, 0.0, 0.0)] if log_rate is None else _offsets(scores, truth, log_rate):
            threshold, f1 = metrics.best_threshold(scores - offset, truth)
            if f1 > best.validation_f1:
                best = cls(None, threshold, tilt, share, f1, offset)
        return best

    def sets(self, scores: np.ndarray) -> sparse.csr_matrix:
        """The predicted codes of each patient, 0/1."""
        if self.size is not None:
            return metrics.top_sets(scores, self.size)
        return metrics.above_cut(scores - self.offset, self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the offsets."""
        return {name: value for name, value in vars(self).items() if value is not None and name != "offset"}


def _offsets(scores: np.ndarray, truth: Truth, log_rate: np.ndarray) -> Iterator[tuple[float, float, np.ndarray]]:
    """Every pair of a tilt and a share of the codes' own thresholds, and the offset [C] that they make.

    A logit of these models is to a probability what MERA's margin over EOV is: one curve is fitted for all codes.
    """
    margin = scores.astype(np.float64)
    own = own_thresholds(margin, Calibration.fit(margin, truth.positive))
    for share, tilt in product(REACH_SHARES, FREQUENCY_EXPONENTS):
        yield tilt, share, tilt * log_rate + share * own

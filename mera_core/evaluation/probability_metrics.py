"""How good scores of yes/no outcomes are, pair by pair: areas under curves, calibration, Brier score, F1.

Each function takes the patient every (score, outcome) pair belongs to, so that the interval can draw whole
patients. Knows nothing of rankings, codes or models. Areas and F1 are scikit-learn's; their draws come from sums that
all draws share, and a tie counts in them as scikit-learn counts it. Never imported where a ranking is served.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from mera_core.evaluation.bootstrap import Bootstrap, Estimate, divide, estimate
from mera_core.evaluation.logistic import logistic_lines

BLOCK = 4_000_000  # pairs that are counted at a time
MAX_STEPS = 1000  # distinct thresholds for which AUPRC is drawn again; above it the draws use this many of them
BINS = 15  # of probability, equally wide, over which calibration is measured
_LOGIT_WIDTH, _LOGIT_LIMIT = 0.05, 25.0


@dataclass(frozen=True)
class Pairs:
    """Scored yes/no outcomes: patient int [n], score float [n], outcome bool [n]; any order."""

    patient: np.ndarray
    score: np.ndarray
    outcome: np.ndarray

    def blocks(self) -> Iterator[Pairs]:
        """All pairs, BLOCK at a time: what is computed of each pair never stands in memory for all of them."""
        for start in range(0, len(self.score), BLOCK):
            part = slice(start, start + BLOCK)
            yield Pairs(self.patient[part].astype(np.int64), self.score[part], self.outcome[part])


def average_precision(pairs: Pairs, bootstrap: Bootstrap) -> Estimate:
    """Area under the precision-recall curve, `sum_k (R_k - R_k-1) P_k`; NaN without a positive.

    The value is exact. With more than MAX_STEPS distinct scores of positives, the draws round scores down to
    MAX_STEPS of them, evenly spaced by rank, and are moved by the difference this makes to the value.
    """
    steps = np.unique(pairs.score[pairs.outcome])
    if not len(steps):
        return estimate(np.nan, np.full(len(bootstrap.counts), np.nan))
    kept = np.unique(np.linspace(0, len(steps) - 1, MAX_STEPS).round().astype(int))
    together, each = _counts_by_step(pairs, steps, kept, bootstrap.counts.shape[1])
    value = _precision_of_counts(steps, *together)
    rough = _step_precision(*each.sum(1, keepdims=True))[0]
    draws = _step_precision(*(bootstrap.sums(counts) for counts in each))
    return estimate(value, np.clip(draws + (value - rough), 0, 1))


def _counts_by_step(
    pairs: Pairs, steps: np.ndarray, kept: np.ndarray, n_patients: int
) -> tuple[np.ndarray, np.ndarray]:
    """True pairs and all pairs with a score in [steps[j], steps[j + 1]): [2, steps], and of each patient [2, patients, kept].

    kept: indices of steps, the first among them, which the steps of each patient are rounded down to. Counting takes less
    time than sorting, and less memory.
    """
    coarse = np.searchsorted(kept, np.arange(len(steps)), side="right") - 1
    together, each = np.zeros((2, len(steps))), np.zeros((2, n_patients * len(kept)))
    for block in pairs.blocks():
        step = np.searchsorted(steps, block.score, side="right") - 1
        above = step >= 0  # lower scores than any positive's change nothing
        for row, counted in enumerate((above & block.outcome, above)):
            at = step[counted]
            together[row] += np.bincount(at, minlength=len(steps))
            cell = block.patient[counted] * len(kept) + coarse[at]
            each[row] += np.bincount(cell, minlength=each.shape[1])
    return together, each.reshape(2, n_patients, -1)


def _precision_of_counts(steps: np.ndarray, true: np.ndarray, every: np.ndarray) -> float:
    """Average precision of true pairs and all pairs [steps] counted by rising score."""
    outcome = np.repeat([True, False], len(steps))
    weights = np.concatenate([true, every - true])
    return float(average_precision_score(outcome, np.tile(steps, 2), sample_weight=weights))


def _step_precision(true: np.ndarray, every: np.ndarray) -> np.ndarray:
    """Average precision of each row of counts by rising threshold: [rows, steps] twice -> [rows]."""
    found = true[:, ::-1].cumsum(1)
    precision = divide(found, every[:, ::-1].cumsum(1))
    return divide(np.nansum(precision * true[:, ::-1], axis=1), found[:, -1])


def macro_average_precision(
    scores: np.ndarray, truth: sparse.csr_matrix, bootstrap: Bootstrap, least: int = 10
) -> tuple[Estimate, int]:
    """Mean average precision of the labels with at least `least` positives; and how many labels those are.

    scores: [patients, labels]. truth: 0/1, same shape. A draw leaves out labels that lost all positives.
    Average precision over few positives rises when one of them is drawn twice, so that plain draws can lie
    wholly above the value: they are moved to have it as their mean.
    """
    columns = truth.tocsc()
    labels = np.flatnonzero(np.diff(columns.indptr) >= least)
    values, draws = np.empty(len(labels)), np.empty((len(labels), len(bootstrap.counts)))
    for row, label in enumerate(labels):
        score = np.ascontiguousarray(scores[:, label])
        true = np.zeros(len(score), bool)
        true[columns.indices[columns.indptr[label] : columns.indptr[label + 1]]] = True
        steps = np.unique(score[true])
        reached = (score[:, None] >= steps).astype(np.float32)  # [patients, steps]
        at = (score[:, None] == steps) & true[:, None]
        values[row] = average_precision_score(true, score)
        # Counts of patients are whole numbers far below 2^24, so float32 products are exact.
        hits = (bootstrap.counts[:, true] @ at[true].astype(np.float32)).astype(np.float64)
        found = hits[:, ::-1].cumsum(1)[:, ::-1]
        precision = divide(found, bootstrap.counts @ reached)
        draws[row] = divide(np.nansum(precision * hits, axis=1), found[:, 0])
    if not len(labels):
        return estimate(np.nan, np.full(len(bootstrap.counts), np.nan)), 0
    defined = ~np.isnan(draws)
    drawn = divide(np.where(defined, draws, 0).sum(0), defined.sum(0))
    return estimate(values.mean(), drawn + (values.mean() - drawn.mean())), len(labels)


def auroc(score: np.ndarray, outcome: np.ndarray, bootstrap: Bootstrap) -> Estimate:
    """Area under the ROC curve, one pair a patient: score float, outcome bool [patients]; ties count half."""
    levels, level = np.unique(score, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.searchsorted(level[order], np.arange(len(levels)))

    def area(counts: np.ndarray) -> np.ndarray:
        true = np.add.reduceat((counts * outcome)[:, order].astype(np.float64), starts, axis=1)
        false = np.add.reduceat((counts * ~outcome)[:, order].astype(np.float64), starts, axis=1)
        below = false.cumsum(1) - false / 2
        return divide((true * below).sum(1), true.sum(1) * false.sum(1))

    value = float(roc_auc_score(outcome, score)) if 0 < outcome.sum() < len(outcome) else np.nan
    return estimate(value, area(bootstrap.counts))


def f1(predicted: np.ndarray, outcome: np.ndarray, bootstrap: Bootstrap) -> Estimate:
    """F1 of yes/no predictions, bool [patients]; 0 where nothing is both predicted and true."""
    hits = 2.0 * (predicted & outcome)
    of = predicted.astype(float) + outcome
    result = bootstrap.ratio(hits, of)
    return estimate(float(f1_score(outcome, predicted, zero_division=0)), np.nan_to_num(result.draws))


def brier(pairs: Pairs, bootstrap: Bootstrap) -> Estimate:
    """Mean squared difference of probability and outcome over the pairs."""
    n = bootstrap.counts.shape[1]
    error, size = np.zeros(n), np.zeros(n)
    for block in pairs.blocks():
        squared = (block.score.astype(np.float64) - block.outcome) ** 2
        error += np.bincount(block.patient, weights=squared, minlength=n)
        size += np.bincount(block.patient, minlength=n)
    return bootstrap.ratio(error, size)


def reliability(pairs: Pairs, bootstrap: Bootstrap, bins: int = BINS) -> tuple[Estimate, list[dict[str, float]]]:
    """Expected calibration error over equally wide bins of probability, and the curve it sums.

    A bin of the curve has n (pairs), predicted (mean probability) and observed (share that came true); empty
    bins are left out. Source: Guo et al. 2017.
    """
    n = bootstrap.counts.shape[1]
    sums = np.zeros((n, 3, bins))  # pairs, their probability, their outcome
    for block in pairs.blocks():
        edge = np.minimum((block.score * bins).astype(np.int64), bins - 1)
        cell = block.patient * bins + edge
        for row, weights in enumerate((None, block.score.astype(np.float64), block.outcome.astype(np.float64))):
            sums[:, row] += np.bincount(cell, weights=weights, minlength=n * bins).reshape(n, bins)

    def error(totals: np.ndarray) -> np.ndarray:
        return divide(np.abs(totals[..., 1, :] - totals[..., 2, :]).sum(-1), totals[..., 0, :].sum(-1))

    total = sums.sum(0)
    curve = [
        {"n": int(count), "predicted": float(predicted / count), "observed": float(observed / count)}
        for count, predicted, observed in total.T
        if count
    ]
    return estimate(error(total), error(bootstrap.sums(sums))), curve


@dataclass(frozen=True)
class FrequentLabels:
    """Calibration of the labels that come true often enough for it to be measured.

    figures: see `frequent_label_calibration`. curve: as `reliability` gives it, over all their pairs. labels: index,
    positives, mean probability, share observed and ECE of each.
    """

    figures: dict[str, Estimate] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    labels: list[dict[str, float]] = field(default_factory=list)


def frequent_label_calibration(
    probability: np.ndarray, truth: sparse.csr_matrix, bootstrap: Bootstrap, least: int = 50
) -> FrequentLabels:
    """Calibration of the labels with at least `least` positives: over all labels it drowns in codes that never occur.

    Figures: `ece_frequent`, over all pairs of those labels; `ece_frequent_mean` and `ece_frequent_max`, of each
    label's own ECE; and `ece_frequent_mean_if_right`, what that mean would be if every probability were exact, since
    a bin of few pairs errs by chance (outcomes drawn from the probabilities, 20 times). Empty without such a label.

    probability: [patients, labels]. truth: 0/1, same shape.
    """
    labels = np.flatnonzero(np.asarray(truth.sum(0)).ravel() >= least)
    if not len(labels):
        return FrequentLabels()
    p = probability[:, labels].astype(np.float64)
    outcome = truth[:, labels].toarray() > 0
    rows, chance = np.arange(len(p)), np.random.default_rng(0)
    own = [reliability(Pairs(rows, p[:, i], outcome[:, i]), bootstrap)[0] for i in range(len(labels))]
    luck = [_error_by_chance(p[:, i], chance) for i in range(len(labels)) for _ in range(20)]
    pooled = Pairs(np.repeat(rows, len(labels)), p.ravel(), outcome.ravel())
    together, curve = reliability(pooled, bootstrap)
    draws = np.array([one.draws for one in own])
    figures = {
        "ece_frequent": together,
        "ece_frequent_mean": _centered(float(np.mean([one.value for one in own])), draws.mean(0)),
        "ece_frequent_max": _centered(max(one.value for one in own), draws.max(0)),
        "ece_frequent_mean_if_right": estimate(np.mean(luck), np.array([np.nan])),
    }
    each = [
        {
            "label": int(label),
            "positives": int(outcome[:, i].sum()),
            "predicted": float(p[:, i].mean()),
            "observed": float(outcome[:, i].mean()),
            "ece": own[i].value,
        }
        for i, label in enumerate(labels)
    ]
    return FrequentLabels(figures, curve, each)


def ece_of_frequent_labels(
    probability: np.ndarray, truth: sparse.csr_matrix, among: np.ndarray, bootstrap: Bootstrap, least: int = 50
) -> dict[str, Estimate]:
    """ECE over some of the pairs of the labels with at least `least` positives, such as those of recurrent codes alone.

    Figures: `ece_frequent`, and `ece_frequent_if_right`, what it would be if every probability were exact, which is well
    above 0 where pairs are few (outcomes drawn from the probabilities, 20 times). Empty without such a label or pair.

    probability: [patients, labels]. truth: 0/1, same shape. among: bool, same shape.
    """
    labels = np.flatnonzero(np.asarray(truth.sum(0)).ravel() >= least)
    rows, columns = np.nonzero(among[:, labels])
    if not len(rows):
        return {}
    p = probability[rows, labels[columns]].astype(np.float64)
    outcome = np.asarray(truth[rows, labels[columns]]).ravel() > 0
    chance = np.random.default_rng(0)
    luck = np.mean([_error_by_chance(p, chance) for _ in range(20)])
    return {
        "ece_frequent": reliability(Pairs(rows, p, outcome), bootstrap)[0],
        "ece_frequent_if_right": estimate(luck, np.array([np.nan])),
    }


def _error_by_chance(probability: np.ndarray, chance: np.random.Generator) -> float:
    """Expected calibration error [0, 1] of outcomes drawn from the probabilities [n] themselves."""
    bin_ = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    off = (chance.random(len(probability)) < probability) - probability
    return float(np.abs(np.bincount(bin_, weights=off, minlength=BINS)).sum() / len(probability))


def _centered(value: float, draws: np.ndarray) -> Estimate:
    """Draws of a sum of absolute errors lie above its value, as each draw adds noise: they are moved to it."""
    return estimate(value, np.maximum(draws - (draws.mean() - value), 0.0))


def calibration_slope(pairs: Pairs, bootstrap: Bootstrap) -> Estimate:
    """Slope of a logistic regression of the outcome on the logit of its probability; below 1: overconfident.

    Logits are gathered in bins 0.05 wide (each at the mean of its pairs), and clipped at +-25. NaN where all
    outcomes are equal.
    """
    n, bins = bootstrap.counts.shape[1], 2 * round(_LOGIT_LIMIT / _LOGIT_WIDTH) + 1
    total, size, true = np.zeros(bins), np.zeros(n * bins), np.zeros(n * bins)
    for block in pairs.blocks():
        p = np.clip(block.score.astype(np.float64), 1e-12, 1 - 1e-12)
        logit = np.clip(np.log(p) - np.log1p(-p), -_LOGIT_LIMIT, _LOGIT_LIMIT)
        bin_ = np.floor((logit + _LOGIT_LIMIT) / _LOGIT_WIDTH).astype(np.int64)
        cell = block.patient * bins + bin_
        total += np.bincount(bin_, weights=logit, minlength=bins)
        size += np.bincount(cell, minlength=n * bins)
        true += np.bincount(cell[block.outcome], minlength=n * bins)
    size, true = size.reshape(n, bins), true.reshape(n, bins)
    used = size.any(0)
    x, size, true = total[used] / size.sum(0)[used], size[:, used], true[:, used]

    def slope(size: np.ndarray, true: np.ndarray) -> np.ndarray:
        hopeless = (true.sum(1) == 0) | (true.sum(1) == size.sum(1))
        return np.where(hopeless, np.nan, logistic_lines(x, size, true)[0])

    value = slope(size.sum(0, keepdims=True), true.sum(0, keepdims=True))[0]
    return estimate(value, slope(bootstrap.sums(size), bootstrap.sums(true)))

"""How good rankings and cuts are, against what the next visit held: arrays in, figures with intervals out.

Knows patients as rows and labels as columns, and nothing of codes, models or files; label order is code
order, and ties in a score break by it. Definitions: docs/method.md, "Evaluation". A true code outside the label
space can't be ranked and counts as missed wherever true codes are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import sparse

from mera_core.common.errors import InputError
from mera_core.evaluation.bootstrap import Bootstrap, Estimate, divide, estimate
from mera_core.evaluation.probability_metrics import (
    FrequentLabels,
    Pairs,
    auroc,
    average_precision,
    brier,
    calibration_slope,
    ece_of_frequent_labels,
    f1,
    frequent_label_calibration,
    macro_average_precision,
    reliability,
)
from mera_core.evaluation.truth import Truth, as_csr, rows_of_labels

NEW_ONLY_KS = (5, 10, 20)

# --- from scores to ranks and sets


def top_labels(scores: np.ndarray, k: int) -> np.ndarray:
    """The k best labels of each row, best first; ties by label order: [rows, labels] -> int [rows, k]."""
    k = min(k, scores.shape[1])
    if np.isnan(scores).any():
        raise InputError("Scores must be numbers; at least one is NaN.")
    top = np.empty((len(scores), k), np.int64)
    if not k:
        return top
    for start in range(0, len(scores), 256):
        block = -scores[start : start + 256]
        bound = np.partition(block, k - 1, axis=1)[:, k - 1 : k]
        row, label = np.nonzero(block <= bound)  # at least k a row, more when the last place is tied
        order = np.lexsort((label, block[row, label], row))
        first = np.searchsorted(row, np.arange(len(block)))
        top[start : start + 256] = label[order][first[:, None] + np.arange(k)]
    return top


def top_sets(scores: np.ndarray, sizes: np.ndarray | int) -> sparse.csr_matrix:
    """The best `sizes` labels of each row as predicted sets; a size beyond the label space takes it all."""
    sizes = np.minimum(np.broadcast_to(sizes, len(scores)), scores.shape[1])
    top = top_labels(scores, int(sizes.max(initial=0)))
    return rows_of_labels([row[:size] for row, size in zip(top, sizes, strict=True)], scores.shape[1])


def above_cut(scores: np.ndarray, cut: np.ndarray | float) -> sparse.csr_matrix:
    """Predicted sets: labels whose score is above the row's cut, [rows] or one for all."""
    return sparse.csr_matrix((scores > np.broadcast_to(cut, len(scores))[:, None]).astype(np.float64))


# --- one figure at a time


def recall_at(top: np.ndarray, truth: Truth, k: int, capped: bool = False) -> np.ndarray:
    """Recall@k of each patient: |top-k & Y| / |Y|, NaN where Y is empty; capped divides by min(k, |Y|).

    top: int [patients, at least k], best first.
    """
    if top.shape[1] < min(k, truth.positive.shape[1]):
        raise InputError(f"Recall at {k} needs the {k} best labels, not {top.shape[1]}.")
    rows = np.arange(len(truth))[:, None]
    found = np.asarray(truth.positive[rows, top[:, :k]].sum(axis=1)).ravel()
    return divide(found, np.minimum(truth.size, k) if capped else truth.size)


def weighted_f1(predicted: sparse.csr_matrix, truth: Truth, bootstrap: Bootstrap) -> Estimate:
    """F1 of each label, averaged by how often the label is true.

    Equals scikit-learn's f1_score(average="weighted", zero_division=0) with one more label, never predicted,
    for each true code outside the label space. 0 when nothing is true.
    """
    wanted = _ever_true(truth)
    parts = [as_csr(part)[:, wanted] for part in (predicted.multiply(truth.positive), predicted, truth.positive)]
    value = _weighted_f1(*(np.asarray(part.sum(0)) for part in parts), missing=truth.missing.sum())
    draws = []
    for start in range(0, len(bootstrap.counts), 100):
        counts = bootstrap.counts[start : start + 100].astype(np.float64)
        draws.append(_weighted_f1(*((part.T @ counts.T).T for part in parts), missing=counts @ truth.missing))
    return estimate(value[0], np.concatenate(draws))


def _ever_true(truth: Truth) -> np.ndarray:
    """The labels that are true of some patient: no other weighs anything in weighted F1, and most are never true."""
    return np.flatnonzero(np.asarray(truth.positive.sum(0)).ravel())


def _weighted_f1(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray, missing: Any) -> np.ndarray:
    """Counts per label [..., labels] and true codes outside the label space [...] -> weighted F1 [...]."""
    each = np.nan_to_num(divide(2 * hits, predicted + true))
    return np.nan_to_num(divide((each * true).sum(-1), true.sum(-1) + missing))


def cut_figures(predicted: sparse.csr_matrix, truth: Truth, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """A cut as a user meets it: its weighted F1, precision and recall over all its codes, and mean size."""
    hits = np.asarray(predicted.multiply(truth.positive).sum(1)).ravel()
    size = np.asarray(predicted.sum(1)).ravel()
    return {
        "weighted_f1_cut": weighted_f1(predicted, truth, bootstrap),
        "cut_precision": bootstrap.ratio(hits, size),
        "cut_recall": bootstrap.ratio(hits, truth.size),
        "cut_size_mean": bootstrap.mean(size),
    }


def label_pairs(scores: np.ndarray, truth: Truth, seen: bool | None = None) -> Pairs:
    """(patient, label) pairs with scores and outcomes: all, or only labels the history held, or did not."""
    outcome = truth.positive.astype(bool).toarray()
    patient = np.arange(len(scores), dtype=np.int32)
    if seen is None:
        return Pairs(np.repeat(patient, scores.shape[1]), scores.ravel(), outcome.ravel())
    keep = truth.seen.astype(bool).toarray() == seen
    return Pairs(np.repeat(patient, keep.sum(1)), scores[keep], outcome[keep])


# --- cuts chosen on validation patients


def best_fixed_size(scores: np.ndarray, truth: Truth, largest: int = 50) -> tuple[int, float]:
    """The number of top codes with the highest weighted F1, the smallest if several; and that F1."""
    top = top_labels(scores, largest)
    n_labels = scores.shape[1]
    hit = np.asarray(truth.positive[np.arange(len(top))[:, None], top].todense())
    # Counts per label and rank, then summed down the ranks: every k at once.
    cell = np.arange(top.shape[1])[None] * n_labels + top
    shape = (top.shape[1], n_labels)
    predicted = np.bincount(cell.ravel(), minlength=shape[0] * shape[1]).reshape(shape).cumsum(0)
    hits = np.bincount(cell.ravel(), weights=hit.ravel(), minlength=shape[0] * shape[1]).reshape(shape).cumsum(0)
    each = _weighted_f1(hits, predicted, np.asarray(truth.positive.sum(0)), truth.missing.sum())
    return int(each.argmax()) + 1, float(each.max())


def best_threshold(scores: np.ndarray, truth: Truth, steps: int = 400) -> tuple[float, float]:
    """The one cut for all patients, `score > threshold`, with the highest weighted F1; and that F1.

    Tries `steps` thresholds, spaced evenly in the logarithm of the number of codes predicted a patient, from
    0.05 to 50. Scores on the way from one patient to another must be comparable for it to be any good.
    """
    sizes = np.geomspace(0.05, min(50.0, scores.shape[1] * 0.999), steps) * len(scores)
    lowest = max(0, scores.size - 1 - int(sizes[-1]))
    flat = np.sort(np.partition(scores, lowest, axis=None)[lowest:])[::-1]  # only the best can be a cut
    cuts = np.unique(flat[np.minimum(sizes.astype(np.int64), len(flat) - 1)])
    row, label = np.nonzero(scores > cuts[0])
    wanted = _ever_true(truth)
    weighs = np.isin(label, wanted)
    row, label = row[weighs], label[weighs]
    above = np.searchsorted(cuts, scores[row, label], side="left")  # how many cuts the score is above
    n_labels, shape = len(wanted), (len(cuts) + 1, len(wanted))
    cell = above * n_labels + np.searchsorted(wanted, label)
    hit = np.asarray(truth.positive[row, label]).ravel()

    def by_cut(weights: np.ndarray | None) -> np.ndarray:
        counted = np.bincount(cell, weights=weights, minlength=shape[0] * shape[1]).reshape(shape)
        return counted[:0:-1].cumsum(0)[::-1]  # [cuts, labels]: scores above cut i

    each = _weighted_f1(by_cut(hit), by_cut(None), np.asarray(truth.positive.sum(0))[:, wanted], truth.missing.sum())
    # The highest of several equal cuts: fewest codes.
    best = len(each) - 1 - int(each[::-1].argmax())
    return float(cuts[best]), float(each[best])


# --- everything at once


@dataclass(frozen=True)
class Evaluation:
    """Every figure of one model on a set of patients, named as `python -m training evaluate --json` does."""

    patients: int
    metrics: dict[str, Estimate]
    recurrent: dict[str, Estimate] = field(default_factory=dict)
    new_onset: dict[str, Estimate] = field(default_factory=dict)
    reliability: list[dict[str, float]] = field(default_factory=list)
    macro_labels: int = 0
    frequent: FrequentLabels = field(default_factory=FrequentLabels)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        groups = {"metrics": self.metrics, "recurrent": self.recurrent, "new_onset": self.new_onset}
        out: dict[str, Any] = {"patients": self.patients}
        out |= {name: {key: one.to_dict() for key, one in group.items()} for name, group in groups.items()}
        return out | {
            "reliability": self.reliability,
            "reliability_frequent": self.frequent.curve,
            "frequent_labels": self.frequent.labels,
            "auprc_macro_labels": self.macro_labels,
        }


def evaluate_ranking(
    scores: np.ndarray,
    truth: Truth,
    predicted: sparse.csr_matrix | None = None,
    probability: np.ndarray | None = None,
    *,
    ks: Sequence[int] = (10, 20),
    bootstrap: Bootstrap | None = None,
    areas: bool = True,
    comparable: np.ndarray | None = None,
) -> Evaluation:
    """All figures of a ranking, with the cut-off's where sets are given and calibration where probabilities are.

    scores: [patients, labels], what lists are sorted by. predicted: the cut-off's sets (`above_cut`, `top_sets`).
    probability: [patients, labels] in 0..1. areas: False leaves out AUPRC, the slow part. comparable:
    [patients, labels], what AUPRC is taken of: it asks for scores that can be compared between patients; without
    it `scores`, which then must be such. One bootstrap for all models makes their differences paired
    (`resampling.paired_differences`).
    """
    if scores.shape != truth.positive.shape:
        raise InputError(f"Scores are {scores.shape} and the truth {truth.positive.shape}.")
    bootstrap = bootstrap or Bootstrap(len(truth))
    top = top_labels(scores, max(ks))

    def recalls(of: Truth, capped: bool = False) -> dict[str, Estimate]:
        name = "recall_capped" if capped else "recall"
        return {f"{name}@{k}": bootstrap.mean(recall_at(top, of, k, capped)) for k in ks}

    metrics = recalls(truth) | recalls(truth, capped=True)
    metrics["weighted_f1_oracle"] = weighted_f1(top_sets(scores, truth.size), truth, bootstrap)
    metrics["true_size_mean"] = bootstrap.mean(truth.size.astype(float))
    if predicted is not None:
        metrics |= cut_figures(predicted, truth, bootstrap)
    split = {True: recalls(truth.recurrent), False: recalls(truth.new_onset)}
    n_macro = 0
    if areas:
        by = scores if comparable is None else comparable
        metrics["auprc_micro"] = average_precision(label_pairs(by, truth), bootstrap)
        metrics["auprc_macro"], n_macro = macro_average_precision(by, truth.positive, bootstrap)
        for seen, figures in split.items():
            figures["auprc_micro"] = average_precision(label_pairs(by, truth, seen), bootstrap)
    curve, frequent = [], FrequentLabels()
    if probability is not None:
        calibration, curve, frequent = _calibration(probability, truth, top, bootstrap)
        metrics |= calibration | frequent.figures
        held = truth.seen.toarray() > 0
        split[True]["ece"] = reliability(label_pairs(probability, truth, seen=True), bootstrap)[0]
        split[True] |= ece_of_frequent_labels(probability, truth.positive, held, bootstrap)
    return Evaluation(len(truth), metrics, split[True], split[False], curve, n_macro, frequent)


def new_only(scores: np.ndarray, truth: Truth) -> tuple[np.ndarray, Truth]:
    """Scores in which the labels that the history holds stand below all others, and the new true labels alone."""
    rest = np.maximum(scores, np.finfo(scores.dtype).min)  # so that what is taken out stands last by itself
    rest[truth.seen.astype(bool).toarray()] = -np.inf
    return rest, replace(truth.new_onset, missing=np.zeros_like(truth.missing))


def evaluate_new_only(
    scores: np.ndarray,
    truth: Truth,
    bootstrap: Bootstrap,
    *,
    comparable: np.ndarray | None = None,
    probability: np.ndarray | None = None,
    areas: bool = True,
) -> dict[str, Estimate]:
    """Figures of lists from which the labels that the history holds are taken out, as they are out of the truth.

    Recall averages over patients with a new true label; AUPRC (unless `areas` is False) and, where probabilities are given,
    ECE are over the (patient, label) pairs that remain, `ece_frequent` over those of `ece_of_frequent_labels`. True codes
    outside the label space are left out. Arguments as of `evaluate_ranking`.
    """
    rest, new = new_only(scores, truth)
    held = truth.seen.toarray() > 0
    top = top_labels(rest, max(NEW_ONLY_KS))
    figures = {f"recall@{k}": bootstrap.mean(recall_at(top, new, k)) for k in NEW_ONLY_KS}
    if areas:
        pairs = label_pairs(scores if comparable is None else comparable, truth, seen=False)
        figures["auprc_micro"] = average_precision(pairs, bootstrap)
    if probability is not None:
        figures["ece"] = reliability(label_pairs(probability, truth, seen=False), bootstrap)[0]
        figures |= ece_of_frequent_labels(probability, truth.positive, ~held, bootstrap)
    return figures


def _calibration(
    probability: np.ndarray, truth: Truth, top: np.ndarray, bootstrap: Bootstrap
) -> tuple[dict[str, Estimate], list[dict[str, float]], FrequentLabels]:
    """Figures of probabilities [patients, labels] over all pairs and over the labels listed [patients, k], and the curve."""
    pairs = label_pairs(probability, truth)
    error, curve = reliability(pairs, bootstrap)
    rows = np.repeat(np.arange(len(truth)), top.shape[1])
    outcome = np.asarray(truth.positive[rows, top.ravel()]).ravel() > 0
    listed = Pairs(rows, probability[rows, top.ravel()], outcome)
    figures = {
        "ece": error,
        "calibration_slope": calibration_slope(pairs, bootstrap),
        "brier": brier(pairs, bootstrap),
        f"ece_top{top.shape[1]}": reliability(listed, bootstrap)[0],
    }
    return figures, curve, frequent_label_calibration(probability, truth.positive, bootstrap)


def evaluate_subgroups(
    scores: np.ndarray,
    truth: Truth,
    groups: Mapping[str, np.ndarray],
    predicted: sparse.csr_matrix | None = None,
    *,
    ks: Sequence[int] = (10, 20),
    n_boot: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Recall, weighted F1 and the cut-off within each group of patients, with its n; empty groups are left out.

    groups: name -> bool [patients]. Small groups have wide intervals: read those, not the figure.
    """
    out = []
    for name, mask in groups.items():
        rows = np.flatnonzero(mask)
        if not len(rows):
            continue
        part = evaluate_ranking(
            scores[rows],
            truth.take(rows),
            None if predicted is None else predicted[rows],
            ks=ks,
            bootstrap=Bootstrap(len(rows), n_boot, seed),
            areas=False,
        )
        metrics = {key: one.to_dict() for key, one in part.metrics.items()}
        out.append({"name": name, "n": len(rows), "metrics": metrics})
    return out


def evaluate_event(
    probability: np.ndarray, outcome: np.ndarray, had_before: np.ndarray, bootstrap_seed: int = 0, n_boot: int = 1000
) -> dict[str, Any]:
    """A yes/no prediction such as heart failure, for all patients and for those who never had it.

    probability, outcome, had_before: [patients]. AUROC, AUPRC and F1 at probability 0.5, and the number of
    patients and of cases.
    """
    out = {}
    for name, keep in (("all", np.ones(len(outcome), bool)), ("without_history", ~had_before)):
        if not keep.any():
            continue
        p, y = probability[keep], outcome[keep]
        bootstrap = Bootstrap(len(y), n_boot, bootstrap_seed)
        figures = {
            "auroc": auroc(p, y, bootstrap),
            "auprc": average_precision(Pairs(np.arange(len(y)), p, y), bootstrap),
            "f1_at_0.5": f1(p > 0.5, y, bootstrap),
        }
        out[name] = {"n": len(y), "cases": int(y.sum())} | {key: one.to_dict() for key, one in figures.items()}
    return out

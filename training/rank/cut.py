"""What is fitted on validation patients once the network stands still: recorded codes, probabilities, the cut-off, and the
thresholds and order of the list made for weighted F1.

Boundary: a trained engine in, numbers left in its score head and calibrations out; no gradient of the network, no test
patient. docs/method.md, "Output"; what was tried is in docs/choices.md.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize

from mera_core.checkpoint.folder import Manifest, load_checkpoint, save_checkpoint
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code, Ontology
from mera_core.model.recurrence import seen_features
from mera_core.model.sequence import Encoded
from mera_core.ranking.calibration import Calibration, Calibrations
from mera_core.ranking.ranking import for_weighted_f1
from training.common.split import histories_and_truth, in_parts, read_once, with_codes
from training.rank.population import fit_population

FREQUENCY_EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Powers of a code's frequency that the thresholds of the list for weighted F1 may take off its score."""
REACH_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much of a code's own best threshold they may take up."""
F1_TOLERANCE = 0.002
"""Weighted F1 of two cuts that are taken for equally good: a tenth of what a thousand patients can tell apart."""
MAX_DROP = 0.02
"""By how much the list's weighted F1 at the true number of codes, or its recall@20, may fall behind that of the plain scores."""
ORDER_FREQUENCY_EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Powers of a code's frequency that the order below the cut-off may take off."""
CUT_SCORES = 2**25
"""Scores (patients x labels) that a cut is fitted on at most: it holds a dozen tables of that size, 256 MB each."""
_PENALTY = 1.0  # half of it times the squared correction stands beside the log loss of all recorded codes
_FLATTEST = 0.05
_MARGINS = np.linspace(-30, 30, 6001)


@dataclass(frozen=True)
class LabelCounts:
    """The label space and how often each label is in a next visit of the training patients.

    rate: [C], share of next visits that hold the label, kept above zero by half a visit.
    """

    labels: tuple[Code, ...]
    rate: np.ndarray

    @classmethod
    def of(cls, patients: Sequence[Patient]) -> LabelCounts:
        labels = tuple(sorted({code for patient in patients for visit in patient.visits for code in visit.codes}))
        index = {code: i for i, code in enumerate(labels)}
        counts, visits = np.zeros(len(labels)), 0
        for patient in patients:
            for visit in patient.visits[1:]:
                visits += 1
                counts[[index[code] for code in visit.codes]] += 1
        return cls(labels, (counts + 0.5) / (visits + 1))


def drawn(patients: list[Patient], labels: int, seed: int) -> list[Patient]:
    """Those that a cut is fitted on: all, or as many as `CUT_SCORES` allows, drawn by the seed."""
    most = max(1, CUT_SCORES // labels)
    return patients if len(patients) <= most else random.Random(seed).sample(patients, most)


def fit_cut(engine: Engine, patients: Sequence[Patient], counts: LabelCounts) -> tuple[dict[str, Any], Calibrations]:
    """Fit on validation patients, and leave in the engine, what its lists are made with. In this order:

    1. recorded codes (`fit_recorded`): training ranks patients that it has seen, and is too sure of what comes back. Only
       where the threshold was trained in its independent form: other margins are no log odds, and a correction that makes
       log odds of some of them would tear them apart from the rest;
    2. the curves from `m = s_c - s_EOV` to a probability, for new codes and for recorded ones (`Calibrations.fit`);
    3. the cut-off: the one log odds of a probability with the highest weighted F1;
    4. the list made for weighted F1 (`_fit_f1`), left in the score head.

    Returns:
        What was fitted and, for comparison, the best fixed k and the best thresholds on the same patients; the calibrations.

    Raises:
        InputError: no patient has two visits.
    """
    if not patients:
        raise InputError("No validation patient has two visits, so the cut-off can't be fitted.")
    histories, truth, _ = histories_and_truth(engine, patients)
    with_term = engine.model.head.copy and engine.threshold == "independent"
    recorded = fit_recorded(engine, histories, truth) if with_term else None
    scores, eov = engine.scores(histories)
    margin, held = scores.astype(np.float64) - eov[:, None], truth.seen.toarray() > 0
    calibrations = Calibrations.fit(margin, truth.positive, held)
    cut, weighted_f1 = metrics.best_threshold(calibrations.logit(margin, held), truth)
    engine.calibration = calibrations = replace(calibrations, cut=cut)
    size, size_f1 = metrics.best_fixed_size(engine.ranked(scores, eov, held), truth)
    mass = np.exp(scores - scores.max(1, keepdims=True))
    thresholds = {
        "logit": metrics.best_threshold(scores, truth),
        "share": metrics.best_threshold(mass / mass.sum(1, keepdims=True), truth),
        "over_eov": metrics.best_threshold(margin, truth),
    }
    fitted = {
        "patients": len(patients),
        "recorded": recorded,
        "log_odds": cut,
        "weighted_f1": weighted_f1,
        "best_fixed_k": {"k": size, "weighted_f1": size_f1},
        "best_threshold": {name: {"threshold": cut, "weighted_f1": f1} for name, (cut, f1) in thresholds.items()},
        "for_weighted_f1": _fit_f1(engine, scores, eov, truth, np.log(counts.rate)),
    }
    return fitted, calibrations


def _fit_f1(
    engine: Engine, scores: np.ndarray, eov: np.ndarray, truth: Truth, log_rate: np.ndarray
) -> dict[str, float]:
    """Fit the order "f1", see `ranking.for_weighted_f1`:

    1. `cut_offset_c = a + b log rate_c + r t_c`, where `t_c` is the margin at which a code's probability, by one curve for
       all codes, is half of the F1 within its reach (`own_thresholds`): see `_cut_offset`;
    2. `order_offset_c = d log rate_c`: d from `ORDER_FREQUENCY_EXPONENTS`, by recall@20.
    """
    margin, head = scores.astype(np.float64) - eov[:, None], engine.model.head
    chosen, offset = _cut_offset(
        scores, eov, truth, log_rate, own_thresholds(margin, Calibration.fit(margin, truth.positive))
    )
    recalls = {}
    for tilt_below in ORDER_FREQUENCY_EXPONENTS:
        recalls[tilt_below] = recall_at_20(for_weighted_f1(scores, eov, offset, tilt_below * log_rate), truth)
    order_tilt = max(recalls, key=recalls.get)
    with torch.no_grad():
        head.cut_offset.copy_(torch.tensor(offset, dtype=torch.float32))
        head.order_offset.copy_(torch.tensor(order_tilt * log_rate, dtype=torch.float32))
    return chosen | {"order_tilt": order_tilt}


def _cut_offset(
    scores: np.ndarray, eov: np.ndarray, truth: Truth, log_rate: np.ndarray, own: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """The choice, and the cut-off's offset [C]: b from `FREQUENCY_EXPONENTS`, r from `REACH_SHARES`, a from every threshold.

    The highest weighted F1 of the cut-off counts. Weighted F1 hardly minds rare codes that are predicted for everybody, though
    a reader of the list does: of the cuts that are as good (`F1_TOLERANCE`), the one stays whose list has the highest weighted
    F1 at the true number of codes as well, and none whose list falls far behind that of the plain scores (`MAX_DROP`), be it
    in that F1 or in recall@20.
    """
    margin, bootstrap, tried = scores.astype(np.float64) - eov[:, None], Bootstrap(len(truth), 1), []
    for share in REACH_SHARES:
        for tilt in FREQUENCY_EXPONENTS:
            per_code = tilt * log_rate + share * own
            a, f1 = metrics.best_threshold(margin - per_code, truth)
            tried.append(({"offset": a, "frequency_tilt": tilt, "reach_share": share, "weighted_f1": f1}, a + per_code))

    def at_true_length(ranked: np.ndarray) -> float:
        return metrics.weighted_f1(metrics.top_sets(ranked, truth.size), truth, bootstrap).value

    least, least_recall, found = at_true_length(scores) - MAX_DROP, recall_at_20(scores, truth) - MAX_DROP, []
    for values, offset in sorted(tried, key=lambda one: -one[0]["weighted_f1"]):
        if found and values["weighted_f1"] < found[0][1]["weighted_f1"] - F1_TOLERANCE:
            break
        ranked = for_weighted_f1(scores, eov, offset)
        worth = at_true_length(ranked)
        if worth >= least and recall_at_20(ranked, truth) >= least_recall:
            found.append((worth, values, offset))
    _, values, offset = max(found, key=lambda one: one[0])  # one without tilt or share lists as the plain scores do
    return values, offset


def recall_at_20(ranked: np.ndarray, truth: Truth) -> float:
    """Mean recall@20: what the order of a list is chosen by, on validation patients."""
    return float(np.nanmean(metrics.recall_at(metrics.top_labels(ranked, 20), truth, 20)))


def fit_recorded(engine: Engine, histories: Sequence[tuple[Patient, Encoded]], truth: Truth) -> dict[str, Any]:
    """Correct the margins of codes that a history holds: `m -> slope m + x . shift`, x the four `SEEN_FEATURES`.

    Logistic regression of "it came back" on the recorded codes of validation patients, drawn to no correction (slope 1,
    shift 0) by a weak penalty. Five numbers for all codes, left in the score head.
    """
    head, index = engine.model.head, {code: label for label, code in enumerate(engine.label_space)}
    with torch.no_grad():
        head.recorded_slope.fill_(1.0)
        head.recorded_shift.zero_()
    scores, eov = engine.scores(histories)
    rows = [[n, *row] for n, (patient, _) in enumerate(histories) for row in seen_features(patient.visits, index)]
    found = {"codes": len(rows), "slope": 1.0, "shift": [0.0] * len(head.recorded_shift)}
    if not rows:
        return found
    table = np.array(rows, np.float64)
    row, label, features = table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:]
    margin = scores[row, label].astype(np.float64) - eov[row]
    true = np.asarray(truth.positive[row, label]).ravel()
    inputs = np.column_stack([margin, features])

    def loss(change: np.ndarray) -> tuple[float, np.ndarray]:
        z = margin + inputs @ change
        gradient = inputs.T @ (1 / (1 + np.exp(-np.clip(z, -700, 700))) - true)
        total = (np.logaddexp(0, z) - true * z).sum() + _PENALTY / 2 * change @ change
        return float(total), gradient + _PENALTY * change

    change = minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B").x
    slope = max(_FLATTEST, 1 + float(change[0]))
    with torch.no_grad():
        head.recorded_slope.fill_(slope)
        head.recorded_shift.copy_(torch.tensor(change[1:], dtype=torch.float32))
    return found | {"slope": slope, "shift": change[1:].tolist()}


def own_thresholds(margin: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Margin [C] at which each code's probability is half of the F1 within its reach, given margins [N, C].

    A code's F1 is greatest where it is predicted from half of that F1 upwards (Lipton, Elkan, Narayanaswamy, "Optimal
    Thresholding of Classifiers to Maximize F1 Measure", 2014). Within reach: the expected F1, were the calibrated
    probabilities true, for the best number of these patients; no label is looked at.
    """
    probability = calibration.curve(-np.sort(-margin, axis=0))  # [N, C], falling
    count = np.arange(1, len(margin) + 1)[:, None]
    reach = (2 * probability.cumsum(0) / (probability.sum(0) + count)).max(0)
    return np.interp(reach / 2, calibration.curve(_MARGINS), _MARGINS)


def refit(checkpoint: Path, data: str, format: str, out: Path) -> Manifest:
    """Fit a checkpoint's probabilities and cut-off again, on the validation part of `data`, and write the result to `out`.

    The network's files stay to the byte. For a population of one's own: where a cut belongs and how likely a score is differ
    from one source to another.

    Raises:
        InputError: the checkpoint does not rank, or the data hold no patient to fit on.
    """
    model, manifest = load_checkpoint(checkpoint)
    if not manifest.label_space:
        raise InputError(f"The checkpoint {checkpoint} was not trained to rank, so it has no cut.")
    engine = Engine(model.eval(), manifest, Ontology.load())
    cohort = read_once(data, format)
    parts = in_parts(with_codes(cohort.patients), cohort.report.format)
    validation = [patient for patient in parts["validation"] if len(patient.visits) > 1]
    rate = np.exp(-model.head.rarity.cpu().numpy()) if model.head.copy else LabelCounts.of(parts["train"]).rate
    chosen = drawn(validation, len(manifest.label_space), manifest.method.get("rank", {}).get("seed", 1))
    cut, calibration = fit_cut(engine, chosen, LabelCounts(manifest.label_space, rate))
    manifest.method["cut"] = cut | {"fitted_on": f"validation part of {Path(data).name}"}
    manifest.calibration.clear()
    manifest.calibration.update(calibration.to_dict())
    manifest.metrics.clear()
    fit_population(engine, manifest, parts["train"], cohort.report.format)
    save_checkpoint(model, manifest, out, network=checkpoint)
    return manifest

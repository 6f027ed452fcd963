"""Every figure of a checkpoint on patients it never saw, beside the baselines on the same patients (docs/method.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mera_core.cohort.targets import Ready, Targets
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap, Estimate, paired_differences
from mera_core.history.records import Patient
from mera_core.model.sequence import SequenceConfig
from mera_core.ranking.ranking import NOTICE, ORDERS
from mera_core.readers import Cohort, read
from training import baselines
from training.common.split import split_of, with_codes
from training.evaluate.held_out import choose_part, paper_test_part
from training.evaluate.scored import Scored
from training.evaluate.table import print_table, without_nan

__all__ = ["COMPARED", "KS", "print_table", "run", "without_nan"]

KS = (5, 10, 20, 30)
COMPARED = ("recall@10", "recall@20", "weighted_f1_oracle")
NEW_ONLY_COMPARED = ("recall@10", "recall@20")
COMPARABLE = {
    True: "the probability that the engine shows",
    False: "score of the code - score of EOV; the checkpoint carries no calibration",
}
"""What areas are taken of, by whether the checkpoint is calibrated: a score that means the same for every patient, which
`Scored.ranked` does not (it holds each patient's own EOV)."""


def run(
    checkpoint: Path,
    data: str,
    format: str = "auto",
    train_data: str | None = None,
    part: str = "auto",
    draws: int = 1000,
    paper: bool = False,
    against: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint; the JSON of `python -m training evaluate --json` (docs/evidence/evaluate.schema.json).

    Args:
        part: "auto" takes the patients that the checkpoint never saw: all, or, where the data may be those of training, the
            test part by the split rule (`choose_part`). "paper": the test part of the paper's own split.
        train_data: records that hold the training patients; baselines are fitted on their training part. Where neither
            they nor `data` hold any, no baselines are reported, and the result says so.
        paper: the paper's cohort rule (a patient with any visit without codes is dropped) and its figures only.
        against: another checkpoint, for paired differences on the patients that both can read.
    """
    engine = load(checkpoint)
    cohort, paper = read(data, format), paper or part == "paper"
    patients, rule = _judged(cohort, engine, part, paper)
    if not patients:
        raise InputError(f"{data} holds no patient with two visits in the part that is evaluated ({rule}).")
    ours = Scored.of(engine, patients)
    bootstrap = Bootstrap(len(ours.patients), draws)
    result: dict[str, Any] = {
        "checkpoint": engine.name,
        "data": {"source": Path(data).name, "format": cohort.report.format, "patients": rule},
        "patients": len(ours.patients),
        "unreadable": len(patients) - len(ours.patients),
        "labels": len(engine.label_space),
        "mode": "paper" if paper else "honest",
        "draws": draws,
        "notice": NOTICE,
        "told": str(told_by(engine)),
    }
    if paper:
        empty = sum(any(not visit.codes for visit in p.visits) for p in cohort.patients)
        result["dropped_for_a_visit_without_codes"] = empty
    figures, new_only = _figures(ours, bootstrap, areas=not paper)
    told = figures.to_dict()
    result["new_only"] = {name: one.to_dict() for name, one in new_only.items()}
    result |= {name: told[name] for name in ("metrics", "recurrent", "new_onset")}
    result["f1_order"] = f1_order(ours, figures.metrics, new_only, bootstrap)
    result |= calibration_in_words(ours)
    result["unlike_training"] = unlike_training(ours, bootstrap)
    result |= {"cuts": cuts(ours, bootstrap), "heart_failure": heart_failure(ours, draws)}
    if not paper:
        result["auprc_of"] = COMPARABLE[ours.calibration is not None]
        result |= {name: told[name] for name in ("reliability", "reliability_frequent", "auprc_macro_labels")}
        result["frequent_labels"] = [
            {"code": str(engine.label_space[row.pop("label")])} | row for row in told["frequent_labels"]
        ]
        result["subgroups"] = metrics.evaluate_subgroups(
            ours.ranked, ours.truth, subgroups(ours.patients), ours.predicted, ks=(10, 20), n_boot=draws
        )
    result |= beside_baselines(ours, figures.metrics, new_only, bootstrap, cohort, train_data)
    if against is not None:
        result["against"] = compare(ours, Scored.of(load(against), patients), draws)
    return without_nan(result)


def unlike_training(ours: Scored, bootstrap: Bootstrap) -> dict[str, Any] | None:
    """Share of the histories that the checkpoint calls unlike those of training; None where it was not told what these are."""
    if ours.engine.population is None:
        return None
    targets = Targets(ours.engine)
    found = [targets.ready(patient, hold_out=True) for patient in ours.patients]
    unlike = [isinstance(one, Ready) and any(n.kind == "unlike_training" for n in one.notes) for one in found]
    return bootstrap.mean(np.array(unlike, float)).to_dict()


def _judged(cohort: Cohort, engine: Engine, part: str, paper: bool) -> tuple[list[Patient], str]:
    """The patients of two visits that are evaluated, and in words which they are."""
    if part == "paper":
        patients, rule = paper_test_part(cohort, engine)
    else:
        kept = [p for p in cohort.patients if not paper or all(visit.codes for visit in p.visits)]
        patients, rule = choose_part(with_codes(kept), engine, cohort.report.format, part)
    return [p for p in patients if len(p.visits) > 1], rule


def _figures(ours: Scored, bootstrap: Bootstrap, areas: bool) -> tuple[metrics.Evaluation, dict[str, Estimate]]:
    """All figures of whole lists, and those of lists without the history's labels."""
    probability = ours.probability()
    comparable = ours.margin if ours.calibration is None else probability
    whole = metrics.evaluate_ranking(
        ours.ranked,
        ours.truth,
        ours.predicted,
        probability,
        ks=KS,
        bootstrap=bootstrap,
        areas=areas,
        comparable=comparable,
    )
    return whole, metrics.evaluate_new_only(
        ours.ranked, ours.truth, bootstrap, comparable=comparable, probability=probability
    )


def f1_order(
    ours: Scored, figures: dict[str, Estimate], new_only: dict[str, Estimate], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Lists made for weighted F1 beside the default ones, whose figures are given, with paired differences (this - default)."""
    made = ours.in_order("f1")
    found = metrics.evaluate_ranking(made.ranked, made.truth, made.predicted, ks=KS, bootstrap=bootstrap, areas=False)
    found_new = metrics.evaluate_new_only(made.ranked, made.truth, bootstrap, areas=False)
    minus, minus_new = paired_differences(found.metrics, figures), paired_differences(found_new, new_only)
    compared = (*COMPARED, "weighted_f1_cut")
    return {
        "order": ORDERS["f1"],
        "metrics": {name: one.to_dict() for name, one in found.metrics.items()},
        "new_only": {name: one.to_dict() for name, one in found_new.items()},
        "minus_default": {name: minus[name].to_dict() for name in compared},
        "new_only_minus_default": {name: minus_new[name].to_dict() for name in NEW_ONLY_COMPARED},
    }


def new_only_beside(ours: dict[str, Estimate], theirs: dict[str, Estimate]) -> dict[str, Any]:
    """New-only figures of another model, and the paired differences from them."""
    differences = paired_differences(ours, theirs)
    return {
        "new_only": {name: one.to_dict() for name, one in theirs.items()},
        "new_only_ours_minus_this": {name: differences[name].to_dict() for name in NEW_ONLY_COMPARED},
    }


def told_by(engine: Engine) -> baselines.Told:
    """What a checkpoint is told of a patient."""
    return baselines.Told.by(SequenceConfig(**engine.manifest["sequence"]))


def load(checkpoint: Path) -> Engine:
    """The engine of a checkpoint that ranks; InputError for one that has only memorized ICD codes."""
    engine = Engine.load(checkpoint)
    if not engine.label_space:
        raise InputError(f"The checkpoint {checkpoint} was not trained to rank, so there is nothing to evaluate.")
    return engine


def calibration_in_words(ours: Scored) -> dict[str, Any]:
    """Which probability the calibration figures are of, and the curves that the checkpoint carries."""
    if ours.calibration is None:
        return {"ece_of": "sigmoid(score of the code - score of EOV); the checkpoint carries no calibration"}
    return {
        "ece_of": f"the probability that the engine shows ({ours.calibration.in_words()})",
        "calibration": ours.calibration.to_dict(),
    }


def cuts(ours: Scored, bootstrap: Bootstrap) -> dict[str, Any]:
    """The learned cut beside the best fixed k and the best single thresholds, all chosen on validation patients."""
    fitted = ours.engine.manifest["method"].get("cut")
    if not fitted:
        return {}
    share = np.exp(ours.scores - ours.scores.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    size = fitted["best_fixed_k"]["k"]
    others = {f"best fixed k ({size})": metrics.top_sets(ours.ranked, size)}
    for name, value in {"logit": ours.scores, "share": share, "over_eov": ours.margin}.items():
        threshold = fitted["best_threshold"][name]["threshold"]
        others[f"best threshold of the {name}"] = metrics.above_cut(value, threshold)
    others["the paper's cut: score above EOV"] = metrics.above_cut(ours.margin, 0.0)
    learned = metrics.weighted_f1(ours.predicted, ours.truth, bootstrap)
    rows = []
    for name, sets in others.items():
        theirs = metrics.weighted_f1(sets, ours.truth, bootstrap)
        rows.append(
            {
                "cut": name,
                "weighted_f1": theirs.to_dict(),
                "size_mean": bootstrap.mean(np.asarray(sets.sum(1)).ravel()).to_dict(),
                "learned_minus_this": learned.minus(theirs).to_dict(),
            }
        )
    return {
        "chosen_on": f"{fitted['patients']} validation patients",
        "learned": learned.to_dict(),
        "others": rows,
    }


def heart_failure(ours: Scored, draws: int) -> dict[str, Any]:
    """Does the next visit hold heart failure? Scored by the best of its codes; with and without patients who had it."""
    columns = ours.heart_failure_columns()
    if not columns:
        return {}
    outcome = np.asarray(ours.truth.positive[:, columns].sum(1)).ravel() > 0
    before = np.asarray(ours.truth.seen[:, columns].sum(1)).ravel() > 0
    event = metrics.evaluate_event(ours.event(columns), outcome, before, n_boot=draws)
    return {
        "score": "the probability of the likeliest of its codes",
        "codes": [str(ours.engine.label_space[column]) for column in columns],
    } | event


def subgroups(patients: Sequence[Patient]) -> dict[str, np.ndarray]:
    """Masks over the patients by sex, age at the last visit of the history, ethnicity and length of history."""
    ages = np.array([np.nan if p.visits[-2].age is None else p.visits[-2].age for p in patients], float)
    groups = {f"sex {sex}": np.array([p.sex == sex for p in patients]) for sex in ("F", "M", "U")}
    for low, high in ((0, 50), (50, 65), (65, 80), (80, 200)):
        groups[f"age {low} to {high - 1}" if high < 200 else f"age {low} and over"] = (ages >= low) & (ages < high)
    groups["age not recorded"] = np.isnan(ages)
    for name in sorted({p.details.get("ethnicity", "not recorded") for p in patients}):
        groups[f"ethnicity {name}"] = np.array([p.details.get("ethnicity", "not recorded") == name for p in patients])
    past = np.array([len(p.visits) - 1 for p in patients])
    return groups | {
        "1 past visit": past == 1,
        "2 past visits": past == 2,
        "3 or more past visits": past >= 3,
    }


def compare(ours: Scored, theirs: Scored, draws: int) -> dict[str, Any]:
    """Two checkpoints on the patients that both can read, with paired differences (ours minus theirs)."""
    both = {patient.id for patient in ours.patients} & {patient.id for patient in theirs.patients}
    if not both:
        raise InputError("No patient can be read by both checkpoints.")
    bootstrap = Bootstrap(len(both), draws)
    (our_lists, our_new), (their_lists, their_new) = (
        _figures(one.take(both), bootstrap, areas=False) for one in (ours, theirs)
    )
    differences = paired_differences(our_lists.metrics, their_lists.metrics)
    return {
        "name": theirs.engine.name,
        "told": str(told_by(theirs.engine)),
        "patients": len(both),
        "metrics": {name: one.to_dict() for name, one in their_lists.metrics.items()},
        "ours_minus_this": {name: one.to_dict() for name, one in differences.items()},
    } | new_only_beside(our_new, their_new)


def training_patients(
    engine: Engine, cohort: Cohort, train_data: str | None = None
) -> tuple[list[Patient], list[Patient]]:
    """The patients a checkpoint was trained on, and validation patients of two visits, where the records hold them."""
    known = engine.manifest["data"].get("format")
    if train_data:
        source = read(train_data, known or "auto").patients
    else:
        source = cohort.patients if cohort.report.format == known else []
    kept = with_codes(source)
    train = [p for p in kept if split_of(p.id) == "train"]
    return train, [p for p in kept if split_of(p.id) == "validation" and len(p.visits) > 1]


def beside_baselines(
    ours: Scored,
    figures: dict[str, Estimate],
    new_only: dict[str, Estimate],
    bootstrap: Bootstrap,
    cohort: Cohort,
    train_data: str | None,
) -> dict[str, Any]:
    """Quick baselines fitted on the checkpoint's own training patients, on the same patients, with paired differences."""
    train, validation = training_patients(ours.engine, cohort, train_data)
    if not any(len(p.visits) > 1 for p in train) or not validation:
        return {
            "baselines": [],
            "baselines_absent": "no training patients at hand to fit them on: name them by --train-data",
        }
    rows, told = [], told_by(ours.engine).or_all(train)
    for baseline in baselines.all_baselines(ours.engine.label_space, told):
        scores = baseline.fit(train, validation).scores(ours.patients)
        theirs = metrics.evaluate_ranking(scores, ours.truth, ks=KS, bootstrap=bootstrap, areas=False).metrics
        differences = paired_differences(figures, theirs)
        # Copying the past gives no probability.
        probability = baseline.probability(scores) if hasattr(baseline, "probability") else None
        their_new = metrics.evaluate_new_only(scores, ours.truth, bootstrap, probability=probability)
        rows.append(
            {
                "name": baseline.name,
                "told": baseline.told,
                "metrics": {name: one.to_dict() for name, one in theirs.items()},
                "ours_minus_this": {name: differences[name].to_dict() for name in COMPARED},
            }
            | new_only_beside(new_only, their_new)
        )
    return {"baselines": rows, "baselines_fitted_on": f"{len(train)} training patients"}

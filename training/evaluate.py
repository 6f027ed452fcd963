"""Every figure of a checkpoint on patients it never saw, beside the baselines on the same patients (METHOD.md, "Evaluation")."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mera_core import metrics
from mera_core.engine import Engine
from mera_core.errors import InputError
from mera_core.ontology import Code
from mera_core.ranking import NOTICE, ranking_scores
from mera_core.readers import read
from mera_core.records import Patient
from mera_core.resampling import Bootstrap, Estimate, paired_differences
from training import baselines
from training.cohort import PARTS, SPLIT_RULE, histories_and_truth, split_of, with_codes

KS = (5, 10, 20, 30)
COMPARED = ("recall@10", "recall@20", "weighted_f1_oracle")
HEART_FAILURE = {"ICD9": "428", "ICD10": "I50"}


def run(
    checkpoint: Path,
    data: str,
    format: str = "auto",
    train_data: str | None = None,
    part: str = "auto",
    draws: int = 1000,
    paper: bool = False,
) -> dict[str, Any]:
    """Evaluate a checkpoint; the JSON of `python -m training evaluate --json` (ARCHITECTURE.md, "Contracts").

    Args:
        part: "auto" takes the patients that the checkpoint never saw: all, or, where the data are of the format that it
            was trained on, the test part by the split rule.
        train_data: records that hold the training patients; baselines are fitted on their training part. Where neither
            they nor `data` hold any, no baselines are reported, and the result says so.
        paper: the paper's cohort rule (a patient with any visit without codes is dropped) and its figures only.
    """
    engine = Engine.load(checkpoint)
    if not engine.label_space:
        raise InputError(f"The checkpoint {checkpoint} was not trained to rank, so there is nothing to evaluate.")
    cohort = read(data, format)
    patients = cohort.patients
    dropped = sum(any(not visit.codes for visit in p.visits) for p in patients)
    if paper:
        patients = [p for p in patients if all(visit.codes for visit in p.visits)]
    patients, rule = choose_part(with_codes(patients), engine, cohort.report.format, part)
    patients = [p for p in patients if len(p.visits) > 1]
    if not patients:
        raise InputError(f"{data} holds no patient with two visits in the part that is evaluated ({rule}).")
    histories, truth, patients = histories_and_truth(engine, patients)
    scores, eov = engine.scores(histories)
    ranked = ranking_scores(scores, eov, engine.cut_offset)
    predicted = metrics.above_cut(ranked, eov)
    bootstrap = Bootstrap(len(patients), draws)
    result: dict[str, Any] = {
        "checkpoint": engine.name,
        "data": {"source": Path(data).name, "format": cohort.report.format, "patients": rule},
        "patients": len(patients),
        "labels": len(engine.label_space),
        "mode": "paper" if paper else "honest",
        "notice": NOTICE,
    }
    if paper:
        result["dropped_for_a_visit_without_codes"] = dropped
    probability = 1 / (1 + np.exp(-(scores.astype(np.float64) - eov[:, None])))
    ours = metrics.evaluate_ranking(ranked, truth, predicted, probability, ks=KS, bootstrap=bootstrap, areas=not paper)
    figures = ours.to_dict()
    result |= {name: figures[name] for name in ("metrics", "recurrent", "new_onset")}
    result["ece_of"] = "sigmoid(score of the code - score of EOV), not calibrated after training"
    result["cuts"] = cuts(engine, scores, eov, ranked, predicted, truth, bootstrap)
    result["heart_failure"] = heart_failure(engine, histories, probability, truth)
    if not paper:
        result["reliability"] = figures["reliability"]
        result["auprc_macro_labels"] = figures["auprc_macro_labels"]
        result["subgroups"] = metrics.evaluate_subgroups(
            ranked, truth, subgroups(patients), predicted, ks=(10, 20), n_boot=min(draws, 200)
        )
    result |= beside_baselines(engine, ours.metrics, patients, truth, bootstrap, cohort, train_data)
    return without_nan(result)


def choose_part(patients: list[Patient], engine: Engine, format: str, part: str) -> tuple[list[Patient], str]:
    """The patients to evaluate, and in words which they are."""
    if part not in ("auto", "all", *PARTS):
        raise InputError(f'--part is "{part}"; it can be auto, all, {", ".join(PARTS)}.')
    if part == "auto":
        part = "test" if engine.manifest["data"].get("format") == format else "all"
    if part == "all":
        return patients, "all"
    return [p for p in patients if split_of(p.id) == part], f"{part} part ({SPLIT_RULE})"


def cuts(engine, scores, eov, ranked, predicted, truth, bootstrap: Bootstrap) -> dict[str, Any]:
    """The learned cut beside the best fixed k and the best single thresholds, all chosen on validation patients."""
    fitted = engine.manifest["method"].get("cut")
    if not fitted:
        return {}
    share = np.exp(scores - scores.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    others = {f"best fixed k ({fitted['best_fixed_k']['k']})": metrics.top_sets(ranked, fitted["best_fixed_k"]["k"])}
    values = {
        "score": ranked,
        "logit": scores,
        "share": share,
        "over_eov": scores.astype(np.float64) - eov[:, None],
    }
    for name, chosen in fitted["best_threshold"].items():
        others[f"best threshold of the {name}"] = metrics.above_cut(values[name], chosen["threshold"])
    others["the paper's cut: score above EOV"] = metrics.above_cut(values["over_eov"], 0.0)
    ours = metrics.weighted_f1(predicted, truth, bootstrap)
    rows = []
    for name, sets in others.items():
        theirs = metrics.weighted_f1(sets, truth, bootstrap)
        size = bootstrap.mean(np.asarray(sets.sum(1)).ravel())
        rows.append(
            {
                "cut": name,
                "weighted_f1": theirs.to_dict(),
                "size_mean": size.to_dict(),
                "learned_minus_this": ours.minus(theirs).to_dict(),
            }
        )
    return {
        "chosen_on": f"{fitted['patients']} validation patients",
        "learned": ours.to_dict(),
        "others": rows,
    }


def heart_failure(engine: Engine, histories, probability: np.ndarray, truth: metrics.Truth) -> dict[str, Any]:
    """Does the next visit hold heart failure? Scored by the best of its codes; with and without patients who had it."""
    columns = [
        i
        for i, code in enumerate(engine.label_space)
        if Code(code.system, HEART_FAILURE[code.system]) in (code, *engine.ontology.ancestors(code))
    ]
    if not columns:
        return {}
    outcome = np.asarray(truth.positive[:, columns].sum(1)).ravel() > 0
    before = np.asarray(truth.seen[:, columns].sum(1)).ravel() > 0
    event = metrics.evaluate_event(probability[:, columns].max(1), outcome, before)
    return {
        "score": "the best score over its codes",
        "codes": [str(engine.label_space[i]) for i in columns],
    } | event


def subgroups(patients: Sequence[Patient]) -> dict[str, np.ndarray]:
    """Masks over the patients by sex, age at the last visit of the history, ethnicity and length of history."""
    ages = np.array([np.nan if p.visits[-2].age is None else p.visits[-2].age for p in patients], float)
    groups = {f"sex {sex}": np.array([p.sex == sex for p in patients]) for sex in ("F", "M", "U")}
    for low, high in ((0, 50), (50, 65), (65, 80), (80, 200)):
        groups[f"age {low} to {high - 1}" if high < 200 else f"age {low} and over"] = (ages >= low) & (ages < high)
    for name in sorted({p.details.get("ethnicity", "not recorded") for p in patients}):
        groups[f"ethnicity {name}"] = np.array([p.details.get("ethnicity", "not recorded") == name for p in patients])
    past = np.array([len(p.visits) - 1 for p in patients])
    return groups | {
        "1 past visit": past == 1,
        "2 past visits": past == 2,
        "3 or more past visits": past >= 3,
    }


def beside_baselines(engine, ours, patients, truth, bootstrap, cohort, train_data) -> dict[str, Any]:
    """Baselines fitted on the checkpoint's own training patients, on the same test patients, with paired differences."""
    known = engine.manifest["data"].get("format")
    if train_data:
        source = read(train_data, known or "auto").patients
    else:
        source = cohort.patients if cohort.report.format == known else []
    train = [p for p in with_codes(source) if split_of(p.id) == "train"]
    validation = [p for p in with_codes(source) if split_of(p.id) == "validation" and len(p.visits) > 1]
    if not any(len(p.visits) > 1 for p in train) or not validation:
        return {
            "baselines": [],
            "baselines_absent": "no training patients at hand to fit them on: name them by --train-data",
        }
    rows = []
    for baseline in baselines.all_baselines(engine.label_space):
        scores = baseline.fit(train, validation).scores(patients)
        theirs = metrics.evaluate_ranking(scores, truth, ks=KS, bootstrap=bootstrap, areas=False).metrics
        rows.append(
            {
                "name": baseline.name,
                "metrics": {name: one.to_dict() for name, one in theirs.items()},
                "ours_minus_this": {
                    name: one.to_dict() for name, one in paired_differences(ours, theirs).items() if name in COMPARED
                },
            }
        )
    return {"baselines": rows, "baselines_fitted_on": f"{len(train)} training patients"}


def without_nan(value: Any) -> Any:
    """JSON has no NaN: a figure that is not defined becomes null."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    if isinstance(value, Estimate):
        return without_nan(value.to_dict())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value


def print_table(result: dict[str, Any]) -> None:
    """A readable table on the screen."""
    from rich.console import Console
    from rich.table import Table

    def shown(figure: dict[str, float | None], scale: float = 100) -> str:
        if figure["value"] is None:
            return "not defined"
        low, high = figure["low"], figure["high"]
        interval = "" if low is None else f"  ({scale * low:.1f} to {scale * high:.1f})"
        return f"{scale * figure['value']:.2f}{interval}"

    console = Console()
    console.print(
        f"{result['checkpoint']}: {result['patients']} patients, {result['data']['patients']}. {result['notice']}"
    )
    table = Table("figure", "value x 100 (95 % interval)")
    for group in ("metrics", "recurrent", "new_onset"):
        for name, figure in result[group].items():
            sizes = name.endswith("size_mean") or name.endswith("slope")
            table.add_row(name if group == "metrics" else f"{group}: {name}", shown(figure, 1 if sizes else 100))
    console.print(table)
    if result["cuts"]:
        table = Table("cut", "weighted F1", "codes a patient", "learned cut minus this")
        table.add_row("learned", shown(result["cuts"]["learned"]), shown(result["metrics"]["cut_size_mean"], 1), "")
        for row in result["cuts"]["others"]:
            table.add_row(
                row["cut"],
                shown(row["weighted_f1"]),
                shown(row["size_mean"], 1),
                shown(row["learned_minus_this"]),
            )
        console.print(table)
    if result["baselines"]:
        table = Table("baseline", *COMPARED, *(f"ours minus it: {name}" for name in COMPARED))
        for row in result["baselines"]:
            theirs = [shown(row["metrics"][name]) for name in COMPARED]
            table.add_row(row["name"], *theirs, *(shown(row["ours_minus_this"][name]) for name in COMPARED))
        console.print(table)
    else:
        console.print("No baselines: " + result["baselines_absent"] + ".")

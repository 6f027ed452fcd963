"""The baseline table: every baseline on the split and label space of a checkpoint, row by row, as JSON that is kept.

A row is written when it is done, and a run that is started again goes on with the next one, also beside another checkpoint
of the same label space (`baseline_table`). Figures are those of `mera_core.evaluation.metrics`, on validation and on test patients,
with one bootstrap for all, so that differences are paired.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy.special import expit

from mera_core.common.errors import InputError
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap, Estimate, over_seeds
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code
from mera_core.ranking.ranking import NOTICE
from mera_core.readers import read
from training.ablate.results import figures_of
from training.baselines.goals import GOALS, NEW_ONLY, WHOLE_LIST, Goal
from training.baselines.samples import truth_of
from training.baselines.simple import CodeFrequency
from training.baselines.tuning import BUDGET_IN_WORDS, Cut, Family, best_order_tilt, families, scores_for, tuned
from training.common.split import SPLIT_RULE, split_of, with_codes
from training.evaluate.baseline_table import NEW_ONLY_PREFIX, Figures, KeptTable
from training.evaluate.run import load, told_by
from training.evaluate.scored import Scored

log = logging.getLogger(__name__)

ScoresByGoal: TypeAlias = Mapping[Goal, Sequence[Mapping[str, np.ndarray]]]  # goal -> of each seed -> part -> scores
PARTS = ("validation", "test")
KS = (5, 10, 20, 30)
SHOWN = (
    "new_only_recall@10", "new_only_recall@20",
    "recall@10", "recall@20", "recall@30", "weighted_f1_oracle", "weighted_f1_cut", "new_onset_recall@20",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Part:
    """One part of the patients: how the checkpoint ranks them, and its figures over the draws of `bootstrap`."""

    ours: Scored
    bootstrap: Bootstrap
    figures: dict[str, Estimate]


def run(
    checkpoint: Path,
    data: str,
    format: str,
    out: Path,
    seeds: Sequence[int] = (1, 2, 3),
    draws: int = 1000,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Fill the table in `out` (JSON), going on where it stands; returns it.

    Args:
        only: names of the rows to run; empty runs all.

    Raises:
        InputError: `out` holds the table of another label space or cohort, or a name in `only` is no row.
    """
    engine = load(checkpoint)
    cohort = read(data, format)
    patients = with_codes(cohort.patients)
    by_id = sorted(patients, key=lambda patient: patient.id)
    train = [p for p in patients if split_of(p.id) == "train"]
    parts = {name: _part(engine, patients, name, draws) for name in PARTS}
    ours_told = told_by(engine)
    everyone = families(engine.label_space, ours_told.or_all(train))
    names = [family.name for family in everyone]
    if unknown := sorted(set(only) - set(names)):
        raise InputError(f"There is no baseline {', '.join(unknown)}; there are {', '.join(names)}.")
    about = {
        "checkpoint": engine.name,
        "notice": NOTICE,
        "data": {"source": Path(data).name, "format": cohort.report.format, "split": SPLIT_RULE},
        "labels": mark(map(str, engine.label_space)),
        "cohort": mark(f"{p.id} {[[str(code) for code in v.codes] for v in p.visits]}" for p in by_id),
        "patients": {"train": len(train)} | {name: len(part.ours.patients) for name, part in parts.items()},
        "seeds": list(seeds),
        "draws": draws,
        "budget": BUDGET_IN_WORDS,
        "interval": "95 %, over draws of patients and, where a row has several seeds, of seeds",
        "cut": "weighted_f1_cut: MERA's own cut; for a baseline the best of all fixed sizes and thresholds on validation "
        "patients, and for those that score by logits the best of the whole family that MERA's cut is chosen from: a power of "
        "the code's frequency and a share of the code's own threshold taken off",
        "told": {"mera": str(ours_told)} | {family.name: family.told for family in everyone},
        "mera": {name: {key: one.to_dict() for key, one in part.figures.items()} for name, part in parts.items()},
    }
    table = KeptTable(out, about, {name: part.figures for name, part in parts.items()}, SHOWN)
    makers = {family.name: partial(_row, family, train, parts, seeds) for family in everyone}
    for name in only or makers:
        if name not in table.done():
            log.info("baseline: %s", name)
            table.keep(*makers[name]())
    return table.read()


def mark(lines: Iterable[str]) -> str:
    """Sixteen hexadecimal digits that any other lines would change."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


def _part(engine, patients: Sequence[Patient], name: str, draws: int) -> Part:
    chosen = [p for p in patients if split_of(p.id) == name and len(p.visits) > 1]
    if not chosen:
        raise InputError(f"The data hold no patient with two visits in the {name} part.")
    ours = Scored.of(engine, chosen)
    bootstrap = Bootstrap(len(ours.patients), draws)
    probability = ours.probability()
    comparable = ours.margin if ours.calibration is None else probability
    new_only = metrics.evaluate_new_only(
        ours.ranked, ours.truth, bootstrap, comparable=comparable, probability=probability
    )
    whole = figures_of(ours.ranked, ours.truth, bootstrap, ours.predicted, KS)
    return Part(ours, bootstrap, whole | prefixed(new_only))


def prefixed(figures: dict[str, Estimate]) -> dict[str, Estimate]:
    """New-only figures as they are named beside those of whole lists."""
    return {f"{NEW_ONLY_PREFIX}{name}": one for name, one in figures.items()}


def _row(
    family: Family, train: Sequence[Patient], parts: dict[str, Part], seeds: Sequence[int]
) -> tuple[dict[str, Any], Figures]:
    """Tune with the first seed, fit the settings chosen for each goal with every seed, measure on both parts."""
    began = time.perf_counter()
    validation = parts["validation"].ours.patients
    labels = parts["validation"].ours.engine.label_space
    chosen, tried = tuned(family, train, validation, truth_of(validation, labels), seeds[0])
    fits = {one.make: [one.fitted] for one in chosen.values()}
    if family.random:
        for make, models in fits.items():
            models += [make(seed).fit(train, validation) for seed in seeds[1:]]
    scored = {
        goal: [
            {name: scores_for(goal, model, part.ours.patients) for name, part in parts.items()}
            for model in fits[one.make]
        ]
        for goal, one in chosen.items()
    }
    log_rate = _log_rate(train, labels) if family.logits else None
    probability = expit if family.logits else getattr(chosen[NEW_ONLY].fitted, "probability", None)
    row = {
        "name": family.name,
        "told": family.told,
        "settings": chosen[WHOLE_LIST].fitted.settings,
        "settings_new_only": chosen[NEW_ONLY].fitted.settings,
        "tuning": tried,
        "runs": len(tried) + sum(len(models) - 1 for models in fits.values()),
    }
    measured, figures = _measured(scored, parts, log_rate, probability)
    return row | measured | {"seconds": round(time.perf_counter() - began, 1)}, figures


def _measured(
    scored: ScoresByGoal,
    parts: dict[str, Part],
    log_rate: np.ndarray | None,
    probability: Callable[[np.ndarray], np.ndarray] | None,
) -> tuple[dict[str, Any], Figures]:
    """Figures of one row on both parts, JSON-ready and in every draw.

    scored: for each goal the scores of each seed's model, which the goal's figures are of. probability: what makes
    probabilities of scores, where anything does.
    """
    validation = parts["validation"].ours.truth
    cuts = [Cut.fit(scores["validation"], validation, log_rate) for scores in scored[WHOLE_LIST]]
    tilts = {goal: [0.0] * len(each) for goal, each in scored.items()}
    if log_rate is not None:
        for goal, each in scored.items():
            tilts[goal] = [best_order_tilt(scores["validation"], validation, log_rate, goal) for scores in each]

    def listed(goal: Goal, seed: int, name: str) -> np.ndarray:
        return scored[goal][seed][name] - (0.0 if log_rate is None else tilts[goal][seed] * log_rate)

    out: dict[str, Any] = {
        "seeds": len(cuts),
        "cut": cuts[0].to_dict(),
        "order_tilt": tilts[WHOLE_LIST][0],
        "order_tilt_new_only": tilts[NEW_ONLY][0],
    }
    figures: dict[str, dict[str, Estimate]] = {}
    for name, part in parts.items():
        truth = part.ours.truth
        by_seed: list[dict[str, Estimate]] = []
        for seed, cut in enumerate(cuts):
            whole, new = (scored[goal][seed][name] for goal in GOALS)
            of_lists = figures_of(listed(WHOLE_LIST, seed, name), truth, part.bootstrap, cut.sets(whole), KS)
            of_new = metrics.evaluate_new_only(
                listed(NEW_ONLY, seed, name),
                truth,
                part.bootstrap,
                comparable=new,
                probability=probability(new) if probability else None,
            )
            by_seed.append(of_lists | prefixed(of_new))
        figures[name] = {key: over_seeds([one[key] for one in by_seed]) for key in by_seed[0]}
        out[name] = {
            "metrics": {key: one.to_dict() for key, one in figures[name].items()},
            "by_seed": {key: [one[key].value for one in by_seed] for key in SHOWN},
        }
    return out, figures


def _log_rate(train: Sequence[Patient], labels: Sequence[Code]) -> np.ndarray:
    """[C], the log of how often a label is in a next visit of the training patients."""
    return np.log(CodeFrequency(labels).fit(train).rate + 1e-5)

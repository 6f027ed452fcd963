"""The baseline table: every baseline on the split and label space of a checkpoint, row by row, as JSON that is kept.

A row is written when it is done, and a run that is started again goes on with the next one, also beside another checkpoint
of the same label space (`baseline_table`). Figures are those of `mera_core.evaluation.metrics`, on validation and on test patients,
with one bootstrap for all, so that differences are paired.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mera_core.common.errors import InputError
from mera_core.evaluation.bootstrap import Bootstrap, Estimate, over_seeds
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code
from mera_core.ranking.ranking import NOTICE
from mera_core.readers import read
from training.ablate.results import figures_of
from training.baselines.samples import truth_of
from training.baselines.simple import CodeFrequency
from training.baselines.tuning import BUDGET_IN_WORDS, Cut, Family, best_order_tilt, families, tuned
from training.common.split import SPLIT_RULE, split_of, with_codes
from training.evaluate.baseline_table import Figures, KeptTable
from training.evaluate.run import load
from training.evaluate.scored import Scored

log = logging.getLogger(__name__)

PARTS = ("validation", "test")
KS = (5, 10, 20, 30)
SHOWN = ("recall@10", "recall@20", "recall@30", "weighted_f1_oracle", "weighted_f1_cut", "new_onset_recall@20")


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
    everyone = families(engine.label_space)
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
    return Part(ours, bootstrap, figures_of(ours.ranked, ours.truth, bootstrap, ours.predicted, KS))


def _row(
    family: Family, train: Sequence[Patient], parts: dict[str, Part], seeds: Sequence[int]
) -> tuple[dict[str, Any], Figures]:
    """Tune with the first seed, fit the chosen settings with every seed, measure on both parts."""
    began = time.perf_counter()
    validation = parts["validation"].ours.patients
    labels = parts["validation"].ours.engine.label_space
    make, fitted, tried = tuned(family, train, validation, truth_of(validation, labels), seeds[0])
    models = [fitted]
    if family.random:
        models += [make(seed).fit(train, validation) for seed in seeds[1:]]
    scored = [{name: model.scores(part.ours.patients) for name, part in parts.items()} for model in models]
    log_rate = _log_rate(train, labels) if family.logits else None
    row = {"name": family.name, "settings": fitted.settings, "tuning": tried, "runs": len(tried) + len(models) - 1}
    measured, figures = _measured(scored, parts, log_rate)
    return row | measured | {"seconds": round(time.perf_counter() - began, 1)}, figures


def _measured(
    scored: Sequence[dict[str, np.ndarray]], parts: dict[str, Part], log_rate: np.ndarray | None
) -> tuple[dict[str, Any], Figures]:
    """Figures of one row on both parts, JSON-ready and in every draw; `scored` holds the scores of each seed's model."""
    validation = parts["validation"].ours.truth
    cuts = [Cut.fit(scores["validation"], validation, log_rate) for scores in scored]
    tilts = [0.0] * len(scored)
    if log_rate is not None:
        tilts = [best_order_tilt(scores["validation"], validation, log_rate) for scores in scored]
    out: dict[str, Any] = {"seeds": len(scored), "cut": cuts[0].to_dict(), "order_tilt": tilts[0]}
    figures: dict[str, dict[str, Estimate]] = {}
    for name, part in parts.items():
        each = []
        for scores, cut, tilt in zip(scored, cuts, tilts, strict=True):
            listed = scores[name] - (tilt * log_rate if tilt else 0.0)
            each.append(figures_of(listed, part.ours.truth, part.bootstrap, cut.sets(scores[name]), KS))
        figures[name] = {key: over_seeds([one[key] for one in each]) for key in each[0]}
        out[name] = {
            "metrics": {key: one.to_dict() for key, one in figures[name].items()},
            "by_seed": {key: [one[key].value for one in each] for key in SHOWN},
        }
    return out, figures


def _log_rate(train: Sequence[Patient], labels: Sequence[Code]) -> np.ndarray:
    """[C], the log of how often a label is in a next visit of the training patients."""
    return np.log(CodeFrequency(labels).fit(train).rate + 1e-5)

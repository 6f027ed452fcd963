"""4-bit, 8-bit and 16-bit weights beside full precision: memory, latency, agreement, and recall@20 where data are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import spearmanr

from mera_core.engine import Engine
from mera_core.evaluation.metrics import recall_at, top_labels
from mera_core.history.records import Patient
from mera_core.model.precision import QUANTIZE
from mera_core.readers import read
from training.benchmark.invented import patients
from training.benchmark.rows import Row, Setting, mean_seconds, paired, row
from training.benchmark.serve import LISTED, codes_of, histories_of
from training.common.split import histories_and_truth, in_parts, with_codes

TITLE = "Serving: 4, 8 and 16 bits a weight, beside full precision"
FULL = "full precision"
MOST_PATIENTS = 600
"""Patients that recall is measured on, at most."""


def measure(setting: Setting) -> Iterator[Row]:
    """Each precision beside the full one, and 4 bits beside bfloat16: latency, memory, agreement; with data recall@20."""
    engines = {quantize or FULL: Engine.load(setting.checkpoint, quantize) for quantize in QUANTIZE}
    people = patients(16 if setting.quick else 128, codes_of(engines[FULL]), seed=5)
    held_out = _held_out(setting)
    lists = {name: _order(engine, people) for name, engine in engines.items()}
    recall = {name: _recall(engine, held_out) for name, engine in engines.items()} if held_out else {}
    size = {name: _megabytes(engine) for name, engine in engines.items()}
    for name, other in [*((name, FULL) for name in engines if name != FULL), ("nf4", "bf16")]:
        took = paired(
            lambda name=name: mean_seconds(engines[name].rank, people[:16]),
            lambda other=other: mean_seconds(engines[other].rank, people[:16]),
            setting.times(7),
            warm=1,
        )
        suffix = "full" if other == FULL else other
        more = {
            "top_20_in_common": in_common(lists[name], lists[other]),
            "rank_correlation": rank_correlation(lists[name], lists[other]),
            "weights_mb": size[name],
            f"weights_mb_{suffix}": size[other],
        }
        if held_out:
            more |= {"recall_at_20": round(recall[name], 4), f"recall_at_20_{suffix}": round(recall[other], 4)}
            more |= {"recall_lost": round(recall[other] - recall[name], 4), "patients": len(held_out)}
        beside = "" if other == FULL else f", beside {other}"
        yield row(f"rank() in {name}{beside}", "s", other, *took, **more)


def in_common(ours: np.ndarray, theirs: np.ndarray, first: int = LISTED) -> float:
    """Share of the first codes of each list [N, C], best first, that is among the first of the other; mean over patients."""
    pairs = zip(ours[:, :first], theirs[:, :first], strict=True)
    return round(float(np.mean([len({*one} & {*other}) / len(one) for one, other in pairs])), 4)


def rank_correlation(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Spearman's correlation of the places of all labels on two lists [N, C], best first; mean over patients."""
    places = zip(np.argsort(ours, 1), np.argsort(theirs, 1), strict=True)
    return round(float(np.mean([spearmanr(one, other).statistic for one, other in places])), 4)


def _order(engine: Engine, people: Sequence[Patient]) -> np.ndarray:
    read = histories_of(engine, people)
    return np.argsort(-engine.ranked(*engine.scores(read), engine.held([one for one, _ in read])), kind="stable")


def _megabytes(engine: Engine) -> float:
    parameters = engine.model.backbone.parameters()
    return round(sum(parameter.numel() * parameter.element_size() for parameter in parameters) / 1e6, 1)


def _held_out(setting: Setting) -> list[Patient]:
    """Patients of the data that were never trained on, with a next visit to predict; none without data."""
    if setting.data is None:
        return []
    cohort = read(setting.data, setting.format)
    parts = in_parts(with_codes(cohort.patients), cohort.report.format)
    people = [patient for patient in parts["test"] or parts["validation"] if len(patient.visits) > 1]
    return people[: 100 if setting.quick else MOST_PATIENTS]


def _recall(engine: Engine, people: Sequence[Patient]) -> float:
    histories, truth, _ = histories_and_truth(engine, people)
    ranked = engine.ranked(*engine.scores(histories), truth.seen.toarray() > 0)
    return float(recall_at(top_labels(ranked, LISTED), truth, LISTED).mean())

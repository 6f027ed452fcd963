"""4-bit, 8-bit and 16-bit weights beside full precision: memory, latency, agreement, and recall@20 where data are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

import numpy as np

from mera_core.engine import Engine
from mera_core.metrics import recall_at, top_labels
from mera_core.precision import QUANTIZE
from mera_core.readers import read
from mera_core.records import Patient
from training.benchmark.invented import patients
from training.benchmark.rows import Row, Setting, paired, row, seconds
from training.benchmark.serve import LISTED, codes_of, histories_of
from training.cohort import histories_and_truth, in_parts, with_codes

TITLE = "Serving: 4, 8 and 16 bits a weight, beside full precision"
MOST_PATIENTS = 600
"""Patients that recall is measured on, at most."""


def measure(setting: Setting) -> Iterator[Row]:
    """Each precision beside the full one: memory of the weights, latency, agreement; with data also recall@20."""
    engine = Engine.load(setting.checkpoint)
    engine.warm_up()
    people = patients(16 if setting.quick else 128, codes_of(engine), seed=5)
    best = _best(engine, people)
    held_out = _held_out(setting)
    recall = _recall(engine, held_out) if held_out else 0.0
    for quantize in filter(None, QUANTIZE):
        other = Engine.load(setting.checkpoint, quantize)
        other.warm_up()
        took = paired(
            lambda e=other: mean(seconds(lambda p=person: e.rank(p)) for person in people[:16]),
            lambda: mean(seconds(lambda p=person: engine.rank(p)) for person in people[:16]),
            setting.times(7, 1),
            warm=1,
        )
        same = [len({*a} & {*b}) / LISTED for a, b in zip(_best(other, people), best, strict=True)]
        more: dict[str, float | str] = {"weights_mb": _megabytes(other), "weights_mb_full": _megabytes(engine)}
        if held_out:
            theirs = _recall(other, held_out)
            more |= {"recall_at_20": round(theirs, 4), "recall_at_20_full": round(recall, 4)}
            more |= {"recall_lost": round(recall - theirs, 4), "patients": len(held_out)}
        yield row(
            f"rank() in {quantize}",
            took[0],
            "s",
            against="full precision",
            theirs=took[1],
            top_20_in_common=round(mean(same), 4),
            **more,
        )


def _best(engine: Engine, people: Sequence[Patient]) -> np.ndarray:
    scores, eov = engine.scores(histories_of(engine, people))
    return np.argsort(-engine.ranked(scores, eov), kind="stable")[:, :LISTED]


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
    ranked = engine.ranked(*engine.scores(histories))
    return float(recall_at(top_labels(ranked, LISTED), truth, LISTED).mean())

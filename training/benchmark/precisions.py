"""4-bit, 8-bit and 16-bit weights beside full precision: memory, latency, agreement, and recall@20 where data are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from mera_core.engine import Engine
from mera_core.evaluation.metrics import recall_at, top_labels
from mera_core.history.records import Patient
from mera_core.model.precision import QUANTIZE
from mera_core.readers import read
from training.benchmark.agreement import LISTED, in_common, rank_correlation
from training.benchmark.invented import patients
from training.benchmark.rows import Row, Setting, paired, row, seconds
from training.benchmark.serve import codes_of, histories_of
from training.common.split import histories_and_truth, in_parts, with_codes

TITLE = "Serving: 4, 8 and 16 bits a weight, beside full precision"
FULL = "full precision"
MOST_PATIENTS = 600
"""Patients that recall is measured on, at most."""


def measure(setting: Setting) -> Iterator[Row]:
    """Each precision beside the full one, and 4 bits beside bfloat16: latency, memory, agreement; with data recall@20."""
    people = held_out = None
    served: dict[str, Served] = {}
    for quantize in QUANTIZE:
        engine = Engine.load(setting.checkpoint, quantize)
        engine.warm_up()
        people = people or patients(16 if setting.quick else 128, codes_of(engine), seed=5)
        held_out = _held_out(setting) if held_out is None else held_out
        name = quantize or FULL
        served[name] = Served(engine, _order(engine, people), _recall(engine, held_out) if held_out else None)
        if quantize:
            yield _beside(setting, served, name, FULL, people, len(held_out))
    yield _beside(setting, served, "nf4", "bf16", people, len(held_out))


@dataclass(frozen=True)
class Served:
    """A loaded precision: its lists [N, C], best first, and recall@20 on held-out patients where there are any."""

    engine: Engine
    order: np.ndarray
    recall: float | None


def _beside(
    setting: Setting, served: dict[str, Served], name: str, other: str, people: Sequence[Patient], held_out: int
) -> Row:
    ours, theirs = served[name], served[other]
    took = paired(
        lambda: mean(seconds(lambda p=person: ours.engine.rank(p)) for person in people[:16]),
        lambda: mean(seconds(lambda p=person: theirs.engine.rank(p)) for person in people[:16]),
        setting.times(7, 1),
        warm=1,
    )
    suffix = "full" if other == FULL else other
    more: dict[str, float | str] = {
        "top_20_in_common": in_common(ours.order, theirs.order),
        "rank_correlation": rank_correlation(ours.order, theirs.order),
        "weights_mb": _megabytes(ours.engine),
        f"weights_mb_{suffix}": _megabytes(theirs.engine),
    }
    if ours.recall is not None and theirs.recall is not None:
        more |= {"recall_at_20": round(ours.recall, 4), f"recall_at_20_{suffix}": round(theirs.recall, 4)}
        more |= {"recall_lost": round(theirs.recall - ours.recall, 4), "patients": held_out}
    beside = "" if other == FULL else f", beside {other}"
    return row(f"rank() in {name}{beside}", took[0], "s", against=other, theirs=took[1], **more)


def _order(engine: Engine, people: Sequence[Patient]) -> np.ndarray:
    scores, eov = engine.scores(histories_of(engine, people))
    return np.argsort(-engine.ranked(scores, eov), kind="stable")


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

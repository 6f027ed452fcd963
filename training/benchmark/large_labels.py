"""A loss over the codes of both books with the scores of a few targets at a time, beside all at once: memory and time.

Each figure is of a process of its own: `python -m training.benchmark.large_labels CHECKPOINT SYSTEMS PATIENTS AT_ONCE`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mera_core.icd.ontology import Ontology
from mera_core.model.losses import Hierarchy
from mera_core.model.sequence import Encoder, SequenceConfig
from training.benchmark.invented import patients
from training.benchmark.processes import child
from training.benchmark.rows import Row, Setting, row, seconds
from training.benchmark.train_step import HCL, billable, model_over
from training.rank.batches import HistoryBatches
from training.rank.run import rank_loss

TITLE = "Training: large label spaces, scores of a few targets at a time"
AT_ONCE = 32
"""Targets whose scores are held at a time."""


def measure(setting: Setting) -> Iterator[Row]:
    """Peak memory and time of a loss over both books, at once and in pieces, each in a process of its own."""
    systems = "ICD9" if setting.quick else "ICD9,ICD10"
    count = 8 if setting.quick else 128
    runs = setting.times(3, 1)

    def figures(at_once: int) -> tuple[float, float]:
        done = child(
            [
                sys.executable,
                "-m",
                "training.benchmark.large_labels",
                str(setting.checkpoint),
                systems,
                str(count),
                str(at_once),
            ]
        )
        return done.peak_gb, float(done.stdout.split()[-1])

    pairs = [(figures(AT_ONCE), figures(0)) for _ in range(runs)]
    for what, unit, place in (("peak memory", "GB", 0), ("time", "s", 1)):
        yield row(
            f"{what} of loss and gradient, {AT_ONCE} targets' scores at a time",
            [pieces[place] for pieces, _ in pairs],
            unit,
            against="scores of all targets at once",
            theirs=[whole[place] for _, whole in pairs],
            patients=count,
            systems=systems,
        )


def _one_loss(checkpoint: str, systems: str, count: str, at_once: str) -> None:
    """One forward and backward pass over one batch, in this process; prints the seconds."""
    ontology = Ontology.load()
    model = model_over(Path(checkpoint), ontology, billable(ontology, systems.split(",")))
    config = replace(HCL, batch_size=int(count), targets_at_once=int(at_once))
    cohort = patients(int(count), ontology.billable("ICD9"))
    data = HistoryBatches(cohort, model.labels, Encoder(model.vocabulary, SequenceConfig()), config)
    hierarchy = Hierarchy.from_ontology(model.labels, ontology, config.levels)
    batch = data.collate(cohort, random.Random(1))
    print(seconds(lambda: rank_loss(model, batch, hierarchy, config).backward()))


if __name__ == "__main__":
    _one_loss(*sys.argv[1:])

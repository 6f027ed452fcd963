"""Question 2: do the cut and the cost hold up as the label space grows?

The same small model is trained on the same patients with label spaces padded with codes that never come true: the codes
of the data alone, with all of ICD-9-CM, and with all of ICD-10-CM. Padding asks what more candidates do to ranking, cut,
memory and time; it can't ask how finer coding of the same patients would do. What training costs and what fitting the cut
costs are told apart. No stage 1: a vocabulary of 100,000 codes is built and not memorized, alike for every size.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mera_core.common.errors import InputError
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap
from mera_core.icd.ontology import Code, Ontology
from mera_core.ranking.ranking import NOTICE
from training.ablate.results import write_json
from training.ablate.run import Runs, make_untrained
from training.common.config import MemorizeConfig, RankConfig
from training.evaluate.scored import Scored
from training.evaluate.table import without_nan
from training.rank import run as rank
from training.rank.setup import cut, prepare

SIZES = ("codes of the data", "codes of the data and ICD-9-CM", "codes of the data and ICD-10-CM")
PATIENTS = 600  # of test: a matrix of 600 x 75,000 scores is 360 MB in float64
CUT_PATIENTS = 440
"""Of validation, alike for every size: as many as a run fits its cut on in the largest (`Setup.for_cut`)."""


def run(models: Runs, seed: int = 1, passes: float = 2.0, draws: int = 200) -> dict[str, Any]:
    """Train at each size, each in a process of its own so that its memory can be told apart.

    models: the ablation table, whose reference row gives the settings. passes: epochs, the same at every size.
    """
    start, rows = untrained(models, seed), []
    for number, size in enumerate(SIZES):
        mark = models.table.fingerprint(models.table.rows[0], seed, size, passes, Path(models.data).name, draws)
        kept = models.folder / f"growth-{number}-{seed}-{mark}.json"
        values = {"start": str(start), "data": models.data, "format": models.format, "epochs": passes, "rehearsal": 0}
        config = models.table.rank_config(models.table.rows[0], seed, **values)
        if not kept.is_file():
            child = get_context("spawn").Process(target=one_size, args=(config, size, draws, kept))
            child.start()
            child.join()
            if child.exitcode:
                raise InputError(f"The run with the label space of {size} ended with status {child.exitcode}.")
        rows.append(json.loads(kept.read_text(encoding="utf-8")))
    return {
        "notice": NOTICE,
        "question": "Do the cut and the cost hold up as the label space grows?",
        "padding": "codes that never come true in training or test; no stage 1",
        "passes": passes,
        "seed": seed,
        "rows": rows,
    }


def untrained(models: Runs, seed: int) -> Path:
    """A stage-1 folder with a token for every node of both code sets, built and never trained."""
    folder = models.folder / f"both-books-{seed}"
    if not (folder / "mera.json").is_file():
        settings = models.table.memorize | {"systems": ("ICD9", "ICD10"), "seed": seed}
        make_untrained(MemorizeConfig(**settings), folder)
    return folder


def padding(size: str, ontology: Ontology) -> list[Code]:
    """The billable codes that a label space is padded with."""
    systems: Sequence[str] = {SIZES[0]: (), SIZES[1]: ("ICD9",), SIZES[2]: ("ICD10",)}[size]
    return [code for system in systems for code in ontology.billable(system)]


def one_size(config: RankConfig, size: str, draws: int, kept: Path) -> None:
    """Train and measure one label space; writes the row as JSON."""
    setup = prepare(config, kept.with_suffix(""), padding(size, Ontology.load()))
    del setup.validation[CUT_PATIENTS:]
    batches, _ = setup.batches(), setup.hierarchy  # made before the clock starts
    before, began = peak_memory(), time.perf_counter()
    rank.train(setup, batches, kept.with_suffix(""))
    training, peak = time.perf_counter() - began, peak_memory()  # read before the cut, whose tables may be larger
    began = time.perf_counter()
    cut(setup)
    cutting, peak_of_cut = time.perf_counter() - began, peak_memory()
    test = [patient for patient in setup.parts["test"] if len(patient.visits) > 1][:PATIENTS]
    began = time.perf_counter()
    ours = Scored.of(setup.engine, test)
    ranking = time.perf_counter() - began
    bootstrap = Bootstrap(len(ours.truth), draws)
    figures = metrics.evaluate_ranking(
        ours.ranked, ours.truth, ours.predicted, ks=(10, 20), bootstrap=bootstrap, areas=False
    ).metrics
    row = {
        "label_space": size,
        "labels": len(setup.counts.labels),
        "patients": len(ours.truth),
        "metrics": figures,
        "plain_eov_cut": metrics.cut_figures(metrics.above_cut(ours.margin, 0.0), ours.truth, bootstrap),
        "precision_recall": precision_recall(ours),
        "steps": len(batches),
        "seconds_a_step": training / len(batches),
        "milliseconds_a_ranking": 1000 * ranking / len(ours.truth),
        "memory_before_training_gb": before / 1e9,
        "peak_memory_gb": peak / 1e9,
        "cut_patients": len(setup.validation),
        "cut_seconds": cutting,
        "peak_memory_with_cut_gb": peak_of_cut / 1e9,
    }
    write_json(kept, without_nan(row))


def precision_recall(ours: Scored, points: int = 25) -> list[dict[str, float]]:
    """Precision and recall over all patients as the fitted cut is moved up and down, from few codes to many."""
    spare = ours.ranked - ours.eov[:, None]
    out = []
    best = np.sort(spare, axis=None)[::-1]
    for size in np.geomspace(0.1, min(50, spare.shape[1] - 1), points):
        sets = metrics.above_cut(spare, best[int(size * len(spare))])
        hits = sets.multiply(ours.truth.positive).sum()
        if sets.sum():
            out.append(
                {
                    "codes_a_patient": float(sets.sum() / len(spare)),
                    "precision": float(hits / sets.sum()),
                    "recall": float(hits / ours.truth.size.sum()),
                }
            )
    return out


def peak_memory() -> float:
    """Largest resident memory of this process so far, bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

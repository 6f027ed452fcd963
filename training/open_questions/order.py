"""Question 3: does shuffling the codes of a visit throw away an order that matters?

The same small model is trained on shuffled visits, on visits as recorded, and on visits sorted by code (an order that is
fixed and says nothing). Visits hold their codes by priority where the source has one (UCI: diag_1 is the principal
diagnosis), so that "as recorded" is "by priority" there. Judged by the recall of the next visit's first code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mera_core.engine import Engine
from mera_core.evaluation.bootstrap import Bootstrap, Estimate
from mera_core.evaluation.metrics import recall_at, top_labels
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code
from mera_core.ranking.ranking import NOTICE
from training.ablate.results import load_figures, mean_differences, means, save_figures
from training.ablate.run import Runs
from training.common.split import in_parts, read_once, with_codes
from training.evaluate.scored import Scored
from training.evaluate.table import without_nan
from training.rank.setup import prepare, train_and_cut

KS = (1, 5, 10, 20)
ORDERS = ("shuffled", "as recorded (by priority)", "sorted by code")


def run(models: Runs, seeds: Sequence[int], draws: int = 1000) -> dict[str, Any]:
    """Train each order, with and without the score head's terms (which know the newest visit's first code), and compare.

    models: the ablation table, whose reference row gives the settings.
    """
    rows, patients = [], 0
    for copy in (True, False):
        figures: dict[str, list[dict[str, Estimate]]] = {}
        for order in ORDERS:
            for seed in seeds:
                one, patients = one_order(models, order, copy, seed, draws)
                figures.setdefault(order, []).append(one)
            row = {"order": order, "head_knows_first_code": copy, "seeds": len(seeds), "metrics": means(figures[order])}
            if order != ORDERS[0]:
                row["minus_shuffled"] = mean_differences(figures[order], figures[ORDERS[0]])
            rows.append(row)
    question = "Does shuffling throw away order that matters?"
    return without_nan({"notice": NOTICE, "question": question, "patients": patients, "rows": rows})


def one_order(models: Runs, order: str, copy: bool, seed: int, draws: int) -> tuple[dict[str, Estimate], int]:
    """Train one model on one order of codes; its figures on the test patients, and how many those are. Kept in the folder."""
    mark = models.table.fingerprint(models.table.rows[0], seed, order, copy, Path(models.data).name, draws)
    folder = models.folder / f"order-{ORDERS.index(order)}-{'with' if copy else 'without'}-{seed}-{mark}"
    kept = folder.with_suffix(".npz")
    if found := load_figures(kept):
        return found[0], int(found[1]["patients"])
    cohort = read_once(models.data, models.format)
    test = in_parts(with_codes(cohort.patients), cohort.report.format)["test"]
    # the first code as recorded, whatever the order of the input
    principal = {patient.id: patient.visits[-1].codes[0] for patient in test}
    if order == "sorted by code":
        test = [in_code_order(patient) for patient in test]
    engine = trained(models, order, copy, seed, folder)
    ours = Scored.of(engine, [patient for patient in test if len(patient.visits) > 1])
    bootstrap = Bootstrap(len(ours.truth), draws)
    figures = figures_of(ours, [principal[patient.id] for patient in ours.patients], bootstrap)
    save_figures(kept, figures, patients=len(ours.truth))
    return figures, len(ours.truth)


def trained(models: Runs, order: str, copy: bool, seed: int, folder: Path) -> Engine:
    """A model trained on one order of codes: the ablation table's, where it keeps the very same, or one trained now."""
    table, reference = models.table, models.table.rows[0]
    # drop needs shuffling, so that no order may have it
    values: dict = {"shuffle": order == "shuffled", "copy": copy, "drop": 0.0}
    for row in table.rows if order != "sorted by code" else ():
        same = (row.start, row.train, row.memorize) == (reference.start, reference.train, reference.memorize)
        if row.keep and same and table.rank_config(row, seed) == table.rank_config(reference, seed, **values):
            return Engine.load(models.checkpoint(row.name, seed))
    values |= {"start": str(models.stage1(reference, seed)), "data": models.data, "format": models.format}
    setup = prepare(table.rank_config(reference, seed, **values), folder)
    if order == "sorted by code":
        parts = {name: [in_code_order(patient) for patient in people] for name, people in setup.parts.items()}
        setup = replace(setup, parts=parts, validation=[in_code_order(patient) for patient in setup.validation])
    train_and_cut(setup, folder)
    return setup.engine


def in_code_order(patient: Patient) -> Patient:
    """The patient with the codes of each visit sorted: an order that holds no priority."""
    visits = tuple(replace(visit, codes=tuple(sorted(visit.codes)), positions=()) for visit in patient.visits)
    return replace(patient, visits=visits)


def figures_of(ours: Scored, principal: Sequence[Code], bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Recall@k and mean reciprocal rank of the principal diagnosis, and recall@20 of all codes."""
    index = {code: label for label, code in enumerate(ours.engine.label_space)}
    first = [[index[code]] if code in index else [] for code in principal]
    missing = [not labels for labels in first]
    truth = Truth.from_sets(first, first, len(index), missing, missing)
    top = top_labels(ours.ranked, max(KS))
    figures = {f"principal_recall@{k}": bootstrap.mean(recall_at(top, truth, k)) for k in KS}
    above = [
        (ours.ranked[row] > ours.ranked[row, labels[0]]).sum() if labels else np.inf for row, labels in enumerate(first)
    ]
    figures["principal_reciprocal_rank"] = bootstrap.mean(1 / (1 + np.array(above, float)))
    return figures | {"recall@20": bootstrap.mean(recall_at(top, ours.truth, 20))}

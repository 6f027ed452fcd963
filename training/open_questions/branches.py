"""Question 1: does contrast inside the tree cost predictions across its branches?

Of the next visit's new codes, those whose chapter the history holds already (in-branch) and those in a chapter it does
not hold (cross-branch, comorbidity) are found apart, by models trained with and without the contrast inside the tree.
Trains nothing: it is given the checkpoints of rows of the ablation table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from mera_core.common.errors import InputError
from mera_core.evaluation.bootstrap import Bootstrap, Estimate, over_seeds
from mera_core.evaluation.metrics import top_labels
from mera_core.evaluation.truth import Truth, as_csr, rows_of_labels
from mera_core.icd.chapters import FIELDS, field_of
from mera_core.ranking.ranking import NOTICE
from mera_core.readers import read
from training.ablate.results import mean_differences, means
from training.common.split import split_of, with_codes
from training.evaluate.run import load
from training.evaluate.scored import Scored
from training.evaluate.table import without_nan

K = 20
LEAST_PAIR = 30  # new codes of a pair of chapters, below which its difference is not listed


def run(
    checkpoints: Mapping[str, Sequence[Path]], data: str, format: str, part: str = "test", draws: int = 1000
) -> dict[str, Any]:
    """Recall@20 of new codes in and across branches for each model, the first being the reference.

    checkpoints: model -> its checkpoints, one a seed, in the same order of seeds for all. Raises InputError where the
    numbers of seeds differ or the models do not share a label space.
    """
    if len({len(folders) for folders in checkpoints.values()}) != 1:
        raise InputError("Each model of this question needs the same number of checkpoints, one a seed.")
    patients = [p for p in with_codes(read(data, format).patients) if split_of(p.id) == part and len(p.visits) > 1]
    scored = {name: [Scored.of(load(folder), patients) for folder in folders] for name, folders in checkpoints.items()}
    first = next(iter(scored.values()))[0]
    if any(one.engine.label_space != first.engine.label_space for each in scored.values() for one in each):
        raise InputError("The models of this question must share a label space.")
    fields = [field_of(code) for code in first.engine.label_space]
    names = sorted(set(fields), key=list(FIELDS).index)
    chapter = np.array([names.index(field) for field in fields])
    branches = divided(first.truth, chapter)
    bootstrap = Bootstrap(len(first.truth), draws)
    figures = {
        name: [{branch: recall(one, new, bootstrap) for branch, new in branches.items()} for one in each]
        for name, each in scored.items()
    }
    reference = next(iter(figures))
    models = [
        {"name": name, "seeds": len(each), **means(each)}
        | ({} if name == reference else {"minus_reference": mean_differences(each, figures[reference])})
        for name, each in figures.items()
    ]
    titles = [FIELDS[field][0] for field in names]
    return without_nan(
        {
            "notice": NOTICE,
            "question": "Does contrast inside the tree cost predictions across its branches?",
            "patients": len(first.truth),
            "k": K,
            "reference": reference,
            "new_codes": {branch: int(new.sum()) for branch, new in branches.items()},
            "models": models,
            "pairs": {
                name: pairs(each, scored[reference], chapter, titles, bootstrap)
                for name, each in scored.items()
                if name != reference
            },
        }
    )


def divided(truth: Truth, chapter: np.ndarray) -> dict[str, sparse.csr_matrix]:
    """New true codes whose chapter the history holds (`in_branch`) or does not (`cross_branch`): 0/1 [patients, labels].

    chapter: int [labels].
    """
    new = truth.new_onset.positive
    held = in_chapters(truth.seen, chapter).toarray() > 0
    inside = as_csr(new.multiply(held[:, chapter]))
    return {"in_branch": inside, "cross_branch": as_csr(new - inside)}


def in_chapters(labels: sparse.csr_matrix, chapter: np.ndarray) -> sparse.csr_matrix:
    """How many labels of each chapter a row holds: [patients, labels] -> [patients, chapters]."""
    n = chapter.max() + 1
    membership = sparse.csr_matrix((np.ones(len(chapter)), (np.arange(len(chapter)), chapter)), (len(chapter), n))
    return sparse.csr_matrix(labels @ membership)


def found(one: Scored) -> sparse.csr_matrix:
    """The K best labels of each patient, 0/1 [patients, labels]."""
    return rows_of_labels(top_labels(one.ranked, K).tolist(), one.ranked.shape[1])


def recall(one: Scored, wanted: sparse.csr_matrix, bootstrap: Bootstrap) -> Estimate:
    """Share of all wanted codes that stand among the K best, over all patients together."""
    hits = np.asarray(wanted.multiply(found(one)).sum(1)).ravel()
    return bootstrap.ratio(hits, np.asarray(wanted.sum(1)).ravel())


def pairs(
    theirs: Sequence[Scored], ours: Sequence[Scored], chapter: np.ndarray, names: Sequence[str], bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """For each (chapter in the history, chapter of a new code): recall@K of both and the difference, biggest loss first.

    A pair of one chapter is in-branch. Pairs of fewer than LEAST_PAIR new codes are left out. theirs - ours: positive
    where the model without that part of the contrast finds more.
    """
    truth = ours[0].truth
    held = (in_chapters(truth.seen, chapter).toarray() > 0).astype(np.float64)  # [patients, chapters]
    new = truth.new_onset.positive
    total = in_chapters(new, chapter).toarray()
    hits = [
        [in_chapters(as_csr(new.multiply(found(one))), chapter).toarray() for one in models]
        for models in (theirs, ours)
    ]
    out = []
    for past, future in np.argwhere(held.T @ total >= LEAST_PAIR):
        weight = held[:, past] * (1.0 if past == future else (held[:, future] == 0))
        wanted = weight * total[:, future]
        if wanted.sum() < LEAST_PAIR:
            continue
        gained = [(a - b)[:, future] * weight for a, b in zip(*hits, strict=True)]
        out.append(
            {
                "history": names[past],
                "new": names[future],
                "codes": int(wanted.sum()),
                "reference": float(np.mean([(one[:, future] * weight).sum() for one in hits[1]]) / wanted.sum()),
                "difference": over_seeds([bootstrap.ratio(one, wanted) for one in gained]),
            }
        )
    return sorted(out, key=lambda row: row["difference"].value)

"""The cohorts and splits that the paper's figures are of, recomputed from any records. Trains and scores nothing.

METHOD.md, "Evaluation", paper mode: for each code the first patient that has it is forced into train, then the patient
with most visits; the rest are shuffled with seed 6669. It depends on the order of the records, unlike `cohort.split_of`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mera_core.errors import InputError
from mera_core.records import Patient

PAPER_SEED = 6669
SIZES = {"mimic3": (6000, 1000, None), "mimic4": (8000, 1000, 10_000)}  # train, test, patients drawn before the split
PAPER_RULE = (
    f"the paper's: first patient of each code and the longest history in train, rest shuffled, seed {PAPER_SEED}"
)


def paper_cohort(patients: Sequence[Patient], draw: int | None = None) -> list[Patient]:
    """Patients with two visits or more and no visit without codes; `draw` of them by the paper's seed, in order."""
    kept = [p for p in patients if len(p.visits) > 1 and all(visit.codes for visit in p.visits)]
    if draw is None or draw >= len(kept):
        return kept
    rows = np.random.RandomState(PAPER_SEED).choice(len(kept), draw, replace=False)
    return [kept[row] for row in sorted(rows)]


def split(patients: Sequence[Patient], n_train: int, n_test: int) -> dict[str, list[Patient]]:
    """Patients by part: `n_train` of them, `n_test`, and all others for validation.

    Raises InputError where the forced patients alone are more than `n_train`, or too few are left for the test part.
    """
    first = {}
    for row, patient in enumerate(patients):
        for visit in patient.visits:
            for code in visit.codes:
                first.setdefault(code, row)
    forced = set(first.values())
    if patients:
        forced.add(max(range(len(patients)), key=lambda row: len(patients[row].visits)))
    rest = np.array([row for row in range(len(patients)) if row not in forced], np.int64)
    np.random.RandomState(PAPER_SEED).shuffle(rest)
    extra = n_train - len(forced)
    if extra < 0 or len(rest) - extra < n_test:
        raise InputError(
            f"{len(patients)} patients, {len(forced)} of them forced into train, can't be split into {n_train} for train and "
            f"{n_test} for test."
        )
    return {
        "train": [patients[row] for row in sorted([*forced, *rest[:extra].tolist()])],
        "validation": [patients[row] for row in rest[extra : len(rest) - n_test]],
        "test": [patients[row] for row in rest[len(rest) - n_test :]],
    }


def paper_parts(patients: Sequence[Patient], format: str) -> dict[str, list[Patient]]:
    """The paper's split of a MIMIC cohort; InputError for records of which the paper reports none."""
    if format not in SIZES:
        raise InputError(f"The paper splits {' and '.join(SIZES)} records; it has no split of {format} records.")
    n_train, n_test, draw = SIZES[format]
    return split(paper_cohort(patients, draw), n_train, n_test)

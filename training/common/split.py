"""Patients in parts that never share one, and each patient's history beside its target. Trains and scores nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from mera_core.cohort.targets import Ready, Targets, coded_visits, truth_of
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient
from mera_core.model.sequence import Encoded
from mera_core.readers import Cohort, read
from mera_core.readers.uci_diabetes130 import uci_split

SPLIT_RULE = "first byte of SHA-256 of the patient's id as text: below 52 test, 52 to 69 validation, from 70 train"
PARTS = ("train", "validation", "test")


@lru_cache(maxsize=1)
def read_once(data: str, format: str) -> Cohort:
    """`read`, remembered: many runs of one process train on the same records."""
    return read(data, format)


def split_of(patient_id: str) -> str:
    """The part a patient belongs to; it depends on the id alone. One rule for every source (see `uci_split`)."""
    return uci_split(patient_id)


def in_parts(patients: Iterable[Patient], format: str) -> dict[str, list[Patient]]:
    """Patients by part. Raises InputError where the training part is empty or an id is missing."""
    parts: dict[str, list[Patient]] = {name: [] for name in PARTS}
    for patient in patients:
        if not patient.id:
            raise InputError(
                f"A patient of the {format} data has no id, so it can't be put in the training or test part."
            )
        parts[split_of(patient.id)].append(patient)
    if not parts["train"]:
        raise InputError("The data hold no patient of the training part.")
    return parts


def with_codes(patients: Iterable[Patient]) -> list[Patient]:
    """Patients with their visits that hold a code; patients without any are left out. Ages follow the last visit kept."""
    kept = []
    for patient in patients:
        if visits := coded_visits(patient):
            kept.append(replace(patient, visits=visits, age=patient.age if visits[-1].age is None else visits[-1].age))
    return kept


def histories_and_truth(
    engine: Engine, patients: Sequence[Patient]
) -> tuple[list[tuple[Patient, Encoded]], Truth, list[Patient]]:
    """Histories as the checkpoint reads them, and what their last visits held, in label indices.

    Patients whose history holds nothing readable, or whose last visit holds no code, are left out.

    Returns:
        (history, tokens) of each patient kept, the truth, and the patients kept.
    """
    targets = Targets(engine)
    found = [(patient, targets.ready(patient, hold_out=True)) for patient in patients]
    kept = [(patient, one) for patient, one in found if isinstance(one, Ready) and one.target]
    if not kept:
        raise InputError("No patient has a history and a next visit that this checkpoint can read.")
    truth = truth_of([one.target for _, one in kept], len(engine.label_space))
    return [(one.read, engine.encode(one.read)) for _, one in kept], truth, [patient for patient, _ in kept]

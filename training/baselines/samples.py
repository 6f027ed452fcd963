"""What every baseline learns from and is asked: histories and the visit after them. Knows no model.

A baseline is fitted on training patients and scores the same label space as a MERA model, so that the same figures
(`mera_core.evaluation.metrics`) can be taken of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from mera_core.common.errors import InputError
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code

CODES_ALONE = "codes"
"""What a model is told that knows of the past visits' codes alone."""


class Baseline(Protocol):
    """What every baseline does. `name` is how a report calls it, `told` what it knows of a patient, in words."""

    name: str
    told: str

    @property
    def settings(self) -> dict[str, float | int | str]:
        """What a tuning run varies, as values that JSON can hold."""
        ...

    def fit(self, patients: Sequence[Patient], validation: Sequence[Patient] = ()) -> Baseline:
        """Fit to every (history up to a visit -> the next visit) of the patients; returns itself.

        Raises InputError where no patient has a second visit with a code.
        """
        ...

    def scores(self, patients: Sequence[Patient]) -> np.ndarray:
        """Score every label for each patient's last visit, given all before it: float [patients, labels]."""
        ...


def truth_of(patients: Sequence[Patient], labels: Sequence[Code]) -> Truth:
    """What each patient's last visit held, and what the visits before it held; at least 2 visits each."""
    index = index_of(labels)
    pasts, targets = zip(*(last_visit(patient) for patient in patients), strict=True) if patients else ((), ())
    outside = [{code for code in target.codes if code not in index} for target in targets]
    before = [{code for visit in past for code in visit.codes} for past in pasts]
    return Truth.from_sets(
        [[index[code] for code in target.codes if code in index] for target in targets],
        [[index[code] for code in codes if code in index] for codes in before],
        len(labels),
        missing=[len(codes) for codes in outside],
        missing_seen=[len(codes & seen) for codes, seen in zip(outside, before, strict=True)],
    )


def last_visit(patient: Patient) -> tuple[Sequence[Visit], Visit]:
    """The visits before the last one, and the last one; InputError where there is only one."""
    if len(patient.visits) < 2:
        raise InputError(f"Patient {patient.id or '(without id)'} has no visit before the last one.")
    return patient.visits[:-1], patient.visits[-1]


def index_of(labels: Sequence[Code]) -> dict[Code, int]:
    """Label index of each code."""
    return {code: label for label, code in enumerate(labels)}


def history(patient: Patient, visits: int = -1) -> Patient:
    """The patient as known after so many visits, by default before the last one: no later visit, and not its age."""
    past = patient.visits[:visits]
    return replace(patient, visits=past, age=past[-1].age if past else None)


def histories(patients: Sequence[Patient]) -> list[tuple[Patient, Visit]]:
    """Every (history, next visit) whose next visit holds a code; InputError where there is none."""
    pairs = [
        (history(patient, t), patient.visits[t])
        for patient in patients
        for t in range(1, len(patient.visits))
        if patient.visits[t].codes
    ]
    if not pairs:
        raise InputError("No training patient has a second visit with a code.")
    return pairs


def samples(patients: Sequence[Patient]) -> list[tuple[tuple[Visit, ...], Visit]]:
    """`histories`, of which only the visits."""
    return [(past.visits, target) for past, target in histories(patients)]

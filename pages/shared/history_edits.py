"""Edits of a history as pure functions: Patient in, Patient out. No screen and no session.

Dates and ages belong to the place in the history, codes and details to the visit: a visit that is moved leaves
its date behind, so that dates stay in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mera_core.ontology import Code
from mera_core.records import Patient, Visit


def add_codes(patient: Patient, codes: Iterable[Code | str], visit: int | None) -> Patient:
    """The history with codes added to a visit (0-based), or to a new last visit where `visit` is None.

    A code that the visit already holds is not added again.
    """
    visits = list(patient.visits)
    if visit is None or visit >= len(visits):
        visits.append(Visit())
        visit = len(visits) - 1
    together = tuple(dict.fromkeys((*visits[visit].codes, *codes)))
    visits[visit] = replace(visits[visit], codes=together, positions=())
    return replace(patient, visits=tuple(visits))


def remove_code(patient: Patient, visit: int, place: int) -> Patient:
    """The history without the code at `place` (0-based) of a visit; an emptied visit stays."""
    codes = patient.visits[visit].codes
    return _with_codes(patient, visit, (*codes[:place], *codes[place + 1 :]))


def settle_code(patient: Patient, visit: int, place: int, code: Code) -> Patient:
    """The history with the code at `place` of a visit read as `code`; dropped where the visit has it."""
    codes = patient.visits[visit].codes
    return _with_codes(patient, visit, tuple(dict.fromkeys((*codes[:place], code, *codes[place + 1 :]))))


def remove_visit(patient: Patient, visit: int) -> Patient:
    """The history without a visit."""
    return replace(patient, visits=(*patient.visits[:visit], *patient.visits[visit + 1 :]))


def move_visit(patient: Patient, visit: int, step: int) -> Patient:
    """The history with a visit moved `step` places (-1 earlier, 1 later); unchanged at either end."""
    other = visit + step
    visits = list(patient.visits)
    if not 0 <= other < len(visits):
        return patient
    here, there = visits[visit], visits[other]
    visits[visit] = replace(there, time=here.time, age=here.age)
    visits[other] = replace(here, time=there.time, age=there.age)
    return replace(patient, visits=tuple(visits))


def _with_codes(patient: Patient, visit: int, codes: tuple[Code | str, ...]) -> Patient:
    visits = list(patient.visits)
    visits[visit] = replace(visits[visit], codes=codes, positions=())
    return replace(patient, visits=tuple(visits))

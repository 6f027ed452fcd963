"""Edits of a history as pure functions: Patient in, Patient out. No screen and no session.

Dates and ages belong to the place in the history, codes and details to the visit: a visit that is moved leaves
its date behind, so that dates stay in order. A visit that is given a date goes where that date belongs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime, time

from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code


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


def add_visit(patient: Patient) -> Patient:
    """The history with an empty visit at its end."""
    return replace(patient, visits=(*patient.visits, Visit()))


def remove_code(patient: Patient, visit: int, place: int) -> Patient:
    """The history without the code at `place` (0-based) of a visit; an emptied visit stays."""
    codes = patient.visits[visit].codes
    return _with_codes(patient, visit, (*codes[:place], *codes[place + 1 :]))


def move_code(patient: Patient, visit: int, place: int, target: int | None) -> Patient:
    """The history with the code at `place` of a visit moved to the end of visit `target`, or of a new one for None.

    target: the visit itself makes the code its first. A visit that holds the code already keeps it once.
    """
    code = patient.visits[visit].codes[place]
    rest = remove_code(patient, visit, place)
    if target == visit:
        return _with_codes(rest, visit, (code, *rest.visits[visit].codes))
    return add_codes(rest, [code], target)


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


def set_date(patient: Patient, visit: int, day: date | None) -> tuple[Patient, int]:
    """The history with a visit dated (or, with None, undated), and the place where the visit stands then.

    The visit moves, with its codes and age, only where the date would come before that of an earlier visit or after
    that of a later one; visits without a date stay beside their neighbours. The time of day is kept where the day is.
    """
    old = patient.visits[visit]
    if old.time is not None and day == old.time.date():
        return patient, visit
    dated = replace(old, time=None if day is None else datetime.combine(day, time()))
    others = [*patient.visits[:visit], *patient.visits[visit + 1 :]]
    place = visit
    if dated.time is not None:
        later = [n for n, other in enumerate(others) if other.time is not None and other.time > dated.time]
        earlier = [n for n, other in enumerate(others) if other.time is not None and other.time <= dated.time]
        place = min(place, later[0]) if later else place
        place = max(place, earlier[-1] + 1) if earlier else place
    return replace(patient, visits=(*others[:place], dated, *others[place:])), place


def set_detail(patient: Patient, visit: int, key: str, value: str) -> Patient:
    """The history with one detail of a visit told, or with "" not told; all its other details stay."""
    visits = list(patient.visits)
    visits[visit] = replace(visits[visit], details={**visits[visit].details, key: value})
    return replace(patient, visits=tuple(visits))


def _with_codes(patient: Patient, visit: int, codes: tuple[Code | str, ...]) -> Patient:
    visits = list(patient.visits)
    visits[visit] = replace(visits[visit], codes=codes, positions=())
    return replace(patient, visits=tuple(visits))

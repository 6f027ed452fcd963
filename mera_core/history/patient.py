"""Visits and patients as plain values, and how typed codes become ontology codes.

Knows nothing of files, tables, tokens or models. Everything here is imported through `mera_core.history.records`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from operator import is_
from typing import TYPE_CHECKING, Any

from mera_core.common.errors import InputError
from mera_core.icd.ontology import AS_CATEGORY, REPAIRED, AmbiguousCodeError, Code, Ontology, UnknownCodeError

READ_OTHERWISE = {REPAIRED: "repaired", AS_CATEGORY: "as_category"}  # kinds of notes on codes that stay
SEXES = ("F", "M", "U")
OLDEST_AGE = 130.0  # years; MIMIC's shifted ages of 300 must be mended by its reader, not passed on


@dataclass(frozen=True, slots=True)
class Visit:
    """One stay or contact and the diagnosis codes recorded at it.

    codes: in the order recorded. A `Code` is settled; a string stays as typed until `resolve` reads it.
    time: when it began, in UTC and without a zone (`in_utc`).
    age: years, at this visit. details: words known once the visit is complete; empty words are left out.
    positions: the rank each code had in the source, never falling; () stands for 1, 2, 3 ... and is what
        remains when the number of positions does not agree with the number of codes.
    Raises InputError for a code that is neither a Code nor a non-empty string, or an impossible age or time.
    """

    codes: tuple[Code, ...] = ()
    time: datetime | None = None
    age: float | None = None
    details: Mapping[str, str] = field(default_factory=dict, hash=False)
    positions: tuple[int, ...] = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            codes: Sequence[Code | str] = (),
            time: date | None = None,
            age: float | None = None,
            details: Mapping[str, str] = ...,
            positions: Sequence[int] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        if isinstance(self.codes, str):
            raise InputError(f"codes must be a list of codes, not the single text {self.codes!r}.")
        codes = tuple(self.codes)
        for code in codes:
            if not isinstance(code, Code) and not (isinstance(code, str) and code.strip()):
                raise InputError(f"a code must be text such as '428.0', not {code!r}.")
        positions = tuple(int(position) for position in self.positions)
        if len(positions) != len(codes) or positions == tuple(range(1, len(codes) + 1)):
            positions = ()
        if any(earlier > later for earlier, later in pairwise(positions)):
            raise InputError(f"positions of codes must not fall, but are {positions}.")
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "time", _plain_time(self.time))
        object.__setattr__(self, "age", _plain_age(self.age))
        object.__setattr__(self, "details", _plain_details(self.details))


@dataclass(frozen=True, slots=True)
class Patient:
    """A history: visits, oldest first, and what is known of the person.

    sex: 'F', 'M' or 'U' (unknown). age: years, at the last visit. id: text, never a number.
    details: further profile words, e.g. {"ethnicity": "hispanic"}; empty words are left out.
    Raises InputError for another sex or an impossible age.
    """

    visits: tuple[Visit, ...] = ()
    sex: str = "U"
    age: float | None = None
    id: str = ""
    details: Mapping[str, str] = field(default_factory=dict, hash=False)

    if TYPE_CHECKING:

        def __init__(
            self,
            visits: Sequence[Visit] = (),
            sex: str = "U",
            age: float | None = None,
            id: str = "",
            details: Mapping[str, str] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        visits = tuple(self.visits)
        for visit in visits:
            if not isinstance(visit, Visit):
                raise InputError(f"visits must hold Visit objects, not {type(visit).__name__}.")
        if self.sex not in SEXES:
            raise InputError(f"sex must be 'F', 'M' or 'U' (unknown), not {self.sex!r}.")
        object.__setattr__(self, "visits", visits)
        object.__setattr__(self, "id", str(self.id))
        object.__setattr__(self, "age", _plain_age(self.age))
        object.__setattr__(self, "details", _plain_details(self.details))


@dataclass(frozen=True, slots=True)
class Note:
    """Something done to the input that its reader should know of.

    kind: 'unread' | 'ambiguous' | 'duplicate' | 'repaired' | 'as_category' | 'rolled_up' | 'mapped' | 'truncated' | ...
    visit: 0-based index of the visit concerned, None where it concerns all. code: as typed, '' where none.
    """

    kind: str
    message: str
    visit: int | None = None
    code: str = ""


def in_utc(time: datetime) -> datetime:
    """The instant in UTC, without a zone, as all times are held here; a time without a zone is taken to be in UTC.

    Raises OverflowError where it is outside the calendar.
    """
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def resolve(patient: Patient, ontology: Ontology, strict: bool = False) -> tuple[Patient, tuple[Note, ...]]:
    """Read every typed code, and say what could not be read.

    Returns the patient with `Code`s only, each at most once a visit, and a note for every code left out: 'unread' (in no
    code set; names the nearest; or a chapter or block), 'ambiguous' (in both systems), 'duplicate'; and for every code
    read otherwise than it was written: 'repaired' (a letter for a digit), 'as_category' (as its nearest ancestor).
    A visit keeps its place when none of its codes could be read.
    Raises InputError at the first unread or ambiguous code, naming its place, when `strict`.
    """
    notes: list[Note] = []
    visits = []
    for number, visit in enumerate(patient.visits):
        kept: dict[Code, int] = {}
        positions = visit.positions or range(1, len(visit.codes) + 1)
        for index, (typed, position) in enumerate(zip(visit.codes, positions, strict=True)):
            try:
                reading = ontology.diagnosis(typed)
            except (UnknownCodeError, AmbiguousCodeError) as error:
                if strict:
                    raise InputError(f"visits[{number}].codes[{index}]: {error}") from error
                kind = "ambiguous" if isinstance(error, AmbiguousCodeError) else "unread"
                notes.append(Note(kind, str(error), number, str(typed)))
                continue
            code = reading.code
            if reading.how:
                notes.append(Note(READ_OTHERWISE[reading.how], ontology.told(typed, reading), number, str(typed)))
            if code in kept:
                message = f"{code} is named more than once in visit {number + 1} and was counted once."
                notes.append(Note("duplicate", message, number, str(typed)))
            else:
                kept[code] = position
        codes = tuple(kept)
        visits.append(visit if codes == visit.codes else replace(visit, codes=codes, positions=tuple(kept.values())))
    return with_visits(patient, visits), tuple(notes)


def with_visits(patient: Patient, visits: Sequence[Visit]) -> Patient:
    """The patient with these visits; itself where each is the one it has."""
    if len(visits) == len(patient.visits) and all(map(is_, visits, patient.visits)):
        return patient
    return replace(patient, visits=tuple(visits))


def _plain_time(time: Any) -> datetime | None:
    if time is None or str(time) == "NaT":
        return None
    if hasattr(time, "to_pydatetime"):  # a pandas timestamp; what is finer than a microsecond is given up
        time = time.to_pydatetime(warn=False)
    if isinstance(time, date) and not isinstance(time, datetime):
        time = datetime(time.year, time.month, time.day)
    if not isinstance(time, datetime):
        raise InputError(f"a visit's time must be a date or a datetime, not {time!r}.")
    try:
        return in_utc(time)
    except OverflowError as error:
        raise InputError(f"a visit's time is outside the calendar: {time!r}.") from error


def _plain_age(age: Any) -> float | None:
    if age is None:
        return None
    try:
        if isinstance(age, (bool, str)):
            raise TypeError
        years = float(age)
    except (TypeError, ValueError) as error:
        raise InputError(f"age must be a number of years, not {age!r}.") from error
    if math.isnan(years):
        return None
    if not 0 <= years <= OLDEST_AGE:
        raise InputError(f"age must be between 0 and {OLDEST_AGE:.0f} years, not {age!r}.")
    return years


def _plain_details(details: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, str]:
    plain = {}
    for key, value in dict(details).items():
        if not isinstance(key, str) or not key or not isinstance(value, str):
            raise InputError(f"details must be text named by text, but {key!r} is {value!r}.")
        if value:
            plain[key] = value
    return plain

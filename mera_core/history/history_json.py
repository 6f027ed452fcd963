"""The HISTORY.json contract: one patient as JSON, checked so that every complaint names its place.

Checks shape, dates and limits (see `limits`); whether a code exists is the ontology's business (see `patient.resolve`).
A visit in the future is a mistake, unless the history says `"dates": "shifted"`: de-identified records (MIMIC's lie between
2100 and 2200) keep the days between visits and hide the rest, and are saved with that word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from mera_core.common.bundled import SAMPLES
from mera_core.common.errors import InputError, shown
from mera_core.common.limits import Limits, current_limits, refuse_depth
from mera_core.history.patient import Patient, Visit, in_utc
from mera_core.icd import code_text
from mera_core.icd.ontology import Code

if TYPE_CHECKING:
    from mera_core.history.schema import VisitJson

MAX_VISITS = Limits().visits  # by default; `current_limits().visits` is what holds
MAX_CODES = Limits().codes
DEMO_PATIENTS = SAMPLES / "demo_patients.json"

_SHIFTED = "shifted"
_FARTHEST_ZONE = timedelta(hours=14)  # somewhere on earth it is already this much later than UTC


@dataclass(frozen=True, slots=True)
class DemoPatient:
    """An invented history with a title and a story of two sentences for the reader."""

    title: str
    story: str
    patient: Patient

    @property
    def id(self) -> str:
        return self.patient.id


def patient_from_json(history: Any, now: datetime | None = None) -> Patient:
    """Read one history as decoded JSON (see ARCHITECTURE.md, "Contracts").

    Codes given as text stay text; codes given as {"system", "code"} become `Code`s in dotted upper case.
    now: UTC, without a zone; visits after it are refused, unless `dates` is "shifted". Default: the clock.
    Raises InputError naming the place (e.g. visits[2].codes[0]): wrong type, unknown key, no visits, no code
    at all, wrong system, impossible date, future date, visits not in time order, or more visits, codes or text than the
    limits allow.
    """
    limits = current_limits()
    if not isinstance(history, Mapping):
        raise InputError(f'a history must be a JSON object such as {{"visits": [...]}}, not {shown(history)}.')
    if isinstance(visits := history.get("visits"), list):
        limits.refuse_above("visits", len(visits), f"the history with {len(visits):,} visits")
    from mera_core.history.schema import read_history

    read = read_history(history, limits)
    codes = sum(len(visit.codes) for visit in read.visits)
    if codes == 0:
        raise InputError("the history is empty: no visit names a code.")
    limits.refuse_above("codes", codes, f"the history with {codes:,} codes")
    latest = now if now is not None else _latest()
    if read.dates == _SHIFTED:
        latest = datetime.max
    visits = [_visit(visit, f"visits[{number}]", latest) for number, visit in enumerate(read.visits)]
    refuse_disorder(visits, "visits[{}]")
    return Patient(tuple(visits), read.sex or "U", read.age, read.id or "", read.details or {})


def patient_to_json(patient: Patient) -> dict[str, Any]:
    """The history as JSON-ready values; `patient_from_json` gives an equal patient back.

    Dates that lie in the future came with a record whose dates are shifted, and are marked as that.
    Ranks of codes in the source (`Visit.positions`) are not part of this contract and are left to the table.
    """
    history: dict[str, Any] = {"id": patient.id, "sex": patient.sex}
    if patient.age is not None:
        history["age"] = patient.age
    if patient.details:
        history["details"] = dict(patient.details)
    if has_shifted_dates(patient):
        history["dates"] = _SHIFTED
    history["visits"] = [_visit_to_json(visit) for visit in patient.visits]
    return history


def has_shifted_dates(patient: Patient) -> bool:
    """Whether a visit is dated in the future, as those of de-identified records are."""
    latest = _latest()
    return any(visit.time is not None and visit.time > latest for visit in patient.visits)


def parse_json(content: bytes, name: str) -> Any:
    """Decode JSON text; InputError, beginning with `name`, when it is no JSON, says one thing twice or is nested too deeply."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        decoded = dict(pairs)
        if len(decoded) != len(pairs):
            seen: set[str] = set()
            doubled = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise InputError(f"{name} gives {shown(doubled)} more than once in one object.")
        return decoded

    try:
        decoded = json.loads(content.decode("utf-8-sig"), object_pairs_hook=once)
        # Half of a surrogate pair is legal JSON and no text: nothing could print or store it.
        json.dumps(decoded, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise InputError(f"{name} is not UTF-8 text.") from error
    except RecursionError as error:
        raise InputError(f"{name} is nested too deeply to be a history.") from error
    except InputError:
        raise
    except json.JSONDecodeError as error:
        raise InputError(f"{name} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from error
    except ValueError as error:  # a whole number of more than 4,300 digits
        raise InputError(f"{name} is not JSON that can be read: it holds an endless number.") from error
    refuse_depth(decoded, name)
    return decoded


def refuse_disorder(visits: list[Visit], place: str) -> None:
    """Raise InputError where a dated visit comes before one listed earlier; `place` takes a visit's index."""
    newest: int | None = None
    for number, visit in enumerate(visits):
        if visit.time is None:
            continue
        if newest is not None and visit.time < visits[newest].time:
            raise InputError(
                f"{place.format(number)} is dated {_day(visit.time)}, before {place.format(newest)} "
                f"({_day(visits[newest].time)}): visits must be listed oldest first."
            )
        newest = number


def demo_patients() -> list[DemoPatient]:
    """The invented demo patients, in the order of their file."""
    entries = parse_json(DEMO_PATIENTS.read_bytes(), DEMO_PATIENTS.name)
    return [DemoPatient(entry["title"], entry["story"], patient_from_json(entry)) for entry in entries]


def settled(system: str, text: str) -> Code | str:
    """A `Code` in dotted upper case where the text is written like one, else 'SYSTEM:text' for `resolve`.

    >>> settled("ICD10", "i5022"), settled("ICD9", "E8021"), settled("ICD9", "25.000")
    (Code(system='ICD10', code='I50.22'), Code(system='ICD9', code='E802.1'), 'ICD9:25.000')
    """
    name = code_text.identity(system, code_text.clean(text))
    return f"{system}:{text.strip()}" if name is None else Code(system, name)


def _visit(read: VisitJson, place: str, latest: datetime) -> Visit:
    time = _time(read.time, f"{place}.time")
    if time is not None and time > latest:
        raise InputError(
            f"{place}.time is {_day(time)}, which is in the future of this machine's clock; a history whose dates were "
            f'shifted on purpose says "dates": "{_SHIFTED}".'
        )
    codes = [code if isinstance(code, str) else settled(code.system, code.code) for code in read.codes]
    return Visit(codes, time, read.age, read.details or {})


def _visit_to_json(visit: Visit) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "codes": [
            {"system": code.system, "code": code.code} if isinstance(code, Code) else code for code in visit.codes
        ]
    }
    if visit.time is not None:
        raw["time"] = visit.time.isoformat()
    if visit.age is not None:
        raw["age"] = visit.age
    if visit.details:
        raw["details"] = dict(visit.details)
    return raw


def _time(raw: Any, place: str) -> datetime | None:
    if raw is None:
        return None
    if isinstance(raw, str):
        try:
            return in_utc(datetime.fromisoformat(raw.strip()))
        except (ValueError, OverflowError):
            pass
    raise InputError(f"{place} must be a date such as 2026-01-31, not {shown(raw)}.")


def _latest() -> datetime:
    """The latest moment that is no future anywhere on earth, in UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None) + _FARTHEST_ZONE


def _day(time: datetime) -> str:
    return time.date().isoformat()

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
from pathlib import Path
from typing import Any

from mera_core.common.errors import InputError
from mera_core.common.limits import Limits, current_limits, refuse_depth
from mera_core.history.patient import OLDEST_AGE, Patient, Visit, in_utc
from mera_core.icd import code_text
from mera_core.icd.ontology import SYSTEMS, Code

MAX_VISITS = Limits().visits  # by default; `current_limits().visits` is what holds
MAX_CODES = Limits().codes
DEMO_PATIENTS = Path(__file__).resolve().parents[2] / "sample_data" / "demo_patients.json"

_SEX_WORDS = {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M", "U": "U", "UNKNOWN": "U"}
_PATIENT_KEYS = ("id", "sex", "age", "details", "dates", "visits")
_SHIFTED = "shifted"
_STORY_KEYS = ("title", "story", "invented")  # of the demo patients; words for people, never for the model
_VISIT_KEYS = ("codes", "time", "age", "details")
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
        raise InputError(f'a history must be a JSON object such as {{"visits": [...]}}, not {_kind(history)}.')
    _refuse_unknown_keys(history, (*_PATIENT_KEYS, *_STORY_KEYS), "")
    raw_visits = history.get("visits")
    if not isinstance(raw_visits, list):
        raise InputError(f"visits must be a list, not {_kind(raw_visits)}.")
    if not raw_visits:
        raise InputError("the history is empty: visits holds no visit.")
    if len(raw_visits) > limits.visits:
        raise InputError(f"the history has {len(raw_visits):,} visits, and at most {limits.visits:,} can be read.")
    _refuse_long_texts(history, limits)
    latest = now if now is not None else _latest()
    if _shifted(history.get("dates")):
        latest = datetime.max
    visits = [_visit_from_json(raw, f"visits[{number}]", latest) for number, raw in enumerate(raw_visits)]
    codes = sum(len(visit.codes) for visit in visits)
    if codes == 0:
        raise InputError("the history is empty: no visit names a code.")
    if codes > limits.codes:
        raise InputError(f"the history has {codes:,} codes, and at most {limits.codes:,} can be read.")
    refuse_disorder(visits, "visits[{}]")
    identity = history.get("id")
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, (str, int))):
        raise InputError(f"id must be text, not {_kind(identity)}.")
    return Patient(
        visits=tuple(visits),
        sex=_sex(history.get("sex")),
        age=_age(history.get("age"), "age"),
        id="" if identity is None else str(identity),
        details=_details(history.get("details"), "details"),
    )


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
            raise InputError(f"{name} gives {_quoted(doubled)} more than once in one object.")
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


def demo_patients(path: Path | str = DEMO_PATIENTS) -> list[DemoPatient]:
    """The invented demo patients, in the order of the file.

    Raises InputError when the file is missing or an entry breaks the HISTORY.json contract, names no story,
    is not marked as invented, or repeats an id.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"the demo patients can't be read: {path} ({error.strerror}).") from error
    entries = parse_json(content, Path(path).name)
    if not isinstance(entries, list):
        raise InputError(f"{Path(path).name} must be a list of histories, not {_kind(entries)}.")
    demos, seen = [], set()
    for number, entry in enumerate(entries):
        try:
            patient = patient_from_json(entry)
        except InputError as error:
            raise InputError(f"{Path(path).name}, patient {number + 1}: {error}") from error
        if entry.get("invented") is not True or not entry.get("title") or not entry.get("story"):
            raise InputError(f"{Path(path).name}, patient {number + 1}: needs title, story and invented: true.")
        if not patient.id or patient.id in seen:
            raise InputError(f"{Path(path).name}, patient {number + 1}: needs an id of its own.")
        seen.add(patient.id)
        demos.append(DemoPatient(entry["title"], entry["story"], patient))
    return demos


def settled(system: str, text: str) -> Code | str:
    """A `Code` in dotted upper case where the text is written like one, else 'SYSTEM:text' for `resolve`.

    >>> settled("ICD10", "i5022"), settled("ICD9", "E8021"), settled("ICD9", "25.000")
    (Code(system='ICD10', code='I50.22'), Code(system='ICD9', code='E802.1'), 'ICD9:25.000')
    """
    name = code_text.identity(system, code_text.clean(text))
    return f"{system}:{text.strip()}" if name is None else Code(system, name)


def _visit_from_json(raw: Any, place: str, latest: datetime) -> Visit:
    if not isinstance(raw, Mapping):
        raise InputError(f'{place} must be an object such as {{"codes": ["428.0"]}}, not {_kind(raw)}.')
    _refuse_unknown_keys(raw, _VISIT_KEYS, f"{place}.")
    codes = raw.get("codes")
    if not isinstance(codes, list):
        raise InputError(f"{place}.codes must be a list, not {_kind(codes)}.")
    time = _time(raw.get("time"), f"{place}.time")
    if time is not None and time > latest:
        raise InputError(
            f"{place}.time is {_day(time)}, which is in the future of this machine's clock; a history whose dates were "
            f'shifted on purpose says "dates": "{_SHIFTED}".'
        )
    return Visit(
        codes=tuple(_code(code, f"{place}.codes[{index}]") for index, code in enumerate(codes)),
        time=time,
        age=_age(raw.get("age"), f"{place}.age"),
        details=_details(raw.get("details"), f"{place}.details"),
    )


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


def _code(raw: Any, place: str) -> Code | str:
    if isinstance(raw, str) and raw.strip():
        return raw
    if not isinstance(raw, Mapping):
        raise InputError(f'{place} must be text such as "428.0" or {{"system": ..., "code": ...}}, not {_kind(raw)}.')
    _refuse_unknown_keys(raw, ("system", "code"), f"{place}.")
    system, text = raw.get("system"), raw.get("code")
    if system not in SYSTEMS:
        raise InputError(f"{place}.system must be {' or '.join(SYSTEMS)}, not {_quoted(system)}.")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'{place}.code must be text such as "428.0", not {_kind(text)}.')
    return settled(system, text)


def _time(raw: Any, place: str) -> datetime | None:
    if raw is None:
        return None
    if isinstance(raw, str):
        try:
            return in_utc(datetime.fromisoformat(raw.strip()))
        except (ValueError, OverflowError):
            pass
    raise InputError(f"{place} must be a date such as 2026-01-31, not {_quoted(raw)}.")


def _latest() -> datetime:
    """The latest moment that is no future anywhere on earth, in UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None) + _FARTHEST_ZONE


def _shifted(raw: Any) -> bool:
    if raw not in (None, _SHIFTED):
        raise InputError(f'dates must be "{_SHIFTED}" or left out, not {_quoted(raw)}.')
    return raw == _SHIFTED


def _sex(raw: Any) -> str:
    if raw is None:
        return "U"
    word = _SEX_WORDS.get(raw.strip().upper()) if isinstance(raw, str) else None
    if word is None:
        raise InputError(f"sex must be F, M or U (unknown), not {_quoted(raw)}.")
    return word


def _age(raw: Any, place: str) -> float | None:
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        raise InputError(f"{place} must be a number of years, not {_kind(raw)}.")
    if not 0 <= raw <= OLDEST_AGE:
        raise InputError(f"{place} must be between 0 and {OLDEST_AGE:.0f} years, not {_quoted(raw)}.")
    return float(raw)


def _details(raw: Any, place: str) -> dict[str, str]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise InputError(f"{place} must be an object of texts, not {_kind(raw)}.")
    for key, value in raw.items():
        if not key or not isinstance(value, str):
            raise InputError(f"{place}.{_shortened(str(key))} must be text, not {_kind(value)}.")
    return dict(raw)


def _refuse_long_texts(history: Mapping[str, Any], limits: Limits) -> None:
    """Refuse a text longer than the limit text_characters, naming its place, before anything repeats or compares it."""
    most = f"at most {limits.text_characters:,} can be read"
    open_: list[tuple[str, Any]] = [("", history)]
    while open_:
        place, value = open_.pop()
        if isinstance(value, str) and len(value) > limits.text_characters:
            raise InputError(f"{place} has {len(value):,} characters, and {most}.")
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if isinstance(key, str) and len(key) > limits.text_characters:
                    raise InputError(f"{place or 'the history'} has a key of {len(key):,} characters, and {most}.")
                open_.append((f"{place}.{key}" if place else str(key), inner))
        elif isinstance(value, list):
            open_ += ((f"{place}[{index}]", inner) for index, inner in enumerate(value))


def _refuse_unknown_keys(raw: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in raw:
        if key not in known:
            raise InputError(f"{place}{_shortened(str(key))} is not a known key; known are {', '.join(known)}.")


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def _quoted(raw: Any) -> str:
    """What stands there, short enough for one sentence."""
    return repr(_shortened(raw)) if isinstance(raw, str) else _shortened(repr(raw))


def _kind(raw: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(raw), "a number")


def _day(time: datetime) -> str:
    return time.date().isoformat()

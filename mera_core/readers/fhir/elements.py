"""Elements of FHIR resources as decoded JSON: dates, references, codes and lists, each checked for its type.

Boundary: one element at a time; knows no resource, and of FHIR's releases R4 and R4B. Every error names the place and the
element, never its value.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from mera_core.common.errors import InputError

Json = dict[str, Any]
_LARGEST = 2**31 - 2  # of a whole number: FHIR's integers have 32 bits, and so have positions
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?)?)?")


def moment(value: Any, place: str, name: str) -> datetime | None:
    """A FHIR date or dateTime in its zone, in UTC where it has none; missing months and days are the first.

    The zone is kept for the day that was written: an hour in UTC may fall on another day than a date, which has no zone.
    """
    if value is None:
        return None
    written = value.strip() if isinstance(value, str) else ""
    if not _DATE.fullmatch(written):
        raise InputError(f"{place}: {name} is no FHIR date, such as 2026-01-31 or 2026-01-31T10:00:00Z.")
    try:
        return _read_moment(written)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{place}: {name} is no date of the calendar.") from error


@lru_cache(maxsize=4096)  # the Conditions of an Encounter carry one date, and stand together
def _read_moment(written: str) -> datetime:
    written += {4: "-01-01", 7: "-01"}.get(len(written), "")
    written = re.sub(r"(T\d\d:\d\d):60", r"\1:59", written)  # a leap second
    written = re.sub(r"(\.\d{6})\d+", r"\1", written)
    time = datetime.fromisoformat(written)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    time.astimezone(UTC)  # which raises where the instant is outside the calendar
    return time


def text_of(resource: Json, name: str, place: str) -> str | None:
    """A text element; None where it is absent."""
    value = resource.get(name)
    if value is None or isinstance(value, str):
        return value
    raise InputError(f"{place}: {name} must be text.")


def reference(resource: Json, name: str, place: str) -> str:
    """The reference as written, or 'system|value' of a logical one; '' where there is none."""
    value = resource.get(name)
    if value is None:
        return ""
    if not isinstance(value, dict):
        raise InputError(f"{place}: {name} must be a reference.")
    written = value.get("reference")
    if isinstance(written, str) and written.strip():
        return written.strip()
    identifier = value.get("identifier")
    if isinstance(identifier, dict) and identifier.get("value"):
        return f"{identifier.get('system', '')}|{identifier['value']}"
    return ""


def codings(value: Any, place: str) -> list[Json]:
    """The codings of a CodeableConcept."""
    if value is None:
        return []
    if not isinstance(value, dict):
        raise InputError(f"{place}: code must be a CodeableConcept.")
    return [each for each in list_of(value, "coding", place) if isinstance(each, dict)]


def code_of(value: Any, place: str) -> str:
    """The first code of a CodeableConcept, of a Coding, or of a plain code."""
    if isinstance(value, str):
        return value.lower()
    if not isinstance(value, dict):
        return ""
    if isinstance(value.get("code"), str):
        return value["code"].lower()
    return next((str(each["code"]).lower() for each in codings(value, place) if each.get("code")), "")


def extensions(resource: Json, place: str) -> dict[str, Json]:
    """Extensions by their url."""
    return {str(each.get("url")): each for each in list_of(resource, "extension", place) if isinstance(each, dict)}


def object_of(resource: Json, name: str, place: str) -> Json:
    """An object element; {} where it is absent."""
    value = resource.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{place}: {name} must be an object.")
    return value


def list_of(resource: Json, name: str, place: str) -> list:
    """A list element; [] where it is absent."""
    value = resource.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{place}: {name} must be a list.")
    return value


def number_of(value: Any) -> float | None:
    """A number, or None for anything else."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and abs(value) <= sys.float_info.max else None


def whole_of(value: Any, place: str, name: str) -> int | None:
    """A whole number such as FHIR's integers are, of 32 bits; None where it is absent or no number."""
    if value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not abs(value) <= _LARGEST or value != int(value):
        raise InputError(f"{place}: {name} must be a whole number up to {_LARGEST:,}.")
    return int(value)

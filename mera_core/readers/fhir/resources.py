"""What single FHIR resources say: a Patient or an Encounter as JSON -> a small record. Conditions: `fhir_conditions`.

Boundary: one resource at a time, no references followed (see `readers.fhir`) and no code set.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mera_core.common.errors import InputError
from mera_core.readers.common.record_words import word
from mera_core.readers.fhir.elements import (
    Json,
    code_of,
    codings,
    extensions,
    list_of,
    moment,
    number_of,
    object_of,
    reference,
    text_of,
    whole_of,
)

# What we call the two systems in FHIR; other names that are read are in `code_systems`.
CODE_SYSTEMS = {"ICD9": "http://hl7.org/fhir/sid/icd-9-cm", "ICD10": "http://hl7.org/fhir/sid/icd-10-cm"}
# Our own extensions and identifiers, so that a cohort that is written and read again is the same (mera_core.writers.fhir).
OWN = "urn:x-mera:"
PATIENT_ID, VISIT_NUMBER, AGE, DETAIL, RANK = (
    f"{OWN}{name}" for name in ("patient-id", "visit-number", "age", "detail", "rank")
)
RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
_ETHNICITY = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-ethnicity"
# US Core 8, 6 and 3 tell the sex so, the later ones in SNOMED CT.
_SEX_EXTENSIONS = tuple(
    f"http://hl7.org/fhir/us/core/StructureDefinition/us-core-{name}" for name in ("individual-sex", "sex", "birthsex")
)
_SEXES = {"female": "F", "f": "F", "248152002": "F", "male": "M", "m": "M", "248153007": "M"}
_MIMIC_PATIENT = "/fhir/mimic/identifier/patient"

NEVER_WAS = ("planned", "cancelled", "entered-in-error", "discontinued")
_CLASSES = {  # of v3-ActCode
    **dict.fromkeys(("IMP", "ACUTE", "NONAC"), "inpatient"),
    "EMER": "emergency",
    "AMB": "outpatient",
    "SS": "short stay",
    "OBSENC": "observation",
    "HH": "home health",
    "VR": "virtual",
}


@dataclass(slots=True)
class FhirPatient:
    """names: identifiers as 'system|value'. id: as the source calls the person."""

    id: str
    sex: str
    born: datetime | None
    words: dict[str, str]
    age: float | None
    names: tuple[str, ...]
    place: str
    died: datetime | None = None


@dataclass(slots=True)
class Encounter:
    """An Encounter. subject, part_of: references as written. diagnoses: reference of a Condition -> its rank.

    backwards: where it stands, if its period ends before it begins; it then has no end. names: what it is known by.
    bundle: that it came in.
    """

    subject: str
    start: datetime | None
    end: datetime | None
    status: str
    part_of: str
    diagnoses: dict[str, int | None]
    words: dict[str, str]
    number: int | None = None
    age: float | None = None
    backwards: str = ""
    names: tuple[str, ...] = ()
    bundle: str | None = None


def patient_of(resource: Json, place: str) -> FhirPatient:
    """A Patient. Raises InputError naming the place and the element that is wrong."""
    identifiers = [each for each in list_of(resource, "identifier", place) if isinstance(each, dict)]
    named = {str(each.get("system", "")): str(each["value"]) for each in identifiers if each.get("value")}
    mimic = next((value for system, value in named.items() if system.endswith(_MIMIC_PATIENT)), None)
    identity = named.get(PATIENT_ID) or mimic or text_of(resource, "id", place)
    own = extensions(resource, place)
    died = resource.get("deceasedDateTime")
    gender = (text_of(resource, "gender", place) or "unknown").lower()
    told = (own.get(url, {}) for url in _SEX_EXTENSIONS) if gender == "unknown" else ()
    sexes = [gender, *(code_of(each.get("valueCoding") or each.get("valueCode"), place) for each in told)]
    words = _details(resource, place)
    if "ethnicity" not in words and (said := _ethnicity(own)):
        words["ethnicity"] = said
    return FhirPatient(
        id=identity or "",
        sex=next((_SEXES[said] for said in sexes if said in _SEXES), "U"),
        born=_birth(resource.get("birthDate"), place),
        words=words,
        age=number_of(own.get(AGE, {}).get("valueDecimal")),
        names=tuple(f"{system}|{value}" for system, value in named.items() if system),
        place=place,
        died=None if len(str(died)) < len("2020-01-01") else moment(died, place, "deceasedDateTime"),
    )


def encounter_of(resource: Json, place: str) -> Encounter:
    """An Encounter."""
    period = object_of(resource, "period", place)
    start = moment(period.get("start"), place, "period.start")
    end = moment(period.get("end"), place, "period.end")
    backwards = start is not None and end is not None and end < start
    end = None if backwards else end
    own = extensions(resource, place)
    words = _details(resource, place)
    if VISIT_NUMBER not in own:
        words = {**_standard_words(resource, start, end, place), **words}
    number = whole_of(own.get(VISIT_NUMBER, {}).get("valueInteger"), place, "visit-number")
    return Encounter(
        subject=reference(resource, "subject", place),
        start=start,
        end=end,
        status=(text_of(resource, "status", place) or "").lower(),
        part_of=reference(resource, "partOf", place),
        diagnoses=_ranked(resource, place),
        words=words,
        number=number,
        backwards=place if backwards else "",
        age=number_of(own.get(AGE, {}).get("valueDecimal")),
    )


def _standard_words(resource: Json, start: datetime | None, end: datetime | None, place: str) -> dict[str, str]:
    stay = object_of(resource, "hospitalization", place)
    words = {
        "admission": _CLASSES.get(code_of(resource.get("class"), place).upper(), ""),
        "source": word("source", _shown(stay.get("admitSource"), place)),
        "discharge": word("discharge", _shown(stay.get("dischargeDisposition"), place)),
        "stay": str((end - start).days) if start and end else "",
    }
    return {name: said for name, said in words.items() if said}


def _ranked(resource: Json, place: str) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for each in list_of(resource, "diagnosis", place):
        if not isinstance(each, dict):
            raise InputError(f"{place}: diagnosis must be a list of objects.")
        named = reference(each, "condition", place)
        if named:
            own = whole_of(extensions(each, place).get(RANK, {}).get("valueInteger"), place, "rank")
            found.setdefault(named, own if own is not None else whole_of(each.get("rank"), place, "diagnosis.rank"))
    return found


def _shown(value: Any, place: str) -> str:
    if not isinstance(value, dict):
        return ""
    first = next(iter(codings(value, place)), {})
    return str(value.get("text") or first.get("display") or first.get("code") or "")


def _ethnicity(own: dict[str, Json]) -> str | None:
    """Hispanic, where the one extension says so, else what the other says of race."""
    hispanic, race = (word("ethnicity", _race(own.get(url, {}))) for url in (_ETHNICITY, RACE))
    return hispanic if hispanic == "hispanic" else race


def _race(extension: Json) -> str:
    parts = {str(each.get("url")): each for each in extension.get("extension") or [] if isinstance(each, dict)}
    coding = parts.get("ombCategory", {}).get("valueCoding") or {}
    return str(parts.get("text", {}).get("valueString") or coding.get("display") or "")


def _details(resource: Json, place: str) -> dict[str, str]:
    """Words in our own extension: 'detail' with a name and a value."""
    words = {}
    for each in list_of(resource, "extension", place):
        if isinstance(each, dict) and each.get("url") == DETAIL:
            parts = {str(part.get("url")): part.get("valueString") for part in list_of(each, "extension", place)}
            if isinstance(parts.get("name"), str) and isinstance(parts.get("value"), str):
                words[parts["name"]] = parts["value"]
    return words


def _birth(value: Any, place: str) -> datetime | None:
    """The day of birth; the middle of a month or a year where no more is told."""
    born = moment(value, place, "birthDate")
    if born is None:
        return None
    return {4: born.replace(month=7), 7: born.replace(day=16)}.get(len(value.strip()), born)

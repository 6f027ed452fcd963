"""What a MEDS code says: a diagnosis, a birth, an admission, or something that is not read.

Boundary: one code's text in, an Event out; knows no table and no code set. MEDS leaves the vocabulary to the converter,
so this is where the ways of public converters are known: MIMIC_IV_MEDS and eICU_MEDS (`DIAGNOSIS//ICD//10//I5022`),
meds_etl for MIMIC and OMOP (`ICD10CM/I50.22`, `Visit/IP`), OMOP_MEDS (`ICD10CM//I50.22//start`), FHIR_MEDS, and our own
writer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from mera_core.icd.code_text import clean, unpadded
from mera_core.readers.common.assemble import NO_CODE
from mera_core.readers.common.code_systems import PROCEDURE, SAME_DIAGNOSIS, SNOMED, system_of_vocabulary
from mera_core.readers.common.record_words import RACE_CONCEPTS, UNTOLD, word

# Written by mera_core.writers.meds; a dataset that has these columns is read back without loss.
VISIT_START, VISIT_END = "VISIT_START", "VISIT_END"
VISIT_DETAIL, PROFILE, AGE_AT_LAST_VISIT = "VISIT_DETAIL", "PROFILE", "AGE_AT_LAST_VISIT"
VISIT_COLUMN, RANK_COLUMN, AGE_COLUMN = "hadm_id", "seq_num", "age"
INVENTED_COLUMN, NAME_COLUMN = "time_invented", "source_patient_id"
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"

IN_WORDS = "diagnosis in words, without a code"


class Kind(IntEnum):
    """What an event is to this reader; OTHER is not read."""

    OTHER = 0
    DIAGNOSIS = 1
    SNOMED = 2  # a diagnosis only where the table says so, or a map knows it
    BIRTH = 3
    DEATH = 4
    SEX = 5
    ETHNICITY = 6
    START = 7
    END = 8
    VISIT_WORD = 9
    PERSON_WORD = 10
    PERSON_AGE = 11


@dataclass(frozen=True, slots=True)
class Event:
    """kind; entries: (system or None, text) of each ICD code named; left_out: reason -> entries that have no code to read;
    words: what an admission, discharge, sex or ethnicity says, by the name it has in a visit or a profile."""

    kind: Kind
    entries: tuple[tuple[str | None, str], ...] = ()
    left_out: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()


_NOTHING = Event(Kind.OTHER)
_MISSING = {"", "UNK", "UNKNOWN", "NULL", "NONE", "NAN", "NA", "?", "NODX"}
_SEXES = {"F": "F", "FEMALE": "F", "8532": "F", "M": "M", "MALE": "M", "8507": "M"}
_SEX_NAMES = {"GENDER", "SEX", "MIMICIVGENDER"}
_ETHNICITY_NAMES = {"RACE", "ETHNICITY", "MIMICIVRACE"}
_START_NAMES = {"HOSPITALADMISSION", "MIMICIVADMISSION", "VISITSTART", "ENCOUNTERSTART", "ADMISSION"}
_END_NAMES = {"HOSPITALDISCHARGE", "MIMICIVDISCHARGELOCATION", "VISITEND", "ENCOUNTEREND", "DISCHARGE"}
_CONTACT_NAMES = {"VISIT", "ENCOUNTER"}  # a start, unless the last word is 'end'
_DIAGNOSIS_NAMES = {"DIAGNOSIS", "DIAGNOSES", "DIAG", "DX", "CONDITION", "CONDITIONS"}
_ICD_SHAPE = re.compile(
    r"^(?:[A-Z]\d[0-9A-Z](?:\.?[0-9A-Z]{1,4})?|\d{3}(?:\.?\d{1,2})?|E\d{3}(?:\.?\d)?|V\d\d(?:\.?\d{1,2})?)$"
)
_DEEPEST = 4  # words before a code: site//table//ICD//10//I5022


def event_of(text: str) -> Event:
    """What a MEDS code means.

    >>> event_of("DIAGNOSIS//ICD//10//I5022").entries, event_of("ICD9CM/428.0").entries
    ((('ICD10', 'I5022'),), (('ICD9', '428.0'),))
    >>> event_of("PROCEDURE//ICD//9//8854").kind.name, event_of("LAB//51006//mg/dL").kind.name
    ('OTHER', 'OTHER')
    """
    parts = [part.strip() for part in text.split("//" if "//" in text else "/")]
    first = re.sub(r"[^A-Z0-9]", "", parts[0].upper())
    if text == BIRTH or text.startswith(f"{BIRTH}//"):
        return Event(Kind.BIRTH)
    if text == DEATH or text.startswith(f"{DEATH}//"):
        return Event(Kind.DEATH)
    if first in _SEX_NAMES:
        return Event(Kind.SEX, words=(("sex", _SEXES.get(parts[-1].upper(), "U")),))
    if first in _ETHNICITY_NAMES:
        told = _told(parts[1:])
        said = RACE_CONCEPTS.get(told) if told.isdecimal() else word("ethnicity", told)
        return Event(Kind.ETHNICITY, words=(("ethnicity", said),)) if said else _NOTHING
    if parts[0] == AGE_AT_LAST_VISIT:
        return Event(Kind.PERSON_AGE)
    if parts[0] in (VISIT_DETAIL, PROFILE) and len(parts) > 1:
        kind = Kind.VISIT_WORD if parts[0] == VISIT_DETAIL else Kind.PERSON_WORD
        return Event(kind, words=(("name", text.split("//", 1)[1]),))
    if first in _START_NAMES or first in _END_NAMES or first in _CONTACT_NAMES:
        return _contact(first, parts)
    return _diagnosis(first, parts)


def _contact(first: str, parts: list[str]) -> Event:
    ends = first in _END_NAMES or (first in _CONTACT_NAMES and parts[-1].lower() == "end")
    words: list[tuple[str, str]] = []
    if first == "HOSPITALADMISSION" and len(parts) == 3:  # MIMIC: type, location. eICU says where it is, in five parts
        words = [("admission", parts[1]), ("source", parts[2])]
    elif first == "MIMICIVADMISSION":
        words = [("admission", parts[-1])]
    elif first in ("HOSPITALDISCHARGE", "MIMICIVDISCHARGELOCATION") and len(parts) in (2, 3):
        words = [("discharge", parts[-1])]
    told = [(name, said) for name, text in words if (said := word(name, text))]
    if ("admission", "newborn") in told:
        told = [pair for pair in told if pair[0] != "source"] + [("source", "birth")]
    return Event(Kind.END if ends else Kind.START, words=tuple(told))


def _diagnosis(first: str, parts: list[str]) -> Event:
    if first.startswith("PROCEDURE") or parts[-1].lower() == "end":  # the end of a condition tells it a second time
        return _NOTHING
    for place, part in enumerate(parts[: _DEEPEST + 1]):
        rest = parts[place + 1 :]
        if part.upper() == "ICD" and rest[:1] and rest[0] in ("9", "10"):
            return _named(f"ICD{rest[0]}", rest[1] if len(rest) > 1 else "")
        system = system_of_vocabulary(part)
        if system == PROCEDURE:
            return _NOTHING
        if system is not None and rest:
            return Event(Kind.SNOMED, ((SNOMED, rest[0]),)) if system == SNOMED else _named(system, rest[0])
    if first in _DIAGNOSIS_NAMES and len(parts) > 1:
        text = next((part for part in reversed(parts[1:]) if _ICD_SHAPE.match(unpadded(clean(part)))), None)
        if text is not None:
            return Event(Kind.DIAGNOSIS, ((None, text),))
        return Event(Kind.DIAGNOSIS, left_out=(IN_WORDS if _told(parts[1:]) else NO_CODE,))
    return _NOTHING


def _named(system: str, written: str) -> Event:
    """The code, or the codes: eICU names one diagnosis in both systems, as '486, J18.9'."""
    pieces = [piece.strip() for piece in written.split(",") if piece.strip()]
    if not pieces or written.upper() in _MISSING:
        return Event(Kind.DIAGNOSIS, left_out=(NO_CODE,))
    read = [(None if system == "ICD9" and _not_icd9(piece) else system, piece) for piece in pieces]
    kept = [entry for entry in read if entry[0] == system] or read[:1]
    return Event(Kind.DIAGNOSIS, tuple(kept), (SAME_DIAGNOSIS,) * (len(read) - len(kept)))


def _not_icd9(text: str) -> bool:
    """Whether it begins as no ICD-9-CM diagnosis does, so that the name of the system must be wrong."""
    return text[:1].isalpha() and text[:1].upper() not in ("E", "V", "C")  # 'CH07' is a chapter


def _told(parts: list[str]) -> str:
    return next((part for part in parts if part.upper() not in UNTOLD), "")

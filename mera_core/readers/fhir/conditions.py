"""A FHIR Condition as JSON -> the diagnosis codes it names, chosen by rules, or the reason why it names none.

Boundary: one resource at a time, no references followed and no code set (see `readers.fhir`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from mera_core.common.errors import InputError
from mera_core.readers.common.assemble import NO_CODE
from mera_core.readers.common.code_systems import (
    NO_MAP,
    NOT_MAPPED,
    SAME_DIAGNOSIS,
    SNOMED,
    SnomedMap,
    is_clinical_modification,
    system_of_uri,
)
from mera_core.readers.fhir.elements import Json, code_of, codings, list_of, moment, object_of, reference

OTHER_SYSTEM = "code of a system other than ICD and SNOMED CT"
_STATUS = {
    "entered-in-error": "condition entered in error",
    "refuted": "condition refuted",
    "provisional": "condition not confirmed (provisional, differential or unconfirmed)",
    "differential": "condition not confirmed (provisional, differential or unconfirmed)",
    "unconfirmed": "condition not confirmed (provisional, differential or unconfirmed)",
}
UNCONFIRMED = ("provisional", "differential", "unconfirmed")


@dataclass(slots=True)
class Diagnosis:
    """A Condition. entries: (system or None, code as written); left_out: a reason for each entry that is not read.

    names: what it is known by. bundle: that it came in.
    """

    subject: str
    encounter: str
    recorded: datetime | None
    onset: datetime | None
    entries: tuple[tuple[str | None, str], ...]
    left_out: tuple[str, ...]
    category: str
    snomed: tuple[str, ...] = ()
    other_edition: int = 0
    approximate: bool = False
    names: tuple[str, ...] = ()
    bundle: str | None = None


@dataclass(frozen=True)
class Rules:
    """How Conditions are read. snomed: the user's map. prefer: the ICD system that is taken where both are named."""

    snomed: SnomedMap = field(default_factory=dict)
    prefer: str = "ICD10"
    keep_unconfirmed: bool = False
    problem_list: bool = True

    def __post_init__(self) -> None:
        if self.prefer not in ("ICD9", "ICD10"):
            raise InputError(f"prefer must be ICD9 or ICD10, not {self.prefer!r}.")


def diagnosis(resource: Json, place: str, rules: Rules) -> Diagnosis:
    """A Condition, its codes chosen by `rules`."""
    found = _entries(codings(resource.get("code"), place), rules)
    found.subject, found.encounter = reference(resource, "subject", place), reference(resource, "encounter", place)
    found.recorded = moment(resource.get("recordedDate"), place, "recordedDate")
    onset = resource.get("onsetDateTime", object_of(resource, "onsetPeriod", place).get("start"))
    found.onset = moment(onset, place, "onset")
    found.category = _category(resource, place)
    status = code_of(resource.get("verificationStatus"), place)
    reason = _STATUS.get(status)
    if status in UNCONFIRMED and rules.keep_unconfirmed:
        reason = None
    if reason is None and found.category == "problem-list-item" and not rules.problem_list:
        reason = "problem-list item"
    if reason:
        found.left_out = (reason,) * max(len(found.entries) + len(found.left_out), 1)
        found.entries, found.snomed, found.approximate = (), (), False
    return found


def _entries(coded: list[Json], rules: Rules) -> Diagnosis:
    """The codes of one Condition: all of the preferred ICD system; other systems are the same diagnosis again."""
    read: dict[tuple[str | None, str], None] = {}
    nameless: dict[tuple[str | None, str], None] = {}
    snomed: list[str] = []
    others = other_edition = 0
    for coding in coded:
        uri, code = str(coding.get("system") or ""), str(coding.get("code") or "").strip()
        system = system_of_uri(uri)
        if not code:
            continue
        if system == SNOMED:
            snomed.append(code)
        elif system in ("ICD9", "ICD10"):
            read[system, code] = None
            other_edition += system == "ICD10" and not is_clinical_modification(uri)
        elif uri:
            others += 1
        else:
            nameless[None, code] = None
    empty = Diagnosis("", "", None, None, (), (), "")
    if read:
        taken = tuple(entry for entry in read if entry[0] == rules.prefer) or tuple(read)
        empty.entries, empty.left_out = taken, (SAME_DIAGNOSIS,) * (len(read) - len(taken))
        empty.other_edition = other_edition if taken[0][0] == "ICD10" else 0
    elif targets := tuple(dict.fromkeys(target for code in snomed for target in rules.snomed.get(code, ()))):
        empty.entries, empty.approximate = targets, True
    elif snomed:
        empty.left_out, empty.snomed = (NOT_MAPPED if rules.snomed else NO_MAP,), (snomed[0],)
    elif nameless:  # the ICD code set may still know it
        empty.entries = tuple(nameless)
    else:
        empty.left_out = (OTHER_SYSTEM if others else NO_CODE,)
    return empty


def _category(resource: Json, place: str) -> str:
    told = [code for each in list_of(resource, "category", place) if (code := code_of(each, place))]
    return next(
        (code for code in told if code in ("encounter-diagnosis", "problem-list-item")), told[0] if told else ""
    )

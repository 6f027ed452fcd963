"""A cohort as FHIR R4: Patient, Encounter and Condition, in one Bundle, one NDJSON file, or a bulk-export folder.

Boundary: columns in, files out, patient by patient. A visit is a finished Encounter, a diagnosis a Condition of it with its
rank in Encounter.diagnosis. What FHIR has no element for (age at a visit, the order of undated visits, words of a visit)
stands in extensions of our own, so that `readers.fhir` gives the same cohort back. See docs/data/writing.md.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from mera_core.common.files import Report
from mera_core.history.columns import VisitColumns
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code, Ontology
from mera_core.readers.fhir.resources import AGE, CODE_SYSTEMS, DETAIL, PATIENT_ID, RACE, RANK, VISIT_NUMBER
from mera_core.writers.subjects import completed

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_GENDERS = {"F": "female", "M": "male", "U": "unknown"}
_INPATIENT = {"system": f"{_TERMINOLOGY}/v3-ActCode", "code": "IMP", "display": "inpatient encounter"}
_UNKNOWN_CLASS = {"system": f"{_TERMINOLOGY}/v3-NullFlavor", "code": "UNK", "display": "unknown"}
_CATEGORY = {"coding": [{"system": f"{_TERMINOLOGY}/condition-category", "code": "encounter-diagnosis"}]}
# What the data may be used for: v3-ActReason, healthcare research.
_RESEARCH = {"system": f"{_TERMINOLOGY}/v3-ActReason", "code": "HRESCH", "display": "healthcare research"}
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_FILES = (".json", ".ndjson", ".json.gz", ".ndjson.gz")
_PROGRESS_EVERY = 2_000  # patients
Resource = dict[str, Any]


def is_folder(target: Path) -> bool:
    """A bulk-export folder, unless the name ends like a file's."""
    return not target.name.lower().endswith(_FILES)


def write(columns: VisitColumns, part: Path, ontology: Ontology, progress: Callable[[str, int, int], None]) -> Report:
    """Write the cohort to `part`: a folder, or a file whose name tells what it is."""
    report = Report("fhir", len(columns.ids), len(columns.person), len(columns.code), files=3 if part.is_dir() else 1)
    undated = int(np.isnat(columns.time).sum())
    if undated:
        report.remarks.append(
            f"{undated:,} visits have no date: their Encounters have no period, and keep their number"
        )
    made = resources(columns, ontology, urls=_is_bundle(part))
    with ExitStack() as files:
        put = _bundle(part, files) if _is_bundle(part) else _lines(part, files)
        for number, group in enumerate(made, start=1):
            for resource in group:
                put(resource)
            if number % _PROGRESS_EVERY == 0 or number == len(columns.ids):
                progress("fhir", number, len(columns.ids))
    return report


def resources(columns: VisitColumns, ontology: Ontology, urls: bool = False) -> Iterator[list[Resource]]:
    """The resources of each patient in turn. urls: references are urn:uuid, as a Bundle has them, not Type/id."""
    concepts = {code: _concept(code, ontology) for code in columns.codes}
    ends = iter(completed(columns.time, columns.visit_words.get("stay")).tolist())
    place = 0  # of a visit among all
    for patient in columns.patients():
        group = [_patient(patient)]
        about = _reference("Patient", group[0]["id"], urls)
        for number, visit in enumerate(patient.visits, start=1):
            place += 1
            group += _visit(visit, (place, number), next(ends), about, concepts, urls)
        yield group


def _patient(patient: Patient) -> Resource:
    extension = []
    if "ethnicity" in patient.details:  # for other tools; the exact word follows
        told = {"url": "text", "valueString": patient.details["ethnicity"]}
        extension.append({"url": RACE, "extension": [told]})
    return _told(
        {
            "resourceType": "Patient",
            "id": fhir_id(patient.id),
            "meta": {"security": [_RESEARCH]},
            "extension": extension + _details(patient.details) + _age(patient.age),
            "identifier": [{"system": PATIENT_ID, "value": patient.id}],
            "gender": _GENDERS[patient.sex],
        }
    )


def _visit(
    visit: Visit,
    place: tuple[int, int],
    end: datetime | None,
    patient: Resource,
    concepts: dict[Code, Resource],
    urls: bool,
) -> Iterator[Resource]:
    """The Encounter of one visit, then its Conditions. place: its number among all visits, and among the patient's."""
    name, words = f"visit-{place[0]}", visit.details
    shown = {"admitSource": "source", "dischargeDisposition": "discharge"}
    conditions = [f"{name}-{rank}" for rank in range(1, len(visit.codes) + 1)]
    positions = visit.positions or range(1, len(visit.codes) + 1)
    yield _told(
        {
            "resourceType": "Encounter",
            "id": name,
            "meta": {"security": [_RESEARCH]},
            "extension": [{"url": VISIT_NUMBER, "valueInteger": place[1]}, *_age(visit.age), *_details(words)],
            "status": "finished",
            "class": _INPATIENT if "stay" in words else _UNKNOWN_CLASS,
            "subject": patient,
            "period": _told({"start": _time(visit.time), "end": _time(end) if "stay" in words else None}),
            "diagnosis": [
                {"condition": _reference("Condition", condition, urls), **_rank(position)}
                for condition, position in zip(conditions, positions, strict=True)
            ],
            "hospitalization": {element: {"text": words[word]} for element, word in shown.items() if word in words},
        }
    )
    for condition, code in zip(conditions, visit.codes, strict=True):
        yield _told(
            {
                "resourceType": "Condition",
                "id": condition,
                "meta": {"security": [_RESEARCH]},
                "category": [_CATEGORY],
                "code": concepts[code],
                "subject": patient,
                "encounter": _reference("Encounter", name, urls),
                "recordedDate": _time(end),
            }
        )


def fhir_id(identity: str) -> str:
    """The id itself where FHIR allows it, else its SHA-256 in 64 hexadecimal digits."""
    return identity if _ID.fullmatch(identity) else hashlib.sha256(identity.encode()).hexdigest()


def full_url(kind: str, identity: str) -> str:
    """The urn:uuid of a resource; the same id has the same one."""
    return f"urn:uuid:{uuid5(NAMESPACE_URL, f'{PATIENT_ID}/{kind}/{identity}')}"


def _reference(kind: str, identity: str, urls: bool) -> Resource:
    return {"reference": full_url(kind, identity) if urls else f"{kind}/{identity}"}


def _rank(position: int) -> Resource:
    """FHIR's rank begins at 1; any other stands in an extension."""
    return {"rank": position} if position > 0 else {"extension": [{"url": RANK, "valueInteger": position}]}


def _concept(code: Code, ontology: Ontology) -> Resource:
    coding = {"system": CODE_SYSTEMS[code.system], "code": code.code}
    if code in ontology:
        coding["display"] = ontology.definition(code)
    return {"coding": [coding]}


def _details(words: Mapping[str, str]) -> list[Resource]:
    return [
        {"url": DETAIL, "extension": [{"url": "name", "valueString": name}, {"url": "value", "valueString": word}]}
        for name, word in words.items()
    ]


def _age(age: float | None) -> list[Resource]:
    return [] if age is None else [{"url": AGE, "valueDecimal": age}]


def _time(time: datetime | None) -> str | None:
    """Times here are in UTC, or in no zone; FHIR wants one named."""
    return None if time is None else time.replace(tzinfo=UTC).isoformat()


def _told(resource: Resource) -> Resource:
    """Without elements that say nothing, which FHIR does not allow."""
    return {name: value for name, value in resource.items() if value not in (None, [], {})}


def _is_bundle(part: Path) -> bool:
    return not part.is_dir() and ".ndjson" not in part.name.lower()


def _bundle(part: Path, files: ExitStack) -> Callable[[Resource], None]:
    """Writes resources into one Bundle, which is closed with `files`."""
    file = files.enter_context(_opened(part))
    head = {"resourceType": "Bundle", "meta": {"security": [_RESEARCH]}, "type": "collection"}
    file.write(json.dumps(head)[:-1] + f', "timestamp": "{datetime.now(UTC).isoformat()}"')
    met: list[bool] = []

    def put(resource: Resource) -> None:
        file.write(",\n" if met else ', "entry": [\n')
        met[:] = [True]
        entry = {"fullUrl": full_url(resource["resourceType"], resource["id"]), "resource": resource}
        file.write(json.dumps(entry, ensure_ascii=False))

    files.callback(lambda: file.write("\n]}\n" if met else "}\n"))
    return put


def _lines(part: Path, files: ExitStack) -> Callable[[Resource], None]:
    """Writes a resource a line, to one file or to a file for each type."""
    if part.is_dir():
        kinds = ("Patient", "Encounter", "Condition")
        opened = {kind: files.enter_context(_opened(part / f"{kind}.ndjson")) for kind in kinds}
    else:
        opened = dict.fromkeys(("Patient", "Encounter", "Condition"), files.enter_context(_opened(part)))

    def put(resource: Resource) -> None:
        opened[resource["resourceType"]].write(json.dumps(resource, ensure_ascii=False) + "\n")

    return put


def _opened(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "wt", encoding="utf-8", newline="\n")
    return path.open("w", encoding="utf-8", newline="\n")

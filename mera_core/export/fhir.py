"""A ranking and its history as a FHIR R4 Bundle: RiskAssessment, and what it rests on.

Boundary: values in, JSON-ready values out; knows rankings, histories and ICD codes, no screen and no model. The
Bundle is a collection: Patient, one Encounter a visit, one Condition a code as typed, the Device that ranked (the
checkpoint), the RiskAssessment and its Provenance. Resources: https://hl7.org/fhir/R4/riskassessment.html.
"""

from __future__ import annotations

import html
import json
from typing import Any
from uuid import uuid4

from mera_core.export.tables import Provenance
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code, Ontology
from mera_core.icd.readings import named, readings
from mera_core.ranking.ranking import Ranking
from mera_core.readers.fhir.resources import CODE_SYSTEMS

_GENDERS = {"F": "female", "M": "male", "U": "unknown"}
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
_UNKNOWN_CLASS = {"system": f"{_TERMINOLOGY}v3-NullFlavor", "code": "UNK", "display": "unknown"}
# What the bundle may be used for: v3-ActReason, healthcare research.
_RESEARCH = {"system": f"{_TERMINOLOGY}v3-ActReason", "code": "HRESCH", "display": "healthcare research"}

Resource = dict[str, Any]


def ranking_fhir(ranking: Ranking, patient: Patient, provenance: Provenance, top: int = 20) -> str:
    """`bundle` as JSON text."""
    return json.dumps(bundle(ranking, patient, provenance, top), indent=2, ensure_ascii=False) + "\n"


def bundle(ranking: Ranking, patient: Patient, provenance: Provenance, top: int = 20) -> Resource:
    """A FHIR R4 Bundle of type "collection".

    top: predictions to list; all codes above the cut-off are listed even where they are more. `probabilityDecimal`, a
    percentage in FHIR, stands only where the checkpoint is calibrated; a share of ranking mass is no probability and
    is given in `rationale`. Ids are random: nothing of the patient is in them. A history holds no date of birth, so an
    age is a note; so is what it says of the person in words of its source (a profile's "ethnicity" may hold a race).
    """
    ids = {name: f"urn:uuid:{uuid4()}" for name in ("patient", "device", "assessment", "provenance")}
    entries: list[tuple[str, Resource]] = [(ids["patient"], _patient(patient))]
    basis = []
    for number, visit in enumerate(patient.visits):
        encounter = f"urn:uuid:{uuid4()}"
        entries.append((encounter, _encounter(visit, number, ids["patient"])))
        for code in visit.codes:
            condition = f"urn:uuid:{uuid4()}"
            entries.append((condition, _condition(code, visit, encounter, ids["patient"], ranking.ontology)))
            basis.append({"reference": condition})
    entries.append((ids["device"], _device(provenance)))
    entries.append((ids["assessment"], _assessment(ranking, patient, provenance, ids, basis, top)))
    entries.append((ids["provenance"], _provenance(provenance, ids)))
    return {
        "resourceType": "Bundle",
        "meta": {"security": [_RESEARCH]},
        "type": "collection",
        "timestamp": provenance.time.isoformat(),
        "entry": [{"fullUrl": url, "resource": resource} for url, resource in entries],
    }


def _patient(patient: Patient) -> Resource:
    identifier = {"identifier": [{"value": patient.id}]} if patient.id else {}
    return {"resourceType": "Patient", "gender": _GENDERS[patient.sex], **identifier}


def _encounter(visit: Visit, number: int, patient: str) -> Resource:
    return {
        "resourceType": "Encounter",
        "identifier": [{"value": f"visit {number + 1}"}],
        "status": "finished",
        "class": _UNKNOWN_CLASS,
        "subject": {"reference": patient},
        **({"period": {"start": _date(visit)}} if visit.time is not None else {}),
    }


def _condition(code: Code | str, visit: Visit, encounter: str, patient: str, ontology: Ontology) -> Resource:
    return {
        "resourceType": "Condition",
        "category": [{"coding": [{"system": f"{_TERMINOLOGY}condition-category", "code": "encounter-diagnosis"}]}],
        "code": _concept(code, ontology),
        "subject": {"reference": patient},
        "encounter": {"reference": encounter},
        **({"recordedDate": _date(visit)} if visit.time is not None else {}),
    }


def _concept(code: Code | str, ontology: Ontology) -> Resource:
    """A code with its definition; text that nobody could read stays text, and with two meanings it says so."""
    found, _ = readings(code, ontology)
    if len(found) == 1:
        definition = ontology.definition(found[0])
        return {"coding": [_coding(found[0]) | {"display": definition}], "text": definition}
    if isinstance(code, Code):
        return {"coding": [_coding(code)]}
    return {"text": f"{code} (not used: two meanings, {named(found)})" if found else code}


def _coding(code: Code) -> Resource:
    return {"system": CODE_SYSTEMS[code.system], "code": code.code}


def _date(visit: Visit) -> str:
    """A visit's day: FHIR wants a zone beside a time of day, and a history knows none."""
    return visit.time.date().isoformat()


def _device(provenance: Provenance) -> Resource:
    return {
        "resourceType": "Device",
        "deviceName": [{"name": provenance.checkpoint, "type": "model-name"}],
        "version": [{"value": provenance.fingerprint}, {"value": provenance.software}],
        "note": [{"text": "; ".join(provenance.code_release.values())}, {"text": provenance.notice}],
    }


def _assessment(
    ranking: Ranking, patient: Patient, provenance: Provenance, ids: dict[str, str], basis: list[Resource], top: int
) -> Resource:
    notes = [provenance.notice, f"Ranked: {len(ranking.codes):,} codes, {ranking.label_level}."]
    if patient.age is not None:
        notes.append(f"Age at the last visit: {patient.age:g} years.")
    if patient.details:
        notes.append(f"Said of the person: {'; '.join(f'{key} {value}' for key, value in patient.details.items())}.")
    if of_visits := sorted({key for visit in patient.visits for key in visit.details}):
        notes.append(f"Facts of single visits that this bundle leaves out: {', '.join(of_visits)}.")
    notes += [note.message for note in ranking.notes]
    shown = min(max(top, ranking.predicted), len(ranking.codes))
    text = (
        f'<div xmlns="http://www.w3.org/1999/xhtml"><p><b>{html.escape(provenance.notice)}</b> Diagnoses ranked for the next '
        f"visit by {html.escape(provenance.checkpoint)}: {ranking.predicted} above the model's cut.</p></div>"
    )
    return {
        "resourceType": "RiskAssessment",
        "meta": {"security": [_RESEARCH]},
        "text": {"status": "generated", "div": text},
        "status": "preliminary",  # "final" would mean that an authorized person has verified it
        "method": {"text": "Ranking of diagnosis codes for the next visit from the codes of earlier visits (MERA)"},
        "code": {"text": "Diagnoses of the next visit"},
        "subject": {"reference": ids["patient"]},
        "occurrenceDateTime": provenance.time.isoformat(),
        "performer": {"reference": ids["device"]},
        "prediction": [_prediction(ranking, place) for place in range(shown)],
        "note": [{"text": note} for note in notes],
        **({"basis": basis} if basis else {}),
    }


def _prediction(ranking: Ranking, place: int) -> Resource:
    above = place < ranking.predicted
    rationale = (
        f"Rank {place + 1} of {len(ranking.codes):,}; {'recurrent' if ranking.recurrent[place] else 'new'}; "
        f"score {ranking.scores[place]:.3f} (cut {ranking.cut:.3f}); "
        f"{100 * ranking.share[place]:.2g} % of the ranking mass, which is no probability."
    )
    given = ranking.probability
    return {
        "outcome": _concept(ranking.codes[place], ranking.ontology),
        "qualitativeRisk": {
            "text": "predicted: above the model's cut" if above else "not predicted: below the model's cut"
        },
        "rationale": rationale,
        **({} if given is None else {"probabilityDecimal": round(100 * float(given[place]), 4)}),
    }


def _provenance(provenance: Provenance, ids: dict[str, str]) -> Resource:
    releases = "; ".join(provenance.code_release.values())
    return {
        "resourceType": "Provenance",
        "target": [{"reference": ids["assessment"]}],
        "recorded": provenance.time.isoformat(),
        "reason": [{"coding": [_RESEARCH], "text": provenance.notice}],
        "activity": {"text": f"Ranked by {provenance.checkpoint} with {provenance.software}; {releases}"},
        "agent": [{"who": {"reference": ids["device"]}}],
    }

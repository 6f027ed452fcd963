"""Codes as recorded -> codes that a checkpoint has learned to read, and a note for every step on the way."""

from __future__ import annotations

from collections.abc import Collection

from mera_core.history.records import Note, Patient, Visit, with_visits
from mera_core.icd.ontology import Code, Ontology

CATEGORY = 3  # level of the three-character categories in both systems


def translate(patient: Patient, known: Collection[Code], ontology: Ontology) -> tuple[Patient, tuple[Note, ...]]:
    """Put each code of a resolved history into the terms of `known`, a checkpoint's input codes.

    A known code stays. Another goes to its nearest known ancestor; one of the other code system goes through the
    general equivalence maps first (all targets, approximate). What has no way is left out. Each step is a note; a visit
    that is left without codes is left out, with a note. Nothing is dropped in silence.

    Args:
        patient: visits hold `Code`s, as `records.resolve` gives them.
    """
    visits, notes = [], []
    for index, visit in enumerate(patient.visits):
        codes: dict[Code, None] = {}
        for code in visit.codes:
            if code not in known:
                codes |= dict.fromkeys(_read(code, known, ontology, index, notes))
            else:
                codes[code] = None
        if codes and tuple(codes) == visit.codes:
            visits.append(visit)
        elif codes:
            visits.append(Visit(tuple(codes), visit.time, visit.age, visit.details))
        else:
            notes.append(
                Note(
                    "unread",
                    f"Visit {index + 1} holds no code that this model reads and was left out.",
                    index,
                    "",
                )
            )
    return with_visits(patient, visits), tuple(notes)


def _read(code: Code, known: Collection[Code], ontology: Ontology, visit: int, notes: list[Note]) -> list[Code]:
    where = f"visit {visit + 1}"
    systems = {known_code.system for known_code in known}
    if code.system in systems:
        target = nearest(code, known, ontology)
        if target is None:
            notes.append(
                Note(
                    "unread",
                    f"{code} ({where}) has no counterpart that this model reads; left out.",
                    visit,
                    str(code),
                )
            )
            return []
        notes.append(
            Note(
                "rolled_up",
                f"{code} ({where}) is read as {target}, {ontology.definition(target)}.",
                visit,
                str(code),
            )
        )
        return [target]
    found: dict[Code, None] = {}
    for system in sorted(systems):
        for source in _with_maps(code, system, ontology):
            for equivalent in ontology.maps_to(source, system):
                known_target = equivalent.target is not None and equivalent.target in ontology
                target = nearest(equivalent.target, known, ontology) if known_target else None
                if target is not None:
                    found[target] = None
    if not found:
        notes.append(
            Note(
                "unread",
                f"{code} ({where}) has no equivalent that this model reads; left out.",
                visit,
                str(code),
            )
        )
        return []
    named = " and ".join(str(target) for target in found)
    notes.append(
        Note(
            "mapped",
            f"{code} ({where}) is read as {named} through the general equivalence maps (approximate).",
            visit,
            str(code),
        )
    )
    return list(found)


def _with_maps(code: Code, system: str, ontology: Ontology) -> list[Code]:
    """The codes whose maps speak for `code`: itself, else the codes under it, else its nearest ancestor with maps.

    A heading has no map of its own; a code younger than the maps (ICD-10-CM's are of 2018) often has a parent that was
    complete then.
    """
    if ontology.maps_to(code, system):
        return [code]
    below = [child for child in ontology.descendants(code) if ontology.maps_to(child, system)]
    if below:
        return below[:20]
    above = [a for a in ontology.ancestors(code) if ontology.level(a) >= CATEGORY and ontology.maps_to(a, system)]
    return above[:1]


def nearest(code: Code, known: Collection[Code], ontology: Ontology) -> Code | None:
    """The code itself, or its nearest ancestor below the block level, if it is in `known`."""
    for candidate in (code, *ontology.ancestors(code)):
        if candidate in known:
            return candidate
    return None

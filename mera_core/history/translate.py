"""Codes as recorded -> codes that a checkpoint has learned to read, and a note for every step on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import lru_cache

from mera_core.history.records import Note, Patient, Visit, with_visits
from mera_core.icd.ontology import CATEGORY, SYSTEMS, Code, Ontology


def translate(patient: Patient, known: Collection[Code], ontology: Ontology) -> tuple[Patient, tuple[Note, ...]]:
    """Put each code of a resolved history into the terms of `known`, a checkpoint's input codes.

    A known code stays. Another goes to its nearest known ancestor; one of the other code system goes through the
    general equivalence maps first (approximate): a complete code to all its targets, a heading to what most codes under it
    are mapped to. What has no way is left out. Each step is a note; a visit that is left without codes is left out, with a
    note. Nothing is dropped in silence.

    Args:
        patient: visits hold `Code`s, as `records.resolve` gives them.
    """
    known = frozenset(known)
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


def _read(code: Code, known: frozenset[Code], ontology: Ontology, visit: int, notes: list[Note]) -> list[Code]:
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
    other = next(system for system in SYSTEMS if system != code.system)
    found, rest = _mapped(code, other, known, ontology)
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
    named = " and ".join(map(str, found))
    others = f"; others under it are mapped to {', '.join(map(str, rest))}" if rest else ""
    notes.append(
        Note(
            "mapped",
            f"{code} ({where}) is read as {named} through the general equivalence maps (approximate){others}.",
            visit,
            str(code),
        )
    )
    return found


@lru_cache(maxsize=1024)  # a category of fractures has thousands of codes under it
def _mapped(code: Code, system: str, known: frozenset[Code], ontology: Ontology) -> tuple[list[Code], list[Code]]:
    """What a code is read as in the other system, and to what else codes under a heading are mapped.

    A heading has no map of its own: it is read in the category that most codes under it are mapped to, as the finest known
    code that they share there, else as the commonest. Ties go by the book. A code younger than the maps (ICD-10-CM's are of
    2018) often has a parent that was complete then.
    """
    upward = (above for above in ontology.ancestors(code) if ontology.level(above) >= CATEGORY)
    below = [] if ontology.maps_to(code, system) else ontology.descendants(code)
    each = [targets for under in below if (targets := _targets(under, system, known, ontology))]
    if not each:
        source = next((own for own in (code, *upward) if ontology.maps_to(own, system)), code)
        return _targets(source, system, known, ontology), []
    times = Counter(target for targets in each for target in targets).most_common()
    above = {target: (target, *ontology.ancestors(target)) for target, _ in times}
    category = {target: ontology.ancestor_at(target, CATEGORY) for target in above}
    votes = Counter(one for targets in each for one in dict.fromkeys(category[target] for target in targets))
    chosen = votes.most_common(1)[0][0]
    own = [target for target in above if category[target] == chosen]
    finest = (one for one in above[own[0]] if one in known and all(one in above[target] for target in own))
    read = next(finest, own[0])
    return [read], [target for target in above if read not in above[target]]


def _targets(code: Code, system: str, known: frozenset[Code], ontology: Ontology) -> list[Code]:
    """The known codes that the maps give for a code, each once."""
    mapped = (row.target for row in ontology.maps_to(code, system))
    found = (nearest(target, known, ontology) for target in mapped if target is not None and target in ontology)
    return [target for target in dict.fromkeys(found) if target is not None]


def nearest(code: Code, known: Collection[Code], ontology: Ontology) -> Code | None:
    """The code itself, or its nearest ancestor at the category or below it, if it is in `known`."""
    for candidate in (code, *ontology.ancestors(code)):
        if ontology.level(candidate) < CATEGORY:
            return None
        if candidate in known:
            return candidate
    return None

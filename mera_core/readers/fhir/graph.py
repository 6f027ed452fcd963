"""The resources of a FHIR source as small records, and whom and what each of them refers to.

Boundary: resources in, linked records out; what one resource says is `fhir_values`, and visits are made in `readers.fhir`.
Resources that are contained in others are taken out of them, and inherit their subject and encounter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from mera_core.common.errors import InputError
from mera_core.readers.fhir.conditions import Diagnosis, Rules, diagnosis
from mera_core.readers.fhir.files import READ, Found
from mera_core.readers.fhir.links import Index, told_name
from mera_core.readers.fhir.resources import Encounter, FhirPatient, encounter_of, patient_of

Names = tuple[str, ...]


@dataclass
class Graph:
    """People, Encounters and diagnoses (Conditions) in the order met.

    ranked: (row of the Encounter, reference of a Condition, Bundle, rank) of each Encounter.diagnosis.
    """

    rules: Rules
    people: list[FhirPatient] = field(default_factory=list)
    encounters: list[Encounter] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)
    ranked: list[tuple[int, str, str | None, int | None]] = field(default_factory=list)
    _people_index: Index = field(default_factory=lambda: Index("Patient"))
    _encounter_index: Index = field(default_factory=lambda: Index("Encounter"))

    def add(self, found: Found, name: str = "", subject: str = "", encounter: str = "") -> None:
        """Take in a resource and those contained in it.

        name, subject, encounter: of a contained one, what it is known by and what it inherits.
        """
        kind, place = found.resource["resourceType"], found.place
        if kind not in READ:
            return
        inner = [each for each in found.resource.get("contained") or () if isinstance(each, dict)]
        names = _names(found, kind, name, bool(inner))
        if kind == "Patient":
            self._add_person(patient_of(found.resource, place), names, found)
            subject, encounter = f"{place}#", ""
        elif kind == "Encounter":
            subject = self._add_encounter(encounter_of(found.resource, place), names, found, subject)
            encounter = f"{place}#"
        else:
            said = diagnosis(found.resource, place, self.rules)
            said.subject = _inside(said.subject, place) or subject
            said.encounter = _inside(said.encounter, place) or encounter
            subject, encounter = said.subject, said.encounter
            said.names, said.bundle = names, found.bundle
            self.diagnoses.append(said)
        for each in inner:
            if each.get("resourceType") in READ:
                self.add(Found(each, found.bundle, None, place), f"{place}#{each.get('id', '')}", subject, encounter)

    def _add_encounter(self, met: Encounter, names: Names, found: Found, subject: str) -> str:
        row = len(self.encounters)
        met.subject = _inside(met.subject, found.place) or subject
        met.part_of = _inside(met.part_of, found.place)
        self.ranked += [(row, _inside(ref, found.place), found.bundle, rank) for ref, rank in met.diagnoses.items()]
        met.diagnoses = {}
        self._encounter_index.add(row, names, found.bundle)
        met.names, met.bundle = names, found.bundle
        self.encounters.append(met)
        return met.subject

    def _add_person(self, said: FhirPatient, names: Names, found: Found) -> None:
        row = self._people_index.find(names[0], None) if names else None
        if row is None:
            row = len(self.people)
            said.id = said.id or (
                told_name(names[0], "Patient") if names and "#" not in names[0] else f"patient-{row + 1}"
            )
            self.people.append(said)
        else:
            known = self.people[row]
            if (known.born and said.born and known.born != said.born) or {known.sex, said.sex} == {"F", "M"}:
                raise InputError(
                    f"{found.place} and {known.place} hold a Patient of the same id who differs in birth or sex; "
                    "two people need two ids."
                )
            known.born, known.sex = known.born or said.born, said.sex if known.sex == "U" else known.sex
            known.words = {**said.words, **known.words}
        self._people_index.add(row, (*names, *said.names), found.bundle)

    def person_of(self, subject: str, bundle: str | None) -> int | None:
        """The row of the patient meant; one who is only referred to is made; None where none is named."""
        if not subject:
            return None
        row = self._people_index.find(subject, bundle)
        if row is None:
            name = told_name(subject, "Patient")
            row = self._people_index.find(f"Patient/{name}", None)
            if row is None:
                row = len(self.people)
                self.people.append(FhirPatient(name, "U", None, {}, None, (), ""))
            self._people_index.add(row, (subject, f"Patient/{name}"), None)
        return row

    def contact_of(self, reference: str, bundle: str | None) -> int | None:
        """The row of the Encounter meant, None where it is not in the source."""
        return self._encounter_index.find(reference, bundle)

    @cached_property
    def links(self) -> dict[int, tuple[int, int | None]]:
        """Row of a Condition -> row of the Encounter that lists it, and its rank there; once all resources are in."""
        if not self.ranked:
            return {}
        index = Index("Condition")
        for row, said in enumerate(self.diagnoses):
            index.add(row, said.names, said.bundle)
        found: dict[int, tuple[int, int | None]] = {}
        for contact_row, reference, bundle, rank in self.ranked:
            row = index.find(reference, bundle)
            if row is not None:
                found.setdefault(row, (contact_row, rank))
        return found


def _names(found: Found, kind: str, name: str, has_contained: bool) -> Names:
    """Type/id first, then the fullUrl, then what resources inside it call it."""
    if name:
        return (name,)
    identity = found.resource.get("id")
    names = [f"{kind}/{identity}"] if isinstance(identity, str) and identity else []
    names += [found.url] if found.url else []
    return (*names, f"{found.place}#") if has_contained else tuple(names)


def _inside(reference: str, place: str) -> str:
    """A reference to a contained resource, with the place that makes it unlike those of other resources."""
    return f"{place}{reference}" if reference.startswith("#") else reference

"""FHIR R4 as JSON: Patients, Encounters and Conditions of Bundles, folders of Bundles, NDJSON or a bulk export.

Boundary: linked records -> people, visits and diagnoses; files are `fhir_files`, what a resource says is `fhir_values`, what
it refers to is `fhir_graph`. A visit is an Encounter; one that is part of another (an emergency stay that led to the
admission, a stay on a ward) counts to it. A Condition without an Encounter belongs to the visit in whose period it was
recorded, or else makes a visit of its day. See docs/data/fhir.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology
from mera_core.readers.common.assemble import REPEATED, Entries, People, Visits, assemble
from mera_core.readers.common.base import Cohort, ImportReport, Source, yes
from mera_core.readers.common.code_systems import read_snomed_map
from mera_core.readers.fhir.conditions import Diagnosis, Rules
from mera_core.readers.fhir.files import candidates, looks_like_fhir, resources, xml_files
from mera_core.readers.fhir.graph import Graph
from mera_core.readers.fhir.links import told_name
from mera_core.readers.fhir.resources import NEVER_WAS, Contact

FORMAT = "fhir"
_DAYS_A_YEAR = 365.2425
_OLDEST = 130.0  # years
_BEFORE_BIRTH = timedelta(days=4)
_DETECTED_IN = 50  # files of a folder that are looked at
_OPEN = ("in-progress", "arrived", "triaged", "onleave")


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    for path in candidates(source)[:_DETECTED_IN]:
        if looks_like_fhir(path):
            return f"{path.name} is JSON that names a resourceType"
    return None


def expects(source: Source) -> str | None:
    """Why a source that can't be recognised is meant for this format: it holds FHIR as XML, which the reading names."""
    return next((f"{path.name} is FHIR as XML" for path in xml_files(source)), None)


def read(
    source: Source,
    report: ImportReport,
    ontology: Ontology | None = None,
    snomed_map: str | Path | None = None,
    prefer: str = "ICD10",
    keep_unconfirmed: bool | str = False,
    problem_list: bool | str = True,
    empty_visits: bool | str = True,
) -> Cohort:
    """Read Bundles, NDJSON or a bulk-export folder, plain or gzipped; of a folder also the files one level deeper.

    snomed_map: CSV file for Conditions that have SNOMED CT codes only (`code_systems.read_snomed_map`). prefer: the system
    that is taken where a Condition names its diagnosis in both. keep_unconfirmed: also provisional, differential and
    unconfirmed Conditions. problem_list: also problem-list items. empty_visits: also Encounters without a diagnosis. (From
    the command line these three are 'yes' or 'no'.)
    Raises InputError naming the file and the line or entry for what is no JSON, no FHIR, or of the wrong type.
    """
    rules = Rules(
        read_snomed_map(snomed_map) if snomed_map else {},
        prefer.upper(),
        yes(keep_unconfirmed, "keep_unconfirmed"),
        yes(problem_list, "problem_list"),
    )
    empty_visits = yes(empty_visits, "empty_visits")
    graph = Graph(rules)
    for found in resources(source, report):
        graph.add(found)
    if not (graph.people or graph.contacts or graph.diagnoses):
        raise InputError(f"{source.path} holds no Patient, Encounter or Condition.")
    told = len(graph.people)
    stays = _Stays(graph, report)
    for row in range(len(graph.diagnoses)):
        stays.place(row)
    stays.remark(len(graph.people) - told)
    return _cohort(graph, stays, report, ontology, empty_visits)


@dataclass(slots=True)
class _Stay:
    """A visit as it is put together; `contact` is None where only Conditions tell of it."""

    person: int
    contact: Contact | None
    time: datetime | None
    filled: bool = False


@dataclass(slots=True)
class _Entry:
    stay: int
    system: str | None
    text: str
    rank: int | None


class _Stays:
    """Visits, and the Conditions put to them; every Condition that finds no visit is counted."""

    def __init__(self, graph: Graph, report: ImportReport) -> None:
        self._graph, self._report = graph, report
        self.stays: list[_Stay] = []
        self.entries: list[_Entry] = []
        self._of_contact: list[
            int | None
        ] = []  # the visit of each Encounter; None: it never took place, or is nobody's
        self._of_person: dict[int, list[int]] = {}
        self._of_reference: dict[tuple[int, str], int] = {}
        self._of_day: dict[tuple[int, date], int] = {}
        self._seen: set[tuple[int | None, int | None, str]] = set()
        self._counts: Counter[str] = Counter()
        self._make_visits()

    def _make_visits(self) -> None:
        graph = self._graph
        owners = self._owners()
        first: dict[tuple[int | None, str], int] = {}
        same = [
            first.setdefault((owners[row], names[0]), row) if names else row
            for row, names in enumerate(graph.contact_names)
        ]
        roots = [self._root(same[row], owners, same) for row in range(len(owners))]
        made: dict[int, int] = {}
        for row, met in enumerate(graph.contacts):
            owner = owners[row]
            if same[row] != row:
                self._report.set_aside("encounters given twice")
            elif owner is None:
                self._report.set_aside("encounters that name no patient")
            elif met.status in NEVER_WAS:
                self._report.set_aside("encounters planned, cancelled or entered in error")
            elif roots[row] != row:
                self._report.set_aside("encounters that are part of another, and count to it")
            else:
                self._counts["open"] += met.status in _OPEN
                made[row] = len(self.stays)
                self._of_person.setdefault(owner, []).append(len(self.stays))
                self.stays.append(_Stay(owner, met, met.start or met.end))
        for row, root in enumerate(roots):
            lost = graph.contacts[same[row]].status in NEVER_WAS
            self._of_contact.append(None if lost else made.get(root))

    def _owners(self) -> list[int | None]:
        """The person of each Encounter; of one that names none, the person of its Conditions."""
        graph = self._graph
        owners = [graph.person_of(met.subject, graph.contact_bundles[row]) for row, met in enumerate(graph.contacts)]
        if None in owners:
            for row, said in enumerate(graph.diagnoses):
                bundle = graph.diagnosis_bundles[row]
                met = graph.contact_of(said.encounter, bundle)
                met = graph.links.get(row, (None,))[0] if met is None else met
                if met is not None and owners[met] is None:
                    owners[met] = graph.person_of(said.subject, bundle)
        return owners

    def _root(self, row: int, owners: list[int | None], same: list[int]) -> int:
        """The outermost Encounter that one is part of, each by the first of its name."""
        path: list[int] = []
        while row not in path:
            path.append(row)
            above = self._graph.contact_of(self._graph.contacts[row].part_of, self._graph.contact_bundles[row])
            if above is None or owners[above] != owners[row]:
                return row
            row = same[above]
        return min(path)  # Encounters that are part of each other

    def place(self, row: int) -> None:
        """Put a Condition to its visit, or count why not."""
        graph, report = self._graph, self._report
        said, bundle = graph.diagnoses[row], graph.diagnosis_bundles[row]
        report.rows += len(said.entries) + len(said.left_out)
        linked, rank = graph.links.get(row, (None, None))
        met = graph.contact_of(said.encounter, bundle)
        met = linked if met is None else met
        stay = None if met is None else self._of_contact[met]
        owner = graph.person_of(said.subject, bundle)
        if owner is None and stay is not None:
            owner = self.stays[stay].person
        if self._met_before(row, owner, stay):
            report.leave_out(REPEATED, len(said.entries) + len(said.left_out))
            return
        for reason in said.left_out:
            report.leave_out(reason)
        report.unknown_codes.update(f"SNOMED {code}" for code in said.snomed)
        self._counts[f"category {said.category or 'none'}"] += 1
        reason = "no date"
        if owner is None:
            reason = "no patient named"
        elif met is not None and stay is None:
            reason = "encounter planned, cancelled or entered in error"
        elif stay is not None and self.stays[stay].person != owner:
            stay, reason = None, "encounter belongs to another patient"
        elif stay is None and said.entries:
            stay = self._without_encounter(said, owner)
        if stay is None or owner is None:
            report.leave_out(reason, len(said.entries))
        else:
            self._fill(stay, said, rank)

    def _met_before(self, row: int, owner: int | None, stay: int | None) -> bool:
        names = self._graph.diagnosis_names[row]
        if not names:
            return False
        key = (owner, stay, names[0])
        met = key in self._seen
        self._seen.add(key)
        return met

    def _without_encounter(self, said: Diagnosis, owner: int) -> int | None:
        """The visit of a Condition whose Encounter is not in the source, or that names none; None without a date."""
        if said.encounter:
            return self._new(self._of_reference, (owner, told_name(said.encounter, "Encounter")), owner, None)
        when = said.recorded or said.onset
        if when is None:
            return None
        for stay in self._of_person.get(owner, ()):
            met = self.stays[stay].contact
            if met is None or met.start is None:
                continue
            end = met.end or met.start
            if met.start.date() <= when.date() <= end.date() or met.start <= when <= end:
                self._counts["put by date"] += 1
                return stay
        self._counts["of a day"] += 1
        return self._new(self._of_day, (owner, when.date()), owner, when)

    def _new(self, known: dict, key: tuple, owner: int, when: datetime | None) -> int:
        if key not in known:
            known[key] = len(self.stays)
            self.stays.append(_Stay(owner, None, when))
        return known[key]

    def _fill(self, stay: int, said: Diagnosis, rank: int | None) -> None:
        visit = self.stays[stay]
        if visit.contact is None or not (visit.contact.start or visit.contact.end):
            when = [time for time in (visit.time, said.recorded or said.onset) if time is not None]
            visit.time = min(when) if when else None
        visit.filled = visit.filled or bool(said.entries)
        self._report.approximate += len(said.entries) if said.approximate else 0
        self._counts["other edition"] += said.other_edition
        self.entries += [_Entry(stay, system, text, rank) for system, text in said.entries]

    def remark(self, referred: int) -> None:
        """Say what a reader of the report must know. referred: patients who are only referred to."""
        report, counts = self._report, self._counts
        kinds = {name.removeprefix("category "): n for name, n in counts.items() if name.startswith("category ")}
        if set(kinds) - {"none", "encounter-diagnosis"}:
            told = ", ".join(f"{name} {n:,}" for name, n in sorted(kinds.items()))
            report.remarks.append(f"categories of the conditions: {told}")
        sentences = (
            (counts["other edition"], "{:,} codes are of another ICD-10 than ICD-10-CM, and were read as ICD-10-CM"),
            (counts["put by date"], "{:,} conditions name no encounter and count to the visit of their date"),
            (
                counts["of a day"],
                "{:,} conditions name no encounter and are of no visit's date; those of one day make a visit",
            ),
            (counts["open"], "{:,} encounters were still in progress"),
            (len(self._of_reference), "{:,} visits are encounters that the source refers to and does not hold"),
            (referred, "{:,} patients are referred to and not held by the source: their sex and birth are unknown"),
        )
        report.remarks += [words.format(count) for count, words in sentences if count]
        backwards = [met.backwards for met in self._graph.contacts if met.backwards]
        if backwards:
            report.remarks.append(
                f"{len(backwards):,} encounters end before they begin (first: {backwards[0]}, period); they are kept, the "
                "length of stay is not"
            )


def _cohort(graph: Graph, found: _Stays, report: ImportReport, ontology: Ontology | None, empty_visits: bool) -> Cohort:
    """People, visits and entries; visits before birth, and empty ones if asked, are left out."""
    stays, kept = found.stays, np.ones(len(found.stays), dtype=bool)
    for row, stay in enumerate(stays):
        born = graph.people[stay.person].born
        kept[row] = born is None or stay.time is None or born - stay.time <= _BEFORE_BIRTH
    report.set_aside("visits before birth", int((~kept).sum()))
    report.leave_out("visit before birth", sum(not kept[entry.stay] for entry in found.entries))
    if not empty_visits:
        empty = kept & ~np.array([stay.filled for stay in stays], dtype=bool)
        report.set_aside("visits without any diagnosis", int(empty.sum()))
        kept &= ~empty
    entries = [entry for entry in found.entries if kept[entry.stay]]
    order = _order(stays, np.flatnonzero(kept))
    place = np.full(len(stays), -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    chosen = [stays[row] for row in order.tolist()]
    person = np.array([stay.person for stay in chosen], dtype=np.int64)
    # Visits that we wrote are numbered, so that undated ones keep their place.
    numbered = bool(chosen) and all(stay.contact is not None and stay.contact.number is not None for stay in chosen)
    end = [stay.contact.end if stay.contact else None for stay in chosen]
    words: dict[str, list[str | None]] = {
        name: [stay.contact.words.get(name) if stay.contact else None for stay in chosen]
        for name in dict.fromkeys(name for stay in chosen if stay.contact for name in stay.contact.words)
    }
    return assemble(
        report,
        _people(graph, numbered),
        Visits(
            person,
            [stay.time for stay in chosen],
            np.arange(len(chosen)),
            [_age(stay, graph) for stay in chosen],
            words,
            by_order=numbered,
            end=end,
        ),
        Entries(
            visit=place[[entry.stay for entry in entries]] if entries else [],
            text=[entry.text for entry in entries],
            system=[entry.system for entry in entries],
            position=[entry.rank for entry in entries],
        ),
        ontology,
    )


def _order(stays: list[_Stay], rows: np.ndarray) -> np.ndarray:
    """Rows by person, then by the number that we gave a visit, if we wrote it; else as they came."""
    numbers = [stays[row].contact.number if stays[row].contact else None for row in rows.tolist()]
    person = np.array([stays[row].person for row in rows.tolist()], dtype=np.int64)
    return rows[np.lexsort((np.array([0 if number is None else number for number in numbers], dtype=np.int64), person))]


def _people(graph: Graph, numbered: bool) -> People:
    people = graph.people
    met: Counter[str] = Counter(each.id for each in people)
    names = dict.fromkeys(name for each in people for name in each.words)
    return People(
        # Two people of one name are told apart by their place among all.
        id=[each.id if met[each.id] == 1 else f"{each.id}-{row + 1}" for row, each in enumerate(people)],
        sex=[each.sex for each in people],
        words={name: [each.words.get(name) for each in people] for name in names},
        age=[each.age for each in people] if numbered else None,
        death=[each.died for each in people],
    )


def _age(stay: _Stay, graph: Graph) -> float | None:
    """Years at a visit: as we wrote it, or from the birth."""
    if stay.contact is not None and stay.contact.number is not None:
        return stay.contact.age
    born = graph.people[stay.person].born
    if born is None or stay.time is None:
        return None
    years = max((stay.time - born).total_seconds() / 86400 / _DAYS_A_YEAR, 0.0)
    return None if years > _OLDEST else round(years, 2)

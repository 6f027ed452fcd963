"""FHIR's Encounters as visits, and the Conditions put to them; knows no files and no ICD code set.

A visit is an Encounter; one that is part of another (an emergency stay that led to the admission, a stay on a ward) counts to
it. A Condition without an Encounter belongs to the visit in whose period it was recorded, or else makes a visit of its day.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime

from mera_core.readers.common.assemble import REPEATED
from mera_core.readers.common.base import ImportReport
from mera_core.readers.fhir.conditions import Diagnosis
from mera_core.readers.fhir.graph import Graph
from mera_core.readers.fhir.links import told_name
from mera_core.readers.fhir.resources import NEVER_WAS, Encounter

_OPEN = ("in-progress", "arrived", "triaged", "onleave")


@dataclass(slots=True)
class Stay:
    """A visit as it is put together; `encounter` is None where only Conditions tell of it."""

    person: int
    encounter: Encounter | None
    time: datetime | None
    filled: bool = False


@dataclass(slots=True)
class Entry:
    stay: int
    system: str | None
    text: str
    rank: int | None


class Stays:
    """Visits, and the Conditions put to them; every Condition that finds no visit is counted."""

    def __init__(self, graph: Graph, report: ImportReport) -> None:
        self._graph, self._report = graph, report
        self.stays: list[Stay] = []
        self.entries: list[Entry] = []
        # The visit of each Encounter; None: it never took place, or is nobody's.
        self._of_contact: list[int | None] = []
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
            first.setdefault((owners[row], met.names[0]), row) if met.names else row
            for row, met in enumerate(graph.encounters)
        ]
        roots = [self._root(same[row], owners, same) for row in range(len(owners))]
        made: dict[int, int] = {}
        for row, met in enumerate(graph.encounters):
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
                self.stays.append(Stay(owner, met, met.start or met.end))
        for row, root in enumerate(roots):
            lost = graph.encounters[same[row]].status in NEVER_WAS
            self._of_contact.append(None if lost else made.get(root))

    def _owners(self) -> list[int | None]:
        """The person of each Encounter; of one that names none, the person of its Conditions."""
        graph = self._graph
        owners = [graph.person_of(met.subject, met.bundle) for met in graph.encounters]
        if None in owners:
            for row, said in enumerate(graph.diagnoses):
                met = graph.contact_of(said.encounter, said.bundle)
                met = graph.links.get(row, (None,))[0] if met is None else met
                if met is not None and owners[met] is None:
                    owners[met] = graph.person_of(said.subject, said.bundle)
        return owners

    def _root(self, row: int, owners: list[int | None], same: list[int]) -> int:
        """The outermost Encounter that one is part of, each by the first of its name."""
        path: list[int] = []
        while row not in path:
            path.append(row)
            inner = self._graph.encounters[row]
            above = self._graph.contact_of(inner.part_of, inner.bundle)
            if above is None or owners[above] != owners[row]:
                return row
            row = same[above]
        return min(path)  # Encounters that are part of each other

    def place(self, row: int) -> None:
        """Put a Condition to its visit, or count why not."""
        graph, report = self._graph, self._report
        said = graph.diagnoses[row]
        report.rows += len(said.entries) + len(said.left_out)
        linked, rank = graph.links.get(row, (None, None))
        met = graph.contact_of(said.encounter, said.bundle)
        met = linked if met is None else met
        stay = None if met is None else self._of_contact[met]
        owner = graph.person_of(said.subject, said.bundle)
        if owner is None and stay is not None:
            owner = self.stays[stay].person
        if said.names and self._met_before((owner, stay, said.names[0])):
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

    def _met_before(self, key: tuple[int | None, int | None, str]) -> bool:
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
            met = self.stays[stay].encounter
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
            self.stays.append(Stay(owner, None, when))
        return known[key]

    def _fill(self, stay: int, said: Diagnosis, rank: int | None) -> None:
        visit = self.stays[stay]
        if visit.encounter is None or not (visit.encounter.start or visit.encounter.end):
            when = [time for time in (visit.time, said.recorded or said.onset) if time is not None]
            visit.time = min(when) if when else None
        visit.filled = visit.filled or bool(said.entries)
        self._report.approximate += len(said.entries) if said.approximate else 0
        self._counts["other edition"] += said.other_edition
        self.entries += [Entry(stay, system, text, rank) for system, text in said.entries]

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
        backwards = [met.backwards for met in self._graph.encounters if met.backwards]
        if backwards:
            report.remarks.append(
                f"{len(backwards):,} encounters end before they begin (first: {backwards[0]}, period); they are kept, the "
                "length of stay is not"
            )

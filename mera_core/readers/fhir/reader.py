"""FHIR R4 as JSON: Patients, Encounters and Conditions of Bundles, folders of Bundles, NDJSON or a bulk export.

Boundary: linked records -> people, visits and diagnoses; files are `files`, what a resource says is `resources`, what it refers
to is `graph`, and which visits there are is `visits`. See docs/data/fhir.md.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology
from mera_core.readers.common.assemble import Entries, People, Visits, assemble
from mera_core.readers.common.base import Cohort, ImportReport, Source, yes
from mera_core.readers.common.code_systems import read_snomed_map
from mera_core.readers.fhir.conditions import Rules
from mera_core.readers.fhir.files import candidates, looks_like_fhir, resources, xml_files
from mera_core.readers.fhir.graph import Graph
from mera_core.readers.fhir.visits import Stay, Stays

FORMAT = "fhir"
_DAYS_A_YEAR = 365.2425
_OLDEST = 130.0  # years
_BEFORE_BIRTH = timedelta(days=4)
_DETECTED_IN = 50  # files of a folder that are looked at


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
    if not (graph.people or graph.encounters or graph.diagnoses):
        raise InputError(f"{source.path} holds no Patient, Encounter or Condition.")
    told = len(graph.people)
    stays = Stays(graph, report)
    for row in range(len(graph.diagnoses)):
        stays.place(row)
    stays.remark(len(graph.people) - told)
    return _cohort(graph, stays, report, ontology, empty_visits)


def _cohort(graph: Graph, found: Stays, report: ImportReport, ontology: Ontology | None, empty_visits: bool) -> Cohort:
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
    # By person; visits that we wrote by their number, others as they came.
    number = np.array([stay.encounter.number or 0 if stay.encounter else 0 for stay in stays], dtype=np.int64)
    rows = np.flatnonzero(kept)
    order = rows[np.lexsort((number[rows], np.array([stay.person for stay in stays], dtype=np.int64)[rows]))]
    place = np.full(len(stays), -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    chosen = [stays[row] for row in order.tolist()]
    person = np.array([stay.person for stay in chosen], dtype=np.int64)
    # Visits that we wrote are numbered, so that undated ones keep their place.
    numbered = bool(chosen) and all(stay.encounter is not None and stay.encounter.number is not None for stay in chosen)
    end = [stay.encounter.end if stay.encounter else None for stay in chosen]
    words: dict[str, list[str | None]] = {
        name: [stay.encounter.words.get(name) if stay.encounter else None for stay in chosen]
        for name in dict.fromkeys(name for stay in chosen if stay.encounter for name in stay.encounter.words)
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


def _age(stay: Stay, graph: Graph) -> float | None:
    """Years at a visit: as we wrote it, or from the birth."""
    if stay.encounter is not None and stay.encounter.number is not None:
        return stay.encounter.age
    born = graph.people[stay.person].born
    if born is None or stay.time is None:
        return None
    years = max((stay.time - born).total_seconds() / 86400 / _DAYS_A_YEAR, 0.0)
    return None if years > _OLDEST else round(years, 2)

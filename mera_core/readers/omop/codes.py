"""OMOP conditions -> ICD codes: by source concept, by source value, or back from a SNOMED concept.

Knows the vocabulary tables and no visits. A SNOMED concept goes back through 'Maps to' read the other way ('Mapped from'
says the same from the other end): to the one ICD code that maps to it; of several, to the one whose name is the same, else to
the heading that all of them share, where that is a category or below. What goes back so is approximate.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mera_core.history.columns import words
from mera_core.icd.ontology import SYSTEMS, Code, Ontology, UnknownCodeError
from mera_core.readers.common.base import ImportReport
from mera_core.readers.common.code_systems import NO_MAP, PROCEDURE, system_of_vocabulary
from mera_core.readers.common.delimited import Delimited, Keep
from mera_core.readers.common.keyed import plain_id, rows_at

_AMERICAN = ("ICD9CM", "ICD10CM")  # a code of another edition is read as one of these, which is approximate
_MAPPED_BACK = (*_AMERICAN, "ICD10")  # whose maps to SNOMED are read backwards; national editions would blur them
_OTHER_PROCEDURES = ("CPT4", "HCPCS")
TO, FROM = "Maps to", "Mapped from"
_CATEGORY = 3  # level of the three-character categories in both systems
_SNOMED_ID = re.compile(r"\d{6,18}")
ReadTable = Callable[[str, tuple[str, ...], tuple[str, ...], Keep | None], Delimited | None]


@dataclass
class Vocabulary:
    """What concept and concept_relationship say of the concepts that conditions name.

    concepts: id -> (vocabulary, code, name). back: SNOMED concept id -> the ICD concepts that map to it.
    """

    given: bool = False
    mapped: bool = False
    concepts: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    back: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Codes:
    """For each condition the code's text and system, or the reason why it has none."""

    text: pa.DictionaryArray
    system: pa.DictionaryArray
    approximate: np.ndarray
    reasons: dict[str, np.ndarray]
    unknown: Counter[str]

    def count_unknown(self, report: ImportReport) -> None:
        """Name the codes that could not be read in the report."""
        report.unknown_codes.update(self.unknown)


def read_vocabulary(read: ReadTable, condition: Delimited) -> Vocabulary:
    """The part of the vocabulary that the conditions need; `read` gives None for a table that is not there."""
    named = {
        text
        for column in ("condition_concept_id", "condition_source_concept_id")
        for text in condition.get(column).dictionary.to_pylist()
    } - {"", "0"}
    columns = ("concept_id", "vocabulary_id", "concept_code")
    concept = read("concept", columns, ("concept_name",), lambda block: _among(block["concept_id"], named))
    if concept is None:
        return Vocabulary()
    vocabulary = Vocabulary(True, concepts=_concepts(concept))
    snomed = {identity for identity, (kind, _, _) in vocabulary.concepts.items() if kind == "SNOMED"}
    links = read(
        "concept_relationship",
        ("concept_id_1", "concept_id_2", "relationship_id"),
        ("invalid_reason",),
        lambda block: (
            (_among(block["relationship_id"], {TO}) & _among(block["concept_id_2"], snomed))
            | (_among(block["relationship_id"], {FROM}) & _among(block["concept_id_1"], snomed))
        ),
    )
    if links is None:
        return vocabulary
    sources: dict[str, set[str]] = defaultdict(set)
    told = (
        links.get(name).to_pylist() for name in ("concept_id_1", "concept_id_2", "relationship_id", "invalid_reason")
    )
    for first, second, relation, invalid in zip(*told, strict=True):
        source, target = (first, second) if relation == TO else (second, first)
        if source != target and not invalid:
            sources[target].add(source)
    wanted = {source for each in sources.values() for source in each}
    more = read("concept", columns, ("concept_name",), lambda block: _among(block["concept_id"], wanted))
    assert more is not None
    vocabulary.concepts |= {key: value for key, value in _concepts(more).items() if value[0] in _MAPPED_BACK}
    vocabulary.mapped = True
    vocabulary.back = {
        target: kept
        for target, each in sources.items()
        if (kept := sorted(source for source in each if vocabulary.concepts.get(source, ("",))[0] in _MAPPED_BACK))
    }
    return vocabulary


def conditions_to_codes(condition: Delimited, vocabulary: Vocabulary, prefer: str, ontology: Ontology) -> Codes:
    """The code of each condition, each distinct combination of concept, source concept and value looked at once."""
    columns = [
        condition.get(name)
        for name in ("condition_source_concept_id", "condition_concept_id", "condition_source_value")
    ]
    texts = [column.dictionary.to_pylist() for column in columns]
    pair = rows_at(columns[0]) * max(len(texts[1]), 1) + rows_at(columns[1])
    pairs, pair = np.unique(pair, return_inverse=True)
    keys, key = np.unique(pair * max(len(texts[2]), 1) + rows_at(columns[2]), return_inverse=True)
    times = np.bincount(key, minlength=len(keys))
    found: list[tuple[str | None, str | None, bool, str | None]] = []
    unknown: Counter[str] = Counter()
    for at, each in enumerate(keys.tolist()):
        first, value = divmod(each, max(len(texts[2]), 1))
        source, standard = divmod(int(pairs[first]), max(len(texts[1]), 1))
        code, reason, shown = _code(texts[0][source], texts[1][standard], texts[2][value], vocabulary, prefer, ontology)
        found.append((*code, reason))
        if shown:
            unknown[shown] += int(times[at])
    reason_of = np.array([reason or "" for *_, reason in found] or [""], dtype=object)[key]
    return Codes(
        words([text for text, *_ in found]).take(pa.array(key)),
        words([system for _, system, *_ in found]).take(pa.array(key)),
        np.array([approximate for _, _, approximate, _ in found], bool)[key] if len(key) else np.zeros(0, bool),
        {reason: reason_of == reason for reason in dict.fromkeys(reason for *_, reason in found if reason)}
        or {"no code recorded": np.zeros(len(key), bool)},
        unknown,
    )


_NONE = (None, None, False)


def _code(
    source: str, standard: str, value: str, vocabulary: Vocabulary, prefer: str, ontology: Ontology
) -> tuple[tuple[str | None, str | None, bool], str | None, str | None]:
    """((text, system, approximate), reason to leave it out or None, how to name it among the unknown or None)."""
    kind, written, _ = vocabulary.concepts.get(source, ("", "", ""))
    system = system_of_vocabulary(kind)
    if system in SYSTEMS:
        return (written, system, kind not in _AMERICAN), None, None
    if system == PROCEDURE or kind in _OTHER_PROCEDURES:
        return _NONE, "procedure code", None
    # A source concept of another vocabulary says that the value is written in that one, whatever it looks like.
    if value and not kind and ontology.diagnoses(value):
        return (value, None, False), None, None
    snomed = standard if vocabulary.concepts.get(standard, ("",))[0] == "SNOMED" else source if kind == "SNOMED" else ""
    if snomed:
        code = _back(snomed, vocabulary, prefer, ontology)
        if code is not None:
            return (code.code, code.system, True), None, None
        shown = f"SNOMED {vocabulary.concepts[snomed][1]}"
        if not vocabulary.mapped:
            return _NONE, NO_MAP, shown
        if snomed in vocabulary.back:
            return _NONE, "SNOMED code that stands for ICD codes of several categories", shown
        return _NONE, "SNOMED code that no ICD code maps to", shown
    direct = vocabulary.concepts.get(standard, ("", "", ""))
    if (system := system_of_vocabulary(direct[0])) in SYSTEMS:
        return (direct[1], system, direct[0] not in _AMERICAN), None, None
    if value and not kind and not _SNOMED_ID.fullmatch(value):
        return (value, None, False), None, None  # the ICD code set will say what is wrong with it
    if kind:
        return _NONE, f"code of {kind}, which is not ICD", f"{kind} {written}"
    if value:
        return _NONE, NO_MAP, f"SNOMED {value}"
    if standard in ("", "0"):
        return _NONE, "no code recorded", None
    return _NONE, "no ICD code, and the vocabulary doesn't hold its concept", f"concept {standard}"


def _back(snomed: str, vocabulary: Vocabulary, prefer: str, ontology: Ontology) -> Code | None:
    """The ICD code that a SNOMED concept goes back to, or None."""
    by_system: dict[str, dict[Code, str]] = defaultdict(dict)
    for source in vocabulary.back.get(snomed, ()):
        kind, written, name = vocabulary.concepts[source]
        try:
            code = ontology.parse(written, system_of_vocabulary(kind))
        except UnknownCodeError:
            continue
        by_system[code.system][code] = name
    candidates = by_system.get(prefer) or next(iter(by_system.values()), {})
    if len(candidates) <= 1:
        return next(iter(candidates), None)
    name = vocabulary.concepts[snomed][2].lower()
    alike = [code for code, its in candidates.items() if name and its.lower() == name]
    if len(alike) == 1:
        return alike[0]
    shared = set.intersection(*({code, *ontology.ancestors(code)} for code in candidates))
    deepest = max(shared, key=ontology.level, default=None)
    return deepest if deepest is not None and ontology.level(deepest) >= _CATEGORY else None


def _concepts(table: Delimited) -> dict[str, tuple[str, str, str]]:
    columns = (table[name].to_pylist() for name in ("concept_id", "vocabulary_id", "concept_code"))
    names = table.get("concept_name").to_pylist()
    return {key: (kind, code, name) for key, kind, code, name in zip(*columns, names, strict=True)}


def _among(column: pa.DictionaryArray, wanted: set[str]) -> np.ndarray:
    inside = np.array([plain_id(text.strip()) in wanted for text in column.dictionary.to_pylist()] or [False], bool)
    return inside[rows_at(column)] if len(column) else np.zeros(0, bool)

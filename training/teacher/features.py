"""A history as a bag of features: its codes, their headings, the person, and every detail of the record. Trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mera_core.history.details import AGE, LEAST_VISITS, facts, known_facts
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code, Ontology

MOST_VISITS = 7  # histories longer than this are counted alike


@dataclass(frozen=True)
class Record:
    """A patient in indices. codes: labels of each visit; facts: of each visit; person: of all."""

    codes: tuple[tuple[int, ...], ...]
    facts: tuple[tuple[int, ...], ...]
    person: tuple[int, ...]


class Features:
    """Indices of what a history holds, fixed by the training patients.

    size: number of features; `of` gives those of one history.
    """

    def __init__(self, train: Sequence[Patient], labels: Sequence[Code], keys: Sequence[str], ontology: Ontology):
        self.keys = keys
        self.labels = {code: label for label, code in enumerate(labels)}
        self._facts = _numbered(known_facts(train, keys))
        people = Counter(word for patient in train for word in _person(patient))
        self._people = _numbered(word for word, count in people.items() if count >= LEAST_VISITS)
        above = [ontology.ancestors(code) for code in labels]
        headings = _numbered(str(each) for ancestors in above for each in ancestors)
        self._above = [[headings[str(each)] for each in ancestors] for ancestors in above]
        self._starts, self.size = {}, 0
        for name, size in (
            *((each, len(labels)) for each in ("any", "many", "newest", "first")),
            ("person", len(self._people)),
            ("facts", len(self._facts)),
            ("earlier facts", len(self._facts)),
            ("visits", MOST_VISITS + 1),
            ("above", len(headings)),
        ):
            self._starts[name] = self.size
            self.size += size

    def record(self, patient: Patient) -> Record:
        """The patient in indices; codes outside the label space and rare facts are left out."""
        return Record(
            tuple(tuple(self.labels[code] for code in v.codes if code in self.labels) for v in patient.visits),
            tuple(
                tuple(self._facts[fact] for fact in facts(v, self.keys) if fact in self._facts) for v in patient.visits
            ),
            tuple(self._people[word] for word in _person(patient) if word in self._people),
        )

    def of(self, record: Record, visits: int, newest: Sequence[int] | None = None) -> list[int]:
        """Features of the first so many visits; `newest`: codes in place of those of the last one, in no order."""
        codes = [*record.codes[: visits - 1], record.codes[visits - 1] if newest is None else newest]
        counts = Counter(code for visit in codes for code in visit)
        start = self._starts
        found = [start["any"] + code for code in counts]
        found += [start["many"] + code for code, count in counts.items() if count > 1]
        found += [start["newest"] + code for code in codes[-1]]
        if newest is None and codes[-1]:
            found.append(start["first"] + codes[-1][0])
        found += [start["person"] + word for word in record.person]
        found += [start["facts"] + fact for fact in record.facts[visits - 1]]
        earlier = {fact for visit in record.facts[: visits - 1] for fact in visit}
        found += [start["earlier facts"] + fact for fact in earlier]
        found.append(start["visits"] + min(visits, MOST_VISITS))
        found += [start["above"] + each for each in {each for code in counts for each in self._above[code]}]
        return found


def _person(patient: Patient) -> list[str]:
    return [f"sex: {patient.sex}", *(f"{key}: {value}" for key, value in patient.details.items() if key != AGE)]


def _numbered(names) -> dict[str, int]:
    return {name: number for number, name in enumerate(sorted(set(names)))}

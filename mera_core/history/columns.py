"""A cohort as columns: people, their visits and the codes of these, in numpy and arrow arrays.

Boundary: the same facts as a list of `Patient`s, in a shape that holds millions of rows; knows no source format and no
code set. `patients()` and `table()` give the forms that the rest of the engine uses; `batches()` gives the visits
table piece by piece, so that a large cohort is written without standing in memory as a whole.

The visits table has one row a diagnosis, in the columns of VISITS_TABLE_COLUMNS:
    patient_id text · visit int, 0-based in time order · time timestamp or empty · system 'ICD9' | 'ICD10',
    empty where the code is text that nobody resolved yet · code dotted, upper case · position int, the rank
    recorded in the source · age years at the last visit · sex 'F' | 'M' | 'U'
then further profile words, one text column each, then facts of the single visit in columns whose name begins
with 'visit.' ('visit.age' in years, the rest text: 'visit.admission', 'visit.discharge' ...). A visit without
codes is one row with neither system, code nor position, so that writing and reading lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from mera_core.common.errors import InputError
from mera_core.history.patient import Patient, Visit
from mera_core.icd.ontology import Code

VISITS_TABLE_COLUMNS = ("patient_id", "visit", "time", "system", "code", "position", "age", "sex")
ROWS_A_BATCH = 500_000
LARGEST_POSITION = 2**31 - 2  # and -LARGEST_POSITION the smallest: positions are held in 32 bits
NO_TIME = np.datetime64("NaT", "us")
Words = dict[str, pa.DictionaryArray]


@dataclass(frozen=True)
class VisitColumns:
    """n people, m visits and k diagnoses; visits in order of (person, time), diagnoses of (visit, position).

    ids: [n] text, each once. sex: [n] 'F' | 'M' | 'U'. age: [n] years at the last visit, NaN where unknown.
    person_words, visit_words: name -> [n] or [m] texts, null where unknown.
    person: [m] index into the people, never falling. time: [m] microseconds, NaT where unknown.
    visit_age: [m] years or NaN. visit: [k] index into the visits, never falling. code: [k] index into `codes`.
    position: [k] rank in the source. codes: each distinct code once.
    """

    ids: list[str]
    sex: pa.DictionaryArray
    age: np.ndarray
    person: np.ndarray
    time: np.ndarray
    visit_age: np.ndarray
    visit: np.ndarray
    code: np.ndarray
    position: np.ndarray
    codes: tuple[Code, ...]
    person_words: Words = field(default_factory=dict)
    visit_words: Words = field(default_factory=dict)

    def __post_init__(self) -> None:
        people, visits, entries = len(self.ids), len(self.person), len(self.visit)
        sizes = {len(self.sex), len(self.age), *map(len, self.person_words.values())} - {people}
        sizes |= {len(self.time), len(self.visit_age), *map(len, self.visit_words.values())} - {visits}
        sizes |= {len(self.code), len(self.position)} - {entries}
        if sizes:
            raise AssertionError("columns of one kind must be of one length")
        for index, limit in ((self.person, people), (self.visit, visits), (self.code, len(self.codes))):
            if len(index) and (index.min() < 0 or index.max() >= limit):
                raise AssertionError("an index points outside its columns")
        if np.any(np.diff(self.person) < 0) or np.any(np.diff(self.visit) < 0):
            raise AssertionError("visits must be in order of their people, and codes of their visits")

    @property
    def visits_of(self) -> np.ndarray:
        """[n + 1] where each person's visits begin; the last is m."""
        return np.searchsorted(self.person, np.arange(len(self.ids) + 1))

    @property
    def codes_of(self) -> np.ndarray:
        """[m + 1] where each visit's codes begin; the last is k."""
        return np.searchsorted(self.visit, np.arange(len(self.person) + 1))

    @property
    def codes_a_visit(self) -> np.ndarray:
        """[m] number of codes of each visit."""
        return np.bincount(self.visit, minlength=len(self.person))

    @property
    def visits_a_person(self) -> np.ndarray:
        """[n] number of visits of each person."""
        return np.bincount(self.person, minlength=len(self.ids))

    def patients(self) -> list[Patient]:
        """Every person with a visit, as records."""
        codes_of, visits_of = self.codes_of.tolist(), self.visits_of.tolist()
        codes = [self.codes[index] for index in self.code.tolist()]
        positions, times = self.position.tolist(), _moments(self.time)
        ages, visit_ages = _numbers(self.age), _numbers(self.visit_age)
        person_words, visit_words = _lists(self.person_words), _lists(self.visit_words)
        sexes = self.sex.to_pylist()
        found = []
        for row, identity in enumerate(self.ids):
            visits = tuple(
                Visit(
                    tuple(codes[codes_of[stay] : codes_of[stay + 1]]),
                    times[stay],
                    visit_ages[stay],
                    {name: word for name, words in visit_words if (word := words[stay])},
                    tuple(positions[codes_of[stay] : codes_of[stay + 1]]),
                )
                for stay in range(visits_of[row], visits_of[row + 1])
            )
            if visits:
                details = {name: word for name, words in person_words if (word := words[row])}
                found.append(Patient(visits, sexes[row], ages[row], identity, details))
        return found

    @classmethod
    def of(cls, patients: Sequence[Patient]) -> VisitColumns:
        """The columns of records; patients without visits are not among them."""
        patients = [patient for patient in patients if patient.visits]
        visits = [visit for patient in patients for visit in patient.visits]
        book = {code: row for row, code in enumerate(dict.fromkeys(code for visit in visits for code in visit.codes))}
        position = [place for visit in visits for place in visit.positions or range(1, len(visit.codes) + 1)]
        return cls(
            ids=[patient.id for patient in patients],
            sex=words([patient.sex for patient in patients]),
            age=np.array([patient.age for patient in patients], dtype=float),
            person=np.repeat(np.arange(len(patients)), [len(patient.visits) for patient in patients]).astype(np.int32),
            time=np.array([visit.time for visit in visits], dtype="datetime64[us]"),
            visit_age=np.array([visit.age for visit in visits], dtype=float),
            visit=np.repeat(np.arange(len(visits)), [len(visit.codes) for visit in visits]).astype(np.int32),
            code=np.array([book[code] for visit in visits for code in visit.codes], dtype=np.int32),
            position=np.array(position, dtype=np.int32),
            codes=tuple(book),
            person_words=_gathered([patient.details for patient in patients]),
            visit_words=_gathered([visit.details for visit in visits]),
        )

    @classmethod
    def named(cls, patients: Sequence[Patient]) -> VisitColumns:
        """`of` for a table, where each patient needs an id of their own and a visit. Raises InputError where one lacks it."""
        seen: set[str] = set()
        for patient in patients:
            if not patient.id:
                raise InputError("every patient in a visits table needs an id, and one has none.")
            if patient.id in seen:
                raise InputError(f"two patients share the id {patient.id!r}.")
            if not patient.visits:
                raise InputError(f"patient {patient.id!r} has no visits, so the visits table has no row for them.")
            seen.add(patient.id)
        return cls.of(patients)

    def keep_visits(self, kept: np.ndarray) -> VisitColumns:
        """The visits that a mask [m] names, and the people who still have one; ages follow the last visit kept."""
        smaller = self._rows(np.arange(len(self.ids)), np.flatnonzero(kept), np.flatnonzero(kept[self.visit]))
        return smaller.keep_people(smaller.visits_a_person > 0).with_last_ages()

    def keep_people(self, kept: np.ndarray) -> VisitColumns:
        """The people that a mask [n] names, with their visits."""
        return self.take_people(np.flatnonzero(kept))

    def take_people(self, rows: np.ndarray) -> VisitColumns:
        """Some people (each row once) in another order, with their visits."""
        stays = _in_order(_places(rows, len(self.ids))[self.person])
        return self._rows(rows, stays, _in_order(_places(stays, len(self.person))[self.visit]))

    def slice_people(self, first: int, last: int) -> VisitColumns:
        """The people from `first` up to `last` with their visits, and no codes but theirs."""
        stays = np.searchsorted(self.person, [first, last])
        entries = np.searchsorted(self.visit, stays)
        some = self._rows(*(np.arange(*bounds) for bounds in ((first, last), stays, entries)))
        met, code = np.unique(some.code, return_inverse=True)
        return replace(some, code=code.astype(np.int32), codes=tuple(self.codes[row] for row in met.tolist()))

    def _rows(self, people: np.ndarray, stays: np.ndarray, entries: np.ndarray) -> VisitColumns:
        """Some people, visits and diagnoses by their rows; those that a row belongs to are among them."""
        return replace(
            self,
            ids=[self.ids[row] for row in people.tolist()],
            sex=self.sex.take(pa.array(people)),
            age=self.age[people],
            person_words={name: texts.take(pa.array(people)) for name, texts in self.person_words.items()},
            person=_places(people, len(self.ids))[self.person[stays]].astype(np.int32),
            time=self.time[stays],
            visit_age=self.visit_age[stays],
            visit_words={name: texts.take(pa.array(stays)) for name, texts in self.visit_words.items()},
            visit=_places(stays, len(self.person))[self.visit[entries]].astype(np.int32),
            code=self.code[entries],
            position=self.position[entries],
        )

    def with_codes(self, targets: Sequence[Sequence[Code]]) -> VisitColumns:
        """Each code replaced by others (none, one or several), each once a visit, the first position kept."""
        book = {code: row for row, code in enumerate(dict.fromkeys(code for each in targets for code in each))}
        counts = np.array([len(each) for each in targets], np.int64)
        flat = np.array([book[code] for each in targets for code in each], np.int64)
        starts = np.cumsum(counts) - counts
        times = counts[self.code] if len(self.code) else np.zeros(0, np.int64)
        entry = np.repeat(np.arange(len(self.code)), times)
        within = np.arange(len(entry)) - np.repeat(np.cumsum(times) - times, times)
        code = flat[starts[self.code[entry]] + within] if len(entry) else entry
        visit = self.visit[entry]
        _, first = np.unique((visit.astype(np.int64) << 32) + code, return_index=True)
        kept = np.sort(first)
        return replace(
            self,
            visit=visit[kept].astype(np.int32),
            code=code[kept].astype(np.int32),
            position=self.position[entry][kept],
            codes=tuple(book),
        )

    def with_last_ages(self) -> VisitColumns:
        """An age that moves with the visits is that at the last visit left; other ages stay."""
        if not len(self.ids):
            return self
        last = self.visit_age[self.visits_of[1:] - 1]
        return replace(self, age=np.where(np.isnan(last), self.age, last))

    def table(self) -> pd.DataFrame:
        """The visits table as a pandas frame."""
        return pa.Table.from_batches(self.batches(), self.schema()).to_pandas()

    def schema(self) -> pa.Schema:
        """Columns of the visits table; columns without any value are left out, but for those of the schema."""
        for name in self.person_words:
            if name in VISITS_TABLE_COLUMNS or name.startswith("visit."):
                raise InputError(f"a detail of a patient can't be called {name!r}: the visits table uses that name.")
        if "age" in self.visit_words:
            raise InputError("a detail of a visit can't be called 'age': the visits table uses that name.")
        columns = {name: pd.Series(dtype="str") for name in ("patient_id", "visit", "time", "system", "code")}
        columns["visit"] = pd.Series(dtype="int64")
        columns["time"] = pd.Series(dtype="datetime64[us]")
        columns["position"] = pd.Series(dtype="Int64")
        columns["age"] = pd.Series(dtype="float64")
        columns["sex"] = pd.Series(dtype="str")
        columns |= {name: pd.Series(dtype="str") for name, texts in self.person_words.items() if _any(texts)}
        if not np.all(np.isnan(self.visit_age)):
            columns["visit.age"] = pd.Series(dtype="float64")
        columns |= {f"visit.{name}": pd.Series(dtype="str") for name, texts in self.visit_words.items() if _any(texts)}
        return pa.Schema.from_pandas(pd.DataFrame(columns), preserve_index=False)

    def batches(self, rows: int = ROWS_A_BATCH) -> Iterator[pa.RecordBatch]:
        """The visits table in batches of about `rows` rows; a visit's rows are never parted."""
        schema, codes_of = self.schema(), self.codes_of
        sizes = np.maximum(np.diff(codes_of), 1)
        ends = np.cumsum(sizes)
        number = np.arange(len(self.person)) - self.visits_of[self.person] if len(self.person) else self.person
        ids = pa.array(self.ids, pa.large_string())
        systems = pa.array([code.system if isinstance(code, Code) else None for code in self.codes], pa.large_string())
        texts = pa.array([code.code if isinstance(code, Code) else code for code in self.codes], pa.large_string())
        first = 0
        while first < len(self.person):
            before = ends[first] - sizes[first]
            last = max(int(np.searchsorted(ends, before + rows, side="right")), first + 1)
            stay = np.repeat(np.arange(first, last), sizes[first:last])
            owner = pa.array(self.person[stay])
            entry = np.arange(before, ends[last - 1]) - np.repeat(
                ends[first:last] - sizes[first:last], sizes[first:last]
            )
            entry += codes_of[stay]
            without = np.diff(codes_of)[stay] == 0
            at = np.where(without, 0, entry)
            code = pa.array(self.code[at] if len(self.code) else at, mask=without)
            columns = {
                "patient_id": ids.take(owner),
                "visit": pa.array(number[stay].astype(np.int64)),
                "time": pa.array(self.time[stay]),
                "system": systems.take(code),
                "code": texts.take(code),
                "position": pa.array((self.position[at] if len(self.code) else at).astype(np.int64), mask=without),
                "age": pa.array(self.age[self.person[stay]], from_pandas=True),
                "sex": self.sex.take(owner),
                **{name: words.take(owner) for name, words in self.person_words.items()},
                "visit.age": pa.array(self.visit_age[stay], from_pandas=True),
                **{f"visit.{name}": words.take(pa.array(stay)) for name, words in self.visit_words.items()},
            }
            arrays = [columns[name].cast(schema.field(name).type) for name in schema.names]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
            first = last


def words(values: Sequence[str | None] | pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """Texts as an arrow dictionary; an empty text is null."""
    array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, pa.string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if not pa.types.is_dictionary(array.type):
        array = array.cast(pa.string()).dictionary_encode()
    texts = array.dictionary.cast(pa.string())
    empty = {row for row, text in enumerate(texts.to_pylist()) if not text}
    indices = array.indices.cast(pa.int32())
    if empty:
        rows = indices.to_numpy(zero_copy_only=False)
        gone = np.isin(np.nan_to_num(rows, nan=-1), list(empty)) | array.is_null().to_numpy(zero_copy_only=False)
        indices = pa.array(np.nan_to_num(rows, nan=0).astype(np.int32), mask=gone)
    return pa.DictionaryArray.from_arrays(indices, texts)


def _gathered(details: list) -> Words:
    names = list(dict.fromkeys(name for row in details for name in row))
    return {name: words([row.get(name) for row in details]) for name in names}


def _places(rows: np.ndarray, size: int) -> np.ndarray:
    """Where each of `size` rows stands among `rows`, -1 where it does not."""
    places = np.full(size, -1, np.int64)
    places[rows] = np.arange(len(rows))
    return places


def _in_order(places: np.ndarray) -> np.ndarray:
    """The rows that have a place, in the order of their places."""
    rows = np.argsort(places, kind="stable")
    return rows[places[rows] >= 0]


def _any(texts: pa.DictionaryArray) -> bool:
    return texts.null_count < len(texts)


def _lists(columns: Words) -> list[tuple[str, list[str | None]]]:
    return [(name, texts.to_pylist()) for name, texts in columns.items()]


def _moments(time: np.ndarray) -> list:
    return time.astype("datetime64[us]").tolist()  # NaT becomes None


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]

"""MEDS 0.3 and 0.4: events in parquet shards, of which diagnoses, births, deaths, sex, ethnicity and visits are read.

Boundary: events as columns -> people, visits and diagnoses; the files are `meds_tables`, what a code's text means is
`meds_codes`, which events make a visit is `meds_visits`. Diagnoses keep the order of seq_num where there is one, else that of
the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology
from mera_core.readers.common.assemble import Entries, People, Visits, assemble
from mera_core.readers.common.base import Cohort, ImportReport, Source
from mera_core.readers.common.code_systems import read_snomed_map
from mera_core.readers.common.keyed import DAY, earliest, years
from mera_core.readers.common.parquet import schema_of
from mera_core.readers.common.record_words import word
from mera_core.readers.meds.codes import Kind
from mera_core.readers.meds.tables import NONE, SUBJECTS, Book, Events, Gathered, batches, icd_parents, shards
from mera_core.readers.meds.visits import Stays, grouped_by_gap, named_visits, paired_visits, together, within

FORMAT = "meds"
GAP_HOURS = 24.0
LONGEST_GAP_HOURS = 1_000_000.0  # 114 years: all that nobody parts
_BEFORE_BIRTH = 4 * DAY  # births have a date or a year, and no hour
_OLDEST = 130  # years
_OTHER = "events that tell no diagnosis, birth, death, sex, ethnicity or visit"


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    paths = shards(source.path)
    if not paths:
        return None
    try:
        names = set(schema_of(paths[0]).names)
    except InputError:
        inside = source.path.is_dir() and (source.path / "data").is_dir()
        return "the folder has parquet shards in data/, though a damaged one" if inside else None
    if {"visit", "system"} <= names:  # our own visits table
        return None
    subject = next((name for name in SUBJECTS if name in names), None)
    if subject is None or not ({"time", "code"} <= names or "events" in names):
        return None
    return f"parquet with the columns {subject}, time and code"


def expects(source: Source) -> str | None:
    """Why a folder that can't be recognised is meant for this format: it holds shards where MEDS has them."""
    inside = source.path.is_dir() and (source.path / "data").is_dir() and shards(source.path)
    return "the folder has parquet shards in data/" if inside else None


def read(
    source: Source,
    report: ImportReport,
    ontology: Ontology | None = None,
    gap_hours: float = GAP_HOURS,
    snomed_map: str | Path | None = None,
) -> Cohort:
    """Read a MEDS dataset, its data/ folder, or one shard.

    gap_hours: what separates two visits where no visit is named. snomed_map: see `code_systems.read_snomed_map`.
    Raises InputError naming the file for a damaged shard, a missing column or one of the wrong type.
    """
    if not 0 < gap_hours <= LONGEST_GAP_HOURS:
        raise InputError(f"gap_hours must be above 0 and at most {LONGEST_GAP_HOURS:,.0f}, not {gap_hours!r}.")
    paths = shards(source.path)
    if not paths:
        raise InputError(f"{source.path} holds no MEDS data: there is no parquet file in data/ or beside it.")
    book = Book(icd_parents(source.path), read_snomed_map(snomed_map) if snomed_map else {})
    found = Events(book)
    total, done = sum(path.stat().st_size for path in paths), 0
    for path in paths:
        for batch in batches(path):
            found.add(batch, path)
        done += path.stat().st_size
        source.progress(path.name, done, total)
    return _cohort(found.gathered(), report, ontology, gap_hours)


def _cohort(events: Gathered, report: ImportReport, ontology: Ontology | None, gap_hours: float) -> Cohort:
    entry, target = _entries(events, report)
    gap = np.timedelta64(round(gap_hours * 3.6e9), "us")
    paired = paired_visits(events, gap, report)
    admitted = together(named_visits(events, entry), paired)
    loose = np.unique(entry[(events.visit[entry] == NONE) & ~np.isnat(events.time[entry])])
    inside = within(events, loose, admitted)
    grouped = grouped_by_gap(events, loose[inside < 0], gap)
    person = np.concatenate([admitted.person, grouped.person])
    time = np.concatenate([admitted.time, grouped.time])
    stay = np.full(len(events.code), -1, dtype=np.int64)
    stay[admitted.rows] = admitted.stay
    stay[loose] = inside
    stay[grouped.rows] = grouped.stay + len(admitted.person)
    born = _births(events)
    kept = ~(time < born[person] - _BEFORE_BIRTH) | events.own  # whose births are derived from ages
    report.set_aside("visits before birth", int((~kept).sum()))
    keep = _dated_and_born(stay[entry], kept, report)
    entry, target = entry[keep], target[keep]
    words, recorded_age, undated = _visit_facts(events, admitted, len(person), report)
    rank = events.rank[entry]
    targets = events.book.targets
    _remark(events, entry, report)
    _remark_visits(int((inside >= 0).sum()), len(paired.person), len(grouped.person), gap_hours, report)
    return assemble(
        report,
        _people(events),
        Visits(
            person=person[kept],
            time=np.where(undated, np.datetime64("NaT", "us"), time)[kept],
            order=np.concatenate([admitted.order, grouped.order])[kept],
            age=(recorded_age if events.own else _ages(time, born[person]))[kept],
            words={name: values[kept] for name, values in words.items()},
            end=_ends(events, admitted, len(person))[kept],
            by_order=events.own,  # our writer numbers visits in their order, so that undated ones keep their place
        ),
        Entries(
            visit=(np.cumsum(kept) - 1)[stay[entry]],
            text=_coded(target, [text for _, text in targets]),
            system=_coded(target, [system for system, _ in targets]),
            position=pa.array(rank, mask=rank == NONE),
        ),
        ontology,
    )


def _entries(events: Gathered, report: ImportReport) -> tuple[np.ndarray, np.ndarray]:
    """Row of the event, and index into `book.targets`, of every code that a diagnosis names; the rest is counted.

    A SNOMED code is a diagnosis where its table holds conditions, or where no table is named and the map knows it.
    """
    book = events.book
    mapped = np.array([kind == Kind.SNOMED and bool(size) for kind, size in zip(book.kinds, book.sizes, strict=True)])
    snomed = events.kinds == Kind.SNOMED
    taken = (events.kinds == Kind.DIAGNOSIS) | (snomed & events.is_condition)
    if not events.has_tables and len(events.code):
        taken |= snomed & mapped[events.code]
    rows = np.flatnonzero(taken)
    met = np.bincount(events.code[rows], minlength=len(book.events))
    for number in np.flatnonzero(met).tolist():
        for reason in book.left_out(number):
            report.leave_out(reason, met[number])
            report.rows += int(met[number])
        if book.kinds[number] == Kind.SNOMED and not book.sizes[number]:
            report.unknown_codes[f"SNOMED {book.events[number].entries[0][1]}"] += int(met[number])
    passed = int((snomed & ~taken).sum())
    report.set_aside(_OTHER if events.has_tables else "SNOMED events of which no table says what they are", passed)
    sizes = np.array(book.sizes, dtype=np.int64)[events.code[rows]]
    entry = np.repeat(rows, sizes)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    report.rows += len(entry)
    report.approximate += int(sizes[snomed[rows]].sum())
    return entry, np.array(book.firsts, dtype=np.int64)[events.code[entry]] + within


def _dated_and_born(stay: np.ndarray, kept: np.ndarray, report: ImportReport) -> np.ndarray:
    """[k] whether a diagnosis has a visit that is kept; the others are counted."""
    undated = stay < 0
    unborn = ~undated & ~(kept[stay] if len(kept) else True)
    report.leave_out("no date", int(undated.sum()))
    report.leave_out("visit before birth", int(unborn.sum()))
    return ~(undated | unborn)


def _births(events: Gathered) -> np.ndarray:
    rows = events.kinds == Kind.BIRTH
    return earliest(events.time[rows], events.person[rows], len(events.ids))


def _ends(events: Gathered, admitted: Stays, size: int) -> np.ndarray:
    """[size] when each visit ends, NaT where that is not told."""
    ends = events.kinds[admitted.rows] == Kind.END
    return earliest(events.time[admitted.rows[ends]], admitted.stay[ends], size)


def _ages(time: np.ndarray, born: np.ndarray) -> np.ndarray:
    """Years; from New Year's midnight, which is how converters write a year of birth, whole years of the calendar."""
    year = born.astype("datetime64[Y]")
    whole = (time.astype("datetime64[Y]") - year) / np.timedelta64(1, "Y")
    age = np.where(born == year, whole, years(born, time))
    return np.where(age > _OLDEST, np.nan, np.round(np.maximum(age, 0.0), 2))


def _visit_facts(
    events: Gathered, admitted: Stays, size: int, report: ImportReport
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Words of the visits, the ages recorded with them, and whether their times were invented to keep an order."""
    rows, stay = admitted.rows, admitted.stay
    kind, code = events.kinds[rows], events.code[rows]
    words: dict[str, np.ndarray] = {}

    def put(name: str, at: np.ndarray | int, values: object) -> None:
        words.setdefault(name, np.full(size, None, dtype=object))[at] = values

    for name in ("admission", "source", "discharge"):
        said = events.book.said(name)
        told = np.isin(code, np.flatnonzero(said != None)) & np.isin(kind, (Kind.START, Kind.END))  # noqa: E711
        if told.any():
            put(name, stay[told], said[code[told]])
    age, undated = np.full(size, np.nan), np.zeros(size, dtype=bool)
    starts = kind == Kind.START
    age[stay[starts]], undated[stay[starts]] = events.age[rows[starts]], events.invented[rows[starts]]
    if not events.own:
        began = earliest(events.time[rows[starts]], stay[starts], size)
        days = (_ends(events, admitted, size) - began) / DAY
        if backwards := int((days < 0).sum()):
            report.remarks.append(
                f"{backwards:,} visits end before they begin; they are kept, the length of stay is not"
            )
        if (known := days >= 0).any():
            put("stay", known, np.floor(days[known]).astype(np.int64).astype(str).astype(object))
        payer = events.text("insurance", rows[starts])
        if any(payer):
            said_payer = {text: word("payer", text or "") for text in set(payer)}
            put("payer", stay[starts], np.array([said_payer[text] for text in payer], dtype=object))
    details = kind == Kind.VISIT_WORD
    names = events.book.said("name")[code[details]]
    told = np.array(events.text("text_value", rows[details]), dtype=object)
    for name in dict.fromkeys(names):
        put(name, stay[details][names == name], told[names == name])
    return words, age, undated


def _people(events: Gathered) -> People:
    size = len(events.ids)
    words: dict[str, np.ndarray] = {}
    sex = np.full(size, "U", dtype=object)
    rows = np.flatnonzero(events.kinds == Kind.SEX)
    sex[events.person[rows]] = events.book.said("sex")[events.code[rows]]

    def put(name: str, at: np.ndarray | int, values: object) -> None:
        words.setdefault(name, np.full(size, None, dtype=object))[at] = values

    rows = np.flatnonzero(events.kinds == Kind.ETHNICITY)
    if len(rows):
        rows = rows[np.argsort(events.book.said("ethnicity")[events.code[rows]] == "hispanic", kind="stable")]
        put("ethnicity", events.person[rows], events.book.said("ethnicity")[events.code[rows]])
    starts = np.flatnonzero(events.kinds == Kind.START)
    starts = starts[np.argsort(events.time[starts], kind="stable")]  # the last admission that says it is believed
    races = events.text("race", starts)
    read = {race: word("ethnicity", race or "") for race in set(races)}
    told = np.array([read[race] for race in races], dtype=object)
    if any(read.values()):
        put("ethnicity", events.person[starts[told != None]], told[told != None])  # noqa: E711
    if events.own:
        rows = np.flatnonzero(events.kinds == Kind.PERSON_WORD)
        names = events.book.said("name")[events.code[rows]]
        told = np.array(events.text("text_value", rows), dtype=object)
        for name in dict.fromkeys(names):
            put(name, events.person[rows[names == name]], told[names == name])
    aged = events.kinds == Kind.PERSON_AGE
    age = np.full(size, np.nan)
    age[events.person[aged]] = events.age[aged]
    rows = events.kinds == Kind.DEATH
    death = earliest(events.time[rows], events.person[rows], size)
    return People(events.ids, sex, words, age if events.own else None, death)


def _remark_visits(within: int, paired: int, grouped: int, gap_hours: float, report: ImportReport) -> None:
    """Say of how many visits and diagnoses the visit is not named but told by times."""
    sentences = (
        (paired, "{:,} visits are told by an admission that names none, and the discharge that follows it"),
        (within, "{:,} diagnoses name no visit, and count to the admission within which they are dated"),
        (
            grouped,
            f"{{:,}} visits are grouped by time, as their diagnoses name none: a new one after {gap_hours:g} hours",
        ),
    )
    report.remarks += [words.format(count) for count, words in sentences if count]


def _remark(events: Gathered, entry: np.ndarray, report: ImportReport) -> None:
    report.set_aside(_OTHER, events.other)
    deaths = int((events.kinds == Kind.DEATH).sum())
    if deaths:
        report.remarks.append(f"{deaths:,} deaths are recorded; they are no part of a history")
    through = int(np.array(events.book.through_parent, dtype=bool)[events.code[entry]].sum())
    if through:
        report.remarks.append(f"{through:,} codes are read through parent_codes of metadata/codes.parquet")
    undated = int(events.invented[events.kinds == Kind.START].sum())
    if undated:
        report.remarks.append(f"{undated:,} visits had no date when this dataset was written, and have none here")


def _coded(index: np.ndarray, texts: list[str | None]) -> pa.DictionaryArray:
    """[k] the text at each index, each distinct one held once; None in `texts` is no text."""
    book = {text: row for row, text in enumerate(dict.fromkeys(text or "" for text in texts))}
    rows = np.array([book[text or ""] for text in texts], dtype=np.int32)
    return pa.DictionaryArray.from_arrays(
        pa.array(rows[index] if len(rows) else index.astype(np.int32)), pa.array(list(book), pa.string())
    )

"""OMOP CDM 5.3 and 5.4: a folder with person, visit_occurrence and condition_occurrence, as CSV or parquet.

ICD codes come from the source concept, where `concept` is given, else from condition_source_value; a SNOMED standard
concept goes back to ICD where `concept_relationship` is given too (approximate, and counted). A condition without a visit
belongs to the visit of its person that holds its date; where there is none, the person's conditions of one date are one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mera_core.common.errors import InputError
from mera_core.history.columns import words
from mera_core.icd.ontology import SYSTEMS, Ontology
from mera_core.readers.common.assemble import Entries, People, Visits, assemble
from mera_core.readers.common.base import Cohort, ImportReport, Source
from mera_core.readers.common.delimited import Delimited, Keep, read_delimited
from mera_core.readers.common.keyed import (
    NOWHERE,
    distinct,
    holding,
    in_words,
    leave_out_by,
    numbers,
    plain_id,
    replaced,
    rows_at,
    rows_of,
    taken,
    times,
)
from mera_core.readers.common.parquet import damage_told, refuse_large, sound
from mera_core.readers.common.record_words import RACE_CONCEPTS
from mera_core.readers.common.table import Table
from mera_core.readers.omop.codes import conditions_to_codes, read_vocabulary

FORMAT = "omop"
TABLES = ("person", "visit_occurrence", "condition_occurrence")
_SUFFIXES = ("", ".csv", ".tsv", ".txt", ".parquet")
_ID = re.compile(r"_id(_[12])?$")  # columns of ids
_DELIMITERS = ",\t|;"
_NOTHING = ("\\N", "NULL", "null", "NA", "None", "nan", "NaN")
_PERSON = (
    "gender_concept_id", "year_of_birth", "month_of_birth", "day_of_birth", "birth_datetime", "race_concept_id",
    "ethnicity_concept_id", "gender_source_value", "race_source_value", "ethnicity_source_value",
)  # fmt: skip
_VISIT = (
    "visit_start_datetime", "visit_end_date", "visit_concept_id",
    "admitting_source_value", "admitted_from_source_value",  # 5.3, 5.4
    "discharge_to_source_value", "discharged_to_source_value",  # 5.3, 5.4
)  # fmt: skip
_CONDITION = (
    "visit_occurrence_id", "condition_source_value", "condition_source_concept_id", "condition_start_date",
    "condition_start_datetime",
)  # fmt: skip
_SEX = {"8507": "M", "8532": "F"}
_SEX_WORD = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F"}
_VISIT_KIND = {
    "9201": "inpatient",
    "9202": "outpatient",
    "9203": "emergency",
    "262": "emergency",
    "32037": "intensive care",
}
DAY = np.timedelta64(1, "D")
_DAYS_A_YEAR = 365.2425


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    if source.path.is_dir() and all(_find(source, name) for name in TABLES):
        return "the folder has the OMOP tables person, visit_occurrence and condition_occurrence"
    return None


def read(source: Source, report: ImportReport, ontology: Ontology | None = None, prefer: str = "ICD10") -> Cohort:
    """Read the three tables, and concept and concept_relationship where they are given.

    prefer: the system that a SNOMED concept goes back to where both have a code for it.
    Every row of condition_occurrence is counted: kept, or left out with its reason. Raises InputError naming file, line
    and column for a missing table or column, an unreadable date or number, or an id that contradicts itself.
    """
    if prefer not in SYSTEMS:
        raise InputError(f"prefer must be ICD9 or ICD10, not {prefer!r}.")
    if not source.path.is_dir():
        raise InputError(f"{source.path} is one file; omop needs the folder with {', '.join(TABLES)}.")
    person = distinct(_read(source, "person", ("person_id",), _PERSON, report), "person_id", report, "person")
    visit = _read(source, "visit_occurrence", ("visit_occurrence_id", "person_id", "visit_start_date"), _VISIT, report)
    visit = distinct(visit, "visit_occurrence_id", report, "visit_occurrence")
    condition = _read(source, "condition_occurrence", ("person_id", "condition_concept_id"), _CONDITION, report)
    report.rows += len(condition)
    stays = _Stays(person, visit, report)
    owner = rows_of(condition["person_id"], person["person_id"])
    said = ~_nothing(condition.get("visit_occurrence_id"))
    row = np.where(said, rows_of(condition.get("visit_occurrence_id"), visit["visit_occurrence_id"]), NOWHERE)
    strange = said & (row >= 0) & (stays.owner[row] != owner) if len(visit) else np.zeros(len(condition), bool)
    date = _either(condition, "condition_start_date", "condition_start_datetime")
    stay, made = stays.place(owner, date, np.where(said, row, NOWHERE), ~said)
    if made:
        report.remarks.append(
            f"{made:,} visits are made of conditions that name no visit: those of one person and date"
        )
    vocabulary = read_vocabulary(
        lambda name, required, optional, keep: (
            _read(source, name, required, optional, report, keep) if _find(source, name) else None
        ),
        condition,
    )
    codes = conditions_to_codes(condition, vocabulary, prefer, ontology or Ontology.load())
    kept = leave_out_by(
        report,
        {
            **codes.reasons,
            "person not in person": owner < 0,
            "visit not in visit_occurrence": said & (row < 0),
            "visit belongs to another person": strange,
            **{reason: (row >= 0) & mask[row] for reason, mask in stays.faults.items() if len(visit)},
            "no date": ~said & np.isnat(date),
            "visit before birth": (stay == NOWHERE),
        },
    )
    codes.count_unknown(report)
    dead = _read(source, "death", ("person_id", "death_date"), (), report) if _find(source, "death") else None
    report.approximate += int((codes.approximate & kept).sum())
    if not vocabulary.given:
        report.remarks.append("there is no table concept: codes are those of condition_source_value alone")
    mask = pa.array(kept)
    return assemble(
        report,
        People(person["person_id"], _sexes(person), {"ethnicity": _ethnicity(person)}, death=_deaths(person, dead)),
        stays.visits(),
        Entries(stay[kept], codes.text.filter(mask), codes.system.filter(mask)),
        ontology,
    )


class _Stays:
    """The visits of the source, and those made of conditions that name none."""

    def __init__(self, person: Delimited, visit: Delimited, report: ImportReport) -> None:
        self.owner = rows_of(visit["person_id"], person["person_id"])
        self.visit = visit
        self.time = _either(visit, "visit_start_datetime", "visit_start_date")
        ended = times(visit, "visit_end_date")
        self.birth, self.exact = _births(person)
        ages = self.ages(self.owner, self.time)
        early = np.where(self.exact[self.owner], -0.01, -1.01) if len(person) else np.full(len(visit), -1.01)
        self.faults = {
            "visit's person not in person": self.owner < 0,
            "no date": np.isnat(self.time),
            "visit before birth": ages < early,
        }
        self.sound = ~np.logical_or.reduce(list(self.faults.values()))
        for reason, mask in self.faults.items():
            report.set_aside(f"visits: {reason}", int(mask.sum()))
        # A moment in UTC may fall on another day than the date, which has no zone.
        self.day = _either(visit, "visit_start_date", "visit_start_datetime").astype("datetime64[D]")
        backwards = self.sound & (ended.astype("datetime64[D]") < self.day)
        if backwards.any():
            report.remarks.append(
                f"{int(backwards.sum()):,} visits end before they begin (first: {visit.path.name}, line "
                f"{visit.line(int(np.argmax(backwards)))}, column 'visit_end_date'); they are kept, the length of stay is not"
            )
        self.ended = ended
        self.days = np.where(
            np.isnat(ended) | backwards, -1, (ended.astype("datetime64[D]") - self.day).astype(np.int64)
        )
        self.made_owner, self.made_time = np.zeros(0, np.int64), np.zeros(0, "datetime64[us]")

    def ages(self, owner: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Years of each person at a time, NaN where unknown."""
        if not len(self.birth):
            return np.full(len(owner), np.nan)
        years = (time - self.birth[owner]) / DAY / _DAYS_A_YEAR
        return np.where(years > 130, np.nan, years)

    def place(self, owner: np.ndarray, date: np.ndarray, row: np.ndarray, lonely: np.ndarray) -> tuple[np.ndarray, int]:
        """(index of each condition's visit among those that are kept, NOWHERE where it has none; visits made)."""
        number = np.where(self.sound, np.cumsum(self.sound) - 1, NOWHERE)
        stay = np.where(row >= 0, number[row], NOWHERE) if len(number) else np.full(len(owner), NOWHERE)
        ask = np.flatnonzero(lonely & (owner >= 0) & ~np.isnat(date))
        if not len(ask):
            return stay, 0
        day = date[ask].astype("datetime64[D]").astype(np.int64)
        inside = self._holding(owner[ask], day)
        stay[ask] = np.where(inside >= 0, number[inside] if len(number) else NOWHERE, NOWHERE)
        left = ask[inside < 0]
        old_enough = ~(self.ages(owner[left], date[left]) < np.where(self.exact[owner[left]], -0.01, -1.01))
        left = left[old_enough]
        keys, index = np.unique(
            np.stack([owner[left], date[left].astype("datetime64[D]").astype(np.int64)]), axis=1, return_inverse=True
        )
        stay[left] = self.sound.sum() + index.reshape(-1)
        self.made_owner, self.made_time = keys[0], keys[1].astype("datetime64[D]").astype("datetime64[us]")
        return stay, keys.shape[1]

    def _holding(self, owner: np.ndarray, day: np.ndarray) -> np.ndarray:
        """Row of the person's latest visit that begins on or before a day and ends on or after it, else NOWHERE."""
        rows = np.flatnonzero(self.sound)
        start = self.day[rows].astype(np.int64)
        at = holding(self.owner[rows], start, start + np.maximum(self.days[rows], 0), owner, day)
        return np.where(at >= 0, rows[at], NOWHERE) if len(rows) else at

    def visits(self) -> Visits:
        rows = np.flatnonzero(self.sound)
        owner = np.concatenate([self.owner[rows], self.made_owner])
        time = np.concatenate([self.time[rows], self.made_time])
        ids = taken(self.visit["visit_occurrence_id"], rows).to_pylist()
        whole = all(name.isdecimal() and len(name) < 19 for name in ids)
        made = len(self.made_owner)
        nothing = [None] * made
        return Visits(
            owner,
            time,
            [int(name) for name in ids] + [0] * made if whole else ids + [""] * made,
            np.round(np.maximum(self.ages(owner, time), 0), 2),
            {
                "admission": taken(replaced(self.visit.get("visit_concept_id"), _VISIT_KIND.get), rows).to_pylist()
                + nothing,
                "source": self._said(rows, "source", "admitted_from_source_value", "admitting_source_value") + nothing,
                "discharge": self._said(rows, "discharge", "discharged_to_source_value", "discharge_to_source_value")
                + nothing,
                "stay": [None if days < 0 else str(days) for days in self.days[rows].tolist()] + nothing,
            },
            end=np.concatenate([self.ended[rows], self.made_time]),
        )

    def _said(self, rows: np.ndarray, kind: str, name: str, earlier: str) -> list[str | None]:
        return taken(in_words(self.visit.get(name if name in self.visit else earlier), kind), rows).to_pylist()


def _births(person: Delimited) -> tuple[np.ndarray, np.ndarray]:
    """(birth or the middle of what is known of it, whether it is known to the day) of each person."""
    told = times(person, "birth_datetime")
    year, month, day = (numbers(person, f"{part}_of_birth") for part in ("year", "month", "day"))
    known = ~np.isnan(year) & (year > 0)
    months = np.where(np.isnan(month), 7, month) - 1
    days = np.where(np.isnan(day), np.where(np.isnan(month), 1, 15), day) - 1
    start = (np.where(known, year, 1970) - 1970).astype(np.int64).astype("datetime64[Y]").astype("datetime64[M]")
    made = (start + months.astype(np.int64)).astype("datetime64[D]") + days.astype(np.int64)
    made = np.where(known, made, np.datetime64("NaT", "D")).astype("datetime64[us]")
    return np.where(np.isnat(told), made, told), ~np.isnat(told) | ~np.isnan(day)


def _deaths(person: Delimited, dead: Delimited | None) -> np.ndarray | None:
    if dead is None:
        return None
    row, date = rows_of(person["person_id"], dead["person_id"]), times(dead, "death_date")
    return np.where(row >= 0, date[row], np.datetime64("NaT", "us")) if len(date) else None


def _sexes(person: Delimited) -> list[str]:
    by_concept = replaced(person.get("gender_concept_id"), _SEX.get).to_pylist()
    by_word = replaced(person.get("gender_source_value"), lambda text: _SEX_WORD.get(text.upper())).to_pylist()
    return [concept or word or "U" for concept, word in zip(by_concept, by_word, strict=True)]


def _ethnicity(person: Delimited) -> pa.DictionaryArray:
    """Hispanic, where concept or text say so; else race by its concept, else by its text."""
    columns = (
        replaced(person.get("ethnicity_concept_id"), RACE_CONCEPTS.get),
        in_words(person.get("ethnicity_source_value"), "ethnicity"),
        replaced(person.get("race_concept_id"), RACE_CONCEPTS.get),
        in_words(person.get("race_source_value"), "ethnicity"),
    )
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return words(["hispanic" if "hispanic" in row else row[2] or row[3] for row in rows])


def _either(table: Delimited, first: str, second: str) -> np.ndarray:
    """The times of one column; where it tells none, those of the other."""
    told = times(table, first)
    return np.where(np.isnat(told), times(table, second), told)


def _nothing(column: pa.DictionaryArray) -> np.ndarray:
    """Whether an id is empty or 0, which is how OMOP says that there is none."""
    zero = [row for row, text in enumerate(column.dictionary.to_pylist()) if text in ("", "0", "0.0")]
    return np.isin(rows_at(column), zero)


def _find(source: Source, name: str) -> Path | None:
    """The file of a table, or the folder of its parquet parts, in any case."""
    for suffix in _SUFFIXES[1:]:
        if name + suffix in source.files:
            return source.files[name + suffix]
    folders = {path.name.lower(): path for path in source.path.iterdir() if path.is_dir()}
    for suffix in ("", ".parquet"):
        if name + suffix in folders:
            return folders[name + suffix]
    return None


def _read(
    source: Source,
    name: str,
    required: tuple[str, ...],
    optional: tuple[str, ...],
    report: ImportReport,
    keep: Keep | None = None,
) -> Delimited:
    """One table of the CDM, as texts; '' where it says that there is nothing, ids without a decimal point."""
    path = _find(source, name)
    if path is None:
        raise InputError(f"{source.path} has no table {name} (as .csv, .csv.gz or .parquet).")
    if path.is_dir() or path.suffix.lower() == ".parquet":
        table = _parquet(path, required, optional, keep)
        source.progress(path.name, 1, 1)
    else:
        table = read_delimited(source.within(path), required, optional, report, _DELIMITERS, keep)
    return replace(table, columns={column: _plain(column, texts) for column, texts in table.columns.items()})


def _plain(name: str, column: pa.DictionaryArray) -> pa.DictionaryArray:
    texts = column.dictionary.to_pylist()
    plain = {text: "" if text in _NOTHING else plain_id(text) if _ID.search(name) else text for text in texts}
    if all(text == its for text, its in plain.items()):
        return column
    return replaced(column, plain.get).cast(pa.string()).fill_null("").dictionary_encode()


def _parquet(path: Path, required: tuple[str, ...], optional: tuple[str, ...], keep: Keep | None) -> Delimited:
    with damage_told(path):
        dataset = pq.ParquetDataset(path)
        for part in dataset.files:
            refuse_large(path, pq.read_metadata(part))
        names = {name.lower(): name for name in dataset.schema.names}
        missing = [name for name in required if name not in names]
        if missing:
            raise InputError(f"{path} has no column {missing[0]!r}.")
        wanted = [names[name] for name in (*required, *optional) if name in names]
        whole = sound(pq.read_table(path, columns=wanted))
    table = Table(path, {name.lower(): whole.column(name) for name in wanted})
    columns = {name: _trimmed(table.text(name)) for name in table.columns}
    if keep is not None:
        mask = pa.array(keep(columns))
        columns = {name: column.filter(mask) for name, column in columns.items()}
    return Table(path, columns)


def _trimmed(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """Without the white space that databases pad a value with, as delimited text is read."""
    return pc.utf8_trim_whitespace(column.cast(pa.string()).fill_null("")).dictionary_encode()

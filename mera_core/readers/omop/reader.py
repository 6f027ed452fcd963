"""OMOP CDM 5.3 and 5.4: a folder with person, visit_occurrence and condition_occurrence, as CSV or parquet.

ICD codes come from the source concept, where `concept` is given, else from condition_source_value; a SNOMED standard
concept goes back to ICD where `concept_relationship` is given too (approximate, and counted). A condition without a visit
belongs to the visit of its person that holds its date; where there is none, the person's conditions of one date are one.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mera_core.common.errors import InputError
from mera_core.history.columns import words
from mera_core.icd.ontology import SYSTEMS, Ontology
from mera_core.readers.common.assemble import Entries, People, assemble
from mera_core.readers.common.base import Cohort, ImportReport, Source
from mera_core.readers.common.delimited import Delimited
from mera_core.readers.common.keyed import NOWHERE, distinct, in_words, leave_out_by, replaced, rows_at, rows_of, times
from mera_core.readers.common.record_words import RACE_CONCEPTS
from mera_core.readers.omop.codes import conditions_to_codes, read_vocabulary
from mera_core.readers.omop.tables import find_table, read_table
from mera_core.readers.omop.visits import Stays, either

FORMAT = "omop"
TABLES = ("person", "visit_occurrence", "condition_occurrence")
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


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    if source.path.is_dir() and all(find_table(source, name) for name in TABLES):
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
    person = distinct(read_table(source, "person", ("person_id",), _PERSON, report), "person_id", report, "person")
    visit = read_table(
        source, "visit_occurrence", ("visit_occurrence_id", "person_id", "visit_start_date"), _VISIT, report
    )
    visit = distinct(visit, "visit_occurrence_id", report, "visit_occurrence")
    condition = read_table(source, "condition_occurrence", ("person_id", "condition_concept_id"), _CONDITION, report)
    report.rows += len(condition)
    stays = Stays(person, visit, report)
    owner = rows_of(condition["person_id"], person["person_id"])
    said = ~_nothing(condition.get("visit_occurrence_id"))
    named = condition.get("visit_occurrence_id")
    row = np.where(said, rows_of(named, visit["visit_occurrence_id"]), NOWHERE)
    strange = (row >= 0) & (np.append(stays.owner, NOWHERE)[row] != owner)
    date = either(condition, "condition_start_date", "condition_start_datetime")
    stay, made = stays.place(owner, date, row, ~said)
    if made:
        report.remarks.append(
            f"{made:,} visits are made of conditions that name no visit: those of one person and date"
        )
    vocabulary = read_vocabulary(
        lambda name, required, optional, keep: (
            read_table(source, name, required, optional, report, keep) if find_table(source, name) else None
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
            **{reason: np.append(mask, False)[row] for reason, mask in stays.faults.items()},
            "no date": ~said & np.isnat(date),
            "visit before birth": (stay == NOWHERE),
        },
    )
    codes.count_unknown(report)
    dead = read_table(source, "death", ("person_id", "death_date"), (), report) if find_table(source, "death") else None
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


def _nothing(column: pa.DictionaryArray) -> np.ndarray:
    """Whether an id is empty or 0, which is how OMOP says that there is none."""
    zero = [row for row, text in enumerate(column.dictionary.to_pylist()) if text in ("", "0", "0.0")]
    return np.isin(rows_at(column), zero)

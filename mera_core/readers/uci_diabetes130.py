"""Diabetes 130-US Hospitals 1999-2008 (UCI id 296): one row an encounter, up to three ICD-9 diagnoses.

The file has no dates: `encounter_id` orders a patient's encounters. Codes have lost their leading zeros and
stand mostly at three digits. The column `readmitted` says what happened *after* the encounter; it is the
future, and is never read.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa

from mera_core.history.columns import words
from mera_core.icd.ontology import Ontology
from mera_core.readers.common.assemble import Entries, People, Visits, assemble
from mera_core.readers.common.base import Cohort, ImportReport, Source
from mera_core.readers.common.delimited import Delimited, read_delimited
from mera_core.readers.common.keyed import (
    distinct,
    first_rows,
    latest,
    remark_backwards,
    replaced,
    rows_at,
    whole_numbers,
)
from mera_core.readers.common.record_words import LISTS

FORMAT = "uci_diabetes130"
MISSING = ("?", "", "None", "NULL")
DIAGNOSES = ("diag_1", "diag_2", "diag_3")
_SEX = {"Female": "F", "Male": "M"}
_RACE = {
    "Caucasian": "white",
    "AfricanAmerican": "black",
    "Hispanic": "hispanic",
    "Asian": "asian",
    "Other": "other",
}
_DECADE = re.compile(r"\[(\d+)-(\d+)\)")

_COUNTS = {
    "stay": "time_in_hospital",  # days
    "inpatient": "number_inpatient",  # visits in the year before this encounter, as are the next two
    "emergency": "number_emergency",
    "outpatient": "number_outpatient",
    "diagnoses": "number_diagnoses",
    "procedures": "num_procedures",
    "medications": "num_medications",
    "labs": "num_lab_procedures",
}
_DRUGS = (
    "metformin", "repaglinide", "nateglinide", "chlorpropamide", "glimepiride", "acetohexamide", "glipizide",
    "glyburide", "tolbutamide", "pioglitazone", "rosiglitazone", "acarbose", "miglitol", "troglitazone",
    "tolazamide", "examide", "citoglipton", "glyburide-metformin", "glipizide-metformin",
    "glimepiride-pioglitazone", "metformin-rosiglitazone", "metformin-pioglitazone",
)  # fmt: skip
_LAB_WORDS = {"Norm": "normal", ">7": "above 7", ">8": "above 8", ">200": "above 200", ">300": "above 300"}
_REQUIRED = ("encounter_id", "patient_nbr", *DIAGNOSES)
# Every column that is read. `readmitted` is not among them: it is the future. Nor is `weight`: 97 % missing.
_READ = (
    *_REQUIRED, "race", "gender", "age",
    "admission_type_id", "admission_source_id", "discharge_disposition_id",
    "medical_specialty", "payer_code", "a1cresult", "max_glu_serum", "insulin", "diabetesmed",
    *_COUNTS.values(), *_DRUGS,
)  # fmt: skip
Word: TypeAlias = pa.DictionaryArray


def uci_split(patient_id: str) -> Literal["test", "validation", "train"]:
    """The split a patient belongs to, by the first byte of SHA-256 of `patient_nbr` as text.

    Below 52: test (20 %). 52 to 69: validation (7 %). From 70: train. It depends on the patient alone, so
    no visit of one patient can be on both sides. Of the test patients, those below 26 are kept out of the
    copy of the data that models are developed on, so that a checkpoint can be judged on patients nobody
    tuned to; a full copy of the file puts them in the test split by this same rule.

    >>> uci_split("8222157"), uci_split("86047875"), uci_split("55629189")  # bytes 49, 53 and 194
    ('test', 'validation', 'train')
    """
    byte = hashlib.sha256(str(patient_id).encode()).digest()[0]
    return "test" if byte < 52 else "validation" if byte < 70 else "train"


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    if {"patient_nbr", "encounter_id", "diag_1"} <= set(_file(source).header):
        return "it has the columns patient_nbr, encounter_id and diag_1"
    return None


def expects(source: Source) -> str | None:
    """Why a source that can't be recognised is meant for this format: its file is called so."""
    return "it is or holds diabetic_data.csv" if "diabetic_data.csv" in source.files else None


def read(source: Source, report: ImportReport, ontology: Ontology | None = None) -> Cohort:
    """Read `diabetic_data.csv` (or the folder that holds it): patients by number, encounters by id.

    Ages are the midpoints of ten-year bands, in years. Every diagnosis cell is counted: kept, missing,
    named twice in one encounter, or not in the ICD code set. An encounter with no code left keeps its place.
    A row that stands twice counts once. Raises InputError naming file, line and column.
    """
    rows = read_delimited(_file(source), _REQUIRED, _READ, report)
    before = len(rows)
    rows = distinct(rows, "encounter_id", report, "encounters")
    report.rows += before * len(DIAGNOSES)
    report.leave_out("row is repeated", (before - len(rows)) * len(DIAGNOSES))
    missing = np.asarray(_known(rows["patient_nbr"]).is_null())
    if missing.any():
        raise rows.fault(int(np.argmax(missing)), "patient_nbr", "there is no patient_nbr")
    order = whole_numbers(rows, "encounter_id")
    known = {name: _known(rows.get(name)) for name in _READ}
    ids, person = np.unique(rows_at(rows["patient_nbr"]), return_inverse=True)
    known[_COUNTS["stay"]] = _lengths(rows, known[_COUNTS["stay"]], report)
    in_order = np.argsort(first_rows(person, len(ids)))  # patients in the order of their first row
    person, ids = np.argsort(in_order)[person], ids[in_order]
    at = order.to_numpy(zero_copy_only=False).astype("datetime64[us]")  # stands in for a time, to find the latest row
    sexes = latest(person, at, replaced(known["gender"], _SEX.get), len(ids)).fill_null("U")
    entries = [_entries(known[name], position, report) for position, name in enumerate(DIAGNOSES, start=1)]
    return assemble(
        report,
        People(
            id=rows["patient_nbr"].dictionary.take(pa.array(ids)),
            sex=sexes,
            words={"ethnicity": latest(person, at, replaced(known["race"], _RACE.get), len(ids))},
        ),
        Visits(person=person, order=order, age=_ages(known["age"]), words=_details(known), order_is_guess=True),
        Entries(
            visit=np.concatenate([visit for visit, _, _ in entries]),
            text=pa.chunked_array([text.cast(pa.string()) for _, text, _ in entries]),
            system="ICD9",
            position=np.concatenate([position for _, _, position in entries]),
        ),
        ontology,
        icd9_three_digit=True,
    )


def _known(column: Word) -> Word:
    """The column with null where a cell is missing."""
    return replaced(column, lambda text: None if text in MISSING else text)


def _entries(column: Word, position: int, report: ImportReport) -> tuple[np.ndarray, Word, np.ndarray]:
    """(visit, code text, position) of one diagnosis column."""
    told = np.asarray(column.is_valid())
    report.leave_out("no diagnosis in the column", int((~told).sum()))
    visit = np.flatnonzero(told)
    return visit, column.filter(pa.array(told)), np.full(len(visit), position)


def _lengths(rows: Delimited, days: Word, report: ImportReport) -> Word:
    """Days in hospital, null where they are negative; the report says of how many."""
    kept = replaced(days, lambda text: None if text.startswith("-") else text)
    negative = np.asarray(days.is_valid()) & np.asarray(kept.is_null())
    remark_backwards(report, "encounters", negative, rows, "time_in_hospital")
    return kept


def _file(source: Source) -> Source:
    if source.path.is_dir() and "diabetic_data.csv" in source.files:
        return source.within(source.file("diabetic_data.csv"))
    return source


def _ages(bands: Word) -> np.ndarray:
    middles = [_middle(band) for band in bands.dictionary.to_pylist()] + [np.nan]
    return np.array(middles)[bands.indices.fill_null(len(middles) - 1).to_numpy(zero_copy_only=False)]


def _middle(band: str) -> float:
    decade = _DECADE.fullmatch(band or "")
    return (int(decade[1]) + int(decade[2])) / 2 if decade else np.nan


def _details(known: dict[str, Word]) -> dict[str, Word]:
    """Detail -> the word of each row, null where unknown; details always in this order."""

    return {
        "admission": replaced(known["admission_type_id"], LISTS["UCI admission"].get),
        "source": replaced(known["admission_source_id"], LISTS["UCI source"].get),
        "discharge": replaced(known["discharge_disposition_id"], LISTS["UCI discharge"].get),
        "specialty": known["medical_specialty"],
        **{word: known[name] for word, name in _COUNTS.items()},
        "a1c": replaced(known["a1cresult"], _LAB_WORDS.get),
        "glucose": replaced(known["max_glu_serum"], _LAB_WORDS.get),
        "insulin": replaced(known["insulin"], str.lower),
        "diabetes_medication": replaced(known["diabetesmed"], str.lower),
        "payer": known["payer_code"],
        "drugs": _drugs(known),
    }


def _drugs(known: dict[str, Word]) -> Word:
    """The drugs given and how their dose changed, in one text a row: 'metformin steady, glipizide up'."""
    given = [
        replaced(known[drug], lambda text, drug=drug: None if text == "No" else f"{drug} {text.lower()}")
        for drug in _DRUGS
    ]
    rows = zip(*(column.to_pylist() for column in given), strict=True)
    return words([", ".join(filter(None, row)) or None for row in rows])

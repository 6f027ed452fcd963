"""Diabetes 130-US Hospitals 1999-2008 (UCI id 296): one row an encounter, up to three ICD-9 diagnoses.

The file has no dates: `encounter_id` orders a patient's encounters. Codes have lost their leading zeros and
stand mostly at three digits. The column `readmitted` says what happened *after* the encounter; it is the
future, and is never read.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from pathlib import Path
from typing import Literal

from mera_core.errors import InputError
from mera_core.ontology import Ontology
from mera_core.readers.base import CodeReader, Cohort, ImportReport, Reader, Source, read_delimited
from mera_core.records import Patient, Visit

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

# The three id lists are those of IDS_mapping.csv, which comes with the data; ids that say "not available",
# "NULL", "not mapped" or "unknown" are absent here, and the detail is then left out.
ADMISSION = {"1": "emergency", "2": "urgent", "3": "elective", "4": "newborn", "7": "trauma"}
SOURCE = {
    "1": "physician referral",
    "2": "clinic referral",
    "3": "insurer referral",
    "4": "transfer from hospital",
    "5": "transfer from skilled nursing facility",
    "6": "transfer from other facility",
    "7": "emergency room",
    "8": "court or law enforcement",
    "10": "transfer from hospital",  # a critical access hospital
    "11": "birth",
    "12": "birth",
    "13": "birth",
    "14": "birth",
    "18": "transfer from home health agency",
    "19": "transfer from home health agency",
    "22": "transfer within hospital",
    "23": "birth",
    "24": "birth",
    "25": "transfer from ambulatory surgery center",
    "26": "transfer from hospice",
}
DISCHARGE = {
    "1": "home",
    "2": "transfer to hospital",
    "3": "skilled nursing facility",
    "4": "intermediate care facility",
    "5": "transfer to other inpatient care",
    "6": "home health care",
    "7": "left against advice",
    "8": "home health care",  # under a home intravenous provider
    "9": "admitted to this hospital",
    "10": "transfer to hospital",  # neonatal aftercare
    "11": "died",
    "12": "still patient",
    "13": "hospice",
    "14": "hospice",
    "15": "swing bed",
    "16": "outpatient services",
    "17": "outpatient services",
    "19": "died",
    "20": "died",
    "21": "died",
    "22": "rehabilitation",
    "23": "long-term care hospital",
    "24": "nursing facility",
    "27": "transfer to federal health care facility",
    "28": "psychiatric hospital",
    "29": "transfer to hospital",  # a critical access hospital
    "30": "transfer to other facility",
}
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
Columns = dict[str, list[str | None]]


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


def read(source: Source, ontology: Ontology | None = None) -> Cohort:
    """Read `diabetic_data.csv` (or the folder that holds it): patients by number, encounters by id.

    Ages are the midpoints of ten-year bands, in years. Every diagnosis cell is counted: kept, missing,
    named twice in one encounter, or not in the code book. An encounter with no code left keeps its place.
    """
    path = _file(source).path
    columns = _known_cells(read_delimited(path, _REQUIRED))
    report = ImportReport(FORMAT)
    code_of = CodeReader(report, ontology, icd9_three_digit=True)
    encounters = _encounters(columns, path)
    details = _detail_columns(columns)
    patients = []
    for identity, rows in encounters.items():
        visits = tuple(_visit(columns, details, row, code_of, report) for row in rows)
        race = _RACE.get(columns["race"][rows[-1]] or "")
        patients.append(
            Patient(
                visits,
                sex=_SEX.get(columns["gender"][rows[-1]] or "", "U"),
                age=visits[-1].age,
                id=identity,
                details={"ethnicity": race} if race else {},
            )
        )
    report.rows = len(columns["patient_nbr"]) * len(DIAGNOSES)
    report.count(patients)
    return Cohort(patients, report)


def _known_cells(columns: dict[str, list[str]]) -> Columns:
    """The columns that are read here, None where a cell is missing and all None where a column is."""
    size = len(columns["patient_nbr"])
    absent: list[str | None] = [None] * size
    known: Columns = {}
    for name in _READ:
        words = {value: value.strip() for value in set(columns.get(name, ()))}
        known[name] = [None if words[value] in MISSING else words[value] for value in columns.get(name, ())] or absent
    return known


def _encounters(columns: Columns, path: Path) -> dict[str, list[int]]:
    """Patient -> rows of the file, in the order of encounter_id."""
    order: list[int] = []
    encounters: dict[str, list[int]] = defaultdict(list)
    for row, (patient, encounter) in enumerate(zip(columns["patient_nbr"], columns["encounter_id"], strict=True)):
        if patient is None or encounter is None or not encounter.isdecimal():
            raise InputError(f"{path}: line {row + 2} lacks a patient_nbr or a whole encounter_id.")
        order.append(int(encounter))
        encounters[patient].append(row)
    if len(set(order)) != len(order):
        raise InputError(f"{path} has an encounter_id more than once.")
    for rows in encounters.values():
        rows.sort(key=order.__getitem__)
    return encounters


def _file(source: Source) -> Source:
    if source.path.is_dir() and "diabetic_data.csv" in source.files:
        return Source(source.files["diabetic_data.csv"])
    return source


def _visit(columns: Columns, details: Columns, row: int, code_of: CodeReader, report: ImportReport) -> Visit:
    kept = {}
    for position, name in enumerate(DIAGNOSES, start=1):
        text = columns[name][row]
        if text is None:
            report.left_out["no diagnosis in the column"] += 1
            continue
        code = code_of(text, "ICD9")
        if code is None:
            continue
        if code in kept:
            report.left_out["named twice in one visit"] += 1
        else:
            kept[code] = position
    if not kept:
        report.aside["visits kept without any code"] += 1
    return Visit(
        codes=tuple(kept),
        age=_age(columns["age"][row]),
        details={word: words[row] for word, words in details.items() if words[row]},
        positions=tuple(kept.values()),
    )


def _age(band: str | None) -> float | None:
    decade = _DECADE.fullmatch(band or "")
    return (int(decade[1]) + int(decade[2])) / 2 if decade else None


def _detail_columns(columns: Columns) -> Columns:
    """Detail -> the word of each row, None where unknown; details always in this order."""

    def translated(name: str, words: dict[str, str]) -> list[str | None]:
        return [words.get(value or "") for value in columns[name]]

    def lower(name: str) -> list[str | None]:
        return [value.lower() if value else None for value in columns[name]]

    given = [
        [None if value in (None, "No") else f"{drug} {value.lower()}" for value in columns[drug]] for drug in _DRUGS
    ]
    return {
        "admission": translated("admission_type_id", ADMISSION),
        "source": translated("admission_source_id", SOURCE),
        "discharge": translated("discharge_disposition_id", DISCHARGE),
        "specialty": columns["medical_specialty"],
        **{word: columns[name] for word, name in _COUNTS.items()},
        "a1c": translated("a1cresult", _LAB_WORDS),
        "glucose": translated("max_glu_serum", _LAB_WORDS),
        "insulin": lower("insulin"),
        "diabetes_medication": lower("diabetesmed"),
        "payer": columns["payer_code"],
        "drugs": [", ".join(filter(None, row)) or None for row in zip(*given, strict=True)],
    }


READER = Reader(FORMAT, detect, read)

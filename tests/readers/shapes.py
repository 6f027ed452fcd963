"""Writes a list of patients in the shape of each tabular source: the one truth that the readers are checked against."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code


def undotted(code: Code) -> str:
    return code.code.replace(".", "")


def write_csv(path: Path, columns: str, rows: Iterable[tuple]) -> None:
    """Rows as CSV, '' in the last columns of a row that is shorter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = columns.split()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([cell for cell, _ in zip_longest(row, names)] for row in rows)


def stays(patients: list[Patient]) -> list[tuple[int, Patient, Visit]]:
    """(number, patient, visit) of every visit of the cohort; numbers are no order of time."""
    listed = [(patient, visit) for patient in patients for visit in reversed(patient.visits)]
    return [(number, patient, visit) for number, (patient, visit) in enumerate(listed, start=1)]


def ranked(patients: list[Patient]) -> list[tuple[int, Patient, int, Code]]:
    """(number of the visit, patient, rank, code) of every diagnosis."""
    return [(n, p, rank, code) for n, p, v in stays(patients) for rank, code in enumerate(v.codes, start=1)]


def mimic3(patients: list[Patient], folder: Path) -> Path:
    people = ((p.id, p.sex, "1990-01-01 00:00:00") for p in patients)
    write_csv(folder / "PATIENTS.csv", "subject_id gender dob", people)
    admitted = ((p.id, 5000 + n, v.time) for n, p, v in stays(patients))
    write_csv(folder / "ADMISSIONS.csv", "subject_id hadm_id admittime dischtime", admitted)
    rows = [(p.id, 5000 + n, rank, undotted(code)) for n, p, rank, code in reversed(ranked(patients))]
    write_csv(folder / "DIAGNOSES_ICD.csv", "subject_id hadm_id seq_num icd9_code", rows)
    return folder


def mimic4(patients: list[Patient], folder: Path) -> Path:
    columns = "subject_id gender anchor_age anchor_year anchor_year_group dod"
    write_csv(folder / "hosp/patients.csv", columns, ((p.id, p.sex, 40, 2000, "2011 - 2013") for p in patients))
    columns = "subject_id hadm_id admittime dischtime deathtime admission_type race"
    write_csv(folder / "hosp/admissions.csv", columns, ((p.id, 5000 + n, v.time) for n, p, v in stays(patients)))
    rows = ((p.id, 5000 + n, rank, f"{undotted(code):7}", code.system[3:]) for n, p, rank, code in ranked(patients))
    write_csv(folder / "hosp/diagnoses_icd.csv", "subject_id hadm_id seq_num icd_code icd_version", rows)
    return folder


def eicu(patients: list[Patient], folder: Path) -> Path:
    """Each hospital stay in two unit stays; the year of discharge tells the order."""
    sexes = {"F": "Female", "M": "Male", "U": "Unknown"}
    units = (
        (n * 10 + unit, n + 700, sexes[p.sex], "> 89", 2010 + p.visits.index(v), unit, p.id)
        for n, p, v in stays(patients)
        for unit in (1, 2)
    )
    columns = "patientunitstayid patienthealthsystemstayid gender age hospitaldischargeyear unitvisitnumber uniquepid"
    write_csv(folder / "patient.csv", columns, units)
    rows = []
    for n, _, rank, code in ranked(patients):
        text = code.code if code.system == "ICD9" else f", {code.code}"
        unit = n * 10 + (1 if rank < 3 else 2)
        rows.append((len(rows) + 1, unit, rank, text, "Primary" if rank == 1 else "Other"))
    columns = "diagnosisid patientunitstayid diagnosisoffset icd9code diagnosispriority"
    write_csv(folder / "diagnosis.csv", columns, rows)
    return folder


def synpuf(patients: list[Patient], folder: Path) -> Path:
    people = ((p.id, "19400101", {"M": 1, "F": 2}.get(p.sex, "")) for p in patients)
    columns = "DESYNPUF_ID BENE_BIRTH_DT BENE_SEX_IDENT_CD BENE_RACE_CD"
    write_csv(folder / "DE1_0_2008_Beneficiary_Summary_File_Sample_1.csv", columns, people)
    claims = ((p.id, 90_000 + n, 1, *[f"{v.time:%Y%m%d}"] * 2, *map(undotted, v.codes)) for n, p, v in stays(patients))
    columns = "DESYNPUF_ID CLM_ID SEGMENT CLM_FROM_DT CLM_ADMSN_DT " + " ".join(
        f"ICD9_DGNS_CD_{n}" for n in range(1, 11)
    )
    write_csv(folder / "DE1_0_2008_to_2010_Inpatient_Claims_Sample_1.csv", columns, claims)
    return folder


def uci(patients: list[Patient], folder: Path) -> Path:
    rows: list[tuple] = []
    for patient in patients:
        sex = {"F": "Female", "M": "Male", "U": "Unknown/Invalid"}[patient.sex]
        for visit in patient.visits:
            cells = [code.code.lstrip("0") or "0" for code in visit.codes] + ["?"] * 3
            rows.append((len(rows) + 1, patient.id, sex, *cells[:3]))
    write_csv(folder / "diabetic_data.csv", "encounter_id patient_nbr gender diag_1 diag_2 diag_3", rows[::-1])
    return folder


def omop(patients: list[Patient], folder: Path, packed: bool = False) -> Path:
    """CSV, or parquet with real types; codes by source concept, and every second by source value alone."""
    met = sorted({code for *_, code in ranked(patients)})
    numbers = {code: 1_000 + at for at, code in enumerate(met)}
    sexes = {"M": 8507, "F": 8532, "U": 0}
    times = {n: v.time for n, _, v in stays(patients)}
    tables: dict[str, tuple[str, list[tuple]]] = {
        "person": (
            "person_id gender_concept_id year_of_birth",
            [(int(p.id), sexes[p.sex], 1950) for p in patients],
        ),
        "visit_occurrence": (
            "visit_occurrence_id person_id visit_start_date visit_start_datetime visit_end_date",
            [(n, int(p.id), v.time.date(), v.time, (v.time + timedelta(2)).date()) for n, p, v in stays(patients)],
        ),
        "condition_occurrence": (
            "condition_occurrence_id person_id condition_concept_id condition_start_date visit_occurrence_id "
            "condition_source_value condition_source_concept_id",
            [
                (
                    n * 100 + rank,
                    int(p.id),
                    0,
                    times[n].date(),
                    n,
                    f"{code.system}CM:{code.code}  ",
                    numbers[code] * (rank % 2),
                )
                for n, p, rank, code in ranked(patients)
            ],
        ),
        "concept": (
            "concept_id concept_name vocabulary_id concept_code",
            [(number, "", f"{code.system}CM", code.code) for code, number in numbers.items()],
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (columns, rows) in tables.items():
        if packed:
            arrays = dict(zip(columns.split(), map(pa.array, zip(*rows, strict=True)), strict=True))
            pq.write_table(pa.table(arrays), folder / f"{name}.parquet")
        else:
            write_csv(folder / f"{name.upper()}.csv", columns, rows)
    return folder

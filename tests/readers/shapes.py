"""Writes a list of patients in the shape of each tabular source: the one truth that the readers are checked against."""

from __future__ import annotations

import csv
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code

Rows = list[dict[str, object]]


def undotted(code: Code) -> str:
    return code.code.replace(".", "")


def write_csv(path: Path, rows: Rows, columns: str) -> None:
    """Rows as CSV, '' where a column is missing from a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns.split(), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def stays(patients: list[Patient]) -> list[tuple[int, Patient, Visit]]:
    """(number, patient, visit) of every visit of the cohort; numbers are no order of time."""
    listed = [(patient, visit) for patient in patients for visit in reversed(patient.visits)]
    return [(number, patient, visit) for number, (patient, visit) in enumerate(listed, start=1)]


def mimic3(patients: list[Patient], folder: Path) -> Path:
    write_csv(
        folder / "PATIENTS.csv",
        [{"subject_id": p.id, "gender": p.sex, "dob": "1990-01-01 00:00:00"} for p in patients],
        "subject_id gender dob",
    )
    write_csv(
        folder / "ADMISSIONS.csv",
        [{"subject_id": p.id, "hadm_id": 5000 + n, "admittime": v.time} for n, p, v in stays(patients)],
        "subject_id hadm_id admittime dischtime",
    )
    rows = [
        {"subject_id": p.id, "hadm_id": 5000 + n, "seq_num": rank, "icd9_code": undotted(code)}
        for n, p, v in stays(patients)
        for rank, code in reversed(list(enumerate(v.codes, start=1)))
    ]
    write_csv(folder / "DIAGNOSES_ICD.csv", rows, "subject_id hadm_id seq_num icd9_code")
    return folder


def mimic4(patients: list[Patient], folder: Path) -> Path:
    write_csv(
        folder / "hosp/patients.csv",
        [
            {
                "subject_id": p.id,
                "gender": p.sex,
                "anchor_age": 40,
                "anchor_year": 2000,
                "anchor_year_group": "2011 - 2013",
            }
            for p in patients
        ],
        "subject_id gender anchor_age anchor_year anchor_year_group dod",
    )
    write_csv(
        folder / "hosp/admissions.csv",
        [{"subject_id": p.id, "hadm_id": 5000 + n, "admittime": v.time} for n, p, v in stays(patients)],
        "subject_id hadm_id admittime dischtime deathtime admission_type race",
    )
    rows = [
        {
            "subject_id": p.id,
            "hadm_id": 5000 + n,
            "seq_num": rank,
            "icd_code": f"{undotted(code):7}",
            "icd_version": code.system.removeprefix("ICD"),
        }
        for n, p, v in stays(patients)
        for rank, code in enumerate(v.codes, start=1)
    ]
    write_csv(folder / "hosp/diagnoses_icd.csv", rows, "subject_id hadm_id seq_num icd_code icd_version")
    return folder


def eicu(patients: list[Patient], folder: Path) -> Path:
    """Each hospital stay in two unit stays; the year of discharge tells the order."""
    units, rows = [], []
    for number, patient, visit in stays(patients):
        place = patient.visits.index(visit)
        for unit in (1, 2):
            units.append(
                {
                    "patientunitstayid": number * 10 + unit,
                    "patienthealthsystemstayid": number + 700,
                    "gender": {"F": "Female", "M": "Male", "U": "Unknown"}[patient.sex],
                    "age": "> 89",
                    "hospitaldischargeyear": 2010 + place,
                    "unitvisitnumber": unit,
                    "uniquepid": patient.id,
                }
            )
        for rank, code in enumerate(visit.codes, start=1):
            rows.append(
                {
                    "diagnosisid": len(rows) + 1,
                    "patientunitstayid": number * 10 + (1 if rank < 3 else 2),
                    "diagnosisoffset": rank,
                    "icd9code": code.code if code.system == "ICD9" else f", {code.code}",
                    "diagnosispriority": "Primary" if rank == 1 else "Other",
                }
            )
    columns = "patientunitstayid patienthealthsystemstayid gender age hospitaldischargeyear unitvisitnumber uniquepid"
    write_csv(folder / "patient.csv", units, columns)
    write_csv(
        folder / "diagnosis.csv", rows, "diagnosisid patientunitstayid diagnosisoffset icd9code diagnosispriority"
    )
    return folder


def synpuf(patients: list[Patient], folder: Path) -> Path:
    write_csv(
        folder / "DE1_0_2008_Beneficiary_Summary_File_Sample_1.csv",
        [
            {"DESYNPUF_ID": p.id, "BENE_BIRTH_DT": "19400101", "BENE_SEX_IDENT_CD": {"M": 1, "F": 2}.get(p.sex, "")}
            for p in patients
        ],
        "DESYNPUF_ID BENE_BIRTH_DT BENE_SEX_IDENT_CD BENE_RACE_CD",
    )
    rows = [
        {
            "DESYNPUF_ID": p.id,
            "CLM_ID": 90_000 + n,
            "SEGMENT": 1,
            "CLM_FROM_DT": v.time.strftime("%Y%m%d"),
            "CLM_ADMSN_DT": v.time.strftime("%Y%m%d"),
            **{f"ICD9_DGNS_CD_{rank}": undotted(code) for rank, code in enumerate(v.codes, start=1)},
        }
        for n, p, v in stays(patients)
    ]
    diagnoses = " ".join(f"ICD9_DGNS_CD_{rank}" for rank in range(1, 11))
    write_csv(
        folder / "DE1_0_2008_to_2010_Inpatient_Claims_Sample_1.csv",
        rows,
        f"DESYNPUF_ID CLM_ID SEGMENT CLM_FROM_DT CLM_ADMSN_DT {diagnoses}",
    )
    return folder


def uci(patients: list[Patient], folder: Path) -> Path:
    rows, encounter = [], 0
    for patient in patients:
        for visit in patient.visits:
            encounter += 1
            cells = [code.code.lstrip("0") or "0" for code in visit.codes] + ["?"] * 3
            rows.append(
                {
                    "encounter_id": encounter,
                    "patient_nbr": patient.id,
                    "gender": {"F": "Female", "M": "Male", "U": "Unknown/Invalid"}[patient.sex],
                    **{f"diag_{place}": cell for place, cell in enumerate(cells[:3], start=1)},
                }
            )
    write_csv(folder / "diabetic_data.csv", rows[::-1], "encounter_id patient_nbr gender diag_1 diag_2 diag_3")
    return folder


def omop(patients: list[Patient], folder: Path, packed: bool = False) -> Path:
    """CSV, or parquet with real types; codes by source concept, and every second by source value alone."""
    book = {
        code: 1_000 + at for at, code in enumerate(sorted({c for p in patients for v in p.visits for c in v.codes}))
    }
    sexes = {"M": 8507, "F": 8532, "U": 0}
    tables: dict[str, tuple[Rows, str]] = {
        "person": (
            [{"person_id": int(p.id), "gender_concept_id": sexes[p.sex], "year_of_birth": 1950} for p in patients],
            "person_id gender_concept_id year_of_birth",
        ),
        "visit_occurrence": (
            [
                {
                    "visit_occurrence_id": n,
                    "person_id": int(p.id),
                    "visit_start_date": v.time.date(),
                    "visit_start_datetime": v.time,
                    "visit_end_date": (v.time + timedelta(days=2)).date(),
                }
                for n, p, v in stays(patients)
            ],
            "visit_occurrence_id person_id visit_start_date visit_start_datetime visit_end_date",
        ),
        "condition_occurrence": (
            [
                {
                    "condition_occurrence_id": n * 100 + rank,
                    "person_id": int(p.id),
                    "condition_concept_id": 0,
                    "condition_start_date": v.time.date(),
                    "visit_occurrence_id": n,
                    "condition_source_value": f"{code.system}CM:{code.code}  ",
                    "condition_source_concept_id": book[code] if rank % 2 else 0,
                }
                for n, p, v in stays(patients)
                for rank, code in enumerate(v.codes, start=1)
            ],
            "condition_occurrence_id person_id condition_concept_id condition_start_date visit_occurrence_id "
            "condition_source_value condition_source_concept_id",
        ),
        "concept": (
            [
                {"concept_id": at, "concept_name": "", "vocabulary_id": f"{code.system}CM", "concept_code": code.code}
                for code, at in book.items()
            ],
            "concept_id concept_name vocabulary_id concept_code",
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (rows, columns) in tables.items():
        if packed:
            arrays = {column: pa.array([row[column] for row in rows]) for column in columns.split()}
            pq.write_table(pa.table(arrays), folder / f"{name}.parquet")
        else:
            write_csv(folder / f"{name.upper()}.csv", rows, columns)
    return folder

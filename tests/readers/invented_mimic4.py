"""Invented records of any size in the shape of MIMIC-IV, to test import and scale with.

The shape is that of the real tables: columns, undotted codes with leading zeros, seq_num, a change from ICD-9 to ICD-10 in
October 2015 of the hidden calendar, most patients with one admission or none. The codes are drawn by chance, so nothing
can be learned from them; never measure accuracy on these tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology

ADMITTED = 0.61  # share of MIMIC-IV's patients who have an admission
GROUPS = (2008, 2011, 2014, 2017, 2020)  # first years of anchor_year_group
ICD10_YEAR = 2015.75  # ICD-10-CM came into force in October 2015
_FIRST_SUBJECT, _FIRST_ADMISSION = 10_000_032, 20_000_019
CHOICES = {
    "admission_type": ("EW EMER.", "URGENT", "OBSERVATION ADMIT", "SURGICAL SAME DAY ADMISSION", "ELECTIVE"),
    "admission_location": ("EMERGENCY ROOM", "PHYSICIAN REFERRAL", "TRANSFER FROM HOSPITAL", "WALK-IN/SELF REFERRAL"),
    "discharge_location": ("HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB", "DIED", ""),
    "insurance": ("Medicare", "Private", "Medicaid", "Other"),
    "race": ("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC/LATINO - PUERTO RICAN", "ASIAN", "UNKNOWN"),
}
MIMIC4 = {
    "patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admission_location discharge_location "
    "insurance language marital_status race edregtime edouttime hospital_expire_flag",
    "diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
}


class Invented(NamedTuple):
    """Patients, admissions (by patient and time) and diagnoses (by admission and rank), with MIMIC-IV's columns."""

    patients: pd.DataFrame
    admissions: pd.DataFrame
    diagnoses_icd: pd.DataFrame


def invent(patients: int, admissions: int, diagnoses: int, seed: int = 1) -> Invented:
    """Tables of these sizes, drawn from a seed. Raises InputError for sizes that don't go together."""
    refuse_sizes(patients, admissions, diagnoses)
    draw = np.random.default_rng(seed)
    subject = _FIRST_SUBJECT + np.sort(draw.choice(patients * 3, patients, replace=False))
    admitted_people = np.sort(draw.choice(patients, min(max(int(patients * ADMITTED), 1), admissions), replace=False))
    owner = np.sort(_with_each(draw, admitted_people, admissions))
    anchor_year = draw.integers(2110, 2200, patients)
    group = np.array(GROUPS)[draw.integers(0, len(GROUPS), patients)]
    offset = draw.integers(-2 * 365 * 1440, 6 * 365 * 1440, admissions)  # minutes around the anchor year
    began = (anchor_year[owner] - 1970).astype("datetime64[Y]").astype("datetime64[m]") + offset
    began = began[np.lexsort((began, owner))]
    real = group[owner] + (began.astype("datetime64[D]").astype(float) / 365.2425 + 1970 - anchor_year[owner])
    stay, code, version = _diagnoses(draw, real >= ICD10_YEAR, diagnoses)
    people = pd.DataFrame(
        {
            "subject_id": subject,
            "gender": np.array(["F", "M"])[draw.integers(0, 2, patients)],
            "anchor_age": np.minimum(18 + draw.integers(0, 80, patients), 91),
            "anchor_year": anchor_year,
            "anchor_year_group": [f"{first} - {first + 2}" for first in group],
        }
    )
    stays = pd.DataFrame(
        {
            "subject_id": subject[owner],
            "hadm_id": _FIRST_ADMISSION + draw.permutation(admissions * 2)[:admissions],
            "admittime": began.astype("datetime64[s]"),
            "dischtime": (began + (draw.exponential(4.5, admissions) * 1440).astype(np.int64)).astype("datetime64[s]"),
        }
        | {name: np.array(texts)[draw.integers(0, len(texts), admissions)] for name, texts in CHOICES.items()}
    )
    stays["hospital_expire_flag"] = (stays["discharge_location"] == "DIED").astype(np.int8)
    entries = stays[["subject_id", "hadm_id"]].take(stay).reset_index(drop=True)
    entries["seq_num"] = np.arange(diagnoses) - np.searchsorted(stay, np.arange(admissions))[stay] + 1
    return Invented(people, stays, entries.assign(icd_code=code, icd_version=version))


def refuse_sizes(patients: int, admissions: int, diagnoses: int) -> None:
    """Raise InputError for sizes that don't go together."""
    if patients < 1 or admissions < 1 or diagnoses < admissions or diagnoses > admissions * 39:
        raise InputError(
            f"{patients:,} patients, {admissions:,} admissions and {diagnoses:,} diagnoses don't go together: there must be "
            "patients and admissions, and from 1 to 39 diagnoses an admission."
        )


def _with_each(draw: np.random.Generator, people: np.ndarray, size: int) -> np.ndarray:
    """`size` owners: each person once, the rest by chance, a few of them far more often than others."""
    weight = draw.pareto(1.5, len(people)) + 0.1
    return np.concatenate([people, draw.choice(people, size - len(people), p=weight / weight.sum())])


def _diagnoses(draw: np.random.Generator, newer: np.ndarray, size: int) -> tuple:
    """(admission, code, ICD version) of each diagnosis, no code twice in an admission; `newer` admissions have ICD-10."""
    book = Ontology.load()
    texts = [[code.code.replace(".", "") for code in book.billable(system)] for system in ("ICD9", "ICD10")]
    orders = [draw.permutation(len(each)) for each in texts]  # which codes are the common ones is chance
    pairs = np.zeros(0, np.int64)
    while len(pairs) < size:
        missing = size - len(pairs)
        stay = draw.integers(0, len(newer), missing + missing // 20 + 1) if len(pairs) else np.arange(len(newer))
        commonness = draw.zipf(1.25, len(stay)) - 1
        code = np.where(
            newer[stay],
            orders[1][commonness % len(texts[1])] + len(texts[0]),
            orders[0][commonness % len(texts[0])],
        )
        pairs = np.concatenate([pairs, (stay.astype(np.int64) << 32) + code])
        _, first = np.unique(pairs, return_index=True)
        pairs = pairs[np.sort(first)][:size]
    pairs = pairs[np.argsort(pairs >> 32, kind="stable")]
    code = pairs & 0xFFFFFFFF
    return pairs >> 32, pd.array(texts[0] + texts[1], dtype="str").take(code), np.where(code < len(texts[0]), 9, 10)


def write_mimic4(tables: Invented, folder: Path, packed: bool = True) -> None:
    """Write hosp/patients, hosp/admissions and hosp/diagnoses_icd as MIMIC-IV 3 has them."""
    (folder / "hosp").mkdir(parents=True, exist_ok=True)
    for name, columns in MIMIC4.items():
        table = pa.Table.from_pandas(getattr(tables, name).reindex(columns=columns.split()), preserve_index=False)
        path = folder / "hosp" / f"{name}.csv{'.gz' if packed else ''}"
        with pa.output_stream(path, compression="gzip" if packed else None) as stream:
            stream.write(",".join(table.column_names).encode() + b"\n")
            pa_csv.write_csv(table, stream, pa_csv.WriteOptions(include_header=False, quoting_style="none"))

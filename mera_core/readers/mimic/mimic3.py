"""MIMIC-III: a folder with PATIENTS, ADMISSIONS and DIAGNOSES_ICD, ICD-9-CM only.

Dates are shifted into 2100-2200, each patient's by an amount of their own: they order a patient's visits, and
say nothing of the calendar. Codes are undotted text with leading zeros.
"""

from __future__ import annotations

import numpy as np

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology
from mera_core.readers.common.base import Cohort, ImportReport, Source
from mera_core.readers.common.delimited import Delimited
from mera_core.readers.common.keyed import times, years
from mera_core.readers.mimic.tables import FILES, Schema, read_tables

FORMAT = "mimic3"
SHIFTED_AGE = 91.4  # years; MIMIC moves births of patients over 89 back by 300 years, this was their median age


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    if not source.path.is_dir() or not set(FILES) <= set(source.files):
        return None
    if "icd9_code" not in Source(source.files[FILES[2]]).header:  # MIMIC-IV has icd_code and icd_version
        return None
    return "the folder has PATIENTS, ADMISSIONS and DIAGNOSES_ICD with the column icd9_code"


def expects(source: Source) -> str | None:
    """Why a folder that can't be recognised is meant for this format: its files are called so, and none of them is MIMIC-IV's."""
    if not source.path.is_dir() or not set(FILES) <= set(source.files):
        return None
    ours = "dob" in Source(source.files[FILES[0]]).header or source.files[FILES[2]].name.startswith("D")
    return "its files are called as MIMIC-III's are" if ours else None


def read(source: Source, report: ImportReport, ontology: Ontology | None = None) -> Cohort:
    """Read the three files: visits ordered by admittime, codes by seq_num.

    Age is that at admission, in years; births that MIMIC shifted by 300 years give 91.4, and the report says
    how often. Every row of DIAGNOSES_ICD is counted: kept, or left out with its reason.
    Raises InputError naming the file for a missing file or column, an unreadable date, or a repeated id.
    """
    if not source.path.is_dir():
        raise InputError(
            f"{source.path} is one file; mimic3 needs the folder with PATIENTS, ADMISSIONS and DIAGNOSES_ICD."
        )
    cohort = read_tables({name: source.within(source.file(name)) for name in FILES}, _SCHEMA, report, ontology)
    shifted = int((cohort.columns.visit_age == SHIFTED_AGE).sum())
    if shifted:
        report.remarks.append(
            f"{shifted:,} visits are of patients over 89, whose births the source hides: age given as {SHIFTED_AGE}"
        )
    return cohort


def _ages(patients: Delimited, row: np.ndarray, admitted: np.ndarray) -> np.ndarray:
    """Years at each admission, NaN where unknown."""
    age = years(times(patients, "dob")[row], admitted)
    return np.where(age > 200, SHIFTED_AGE, np.where(age > 130, np.nan, age))


_SCHEMA = Schema(
    person=("dob",),
    entry=("icd9_code",),
    ages=_ages,
    systems=lambda diagnoses: ("ICD9", {}),
)

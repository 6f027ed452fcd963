"""MIMIC-IV: `patients`, `admissions` and `diagnoses_icd` in a folder or its `hosp/`, ICD-9-CM and ICD-10-CM.

Dates are shifted, each patient's by an amount of their own: they order a patient's visits. `anchor_year_group` says within
three years when `anchor_year` really was, so each visit gets the earliest calendar year it can have had. Codes are
undotted text with leading zeros; `icd_version` says the system of each, and a patient may change it between visits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology
from mera_core.readers.common.base import Cohort, ImportReport, Source
from mera_core.readers.common.delimited import Delimited
from mera_core.readers.common.keyed import is_empty, numbers, replaced, rows_at
from mera_core.readers.mimic.tables import FILES, Schema, read_tables

FORMAT = "mimic4"
OLDEST = 91  # years; anchor_age of everyone over 89
# Releases before 2.0 keep patients and admissions in core/. MIMIC-III may stand beside a hosp/, and is not to be mixed with it.
_LAYOUTS = (("",), ("hosp", "core"), ("", "hosp", "core"))
_SYSTEMS = {"9": "ICD9", "10": "ICD10"}


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    if not source.path.is_dir():
        return None
    if _is_whole(_tables(source)):
        return "the folder has patients, admissions and diagnoses_icd with the columns icd_code and icd_version"
    return None


def expects(source: Source) -> str | None:
    """Why a folder that can't be recognised is meant for this format: its files, or those of its hosp/, are called so."""
    if source.path.is_dir() and set(FILES) <= set(_tables(source)):
        return "its files are called as MIMIC-IV's are"
    return None


def read(source: Source, report: ImportReport, ontology: Ontology | None = None) -> Cohort:
    """Read the three files: visits ordered by admittime, codes by seq_num, each in the system of its icd_version.

    Age is anchor_age moved by the years between anchor_year and admission; `year` is the earliest calendar year that
    anchor_year_group allows. Every row of diagnoses_icd is counted: kept, or left out with its reason.
    Raises InputError naming file, line and column.
    """
    if not source.path.is_dir():
        raise InputError(
            f"{source.path} is one file; mimic4 needs the folder with patients, admissions and diagnoses_icd."
        )
    found = _tables(source, strict=True)
    for name in FILES:
        if name not in found:
            raise InputError(f"{source.path} has no file {name} or {name}.gz, nor has its folder hosp.")
    cohort = read_tables({name: source.within(found[name]) for name in FILES}, _SCHEMA, report, ontology)
    oldest = int((cohort.columns.visit_age >= OLDEST).sum())
    if oldest:
        report.remarks.append(
            f"{oldest:,} visits are at {OLDEST} years or more; the source gives {OLDEST} as the age of everyone over 89"
        )
    return cohort


def _tables(source: Source, strict: bool = False) -> dict[str, Path]:
    """The three files by name, from the folder itself or from hosp/ and core/, in any case; those of MIMIC-IV before others."""
    layouts = [_of_folders(source, folders, strict) for folders in _LAYOUTS]
    return next((found for found in layouts if _is_whole(found)), layouts[-1])


def _is_whole(found: dict[str, Path]) -> bool:
    return set(FILES) <= set(found) and {"icd_code", "icd_version"} <= set(Source(found[FILES[2]]).header)


def _of_folders(source: Source, folders: tuple[str, ...], strict: bool) -> dict[str, Path]:
    found: dict[str, Path] = {}
    below = {path.name.lower(): path for path in source.path.iterdir() if path.is_dir()}
    for folder in folders:
        part = source if not folder else source.within(below[folder]) if folder in below else None
        if part is None:
            continue
        for name in FILES:
            if name in part.files:
                found.setdefault(name, part.file(name) if strict else part.files[name])
    return found


def _ages(patients: Delimited, row: np.ndarray, admitted: np.ndarray) -> np.ndarray:
    """Years at each admission, NaN where unknown; above 130 they are a fault of the anchor and unknown too."""
    years = numbers(patients, "anchor_age")[row] + _year(admitted) - numbers(patients, "anchor_year")[row]
    return np.where(years > 130, np.nan, years)


def _earliest_years(patients: Delimited, row: np.ndarray, admitted: np.ndarray) -> dict[str, pa.Array]:
    """The earliest calendar year of each admission, as text; of the group '2011 - 2013' that is 2011."""
    group = patients.get("anchor_year_group")
    first = [float(text[:4]) if text[:4].isdecimal() else np.nan for text in group.dictionary.to_pylist()]
    year = _year(admitted) - numbers(patients, "anchor_year")[row] + np.array(first)[rows_at(group)][row]
    unknown = np.isnan(year)
    return {"year": pa.array(np.where(unknown, 0, year).astype(np.int64), mask=unknown).cast(pa.string())}


def _year(time: np.ndarray) -> np.ndarray:
    years = time.astype("datetime64[Y]").astype(float) + 1970
    return np.where(np.isnat(time), np.nan, years)


def _systems(diagnoses: Delimited) -> tuple[pa.Array, dict[str, np.ndarray]]:
    version = replaced(diagnoses["icd_version"], lambda text: _SYSTEMS.get(text.removesuffix(".0")))
    return version, {
        "no icd_version recorded": is_empty(diagnoses["icd_version"]),
        "icd_version is neither 9 nor 10": np.asarray(version.is_null()),
    }


_SCHEMA = Schema(
    person=("anchor_age", "anchor_year", "anchor_year_group"),
    entry=("icd_code", "icd_version"),
    ages=_ages,
    systems=_systems,
    further=_earliest_years,
)

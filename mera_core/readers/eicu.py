"""eICU Collaborative Research Database: `patient` and `diagnosis`; unit stays are joined to hospital stays.

There are no dates: a patient's hospital stays are ordered by the year of discharge, then by age; where these agree the
order is a guess, and counted. `icd9code` may hold several codes, such as "401.9, I10": one diagnosis in both systems.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa

from mera_core.common.errors import InputError
from mera_core.history.columns import words
from mera_core.icd.ontology import SYSTEMS, Ontology
from mera_core.readers.common.assemble import NO_CODE, Entries, People, Visits, assemble
from mera_core.readers.common.base import Cohort, ImportReport, Source
from mera_core.readers.common.delimited import Delimited, read_delimited
from mera_core.readers.common.keyed import (
    NOWHERE,
    distinct,
    first_rows,
    in_words,
    is_empty,
    leave_out_by,
    numbers,
    remark_backwards,
    replaced,
    rows_at,
    rows_of,
    taken,
    taken_rows,
)

FORMAT = "eicu"
FILES = ("patient.csv", "diagnosis.csv")
OLDEST = 90.0  # years; the source writes '> 89'
_PATIENT = ("patientunitstayid", "patienthealthsystemstayid", "uniquepid")
_TOLD = (
    "gender", "age", "ethnicity", "hospitaldischargeyear", "unitvisitnumber", "hospitaladmitoffset",
    "hospitaldischargeoffset", "hospitaladmitsource", "hospitaldischargelocation", "hospitaldischargestatus",
)  # fmt: skip
_DIAGNOSIS = ("patientunitstayid", "icd9code")
_RANKED = ("diagnosispriority", "diagnosisoffset", "diagnosisid")
_PRIORITY = {"primary": 0, "major": 1, "other": 2}
_MINUTES_A_DAY = 1440
_EXTERNAL_CAUSE = re.compile(r"E\d{3}(\.\d)?", re.IGNORECASE)


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    if not source.path.is_dir() or not set(FILES) <= set(source.files):
        return None
    if set(_PATIENT) <= set(Source(source.files[FILES[0]]).header):
        return "the folder has patient and diagnosis with the columns patientunitstayid and uniquepid"
    return None


def expects(source: Source) -> str | None:
    """Why a folder that can't be recognised is meant for this format: its files are called so."""
    if source.path.is_dir() and set(FILES) <= set(source.files):
        return "its files are called as eICU's are"
    return None


def read(source: Source, report: ImportReport, ontology: Ontology | None = None, systems: str = "both") -> Cohort:
    """Read the two files: one visit a hospital stay, codes by priority and then in the order in which they were entered.

    systems: of a cell with codes of both systems, keep 'both', or only those of 'ICD9' or 'ICD10'.
    Every code of every diagnosis is counted: kept, or left out with its reason. Raises InputError naming file, line and
    column for a missing column, an id that is empty or contradicts itself, or a number that is none.
    """
    if systems not in ("both", *SYSTEMS):
        raise InputError(f"systems must be both, ICD9 or ICD10, not {systems!r}.")
    if not source.path.is_dir():
        raise InputError(f"{source.path} is one file; eicu needs the folder with patient and diagnosis.")
    units = read_delimited(source.within(source.file(FILES[0])), _PATIENT, _TOLD, report)
    units = distinct(units, "patientunitstayid", report, "unit stays")
    for name in _PATIENT[1:]:
        if is_empty(units[name]).any():
            raise units.fault(int(np.argmax(is_empty(units[name]))), name, f"there is no {name}")
    diagnoses = read_delimited(source.within(source.file(FILES[1])), _DIAGNOSIS, _RANKED, report)
    hospital = rows_at(units["patienthealthsystemstayid"])
    stays, first = _first_unit(units, hospital)
    _refuse_shared(units, hospital)
    row, text, system = _codes(diagnoses, systems, report)
    unit = rows_of(diagnoses["patientunitstayid"], units["patientunitstayid"])[row]
    kept = leave_out_by(report, {"unit stay not in patient": unit < 0})
    row, unit, text, system = row[kept], unit[kept], text.filter(pa.array(kept)), system.filter(pa.array(kept))
    visit = np.searchsorted(stays, hospital[unit]) if len(unit) else unit
    return assemble(
        report,
        _people(units, first),
        _visits(units, first, report),
        Entries(visit, text, system, _ranks(diagnoses, units, row, unit, visit)),
        ontology,
    )


def _first_unit(units: Delimited, hospital: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct hospital stays, row of the first unit stay of each)."""
    number = numbers(units, "unitvisitnumber")
    order = np.lexsort((np.arange(len(units)), np.nan_to_num(number, nan=np.inf), hospital))
    stays, start = np.unique(hospital[order], return_index=True)
    return stays, order[start]


def _refuse_shared(units: Delimited, hospital: np.ndarray) -> None:
    """Raise InputError where unit stays of one hospital stay are of two patients: whose its codes are can't be told."""
    person = rows_at(units["uniquepid"])
    owner = np.full(len(units), NOWHERE, np.int64)
    order = np.arange(len(units))[::-1]
    owner[hospital[order]] = person[order]  # the first row of a stay, written last, says whose it is
    other = owner[hospital] != person
    if other.any():
        row = int(np.argmax(other))
        raise units.fault(row, "patienthealthsystemstayid", "this hospital stay is of another uniquepid above")


def _people(units: Delimited, first: np.ndarray) -> People:
    ids = units["uniquepid"]
    one = first_rows(rows_at(ids), len(ids.dictionary))
    sexes = replaced(units.get("gender"), lambda text: {"MALE": "M", "FEMALE": "F"}.get(text.upper(), "U"))
    return People(
        ids.dictionary,
        taken(sexes, one).fill_null("U"),
        {"ethnicity": taken(in_words(units.get("ethnicity"), "ethnicity"), one)},
    )


def _visits(units: Delimited, first: np.ndarray, report: ImportReport) -> Visits:
    person = rows_at(units["uniquepid"])[first]
    year, age = numbers(units, "hospitaldischargeyear")[first], _ages(units)[first]
    span = numbers(units, "hospitaldischargeoffset")[first] - numbers(units, "hospitaladmitoffset")[first]
    remark_backwards(report, "hospital stays", span < 0, taken_rows(units, first), "hospitaldischargeoffset")
    older = int((age == OLDEST).sum())
    if older:
        report.remarks.append(
            f"{older:,} visits are of patients over 89, whose ages the source hides: given as {OLDEST:.0f}"
        )
    order = np.lexsort((first, np.nan_to_num(age), np.nan_to_num(year), person))
    same = (person[order][1:] == person[order][:-1]) & ~_differs(year[order]) & ~_differs(age[order])
    report.guessed_order += int((np.r_[same, False] | np.r_[False, same]).sum()) if len(order) > 1 else 0
    left = in_words(units.get("hospitaldischargelocation"), "discharge")
    died = replaced(units.get("hospitaldischargestatus"), lambda text: "died" if text.lower() == "expired" else None)
    days = [
        None if minutes != minutes or minutes < 0 else str(int(minutes // _MINUTES_A_DAY)) for minutes in span.tolist()
    ]
    return Visits(
        person,
        order=np.argsort(order),
        age=age,
        words={
            "source": taken(in_words(units.get("hospitaladmitsource"), "source"), first),
            "discharge": words(
                [
                    end or place
                    for end, place in zip(taken(died, first).to_pylist(), taken(left, first).to_pylist(), strict=True)
                ]
            ),
            "stay": words(days),
        },
        by_order=True,
    )


def _differs(values: np.ndarray) -> np.ndarray:
    """Whether each value differs from the one before it; an unknown one settles nothing."""
    return (values[1:] != values[:-1]) & ~np.isnan(values[1:]) & ~np.isnan(values[:-1])


def _ages(units: Delimited) -> np.ndarray:
    hidden = replaced(units.get("age"), lambda text: str(OLDEST) if text.replace(" ", "") == ">89" else text)
    ages = numbers(replace(units, columns={"age": hidden}), "age")
    return np.where((ages < 0) | (ages > 130), np.nan, ages)


def _codes(
    diagnoses: Delimited, systems: str, report: ImportReport
) -> tuple[np.ndarray, pa.DictionaryArray, pa.DictionaryArray]:
    """(row of the diagnosis, code text, system) of each code that a cell names."""
    cells = diagnoses["icd9code"]
    parts = [_parts(text) for text in cells.dictionary.to_pylist()]
    at = rows_at(cells)
    counts = np.array([len(part) for part in parts] or [0], np.int64)[at] if len(at) else at
    report.rows += int(np.maximum(counts, 1).sum())
    report.leave_out(NO_CODE, int((counts == 0).sum()))
    row = np.repeat(np.arange(len(at)), counts)
    flat = [part for each in parts for part in each]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    which = starts[at[row]] + within if len(row) else row
    text, system = words([code for code, _ in flat]), words([system for _, system in flat])
    text, system = text.take(pa.array(which)), system.take(pa.array(which))
    if systems != "both":
        asked = np.array([name == systems for name in system.to_pylist()], bool)
        report.leave_out(f"code of another system than {systems}, which was asked for", int((~asked).sum()))
        row, text, system = row[asked], text.filter(pa.array(asked)), system.filter(pa.array(asked))
    return row, text, system


def _parts(cell: str) -> list[tuple[str, str]]:
    """The codes of one cell with their systems; ICD-9 comes first, and a V or E code there is ICD-9's.

    >>> _parts("401.9, I10"), _parts("V45.1, Z99.2"), _parts("")
    ([('401.9', 'ICD9'), ('I10', 'ICD10')], [('V45.1', 'ICD9'), ('Z99.2', 'ICD10')], [])
    """
    codes = [part.strip() for part in re.split(r"[,;|]", cell) if part.strip()]
    found = []
    for number, code in enumerate(codes):
        older = code[0].isdigit() or (number == 0 and code[0] in "Vv") or _EXTERNAL_CAUSE.fullmatch(code)
        found.append((code, "ICD9" if older else "ICD10"))
    return found


def _ranks(diagnoses: Delimited, units: Delimited, row: np.ndarray, unit: np.ndarray, visit: np.ndarray) -> np.ndarray:
    """1, 2, 3 ... within each visit, by priority, then unit stay, minute and id of the diagnosis."""
    priority = diagnoses.get("diagnosispriority")
    level = np.array([_PRIORITY.get(text.lower(), 3) for text in priority.dictionary.to_pylist()] or [3], np.int64)
    keys = (
        np.nan_to_num(numbers(diagnoses, "diagnosisid"))[row],
        np.nan_to_num(numbers(diagnoses, "diagnosisoffset"))[row],
        np.nan_to_num(numbers(units, "unitvisitnumber"))[unit],
        level[rows_at(priority)][row],
        visit,
    )
    order = np.lexsort((np.arange(len(row)), *keys))
    return np.argsort(order) - np.searchsorted(visit[order], visit) + 1

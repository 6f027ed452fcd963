"""What MIMIC-III and MIMIC-IV share: PATIENTS, ADMISSIONS and DIAGNOSES_ICD -> a cohort.

The two differ in the names of some columns, in how age is told and in the code systems; `Schema` says how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mera_core.history.columns import words
from mera_core.icd.ontology import Ontology
from mera_core.readers.common.assemble import NO_CODE, Column, Entries, People, Visits, assemble
from mera_core.readers.common.base import Cohort, ImportReport, Source
from mera_core.readers.common.delimited import Delimited, read_delimited
from mera_core.readers.common.keyed import (
    DAY,
    NOWHERE,
    distinct,
    first_rows,
    ids_in_order,
    in_words,
    is_empty,
    latest,
    leave_out_by,
    ranks,
    remark_backwards,
    replaced,
    rows_at,
    rows_of,
    same_text,
    taken,
    times,
)

FILES = ("patients.csv", "admissions.csv", "diagnoses_icd.csv")
_ADMISSIONS = ("subject_id", "hadm_id", "admittime")
_TOLD = ("dischtime", "admission_type", "admission_location", "discharge_location", "insurance", "ethnicity", "race")
_SEXES = {"F": "F", "M": "M", "FEMALE": "F", "MALE": "M"}
_EARLY = -0.01  # years; a newborn may be admitted some hours "before" its birth, which has a date but no hour


@dataclass(frozen=True)
class Schema:
    """How one release of MIMIC writes the three tables.

    person: columns of PATIENTS beside subject_id. entry: columns of DIAGNOSES_ICD beside subject_id, hadm_id, seq_num, of
    which the first is the code. ages: (patients, row of the patient for each admission, admittime) -> years.
    systems: diagnoses -> the system of each entry, or one for all, and masks of entries to leave out by reason.
    further: (patients, row of the patient, admittime) -> further words of each visit.
    """

    person: tuple[str, ...]
    entry: tuple[str, ...]
    ages: Callable[[Delimited, np.ndarray, np.ndarray], np.ndarray]
    systems: Callable[[Delimited], tuple[pa.Array | str, dict[str, np.ndarray]]]
    further: Callable[[Delimited, np.ndarray, np.ndarray], dict[str, Column]] = lambda *_: {}


@dataclass(frozen=True)
class _Admissions:
    """ADMISSIONS: row of the patient, time, age in years of each; faults: reason -> which of them can't be visits."""

    table: Delimited
    owner: np.ndarray
    began: np.ndarray
    age: np.ndarray
    faults: dict[str, np.ndarray]

    @property
    def sound(self) -> np.ndarray:
        """Which of them become visits."""
        return ~np.logical_or.reduce(list(self.faults.values()))


def read_tables(
    files: Mapping[str, Source], schema: Schema, report: ImportReport, ontology: Ontology | None = None
) -> Cohort:
    """The cohort of three files: patients in the order in which ADMISSIONS first names them, codes by seq_num.

    Every row of DIAGNOSES_ICD is counted: kept, or left out with its reason. Raises InputError naming file, line and
    column for a missing column, an unreadable date or number, or an id that is empty or contradicts itself.
    """
    columns = ("subject_id", "gender", *schema.person[:1])
    patients = read_delimited(files[FILES[0]], columns, (*schema.person, "dod"), report)
    patients = distinct(patients, "subject_id", report, "PATIENTS")
    admissions = _admissions(files[FILES[1]], patients, schema, report)
    entries = _entries(files[FILES[2]], admissions, schema, report)
    order = np.argsort(first_rows(admissions.owner[admissions.sound], len(patients)), kind="stable")
    people = _people(patients, admissions, order)
    return assemble(report, people, _visits(patients, admissions, order, schema, report), entries, ontology)


def _admissions(source: Source, patients: Delimited, schema: Schema, report: ImportReport) -> _Admissions:
    table = distinct(read_delimited(source, _ADMISSIONS, _TOLD, report), "hadm_id", report, "ADMISSIONS")
    began, owner = times(table, "admittime"), rows_of(table["subject_id"], patients["subject_id"])
    age = np.full(len(table), np.nan)
    if len(patients):
        age = np.where(owner >= 0, schema.ages(patients, np.maximum(owner, 0), began), np.nan)
    faults = {"patient not in PATIENTS": owner < 0, "no date": np.isnat(began), "visit before birth": age < _EARLY}
    for reason, mask in faults.items():
        report.set_aside(f"admissions: {reason}", int(mask.sum()))
    return _Admissions(table, owner, began, age, faults)


def _entries(source: Source, admissions: _Admissions, schema: Schema, report: ImportReport) -> Entries:
    table = read_delimited(source, ("subject_id", "hadm_id", "seq_num", *schema.entry), (), report)
    report.rows += len(table)
    stay = rows_of(table["hadm_id"], admissions.table["hadm_id"])  # NOWHERE is -1, the last of what is appended to
    subject = same_text(table["subject_id"], admissions.table["subject_id"])
    owner = np.append(rows_at(admissions.table["subject_id"]), NOWHERE)
    systems, unread = schema.systems(table)
    reasons = {
        NO_CODE: is_empty(table[schema.entry[0]]),
        **unread,
        "no admission recorded": is_empty(table["hadm_id"]),
        "admission not in ADMISSIONS": stay < 0,
        "admission belongs to another patient in ADMISSIONS": owner[stay] != subject,
        **{reason: np.append(mask, False)[stay] for reason, mask in admissions.faults.items()},
    }
    kept = leave_out_by(report, reasons)
    mask = pa.array(kept)
    place = np.append(np.cumsum(admissions.sound) - 1, NOWHERE)
    return Entries(
        visit=place[stay[kept]],
        text=table[schema.entry[0]].filter(mask),
        system=systems if isinstance(systems, str) else systems.filter(mask),
        position=ranks(table, "seq_num").filter(mask),
    )


def _people(patients: Delimited, admissions: _Admissions, order: np.ndarray) -> People:
    told = admissions.table.get("ethnicity" if "ethnicity" in admissions.table else "race")
    owner = np.where(admissions.sound, admissions.owner, NOWHERE)
    ethnicity = latest(owner, admissions.began, in_words(told, "ethnicity"), len(patients))
    return People(
        id=taken(patients["subject_id"], order).to_pylist(),
        sex=taken(replaced(patients["gender"], lambda text: _SEXES.get(text.upper())), order).fill_null("U"),
        words={"ethnicity": taken(ethnicity, order)},
        death=times(patients, "dod")[order],
    )


def _visits(
    patients: Delimited, admissions: _Admissions, order: np.ndarray, schema: Schema, report: ImportReport
) -> Visits:
    sound, began, table = admissions.sound, admissions.began, admissions.table
    details = _details(table, began, report)
    if len(patients):
        details |= schema.further(patients, np.maximum(admissions.owner, 0), began)
    rows = np.flatnonzero(sound)
    return Visits(
        person=np.argsort(order)[admissions.owner[sound]],
        time=began[sound],
        order=ids_in_order(taken(table["hadm_id"], rows)),
        age=np.round(np.maximum(admissions.age[sound], 0), 2),
        words={name: taken(column, rows) for name, column in details.items()},
        end=times(table, "dischtime")[sound],
    )


def _details(table: Delimited, began: np.ndarray, report: ImportReport) -> dict[str, Column]:
    kind, came = in_words(table.get("admission_type"), "admission"), in_words(table.get("admission_location"), "source")
    if "newborn" in kind.dictionary.to_pylist():
        # One word of the source stands for two things, of which a newborn's is the second.
        told = zip(kind.to_pylist(), came.to_pylist(), strict=True)
        came = words(["birth" if how == "newborn" else place for how, place in told])
    ended = times(table, "dischtime")
    backwards = ended < began
    remark_backwards(report, "stays", backwards, table, "dischtime")
    known = ~np.isnat(ended) & ~backwards & ~np.isnat(began)
    days = np.where(known, ended - began, np.timedelta64(0, "us")) // DAY
    return {
        "admission": kind,
        "source": came,
        "discharge": in_words(table.get("discharge_location"), "discharge"),
        "stay": pa.array(days, mask=~known).cast(pa.string()),
        "payer": in_words(table.get("insurance"), "payer"),
    }

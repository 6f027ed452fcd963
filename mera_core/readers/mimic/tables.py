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
from mera_core.readers.common.assemble import NO_CODE, Entries, People, Visits, assemble
from mera_core.readers.common.base import Cohort, ImportReport, Source
from mera_core.readers.common.delimited import Delimited, read_delimited
from mera_core.readers.common.keyed import (
    NOWHERE,
    distinct,
    in_words,
    is_empty,
    latest,
    leave_out_by,
    ranks,
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
DAY = np.timedelta64(1, "D")
_SEXES = {"F": "F", "M": "M", "FEMALE": "F", "MALE": "M"}
EARLY = -0.01  # years; a newborn may be admitted some hours "before" its birth, which has a date but no hour


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
    further: Callable[[Delimited, np.ndarray, np.ndarray], dict[str, pa.Array]] = lambda *_: {}


def read_tables(
    files: Mapping[str, Source], schema: Schema, report: ImportReport, ontology: Ontology | None = None
) -> Cohort:
    """The cohort of three files: patients in the order in which ADMISSIONS first names them, codes by seq_num.

    Every row of DIAGNOSES_ICD is counted: kept, or left out with its reason. Raises InputError naming file, line and
    column for a missing column, an unreadable date or number, or an id that is empty or contradicts itself.
    """
    patients = read_delimited(
        files[FILES[0]], ("subject_id", "gender", *schema.person[:1]), (*schema.person, "dod"), report
    )
    patients = distinct(patients, "subject_id", report, "PATIENTS")
    admissions = read_delimited(files[FILES[1]], _ADMISSIONS, _TOLD, report)
    admissions = distinct(admissions, "hadm_id", report, "ADMISSIONS")
    began, owner = times(admissions, "admittime"), rows_of(admissions["subject_id"], patients["subject_id"])
    ages = np.where(owner >= 0, schema.ages(patients, np.maximum(owner, 0), began), np.nan)
    faults = {
        "patient not in PATIENTS": owner < 0,
        "no date": np.isnat(began),
        "visit before birth": ages < EARLY,
    }
    sound = ~np.logical_or.reduce(list(faults.values()))
    for reason, mask in faults.items():
        report.set_aside(f"admissions: {reason}", int(mask.sum()))
    place = np.where(sound, np.cumsum(sound) - 1, NOWHERE)

    diagnoses = read_delimited(files[FILES[2]], ("subject_id", "hadm_id", "seq_num", *schema.entry), (), report)
    report.rows += len(diagnoses)
    stay = rows_of(diagnoses["hadm_id"], admissions["hadm_id"])
    subject = same_text(diagnoses["subject_id"], admissions["subject_id"])
    systems, unread = schema.systems(diagnoses)
    kept = leave_out_by(
        report,
        {
            NO_CODE: is_empty(diagnoses[schema.entry[0]]),
            **unread,
            "no admission recorded": is_empty(diagnoses["hadm_id"]),
            "admission not in ADMISSIONS": stay < 0,
            "admission belongs to another patient in ADMISSIONS": rows_at(admissions["subject_id"])[stay] != subject,
            **{reason: mask[stay] for reason, mask in faults.items()},
        }
        if len(admissions)
        else {"admission not in ADMISSIONS": np.ones(len(diagnoses), bool)},
    )
    entries = Entries(
        visit=place[stay[kept]] if len(admissions) else stay[kept],
        text=diagnoses[schema.entry[0]].filter(pa.array(kept)),
        system=systems if isinstance(systems, str) else systems.filter(pa.array(kept)),
        position=ranks(diagnoses, "seq_num").filter(pa.array(kept)),
    )
    order = _by_first_admission(owner[sound], len(patients))
    moved = np.empty(len(order), np.int64)
    moved[order] = np.arange(len(order))
    said = (
        in_words(admissions["ethnicity" if "ethnicity" in admissions else "race"], "ethnicity")
        if ("ethnicity" in admissions or "race" in admissions)
        else words([None] * len(admissions))
    )
    sexes = replaced(patients["gender"], lambda text: _SEXES.get(text.upper()))
    rows = np.flatnonzero(sound)
    return assemble(
        report,
        People(
            id=taken(patients["subject_id"], order).to_pylist(),
            sex=taken(sexes, order).fill_null("U"),
            words={"ethnicity": taken(latest(np.where(sound, owner, NOWHERE), began, said, len(patients)), order)},
            death=times(patients, "dod")[order],
        ),
        Visits(
            person=moved[owner[sound]],
            time=began[sound],
            order=_numeric(taken(admissions["hadm_id"], rows)),
            age=np.round(np.maximum(ages[sound], 0), 2),
            words={
                name: taken(column, rows)
                for name, column in (
                    *_words(admissions, began, report).items(),
                    *schema.further(patients, np.maximum(owner, 0), began).items(),
                )
            },
            end=times(admissions, "dischtime")[sound],
        ),
        entries,
        ontology,
    )


def _words(admissions: Delimited, began: np.ndarray, report: ImportReport) -> dict[str, pa.DictionaryArray]:
    kind = in_words(admissions.get("admission_type"), "admission")
    came = in_words(admissions.get("admission_location"), "source")
    if "newborn" in kind.dictionary.to_pylist():
        # One word of the source stands for two things, of which a newborn's is the second.
        came = words(
            [
                "birth" if how == "newborn" else place
                for how, place in zip(kind.to_pylist(), came.to_pylist(), strict=True)
            ]
        )
    ended = times(admissions, "dischtime")
    backwards = ended < began
    if backwards.any():
        line = admissions.line(int(np.argmax(backwards)))
        report.remarks.append(
            f"{int(backwards.sum()):,} stays end before they begin (first: {admissions.path.name}, line {line}, column "
            "'dischtime'); the visits are kept, the length of stay is not"
        )
    known = ~np.isnat(ended) & ~backwards & ~np.isnat(began)
    days = np.zeros(len(began), np.int64)
    days[known] = (ended[known] - began[known]) // DAY
    lengths, length = np.unique(days, return_inverse=True)
    texts = pa.array([str(each) for each in lengths.tolist()], pa.string())
    return {
        "admission": kind,
        "source": came,
        "discharge": in_words(admissions.get("discharge_location"), "discharge"),
        "stay": pa.DictionaryArray.from_arrays(pa.array(length.astype(np.int32), mask=~known), texts),
        "payer": in_words(admissions.get("insurance"), "payer"),
    }


def _by_first_admission(owner: np.ndarray, people: int) -> np.ndarray:
    """Rows of the people, those first admitted to the file first; people without an admission last."""
    first = np.full(people, len(owner), np.int64)
    np.minimum.at(first, owner, np.arange(len(owner)))
    return np.argsort(first, kind="stable")


def _numeric(column: pa.DictionaryArray) -> np.ndarray:
    """Ids as numbers where all are, so that 9 comes before 10; else as texts."""
    texts = column.to_pylist()
    if all(text.isascii() and text.isdecimal() and len(text) < 19 for text in texts):
        return np.array([int(text) for text in texts], np.int64)
    return np.array(texts, dtype=str)

"""MIMIC-III: a folder with PATIENTS, ADMISSIONS and DIAGNOSES_ICD, ICD-9-CM only.

Dates are shifted into 2100-2200, each patient's by an amount of their own: they order a patient's visits, and
say nothing of the calendar. Codes are undotted text with leading zeros.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from mera_core.errors import InputError
from mera_core.ontology import Ontology
from mera_core.readers.base import CodeReader, Cohort, ImportReport, Reader, Source, read_delimited
from mera_core.records import Patient, Visit

FORMAT = "mimic3"
FILES = ("patients.csv", "admissions.csv", "diagnoses_icd.csv")
SHIFTED_AGE = 91.4  # years; MIMIC moves births of patients over 89 back by 300 years, this was their median age
_DAYS_A_YEAR = 365.2425
_SEX = {"F": "F", "M": "M"}
# The words that other readers use for the same places; anything else is taken over in lower case.
_DISCHARGE = {
    "SHORT TERM HOSPITAL": "transfer to hospital",
    "DISC-TRAN CANCER/CHLDRN H": "transfer to hospital",
    "DISC-TRAN TO FEDERAL HC": "transfer to federal health care facility",
    "DISCH-TRAN TO PSYCH HOSP": "psychiatric hospital",
    "SNF": "skilled nursing facility",
    "SNF-MEDICAID ONLY CERTIF": "nursing facility",
    "ICF": "intermediate care facility",
    "REHAB/DISTINCT PART HOSP": "rehabilitation",
    "LONG TERM CARE HOSPITAL": "long-term care hospital",
    "HOME WITH HOME IV PROVIDR": "home health care",
    "HOSPICE-HOME": "hospice",
    "HOSPICE-MEDICAL FACILITY": "hospice",
    "LEFT AGAINST MEDICAL ADVI": "left against advice",
    "DEAD/EXPIRED": "died",
    "OTHER FACILITY": "transfer to other facility",
}
_SOURCE = {
    "EMERGENCY ROOM ADMIT": "emergency room",
    "TRANSFER FROM HOSP/EXTRAM": "transfer from hospital",
    "TRANSFER FROM SKILLED NUR": "transfer from skilled nursing facility",
    "TRANSFER FROM OTHER HEALT": "transfer from other facility",
    "PHYS REFERRAL/NORMAL DELI": "physician referral",
    "CLINIC REFERRAL/PREMATURE": "clinic referral",
    "HMO REFERRAL/SICK": "insurer referral",
    "TRSF WITHIN THIS FACILITY": "transfer within hospital",
}
_UNKNOWN = (
    "",
    "** INFO NOT AVAILABLE **",
    "UNKNOWN/NOT SPECIFIED",
    "UNABLE TO OBTAIN",
    "PATIENT DECLINED TO ANSWER",
)


@dataclass
class _Admission:
    subject: str
    time: datetime
    words: dict[str, str]
    ethnicity: str
    diagnoses: list[tuple[int, str]] = field(default_factory=list)  # seq_num (or a place after all), code text


def detect(source: Source) -> str | None:
    """The reason to take the source for this format, or None."""
    if not source.path.is_dir() or not set(FILES) <= set(source.files):
        return None
    if "icd9_code" not in Source(source.file(FILES[2])).header:  # MIMIC-IV has icd_code and icd_version
        return None
    return "the folder has PATIENTS, ADMISSIONS and DIAGNOSES_ICD with the column icd9_code"


def read(source: Source, ontology: Ontology | None = None) -> Cohort:
    """Read the three files: visits ordered by admittime, codes by seq_num.

    Age is that at admission, in years; births that MIMIC shifted by 300 years give 91.4, and the report says
    how often. Every row of DIAGNOSES_ICD is counted: kept, or left out with its reason.
    Raises InputError naming the file for a missing file or column, an unreadable date, or a repeated id.
    """
    if not source.path.is_dir():
        raise InputError(
            f"{source.path} is one file; mimic3 needs the folder with PATIENTS, ADMISSIONS and DIAGNOSES_ICD."
        )
    report = ImportReport(FORMAT)
    people = _people(source.file(FILES[0]))
    admissions = _admissions(source.file(FILES[1]))
    _attach_diagnoses(source.file(FILES[2]), admissions, people, report)
    by_subject: dict[str, list[str]] = defaultdict(list)
    for stay, admission in admissions.items():
        if admission.subject in people:
            by_subject[admission.subject].append(stay)
        else:
            report.aside["admissions of a patient who is not in PATIENTS"] += 1
    code_of = CodeReader(report, ontology)
    patients = []
    for subject, (sex, born) in people.items():
        stays = sorted(by_subject[subject], key=lambda stay: (admissions[stay].time, len(stay), stay))
        if not stays:
            report.aside["patients without an admission"] += 1
            continue
        visits = tuple(_visit(admissions[stay], born, code_of, report) for stay in stays)
        ethnicity = next((admissions[stay].ethnicity for stay in reversed(stays) if admissions[stay].ethnicity), "")
        patients.append(Patient(visits, sex=sex, age=visits[-1].age, id=subject, details={"ethnicity": ethnicity}))
    shifted = sum(visit.age == SHIFTED_AGE for patient in patients for visit in patient.visits)
    if shifted:
        report.remarks.append(
            f"{shifted:,} visits are of patients over 89, whose births the source hides: age given as {SHIFTED_AGE}"
        )
    report.count(patients)
    return Cohort(patients, report)


def _people(path: Path) -> dict[str, tuple[str, datetime | None]]:
    """Subject -> sex and birth."""
    columns = read_delimited(path, ("subject_id", "gender", "dob"))
    people: dict[str, tuple[str, datetime | None]] = {}
    for row, subject in enumerate(columns["subject_id"]):
        if not subject or subject in people:
            raise InputError(f"{path}: line {row + 2} has an empty or repeated subject_id.")
        people[subject] = (
            _SEX.get(columns["gender"][row].upper(), "U"),
            _time(columns["dob"][row], path, row),
        )
    return people


def _admissions(path: Path) -> dict[str, _Admission]:
    """Admission id -> admission, without diagnoses yet."""
    columns = read_delimited(path, ("subject_id", "hadm_id", "admittime"))
    blank = [""] * len(columns["hadm_id"])

    def cell(name: str, row: int) -> str:
        value = columns.get(name, blank)[row].strip()
        return "" if value.upper() in _UNKNOWN else value

    admissions: dict[str, _Admission] = {}
    for row, stay in enumerate(columns["hadm_id"]):
        began = _time(columns["admittime"][row], path, row)
        if not stay or stay in admissions or began is None:
            raise InputError(f"{path}: line {row + 2} has an empty or repeated hadm_id, or no admittime.")
        ended = _time(cell("dischtime", row), path, row)
        left, came = cell("discharge_location", row), cell("admission_location", row)
        kind = cell("admission_type", row).lower()
        words = {
            "admission": kind,
            # One word of the source stands for two things, of which a newborn's is the second.
            "source": "birth" if kind == "newborn" else _SOURCE.get(came.upper(), came.lower()),
            "discharge": _DISCHARGE.get(left.upper(), left.lower()),
            "stay": str((ended - began).days) if ended and ended >= began else "",
            "payer": cell("insurance", row).lower(),
        }
        admissions[stay] = _Admission(columns["subject_id"][row], began, words, cell("ethnicity", row).lower())
    return admissions


def _attach_diagnoses(
    path: Path,
    admissions: dict[str, _Admission],
    people: dict[str, tuple[str, datetime | None]],
    report: ImportReport,
) -> None:
    columns = read_delimited(path, ("subject_id", "hadm_id", "seq_num", "icd9_code"))
    report.rows = len(columns["hadm_id"])
    rows = zip(columns["subject_id"], columns["hadm_id"], columns["seq_num"], columns["icd9_code"], strict=True)
    for row, (subject, stay, rank, text) in enumerate(rows):
        admission = admissions.get(stay)
        if not text.strip():
            report.left_out["no code recorded"] += 1
        elif admission is None:
            report.left_out["admission not in ADMISSIONS"] += 1
        elif admission.subject != subject:
            report.left_out["admission belongs to another patient in ADMISSIONS"] += 1
        elif subject not in people:
            report.left_out["patient not in PATIENTS"] += 1
        else:
            rank = rank.strip().removesuffix(".0")  # exported by tools that hold whole numbers as 1.0
            if rank and not rank.isdecimal():
                raise InputError(f"{path}: line {row + 2} has seq_num {rank!r}, which is no whole number.")
            admission.diagnoses.append((int(rank) if rank else 1_000_000, text.strip()))


def _visit(admission: _Admission, born: datetime | None, code_of: CodeReader, report: ImportReport) -> Visit:
    kept = {}
    for rank, text in sorted(admission.diagnoses, key=lambda diagnosis: diagnosis[0]):
        code = code_of(text, "ICD9")
        if code is None:
            continue
        if code in kept:
            report.left_out["named twice in one visit"] += 1
        else:
            kept[code] = rank
    if not kept:
        report.aside["visits kept without any code"] += 1
    return Visit(tuple(kept), admission.time, _age(born, admission.time), admission.words, tuple(kept.values()))


def _age(born: datetime | None, admitted: datetime) -> float | None:
    if born is None:
        return None
    years = (admitted - born).total_seconds() / 86400 / _DAYS_A_YEAR
    if years > 200:
        return SHIFTED_AGE
    # A newborn may be admitted some hours "before" its birth, which has a date but no hour.
    return None if years < -0.01 or years > 130 else round(max(years, 0.0), 2)


def _time(text: str, path: Path, row: int) -> datetime | None:
    if not text.strip():
        return None
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InputError(f"{path}: line {row + 2} has {text!r} where a date and time should be.") from error


READER = Reader(FORMAT, detect, read)

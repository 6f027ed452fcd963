"""Notes on diagnoses that do not go with a patient's sex or age. Nothing is removed: records hold rightful exceptions."""

from __future__ import annotations

from mera_core.history.patient import Note, Patient
from mera_core.icd.ontology import Ontology
from mera_core.icd.sex_age_limits import limits_of

SEX_WORDS = {"F": "female", "M": "male"}
_YEAR = 365.25  # days


def implausible(patient: Patient, ontology: Ontology) -> tuple[Note, ...]:
    """A note 'implausible' for each code of a resolved history that the patient's sex or age at that visit speaks against."""
    notes = []
    for index, (visit, age) in enumerate(zip(patient.visits, ages(patient), strict=True)):
        for code in visit.codes:
            told = None
            for limit in limits_of(code, ontology):
                if limit.sex and patient.sex in SEX_WORDS and patient.sex != limit.sex:
                    told = f"the patient is recorded as {SEX_WORDS[patient.sex]}"
                elif age is not None and limit.excludes("U", age):
                    told = f"the patient's age at it is {int(age)}"
                if told:
                    title = ontology.definition(code)
                    message = f"{code} (visit {index + 1}), {title}, is a diagnosis of {limit.words}, but {told}."
                    notes.append(Note("implausible", message, index, str(code)))
                    break
    return tuple(notes)


def ages(patient: Patient) -> list[float | None]:
    """Years at each visit: its own age, else reckoned from the age at the last visit and the visits' dates, else None."""
    last = patient.visits[-1] if patient.visits else None
    found: list[float | None] = []
    for visit in patient.visits:
        age = visit.age
        if age is None and patient.age is not None:
            if visit is last:
                age = patient.age
            elif visit.time and last.time:
                age = max(0.0, patient.age - (last.time - visit.time).days / _YEAR)
        found.append(age)
    return found

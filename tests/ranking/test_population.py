"""How usual a history is: fitted on invented training patients, old people with heart failure and diabetes."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from mera_core.common.errors import InputError
from mera_core.history.records import Note, Patient, Visit
from mera_core.ranking.population import FLAGGED, LEAST_PATIENTS, TAIL, Population, trained_on
from tests.tiny import CODES, icd9

COMMON = icd9("428.0", "250.00", "401.9", "427.31", "584.9", "585.9", "272.4", "486")
(RARE,) = icd9("V45.81")
WHO = "old people with heart failure"


def invented(count: int, seed: int = 0) -> list[Patient]:
    draw = random.Random(seed)
    patients = []
    for number in range(count):
        codes = draw.choices(COMMON, weights=range(len(COMMON), 0, -1), k=draw.randint(1, 4))
        if draw.random() < 0.01:
            codes = [RARE]
        age = draw.choice((65, 75, 85)) if draw.random() > 0.01 else 35
        patients.append(
            Patient([Visit(tuple(dict.fromkeys(codes)), age=age)], sex=draw.choice("FM"), age=age, id=str(number))
        )
    return patients


@pytest.fixture(scope="module")
def population() -> Population:
    fitted = Population.fit([(patient, ()) for patient in invented(2000)])
    assert fitted is not None
    return fitted


def history(*codes, age: float | None = 75, sex: str = "F") -> Patient:
    return Patient([Visit(codes, age=age)], sex=sex, age=age)


def test_a_young_patient_with_a_rare_code_is_told_and_a_usual_one_is_not(population) -> None:
    assert population.note(history(COMMON[0], COMMON[1]), (), WHO) is None
    note = population.note(history(RARE, age=30), (), WHO)
    assert (note.kind, note.visit, note.code) == ("unlike_training", None, "")
    assert note.message == (
        "This history is unlike those the model learned from (old people with heart failure): only 1 in 1,000 of them is as "
        "unusual. Read the list with care."
    )


def test_as_many_unseen_patients_are_flagged_as_is_asked(population) -> None:
    flagged = np.mean([population.note(patient, (), WHO) is not None for patient in invented(4000, seed=1)])
    assert FLAGGED / 2 < flagged < 0.05


def test_each_training_history_is_judged_without_its_own_codes() -> None:
    # a code that one patient alone has is as rare for that patient as one that nobody has
    alone = history(*CODES[:1])
    others = [history(COMMON[n % 3], COMMON[(n + 1) % 3]) for n in range(LEAST_PATIENTS)]
    strange = next(code for code in CODES if code not in COMMON)
    fitted = Population.fit([(patient, ()) for patient in [*others, history(strange)]])
    without = Population.fit([(patient, ()) for patient in others])
    assert fitted.tail[0] == pytest.approx(fitted.score(history(icd9("038.9")[0])), abs=0.05)
    assert fitted.score(history(strange)) > fitted.tail[0]  # known afterwards, if only just
    assert without.score(alone) > without.score(history(strange))


def test_codes_that_could_not_be_read_count_as_codes_that_nobody_had(population) -> None:
    usual = history(COMMON[0])
    notes = [Note("unread", "", 0, "ICD9:V70.0"), Note("unread", "", 0, "ICD9:V72.0"), Note("unread", "A visit", 0, "")]
    scores = [population.score(usual, notes[:n]) for n in range(4)]
    assert scores[0] > scores[1] > scores[2] == scores[3]
    assert population.score(usual, [Note("rolled_up", "", 0, "ICD9:428.0")]) == scores[0]


def test_an_unknown_age_or_sex_is_neither_usual_nor_unusual(population) -> None:
    known, young = population.score(history(COMMON[0], age=75)), population.score(history(COMMON[0], age=35))
    assert young < population.score(history(COMMON[0], age=None)) < known + 0.5
    assert population.score(history(COMMON[0], sex="U")) == pytest.approx(known, abs=0.05)


def test_a_manifest_holds_it_in_a_few_bytes_for_each_code(population) -> None:
    written = json.loads(json.dumps(population.to_dict(CODES)))
    again = Population.from_dict(written, CODES)
    patient = history(RARE, COMMON[0], age=35)
    assert again.score(patient) == pytest.approx(population.score(patient), abs=1e-5)
    assert len(again.tail) == len(TAIL) and len(json.dumps(written)) < 400


def test_too_few_patients_are_not_described() -> None:
    assert Population.fit([(patient, ()) for patient in invented(LEAST_PATIENTS - 1)]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"codes": "1 2 3"},
        {"codes": "x " * len(CODES)},
        {"codes": 7},
        {"ages": [1]},
        {"tail": [0.0]},
        {"tail": [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]},
        {"within": 0},
        {"centre": float("nan")},
        {"sexes": [-1, 2]},
    ],
)
def test_a_description_that_can_not_be_is_refused_in_words(population, change) -> None:
    with pytest.raises(InputError, match="description of the training population"):
        Population.from_dict(population.to_dict(CODES) | change, CODES)


def test_whom_a_model_learned_from() -> None:
    assert trained_on({"format": "uci_diabetes130"}).startswith("hospital stays of people with diabetes")
    assert trained_on({"format": "uci_diabetes130", "population": "my own patients"}) == "my own patients"
    own = {"format": "table", "source": "visits.parquet", "parts": {"train": {"patients": 1234}}}
    assert trained_on(own) == "1,234 patients of visits.parquet"
    assert trained_on({}) == ""

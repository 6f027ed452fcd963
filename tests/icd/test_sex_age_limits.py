"""Sex and age limits of diagnoses, against codes read by hand off the lists of the Medicare Code Editor."""

from __future__ import annotations

import pytest

from mera_core.history.patient import Patient, Visit
from mera_core.history.plausible import ages, implausible
from mera_core.icd.ontology import CATEGORY, Code, Ontology
from mera_core.icd.sex_age_limits import LIMITS, TABLE, limits_of

BOOK = Ontology.load()


def named(system: str, code: str) -> set[str]:
    found = limits_of(Code(system, code), BOOK)
    return {name for name, limit in LIMITS.items() if limit in found}


@pytest.mark.parametrize(
    ("system", "code", "expected"),
    [
        ("ICD9", "650", {"maternity", "female"}),
        ("ICD9", "648.83", {"maternity", "female"}),
        ("ICD9", "765.14", {"newborn"}),
        ("ICD9", "185", {"male"}),
        ("ICD9", "174", {"female"}),  # breast cancer of women; that of men is 175
        ("ICD9", "175.9", {"male"}),
        ("ICD9", "V22.1", {"female"}),
        ("ICD9", "783.41", {"pediatric"}),
        ("ICD9", "414.01", {"adult"}),
        ("ICD9", "414", set()),  # a heading that is on no list as a whole
        ("ICD9", "250.00", set()),
        ("ICD9", "428.0", set()),
        ("ICD10", "O80", {"maternity", "female"}),
        ("ICD10", "O35.00X0", {"maternity", "female"}),  # newer than the list
        ("ICD10", "C56.3", {"female"}),  # newer than the list
        ("ICD10", "Z38.00", {"newborn"}),
        ("ICD10", "P07.14", set()),  # a perinatal condition may be coded for life
        ("ICD10", "C61", {"male"}),
        ("ICD10", "N40.1", {"male", "adult"}),
        ("ICD10", "E11.9", set()),
    ],
)
def test_limits_of_single_codes(system: str, code: str, expected: set[str]) -> None:
    assert named(system, code) == expected


def test_every_row_names_nodes_of_the_tree_once() -> None:
    lines = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]]
    assert sorted((system, limit) for system, limit, _ in lines) == sorted(
        (system, limit) for system in ("ICD9", "ICD10") for limit in LIMITS
    )
    for system, _, text in lines:
        codes = [Code(system, code) for code in text.split(" ")]
        assert len(set(codes)) == len(codes) and all(code in BOOK for code in codes)
        # what stands for others is a block, a category or below it, and is not named beside a node above it
        assert all(BOOK.level(code) >= CATEGORY - 1 for code in codes)
        assert not any(set(BOOK.ancestors(code)) & set(codes) for code in codes)


def test_no_code_is_of_women_alone_and_of_men_alone() -> None:
    for system in ("ICD9", "ICD10"):
        both = [code for code in BOOK.billable(system) if {"female", "male"} <= named(system, code.code)]
        assert both == []


def notes_on(codes: list[Code], sex: str = "U", age: float | None = None) -> list[str]:
    patient = Patient([Visit(codes, age=age)], sex=sex, age=age)
    return [note.message for note in implausible(patient, BOOK)]


def test_pregnancy_of_a_man_a_newborn_of_forty_and_prostate_cancer_of_a_woman() -> None:
    assert notes_on([Code("ICD9", "650")], "M", 40) == [
        "ICD9:650 (visit 1), Normal delivery, is a diagnosis of women and girls, but the patient is recorded as male."
    ]
    assert notes_on([Code("ICD9", "650")], "F", 70) == [
        "ICD9:650 (visit 1), Normal delivery, is a diagnosis of pregnancy and birth (9 to 64 years), but the patient's age at "
        "it is 70."
    ]
    assert "first year of life, but the patient's age at it is 40" in notes_on([Code("ICD9", "765.14")], "F", 40)[0]
    assert "men and boys, but the patient is recorded as female" in notes_on([Code("ICD10", "C61")], "F", 70)[0]


def test_nothing_is_said_where_sex_and_age_fit_or_are_not_known() -> None:
    delivery, newborn, prostate = Code("ICD9", "650"), Code("ICD9", "765.14"), Code("ICD9", "185")
    assert notes_on([delivery], "F", 30) == notes_on([newborn], "M", 0.5) == notes_on([prostate], "M", 70) == []
    assert notes_on([delivery, newborn, prostate]) == []
    assert notes_on([delivery], "F", 64.9) == [] and len(notes_on([delivery], "F", 65)) == 1


def test_the_age_is_that_of_the_visit() -> None:
    from datetime import datetime

    delivery, failure = Code("ICD9", "650"), Code("ICD9", "428.0")
    early = Visit([delivery], time=datetime(1980, 1, 1))
    patient = Patient([early, Visit([failure], time=datetime(2020, 1, 1))], sex="F", age=70)
    assert [round(age) for age in ages(patient)] == [30, 70] and implausible(patient, BOOK) == ()
    undated = Patient([Visit([delivery]), Visit([failure])], sex="F", age=70)
    assert ages(undated) == [None, 70] and implausible(undated, BOOK) == ()
    own = Patient([Visit([delivery], age=66), Visit([failure], age=70)], sex="F", age=70)
    assert [(note.visit, note.code) for note in implausible(own, BOOK)] == [(0, "ICD9:650")]

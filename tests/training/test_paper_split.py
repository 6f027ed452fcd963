"""The paper's own cohort and split: who is forced into train, and that it is the same each time."""

from __future__ import annotations

import pytest

from mera_core.errors import InputError
from mera_core.ontology import Code
from mera_core.records import Patient, Visit
from training.paper_split import PAPER_SEED, paper_cohort, paper_parts, split

A, B, C, D = (Code("ICD9", code) for code in ("250.00", "276.1", "401.9", "428.0"))


def patient(name: int, *visits) -> Patient:
    return Patient([Visit(codes) for codes in visits], id=str(name))


def people(count: int) -> list[Patient]:
    """All with A and B; patient 3 is the first with C, patient 5 has most visits, patient 8 is the first with D."""
    out = [patient(n, [A], [A, B]) for n in range(count)]
    out[3] = patient(3, [A], [C])
    out[4] = patient(4, [C], [A])
    out[5] = patient(5, [A], [A], [A], [B])
    out[8] = patient(8, [A], [D])
    return out


def ids(patients) -> list[int]:
    return [int(patient.id) for patient in patients]


def test_first_patients_of_each_code_and_the_longest_history_are_in_train() -> None:
    for n_test in (1, 5, 10):
        parts = split(people(30), 10, n_test)
        assert {0, 3, 5, 8} <= set(ids(parts["train"]))  # 0 is the first with A and with B
        assert [len(parts[name]) for name in ("train", "validation", "test")] == [10, 20 - n_test, n_test]
        assert sorted(ids(parts["train"]) + ids(parts["validation"]) + ids(parts["test"])) == list(range(30))


def test_the_split_is_drawn_with_the_papers_seed() -> None:
    assert PAPER_SEED == 6669
    once, again = split(people(40), 12, 8), split(people(40), 12, 8)
    assert ids(once["test"]) == ids(again["test"]) and ids(once["validation"]) == ids(again["validation"])
    assert ids(once["test"]) != sorted(ids(once["test"]))  # shuffled, not the last ones


def test_a_patient_with_an_empty_visit_or_only_one_is_dropped() -> None:
    kept = paper_cohort([patient(1, [A], [B]), patient(2, [A], [], [B]), patient(3, [A])])
    assert ids(kept) == [1]
    drawn = paper_cohort(people(30), draw=11)
    assert len(drawn) == 11 and ids(drawn) == sorted(ids(drawn)) and ids(drawn) == ids(paper_cohort(people(30), 11))


def test_what_can_not_be_split_is_said() -> None:
    with pytest.raises(InputError, match="4 of them forced into train, can't be split into 3"):
        split(people(30), 3, 5)
    with pytest.raises(InputError, match="can't be split into 20 for train and 15 for test"):
        split(people(30), 20, 15)
    with pytest.raises(InputError, match="no split of uci_diabetes130 records"):
        paper_parts(people(30), "uci_diabetes130")
    with pytest.raises(InputError, match="30 patients"):
        paper_parts(people(30), "mimic3")

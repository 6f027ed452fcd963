"""Patients in parts that share none, and a history that holds nothing of the visit it is to predict."""

from __future__ import annotations

import hashlib

import pytest

from mera_core.cohort.targets import before_last
from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit
from tests.tiny import CODES, icd9, tiny_engine, tiny_model, tiny_vocabulary
from training.common.split import histories_and_truth, in_parts, split_of, with_codes

A, B, C, OUTSIDE = icd9("428.0", "427.31", "584.9", "042")


def test_a_part_is_the_first_byte_of_the_ids_hash() -> None:
    for n in range(2000):
        byte = hashlib.sha256(str(n).encode()).digest()[0]
        assert split_of(str(n)) == ("test" if byte < 52 else "validation" if byte < 70 else "train")


def test_about_73_7_and_20_in_a_hundred() -> None:
    parts = in_parts([Patient([Visit([A])], id=f"p{n}") for n in range(4000)], "table")
    assert [round(len(parts[name]) / 40) for name in ("train", "validation", "test")] == pytest.approx(
        [72.7, 7.0, 20.3], abs=2
    )
    assert sum(map(len, parts.values())) == 4000


def test_a_patient_without_an_id_and_an_empty_training_part_are_refused() -> None:
    with pytest.raises(InputError, match="A patient of the fhir data has no id"):
        in_parts([Patient([Visit([A])])], "fhir")
    with pytest.raises(InputError, match="no patient of the training part"):
        in_parts([], "table")


def test_visits_without_codes_are_left_out_and_the_age_follows() -> None:
    patients = [
        Patient([Visit([A], age=50), Visit([], age=51), Visit([B], age=52), Visit([], age=53)], age=53, id="a"),
        Patient([Visit([])], id="b"),
    ]
    (kept,) = with_codes(patients)
    assert [visit.codes for visit in kept.visits] == [(A,), (B,)] and kept.age == 52


def test_a_newborns_age_is_an_age() -> None:
    (kept,) = with_codes([Patient([Visit([A], age=0), Visit([], age=3)], age=3, id="a")])
    assert kept.age == 0


def test_nothing_of_the_last_visit_is_left_in_the_history_before_it() -> None:
    patient = Patient([Visit([A], age=60), Visit([B], age=75)], sex="F", age=75, id="a")
    history = before_last(patient)
    assert history.visits == patient.visits[:1] and history.age == 60 and history.sex == "F"
    no_ages = before_last(Patient([Visit([A]), Visit([B])], age=75))
    assert no_ages.age is None


def test_true_codes_are_counted_at_their_label_and_the_others_as_missed() -> None:
    labels = tuple(sorted(icd9("428", "427.31", "584.9")))
    engine = tiny_engine(tiny_model(labels, tiny_vocabulary(labels)))
    patients = [
        Patient([Visit(["428.0"]), Visit(["428.23", "584.9", "042"])], id="a"),  # rolled up, new, missed
        Patient([Visit(["427.31", "042"]), Visit(["042", "427.31"])], id="b"),  # a missed code that was held
        Patient([Visit(["042"]), Visit(["427.31"])], id="c"),  # nothing to read
        Patient([Visit(["427.31"]), Visit(["99Z.9"])], id="d"),  # nothing true
    ]
    read, truth, kept = histories_and_truth(engine, patients)
    assert [patient.id for patient in kept] == ["a", "b"] and len(read) == len(truth) == 2
    index = {code.code: i for i, code in enumerate(labels)}
    rows = [set(truth.positive[i].indices.tolist()) for i in (0, 1)]
    assert rows == [{index["428"], index["584.9"]}, {index["427.31"]}]
    assert truth.missing.tolist() == [1, 1] and truth.missing_seen.tolist() == [0, 1]
    assert set(truth.seen[0].indices.tolist()) == {index["428"]}
    assert truth.size.tolist() == [3, 2]
    assert [code.code for code in read[0][0].visits[0].codes] == ["428"]
    assert read[0][1].input_ids == engine.encode(read[0][0]).input_ids


def test_no_history_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="No patient has a history and a next visit"):
        histories_and_truth(tiny_engine(), [Patient([Visit([OUTSIDE]), Visit([CODES[0]])], id="a")])

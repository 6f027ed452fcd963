"""Nobody in two parts, by one rule; a history holds nothing of the visit to predict; nothing fitted saw another part's code."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from mera_core.checkpoint.folder import read_manifest
from mera_core.cohort.targets import before_last
from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit, write_visits
from tests.tiny import CODES, icd9, tiny_engine, tiny_model, tiny_vocabulary
from training.baselines import CodeFrequency, HistoryRegression
from training.baselines.neural import NeuralBaseline, NeuralSettings
from training.common.config import RankConfig
from training.common.split import histories_and_truth, in_parts, split_of, with_codes
from training.rank import run as rank
from training.rank.cut import LabelCounts

A, B, OUTSIDE, ONLY_IN_TEST = icd9("428.0", "401.9", "042", "V58.61")


def test_a_part_is_the_first_byte_of_the_ids_hash_and_nobody_is_lost() -> None:
    parts = in_parts([Patient([Visit([A])], id=f"é{n}") for n in range(4000)], "table")
    for name, (low, high) in {"test": (0, 52), "validation": (52, 70), "train": (70, 256)}.items():
        hashed = [hashlib.sha256(patient.id.encode()).digest()[0] for patient in parts[name]]
        assert all(low <= byte < high for byte in hashed)
        assert len(hashed) / 4000 == pytest.approx((high - low) / 256, abs=0.02)
    assert len({patient.id for part in parts.values() for patient in part}) == sum(map(len, parts.values())) == 4000


def test_a_patient_without_an_id_and_an_empty_training_part_are_refused() -> None:
    with pytest.raises(InputError, match="A patient of the fhir data has no id"):
        in_parts([Patient([Visit([A])])], "fhir")
    with pytest.raises(InputError, match="no patient of the training part"):
        in_parts([], "table")


def test_visits_without_codes_are_left_out_and_the_age_follows() -> None:
    patients = [
        Patient([Visit([A], age=50), Visit([], age=51), Visit([B], age=52), Visit([], age=53)], age=53, id="a"),
        Patient([Visit([])], id="b"),
        Patient([Visit([A], age=0), Visit([], age=3)], age=3, id="c"),  # a newborn's age is an age
    ]
    kept, newborn = with_codes(patients)
    assert newborn.age == 0
    assert [visit.codes for visit in kept.visits] == [(A,), (B,)] and kept.age == 52


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


@pytest.fixture(scope="module")
def cohort() -> list[Patient]:
    """Everyone has 428.0 and 401.9; test patients have V58.61 as well, and nobody else has."""
    made = []
    for name in map(str, range(120)):
        first = Visit([A, ONLY_IN_TEST] if split_of(name) == "test" else [A])
        made.append(Patient([first, Visit([B]), first], id=name, sex="F", age=60))
    return made


def test_a_checkpoint_knows_no_code_that_only_test_patients_have(cohort, tiny_stage1, tmp_path) -> None:
    write_visits(cohort, tmp_path / "cohort.csv")
    data = str(tmp_path / "cohort.csv")
    rank.run(RankConfig(start=str(tiny_stage1), data=data, format="table", epochs=0.5, save_every=0), tmp_path / "run")
    manifest = read_manifest(tmp_path / "run")
    assert {*manifest.label_space, *manifest.input_codes} == {A, B}


def test_label_counts_change_with_no_patient_of_another_part(cohort) -> None:
    train = in_parts(cohort, "table")["train"]
    counts = LabelCounts.of(train)
    assert counts.labels == (B, A)
    np.testing.assert_allclose(counts.rate, (len(train) + 0.5) / (2 * len(train) + 1))


def test_baselines_know_no_code_that_only_test_patients_have(cohort) -> None:
    parts, labels = in_parts(cohort, "table"), (B, A)
    without = [
        Patient(
            [Visit([code for code in visit.codes if code != ONLY_IN_TEST]) for visit in patient.visits], id=patient.id
        )
        for patient in parts["test"]
    ]
    network = NeuralBaseline(labels, "GRU", NeuralSettings(width=8, passes=1))
    for baseline in (CodeFrequency(labels), HistoryRegression(labels, l2=(1.0,)), network):
        baseline.fit(parts["train"], parts["validation"])
        np.testing.assert_allclose(baseline.scores(parts["test"]), baseline.scores(without), atol=1e-6)

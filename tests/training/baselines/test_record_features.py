"""What baselines are told beside codes: the past alone, what enough visits have, and what the checkpoint is told."""

from __future__ import annotations

import numpy as np

from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.model.sequence import SequenceConfig
from training.baselines.record_features import RecordFeatures, Told
from training.baselines.samples import history

A, B, C = (Code("ICD9", code) for code in ("250", "276", "401"))


def visit(code: Code, **details: str) -> Visit:
    return Visit([code], age=65, details=details)


TRAIN = [
    Patient([visit(A, discharge="home", stay="4"), visit(B, discharge="other"), visit(C)], "F", 70, str(n), {"ethnicity": "white"})
    for n in range(3)
]  # fmt: skip


def named(features: RecordFeatures, patient: Patient) -> set[tuple]:
    names = {number: feature for feature, number in features.index.items()}
    (row,) = features.rows([patient]).toarray()
    assert set(row) <= {0.0, 1.0} and list(np.flatnonzero(row)) == features.numbers(patient)
    return {names[number] for number in features.numbers(patient)}


def test_codes_and_facts_of_the_newest_visit_stand_apart_from_those_before_it() -> None:
    features = RecordFeatures.fit(TRAIN, ("discharge", "stay"), least=3)
    person = {("sex", "F"), ("patient ethnicity", "white")}
    assert named(features, history(TRAIN[0])) == person | {
        ("code", A), ("code", B), ("newest code", B),
        ("newest", "age: 60s"), ("newest", "discharge: other"),
        ("earlier", "age: 60s"), ("earlier", "discharge: home"), ("earlier", "stay: 4"),
    }  # fmt: skip
    assert named(features, history(TRAIN[0], 1)) == person | {
        ("code", A), ("newest code", A), ("newest", "age: 60s"), ("newest", "discharge: home"), ("newest", "stay: 4"),
    }  # fmt: skip


def test_the_target_visit_gives_no_feature_and_not_its_age() -> None:
    features = RecordFeatures.fit(TRAIN, ("discharge",), least=1)
    target = Visit([C], age=95, details={"discharge": "home"})
    patients = [Patient([*TRAIN[0].visits[:2], last], "F", last.age, "9") for last in (target, visit(A))]
    one, other = features.rows([history(patient) for patient in patients]).toarray()
    assert np.array_equal(one, other)
    assert history(patients[0]).age == 65
    assert ("code", C) not in features.index  # no training history holds it


def test_facts_of_few_visits_are_left_out_and_a_number_is_read_as_the_bin_below_it() -> None:
    rare = [*TRAIN, Patient([visit(A, discharge="comet", stay="40"), visit(B)], id="rare")]
    features = RecordFeatures.fit(rare, ("discharge", "stay"), least=3)
    found = named(features, history(rare[-1]))
    assert ("newest", "stay: 4") in found and not any("comet" in str(feature) for feature in features.index)
    assert named(features, Patient([visit(A, stay="2")], "M")) == {
        ("code", A), ("newest code", A), ("newest", "age: 60s")
    }  # fmt: skip


def test_baselines_are_told_what_the_checkpoint_is_told_or_all_that_visits_have() -> None:
    details = SequenceConfig(visit_details=("stay",), detail_tokens=("age", "discharge"))
    told = Told.by(details)
    assert told == told.or_all(TRAIN) == Told(("ethnicity",), ("stay", "discharge"))
    assert str(told) == "codes, sex, age, ethnicity; of each past visit stay, discharge"
    after = [Patient([visit(A, discharge="home", readmitted="<30"), visit(B, stay="3")])]
    assert Told.by(SequenceConfig()).or_all(after).visit == ("discharge", "stay")  # what came after is never told
    assert str(Told.by(SequenceConfig(profile=False))) == "codes"

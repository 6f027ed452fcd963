"""The models to beat: what they learn from whom, and that the regression is the one scikit-learn finds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mera_core.common.errors import InputError
from mera_core.evaluation.metrics import recall_at, top_labels
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from training.baselines import (
    CodeFrequency,
    CopyThePast,
    HistoryRegression,
    RecordRegression,
    Told,
    all_baselines,
    truth_of,
)

A, B, C, D, OUTSIDE = (Code("ICD9", code) for code in ("250", "276", "401", "428", "V45"))
LABELS = (A, B, C, D)


def patient(*visits) -> Patient:
    return Patient(tuple(Visit(codes) for codes in visits))


def random_patients(n: int, seed: int) -> list[Patient]:
    """Histories in which a code tends to come back, and D tends to follow A."""
    rng = np.random.default_rng(seed)
    patients = []
    for _ in range(n):
        own = rng.random(4) < (0.7, 0.2, 0.4, 0.1)
        visits = []
        for _ in range(rng.integers(2, 5)):
            follows = np.array([0, 0, 0, 0.6 * any(A in visit for visit in visits)])
            held = rng.random(4) < np.maximum(0.8 * own + 0.05, follows)
            visits.append([code for code, has in zip(LABELS, held, strict=True) if has] or [C])
        patients.append(patient(*visits))
    return patients


def test_truth_splits_recurrent_new_and_outside():
    truth = truth_of([patient([A, OUTSIDE], [B], [A, C, OUTSIDE]), patient([A], [D])], LABELS)
    assert truth.positive.toarray().tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]
    assert truth.seen.toarray().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert (truth.missing.tolist(), truth.missing_seen.tolist()) == ([1, 0], [1, 0])
    assert truth.recurrent.size.tolist() == [2, 0] and truth.new_onset.size.tolist() == [1, 1]


def test_frequency_counts_next_visits_of_training_patients_only():
    # Next visits: [B], [B, C], [C]. First visits are never targets.
    training = [patient([A], [B], [B, C]), patient([A], [C]), patient([D])]
    scores = CodeFrequency(LABELS).fit(training).scores([patient([D], [D]), patient([A], [A])])
    np.testing.assert_allclose(scores, [[0, 2 / 3, 2 / 3, 0]] * 2)


def test_copy_puts_the_newest_first_then_the_commonest():
    training = [patient([A], [C]), patient([A], [C, B])]
    asked = [patient([A, D], [A], [B], [C])]  # A, D twice and once; B newest; C unseen
    recent = CopyThePast(LABELS).fit(training).scores(asked)
    assert [LABELS[i] for i in top_labels(recent, 4)[0]] == [B, A, D, C]
    counted = CopyThePast(LABELS, order="count").fit(training).scores(asked)
    assert [LABELS[i] for i in top_labels(counted, 4)[0]] == [A, B, D, C]
    nothing = CopyThePast(LABELS).fit(training).scores([patient([OUTSIDE], [A])])
    assert [LABELS[i] for i in top_labels(nothing, 4)[0]] == [C, B, A, D]


@pytest.mark.parametrize("features", ["binary", "counts", "recent"])
def test_regression_equals_scikit_learn(features):
    training, asked = random_patients(150, 0), random_patients(20, 1)
    model = HistoryRegression(LABELS, features, l2=(2.0,), max_iterations=300).fit(training)
    scores = model.scores(asked)

    def bag(visits):
        counts = [sum(code in visit.codes for visit in visits) for code in LABELS]
        held = [float(count > 0) for count in counts]
        newest = [float(code in visits[-1].codes) for code in LABELS]
        return {"binary": held, "counts": counts, "recent": held + newest}[features]

    pairs = [(p.visits[:t], p.visits[t]) for p in training for t in range(1, len(p.visits))]
    x = np.array([bag(past) for past, _ in pairs], float)
    x_asked = np.array([bag(p.visits[:-1]) for p in asked], float)
    for label, code in enumerate(LABELS):
        y = np.array([code in target.codes for _, target in pairs])
        reference = LogisticRegression(C=1 / 2.0, tol=1e-8, max_iter=1000).fit(x, y)
        # in float32 L-BFGS ends where the loss no longer moves, which is a little short of the optimum
        np.testing.assert_allclose(scores[:, label], reference.decision_function(x_asked), atol=1e-2)


def test_regression_keeps_the_first_of_equally_good_penalties():
    training, validation = random_patients(60, 2), random_patients(60, 3)
    model = HistoryRegression(LABELS, l2=(100.0, 1.0)).fit(training, validation)  # of four labels recall@20 is always 1
    bold, alone = (HistoryRegression(LABELS, l2=(l2,)).fit(training).scores(validation) for l2 in (1.0, 100.0))
    assert model.chosen_l2 == 100.0
    np.testing.assert_allclose(model.scores(validation), alone, atol=1e-5)
    assert np.abs(bold).max() > np.abs(alone).max()  # less penalty, bolder scores


def test_labels_that_no_training_patient_has_stand_at_half_a_visit_and_change_nothing():
    training, asked = random_patients(60, 2), random_patients(20, 3)
    alone = HistoryRegression(LABELS).fit(training, asked)
    more = HistoryRegression((*LABELS, OUTSIDE), l2=alone.l2).fit(training, asked)
    scores = more.scores(asked)
    np.testing.assert_array_equal(scores[:, :4], alone.scores(asked))
    visits = sum(len(p.visits) - 1 for p in training)
    assert 1 / (1 + np.exp(-scores[:, 4])) == pytest.approx(0.5 / (visits + 1))
    assert (HistoryRegression((OUTSIDE,)).fit(training).scores(asked) == scores[:, 4:]).all()


def test_target_visit_never_changes_a_score():
    training = random_patients(50, 4)
    for model in all_baselines(LABELS, Told()):
        model.fit(training)
        target = Visit([D, OUTSIDE], age=80, details={"discharge": "home"})
        changed = Patient((Visit([A]), Visit([B]), target), age=80)
        one, other = model.scores([patient([A], [B], [C]), changed])
        assert np.array_equal(one, other), model.name


def test_regression_finds_what_copying_cannot():
    training, asked = random_patients(400, 5), random_patients(300, 6)
    truth = truth_of(asked, LABELS).new_onset
    recall = {
        model.name: np.nanmean(recall_at(top_labels(model.fit(training).scores(asked), 3), truth, 3))
        for model in (CopyThePast(LABELS), HistoryRegression(LABELS))
    }
    assert recall[HistoryRegression.name] > recall[CopyThePast.name]


def test_regression_told_the_record_finds_what_only_a_detail_tells():
    def discharged(n: int, seed: int) -> list[Patient]:
        told = np.random.default_rng(seed).integers(2, size=n)
        return [Patient((Visit([A], details={"discharge": ("other", "home")[t]}), Visit([(B, D)[t]]))) for t in told]

    asked = discharged(40, 1)
    right = {}
    for model in (RecordRegression(LABELS, Told(visit=("discharge",)), l2=(1.0,)), HistoryRegression(LABELS)):
        scores = model.fit(discharged(200, 0)).scores(asked)
        right[model.name] = np.mean((scores[:, 3] > scores[:, 1]) == [p.visits[-1].codes[0] == D for p in asked])
    assert right["logistic regression told the record"] == 1.0 and right["logistic regression on the history"] < 0.8


def test_what_cannot_be_fitted_or_scored_is_said():
    for model in all_baselines(LABELS, Told()):
        with pytest.raises(InputError, match="No training patient has a second visit"):
            model.fit([patient([A]), patient([A], [])])
    with pytest.raises(InputError, match="Patient 7 has no visit before"):
        truth_of([Patient((Visit([A]),), id="7")], LABELS)


def test_baselines_on_the_real_cohort_reach_their_known_figures():
    folder = os.environ.get("MERA_DATA")
    if not folder:
        pytest.skip("MERA_DATA names no folder with the uci_diabetes130 records.")
    from mera_core.readers import read
    from mera_core.readers.uci_diabetes130 import uci_split

    path = Path(folder) / "uci_diabetes130"
    patients = read(path if path.exists() else folder, format="uci_diabetes130").patients
    training = [p for p in patients if uci_split(p.id) == "train"]
    labels = sorted({code for p in training for visit in p.visits for code in visit.codes})
    asked = [p for p in patients if uci_split(p.id) == "validation" and len(p.visits) > 1 and p.visits[-1].codes]
    truth = truth_of(asked, labels)
    recall = []
    for model in (CodeFrequency(labels), CopyThePast(labels), HistoryRegression(labels, l2=(3.0,))):
        top = top_labels(model.fit(training).scores(asked), 20)
        recall.append(100 * np.nanmean(recall_at(top, truth, 20)))
    # On one random split these were 51.0, 59.6 and 63.7.
    np.testing.assert_allclose(recall, [51.0, 59.6, 63.7], atol=2.5)
    assert recall[0] < recall[1] < recall[2]

"""Probabilities from scores: the curves that are found, that they rise, and that no two codes of a list are pooled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from mera_core.ranking.calibration import LEAST_TRUE, MOST_KNOTS, Calibration, Calibrations
from mera_core.ranking.ranking import best_first, by_probability

ROOT = Path(__file__).resolve().parents[2]


def outcomes(curve, patients: int = 1500, codes: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Margins as a model gives them, mostly low, and outcomes drawn with the probability that `curve` says."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(-4, 2, size=(patients, codes))
    return margin, rng.random(margin.shape) < curve(margin)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def step_like(margin: np.ndarray) -> np.ndarray:
    """Far from any sigmoid: three levels."""
    return np.select([margin < -4, margin < -1], [0.01, 0.15], 0.6)


# --- the curve


def test_platt_equals_scikit_learns_logistic_regression():
    margin, positive = outcomes(lambda m: sigmoid(1.4 * m + 1), patients=300)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(margin.reshape(-1, 1), positive.ravel())
    fitted = Calibration.fit(margin, positive)
    assert fitted.slope == pytest.approx(reference.coef_[0, 0], abs=2e-3)
    assert fitted.intercept == pytest.approx(reference.intercept_[0], abs=5e-3)


def test_isotonic_is_kept_where_no_sigmoid_fits():
    margin, positive = outcomes(step_like)
    fitted = Calibration.fit(margin, positive)
    assert fitted.kind == "isotonic" and 3 <= len(fitted.margin) <= MOST_KNOTS
    np.testing.assert_allclose(fitted.curve(np.array([-7.0, -2.5, 1.0])), [0.01, 0.15, 0.6], atol=0.02)
    assert fitted.log_loss["isotonic"] < fitted.log_loss["platt"] < fitted.log_loss["as trained"]


def test_a_fitted_curve_holds_on_other_patients():
    for curve in (step_like, lambda m: sigmoid(0.5 * m)):
        fitted = Calibration.fit(*outcomes(curve, seed=1))
        margin, positive = outcomes(curve, seed=2)
        p = fitted.curve(margin)
        for low, high in ((0, 0.05), (0.05, 0.3), (0.3, 1)):
            inside = (p >= low) & (p < high)
            assert p[inside].mean() == pytest.approx(positive[inside].mean(), abs=0.02)


def test_cross_validation_never_shows_a_patient_to_its_own_curve():
    # Each patient's codes are all true or all false: within a patient margin tells nothing beyond luck, so a
    # curve that had seen the patient would look better than the base rate does.
    rng = np.random.default_rng(3)
    positive = np.repeat(rng.random((400, 1)) < 0.3, 20, axis=1)
    margin = np.repeat(rng.normal(size=(400, 1)), 20, axis=1)  # one margin a patient: memorable
    fitted = Calibration.fit(margin, positive)
    base = -(0.3 * np.log(0.3) + 0.7 * np.log(0.7))
    assert fitted.log_loss["isotonic"] > base * 0.97


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), scale=st.sampled_from([0.1, 1.0, 20.0]), rate=st.sampled_from([0.02, 0.5]))
def test_curves_rise_and_stay_between_0_and_1(seed, scale, rate):
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=(30, 40)) * scale
    positive = rng.random(margin.shape) < np.clip(rate * (1 + np.tanh(margin)), 0, 1)
    positive[::5, 0], positive[::5, 1] = True, False
    positive[1::5, 0], positive[2::5, 0] = True, True
    fitted = Calibration.fit(margin, positive)
    p = fitted.curve(np.sort(np.concatenate([margin.ravel(), [-1e6, 1e6, 0.0]])))
    assert (np.diff(p) >= 0).all() and p[0] >= 0 and p[-1] <= 1


def test_a_score_that_says_nothing_gets_the_base_rate():
    rng = np.random.default_rng(5)
    margin, positive = rng.normal(size=(500, 20)), rng.random((500, 20)) < 0.1
    fitted = Calibration.fit(margin, positive)
    np.testing.assert_allclose(fitted.curve(np.linspace(-2, 2, 9)), positive.mean(), atol=0.02)


def test_no_two_margins_share_a_probability():
    """A list sorted by probability is sorted by margin within each group: also beyond the knots, and far out."""
    for calibration in (
        Calibration("platt", 0.7, -1.0),
        Calibration("isotonic", margin=(-3, -1, 2), probability=(0.01, 0.2, 0.6)),
    ):
        logit = calibration.logit(np.linspace(-900, 900, 20_001))
        assert (np.diff(logit) > 0).all()
        inside = np.linspace(-30, 30, 601)
        np.testing.assert_allclose(calibration.curve(inside), sigmoid(calibration.logit(inside)), rtol=1e-12)
    np.testing.assert_allclose(calibration.curve(np.array([-3.0, -2.0, 2.0])), [0.01, 0.105, 0.6])
    np.testing.assert_allclose(calibration.curve(np.array([-9.0, 9.0])), [0.01, 0.6], rtol=0.01)  # all but flat


# --- new codes and recorded ones


def two_groups(patients: int = 1200, codes: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins, outcomes and what is recorded: new codes as the margin says, recorded ones half as sure and likelier."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(-3, 1.5, size=(patients, codes))
    held = rng.random(margin.shape) < 0.15
    p = np.where(held, sigmoid(0.5 * margin + 1), sigmoid(margin))
    return margin, rng.random(margin.shape) < p, held


def test_each_group_gets_its_own_curve():
    fitted = Calibrations.fit(*two_groups())
    for curve, slope, intercept in ((fitted.new, 1.0, 0.0), (fitted.recorded, 0.5, 1.0)):
        at = np.array([-4.0, -2.0, 0.0])
        np.testing.assert_allclose(curve.curve(at), sigmoid(slope * at + intercept), atol=0.04)
    margin, positive, held = two_groups(seed=1)
    p = fitted.probability(margin, held)
    for group in (held, ~held):
        assert p[group].mean() == pytest.approx(positive[group].mean(), abs=0.01)
    np.testing.assert_allclose(p[~held], fitted.new.curve(margin[~held]), rtol=1e-12)
    np.testing.assert_allclose(p[held], fitted.recorded.curve(margin[held]), rtol=1e-12)
    assert Calibrations.fit(margin, csr_matrix(positive), held) == Calibrations.fit(margin, positive, held)


@pytest.mark.parametrize("few", ["true", "false", "held"])
def test_a_group_too_small_for_a_curve_shares_that_of_all(few):
    margin, positive, held = two_groups(patients=200)
    if few == "held":
        held[:] = False
    else:  # all but a few of the recorded codes come true, or do not
        rows, columns = np.nonzero(held)
        positive[rows, columns] = few == "false"
        positive[rows[: LEAST_TRUE - 1], columns[: LEAST_TRUE - 1]] = few == "true"
    fitted = Calibrations.fit(margin, positive, held)
    assert fitted.new == fitted.recorded == Calibration.fit(margin, positive)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 9999))
def test_a_list_falls_by_each_codes_own_probability(seed):
    rng = np.random.default_rng(seed)
    margin, held = rng.normal(-3, 2, size=30), rng.random(30) < 0.3
    calibrations = Calibrations(
        Calibration("platt", 0.8, -0.2), Calibration("isotonic", margin=(-4, 1), probability=(0.05, 0.6)), -1.5
    )
    ranked = by_probability(calibrations.logit(margin, held)[None], np.array([2.5]), calibrations.cut)[0]
    shown = calibrations.probability(margin, held)[best_first(ranked, [None] * 30)]
    assert (np.diff(shown) < 0).all()  # no neighbours are pooled
    assert (ranked > 2.5).sum() == (shown > sigmoid(-1.5)).sum()


# --- kept, and refused


@pytest.mark.parametrize("curve", [step_like, sigmoid])
def test_what_a_manifest_keeps_gives_the_same_curve_back(curve):
    fitted = Calibration.fit(*outcomes(curve, patients=200))
    kept = json.dumps(fitted.to_dict(), allow_nan=False)
    again = Calibration.from_dict(json.loads(kept))
    at = np.linspace(-12, 6, 1001)
    assert again == fitted and len(kept) < 12_000
    np.testing.assert_array_equal(again.curve(at), fitted.curve(at))
    assert set(fitted.log_loss) == {"platt", "isotonic", "as trained"} and fitted.patients == 200


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "beta"}, "platt or isotonic"),
        ({"kind": "platt", "slope": -1.0}, "must rise with the score"),
        ({"kind": "platt", "slope": float("nan")}, "finite numbers"),
        ({"kind": "isotonic", "margin": [0, 1], "probability": [0.5, 0.4]}, "must rise"),
        ({"kind": "isotonic", "margin": [0, 1], "probability": [0.5, 1.4]}, "between 0 and 1"),
        ({"kind": "isotonic", "margin": [], "probability": []}, "must rise"),
        ({"kind": "platt", "temperature": 2}, "can't be read"),
        ({"kind": "platt", "patients": "many"}, "how many patients"),
        ({"kind": "platt", "log_loss": 0.1}, "names its log losses"),
        ({"kind": "isotonic", "margin": ["a"], "probability": [0.1]}, "can't be read"),
    ],
)
def test_a_calibration_that_can_not_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Calibration.from_dict(values)


def test_two_curves_and_the_cut_are_kept():
    fitted = Calibrations(Calibration("platt", 0.9, -0.1, patients=1246), Calibration.fit(*outcomes(step_like)), -1.9)
    assert Calibrations.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False))) == fitted
    words = "platt calibration for new codes, isotonic for recorded ones, fitted on 1,246 validation patients"
    assert fitted.in_words() == words


def test_the_only_curve_of_an_older_checkpoint_is_that_of_both_groups():
    old = {"kind": "platt", "slope": 0.9, "intercept": -0.1, "patients": 7, "log_loss": {"platt": 0.1}}
    read = Calibrations.from_dict(old)
    assert read.new == read.recorded == Calibration.from_dict(old) and read.cut == 0
    assert read.in_words() == "platt calibration, fitted on 7 validation patients"
    flat = Calibrations.from_dict({"kind": "isotonic", "margin": [-3, 1], "probability": [0.1, 0.6], "patients": 7})
    margin = np.linspace(-3, 1, 9)
    np.testing.assert_allclose(flat.probability(margin, margin > 0), np.linspace(0.1, 0.6, 9))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"new": {"kind": "platt"}}, "must hold"),
        ({"new": {"kind": "platt"}, "recorded": [1]}, "must hold"),
        ({"new": {"kind": "platt"}, "recorded": {"kind": "platt"}, "old": 1}, "must hold"),
        ({"new": {"kind": "platt"}, "recorded": {"kind": "beta"}}, "platt or isotonic"),
        ({"new": {"kind": "platt"}, "recorded": {"kind": "platt"}, "cut": "0"}, "finite number"),
        ({"new": {"kind": "platt"}, "recorded": {"kind": "platt"}, "cut": float("inf")}, "finite number"),
    ],
)
def test_calibrations_that_can_not_be_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Calibrations.from_dict(values)


def test_what_can_not_be_calibrated_is_said():
    margin = np.zeros((10, 3))
    with pytest.raises(ValueError, match="no code, or every code, comes true"):
        Calibration.fit(margin, np.zeros((10, 3), bool))
    with pytest.raises(ValueError, match="4 patients are too few"):
        Calibration.fit(margin[:4], np.zeros((4, 3), bool))
    with pytest.raises(ValueError, match="patients x codes"):
        Calibration.fit(margin, np.zeros((10, 4), bool))
    margin[3, 1] = np.nan
    with pytest.raises(ValueError, match="no number"):
        Calibration.fit(margin, np.eye(10, 3, dtype=bool))


def test_serving_needs_no_scikit_learn():
    script = "import sys, mera_core.ranking.calibration; print(sorted({'sklearn', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

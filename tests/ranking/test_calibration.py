"""Probabilities from scores: the curve that is found, that it never falls, and that no list is reordered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from mera_core.ranking.calibration import MOST_KNOTS, Calibration, never_rising
from mera_core.ranking.ranking import in_order

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


# --- lists


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.1, 0.2, 0.30000000000000004])), max_size=40))
def test_nearest_falling_sequence_equals_scikit_learns(values):
    values = np.array(values)
    out = never_rising(values)
    assert (np.diff(out) <= 0).all() and out.shape == values.shape
    if len(values):
        expected = IsotonicRegression(increasing=False).fit_transform(np.arange(len(values)), values)
        np.testing.assert_allclose(out, expected, atol=1e-9)
        assert out.sum() == pytest.approx(values.sum(), abs=1e-9)  # the expected number of true codes stays


def test_a_list_by_hand():
    # Shown order: a predicted rare code of 10 % first, then 50 %, 30 %; below the cut 40 %, 5 %.
    calibration = Calibration("platt")
    margin = np.log([0.5 / 0.5, 0.1 / 0.9, 0.3 / 0.7, 0.4 / 0.6, 0.05 / 0.95])
    shown = calibration.of_list(margin, np.array([1, 0, 2, 3, 4]))
    # 10 % and 50 % are pooled at 30 %; 30 % stands; 40 % rises above them: (10 + 50 + 30 + 40) / 4.
    np.testing.assert_allclose(shown, [0.325, 0.325, 0.325, 0.325, 0.05])
    falling = calibration.of_list(margin, np.array([0, 3, 2, 1, 4]))
    np.testing.assert_allclose(falling, [0.5, 0.4, 0.3, 0.1, 0.05])  # sorted by margin: nothing to do


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 9999))
def test_no_list_is_reordered_whatever_it_is_sorted_by(seed):
    rng = np.random.default_rng(seed)
    margin = rng.normal(-3, 2, size=(6, 30))
    ranked = margin - rng.normal(0, 2, size=30)  # each code has a threshold of its own
    ranked[0] = np.round(ranked[0])  # with ties
    p = Calibration("platt", 0.8, -0.2).of_lists(margin, in_order(ranked))
    for row in range(len(p)):
        order = np.argsort(-ranked[row], kind="stable")
        assert (np.diff(p[row, order]) <= 0).all()
        assert p[row].sum() == pytest.approx(sigmoid(0.8 * margin[row] - 0.2).sum())
        np.testing.assert_array_equal(p[row, order], Calibration("platt", 0.8, -0.2).of_list(margin[row], order))


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
        ({"kind": "isotonic", "margin": ["a"], "probability": [0.1]}, "can't be read"),
    ],
)
def test_a_calibration_that_can_not_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Calibration.from_dict(values)


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

"""Many lists at once are the lists one by one: the order with its ties, shares, the cut, and probabilities that never rise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mera_core.ranking.calibration import Calibration
from mera_core.ranking.ranking import in_order, ranking_scores
from mera_core.scoring.lists import best, shares


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 9999), rounded=st.booleans())
def test_the_order_is_that_of_a_stable_sort_also_where_scores_are_equal(seed, rounded):
    ranked = np.random.default_rng(seed).normal(size=(7, 40))
    if rounded:  # many ties, among them 0.0 and -0.0
        ranked[:4] = np.round(ranked[:4])
    np.testing.assert_array_equal(in_order(ranked), np.argsort(-ranked, axis=1, kind="stable"))


def test_one_label_is_a_list_too():
    assert in_order(np.zeros((3, 1))).tolist() == [[0], [0], [0]]


@pytest.mark.parametrize("calibration", [None, Calibration("platt", 0.7, -1.0)])
def test_each_list_is_the_one_it_is_alone(calibration):
    rng = np.random.default_rng(2)
    scores, eov = rng.normal(-2, 2, size=(11, 30)).astype(np.float32), rng.normal(size=11).astype(np.float32)
    eov[3], eov[4] = -9, 9  # all codes are predicted, and none
    offset, below = rng.normal(size=30), rng.normal(size=30)

    def ranked(scores: np.ndarray, eov: np.ndarray) -> np.ndarray:
        return ranking_scores(scores, eov, offset, below)

    found = best(scores, eov, ranked, 5, calibration)
    for n in range(len(scores)):
        own = found.row == n
        alone = ranked(scores[n : n + 1], eov[n : n + 1])[0]
        order = np.argsort(-alone, kind="stable")[: own.sum()]
        predicted = int((alone > eov[n]).sum())
        assert own.sum() == max(5, predicted)
        assert found.label[own].tolist() == order.tolist()
        assert found.place[own].tolist() == list(range(own.sum()))
        assert found.above[own].tolist() == [place < predicted for place in range(own.sum())]
        np.testing.assert_array_equal(found.score[own], alone[order])
        np.testing.assert_allclose(found.share[own], shares(scores[n : n + 1])[0, order], rtol=1e-12)
        if calibration is not None:
            margin = scores[n].astype(np.float64) - eov[n]
            whole = calibration.of_list(margin, np.argsort(-alone, kind="stable"))
            np.testing.assert_allclose(found.probability[own], whole[: own.sum()], rtol=1e-12)
    assert (np.diff(found.row) >= 0).all()
    assert (found.probability is None) == (calibration is None)

"""Many lists at once are the lists one by one: the order with its ties, shares, the cut, and each code's own probability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mera_core.ranking.ranking import for_weighted_f1, in_order
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


@pytest.mark.parametrize("calibrated", [False, True])
def test_each_list_is_the_one_it_is_alone(calibrated):
    rng = np.random.default_rng(2)
    scores, eov = rng.normal(-2, 2, size=(11, 30)).astype(np.float32), rng.normal(size=11).astype(np.float32)
    eov[3], eov[4] = -9, 9  # all codes are predicted, and none
    ranked = for_weighted_f1(scores, eov, rng.normal(size=30), rng.normal(size=30))
    probability = rng.random(scores.shape) if calibrated else None
    found = best(scores, eov, ranked, probability, 5)
    for n in range(len(scores)):
        own = found.row == n
        order = np.argsort(-ranked[n], kind="stable")[: own.sum()]
        predicted = int((ranked[n] > eov[n]).sum())
        assert own.sum() == max(5, predicted)
        assert found.label[own].tolist() == order.tolist()
        assert found.place[own].tolist() == list(range(own.sum()))
        assert found.above[own].tolist() == [place < predicted for place in range(own.sum())]
        np.testing.assert_array_equal(found.score[own], ranked[n, order])
        np.testing.assert_allclose(found.share[own], shares(scores[n : n + 1])[0, order], rtol=1e-12)
        if calibrated:
            np.testing.assert_array_equal(found.probability[own], probability[n, order])
    assert (np.diff(found.row) >= 0).all()
    assert (found.probability is not None) == calibrated

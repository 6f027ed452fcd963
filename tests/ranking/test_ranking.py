"""Scores -> one list and one cut: by probability, the two regimes of the order "f1", ties by code, the contract's keys."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mera_core.history.records import Note
from mera_core.icd.ontology import Ontology
from mera_core.ranking.ranking import NOTICE, Ranking, best_first, by_probability, for_weighted_f1
from tests.tiny import icd9

LABELS = tuple(sorted(icd9("428.0", "401.9", "486")))  # 401.9, 428.0, 486

# whole 64ths: sums and differences are exact, so that an equality below is one
exact = st.integers(-640, 640).map(lambda n: n / 64)
offsets = st.integers(-256, 256).map(lambda n: n / 64)


@st.composite
def scored(draw):
    n, c = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    scores = np.array([[draw(exact) for _ in range(c)] for _ in range(n)])
    eov = np.array([draw(exact) for _ in range(n)])
    return scores, eov, np.array([draw(offsets) for _ in range(c)]), np.array([draw(offsets) for _ in range(c)])


@settings(max_examples=60, deadline=None)
@given(scored(), offsets)
def test_one_line_divides_a_list_by_probability(drawn, cut: float) -> None:
    log_odds, eov, _, _ = drawn
    ranked = by_probability(log_odds, eov, cut)
    assert np.array_equal(ranked > eov[:, None], log_odds > cut)  # the same line for every code and patient
    for row in range(len(ranked)):
        assert best_first(ranked[row], [None] * ranked.shape[1]).tolist() == sorted(
            range(ranked.shape[1]), key=lambda i: (-log_odds[row, i], i)
        )


# --- the order "f1"


@settings(max_examples=60, deadline=None)
@given(scored())
def test_exactly_the_codes_beyond_their_offset_are_above_eov(drawn) -> None:
    scores, eov, offset, order_offset = drawn
    ranked = for_weighted_f1(scores, eov, offset, order_offset)
    assert ranked.shape == scores.shape
    assert np.array_equal(ranked > eov[:, None], scores - eov[:, None] > offset)


@settings(max_examples=60, deadline=None)
@given(scored())
def test_above_the_cut_the_margin_less_its_offset_orders_and_below_it_less_the_other_offset(drawn) -> None:
    scores, eov, offset, order_offset = drawn
    ranked = for_weighted_f1(scores, eov, offset, order_offset)
    margin = scores - eov[:, None]
    for row in range(len(scores)):
        above, below = margin[row] - offset, margin[row] - order_offset
        for regime, key in ((above > 0, above), (above <= 0, below)):
            labels = np.flatnonzero(regime)
            by_key = sorted(labels, key=lambda i: (-key[i], i))
            by_rank = sorted(labels, key=lambda i: (-ranked[row, i], i))
            assert by_rank == by_key
        if (margin[row] > offset).any() and (margin[row] <= offset).any():
            assert ranked[row][margin[row] > offset].min() > ranked[row][margin[row] <= offset].max()


@settings(max_examples=40, deadline=None)
@given(scored(), st.integers(1, 200).map(lambda n: n / 64))
def test_a_higher_score_never_ranks_a_code_lower(drawn, rise: float) -> None:
    scores, eov, offset, order_offset = drawn
    higher = for_weighted_f1(scores + rise, eov, offset, order_offset)
    assert (higher > for_weighted_f1(scores, eov, offset, order_offset)).all()


@pytest.mark.parametrize("size", [60.0, -60.0, 700.0])
def test_extreme_scores_stay_finite(size: float) -> None:
    scores = np.array([[size, -size, 0.0]], np.float32)
    for offset in (0.0, np.array([3.0, -3.0, 0.5])):
        ranked = for_weighted_f1(scores, np.array([-size], np.float32), offset)
        assert np.isfinite(ranked).all()


def test_by_hand() -> None:
    scores, eov = np.array([[3.0, 2.5, 0.0]]), np.array([1.0])
    # margins 2, 1.5, -1 against offsets 1.75, 0.5, 0: the second passes by more, the last stays below
    ranked = for_weighted_f1(scores, eov, np.array([1.75, 0.5, 0.0]))
    assert ranked[0] == pytest.approx([1.25, 2.0, 1 - np.log1p(np.e)], abs=1e-12)
    # an order offset of -1 for the third makes its margin 0 below the cut, and changes nothing above it
    ranked = for_weighted_f1(scores, eov, np.array([1.75, 0.5, 0.0]), np.array([9.0, 9.0, -1.0]))
    assert ranked[0] == pytest.approx([1.25, 2.0, 1 - np.log(2)], abs=1e-12)


def test_equal_scores_stand_in_the_order_of_their_codes() -> None:
    assert best_first(np.array([1.0, 2.0, 1.0]), LABELS).tolist() == [1, 0, 2]
    assert best_first(np.zeros(3), LABELS).tolist() == [0, 1, 2]
    draw = np.random.default_rng(0)
    for levels in (3, 100, 10**9):
        scores = draw.integers(-levels, levels, 400).astype(np.float64)
        assert np.array_equal(best_first(scores, [None] * 400), np.lexsort((np.arange(400), -scores)))


def test_scores_of_another_label_space_are_refused() -> None:
    with pytest.raises(ValueError, match="2 scores for 3 labels"):
        best_first(np.zeros(2), LABELS)


# --- Ranking


def ranking(**values) -> Ranking:
    codes = icd9("428.0", "486", "401.9")
    defaults = {
        "codes": codes,
        "scores": np.array([2.5, 1.0, -3.0]),
        "cut": 1.0,
        "share": np.array([0.8, 0.15, 0.05]),
        "recurrent": np.array([True, False, False]),
        "checkpoint": "tiny 0123",
        "label_level": "ICD9: 3 codes",
        "ontology": Ontology.load(),
        "notes": (Note("unread", "x is unread.", 0, "x"),),
    }
    return Ranking(**(defaults | values))


def test_a_score_equal_to_the_cut_is_not_predicted() -> None:
    assert ranking().predicted == 1
    assert ranking(cut=-9.0).predicted == 3 and ranking(cut=2.5).predicted == 0


def test_the_frame_has_the_contracts_columns_and_one_row_a_code() -> None:
    frame = ranking().to_frame()
    names = ["rank", "code", "system", "definition", "chapter", "score", "share", "above_cut", "recurrent"]
    assert list(frame.columns) == names
    assert frame["rank"].tolist() == [1, 2, 3] and frame["code"].tolist() == ["428.0", "486", "401.9"]
    assert frame["above_cut"].tolist() == [True, False, False]
    assert frame["definition"][1] == "Pneumonia, organism unspecified"
    assert "respiratory" in frame["chapter"][1].lower()


def test_a_probability_is_shown_only_where_there_is_one() -> None:
    assert "probability" not in ranking().to_json()["ranking"][0]
    calibrated = ranking(probability=np.array([0.9, 0.4, 0.01]))
    assert list(calibrated.to_frame().columns)[6:8] == ["share", "probability"]
    assert [row["probability"] for row in calibrated.to_json()["ranking"]] == [0.9, 0.4, 0.01]


def test_the_json_has_the_contracts_keys_and_plain_values() -> None:
    result = json.loads(json.dumps(ranking().to_json(), allow_nan=False))
    keys = ["checkpoint", "label_level", "order", "predicted", "cut", "ranking", "notes", "notice"]
    assert list(result) == keys
    assert result["predicted"] == 1 and result["notice"] == NOTICE == "Research use, not for clinical decisions."
    assert result["order"] == "probability" and ranking(order="f1").to_json()["order"] == "f1"
    assert result["ranking"][0] == {
        "rank": 1,
        "system": "ICD9",
        "code": "428.0",
        "definition": "Congestive heart failure, unspecified",
        "score": 2.5,
        "share": 0.8,
        "above_cut": True,
        "recurrent": True,
    }
    assert result["notes"] == [{"kind": "unread", "message": "x is unread.", "visit": 0, "code": "x"}]

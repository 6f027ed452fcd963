"""Two rankings joined: places, points, sides of the cut, and the mass of each field."""

from __future__ import annotations

import pytest

from mera_core.icd.ontology import Code
from mera_core.ranking.compare import differences_first, field_masses, join, overlap
from tests.rankings import ranking_of

BEFORE = {"428": 2.0, "250": 1.0, "585": 0.5, "427": -1.0}
AFTER = {"428": 2.0, "250": -0.5, "585": 1.5, "427": -0.8}


def heart(code: str) -> Code:
    return Code("ICD9", code)


def test_places_and_points_won_and_lost():
    pairs = join(ranking_of(BEFORE), ranking_of(AFTER))
    assert {pair.code.code: pair.climbed for pair in pairs.values()} == {"428": 0, "250": -1, "585": 1, "427": 0}
    assert pairs[heart("428")].gained == 0
    assert pairs[heart("585")].gained == pytest.approx(100 * (0.81757448 - 0.62245933), abs=1e-5)
    assert [pair.code.code for pair in pairs.values() if pair.crossed] == ["250"]


def test_every_code_of_either_ranking_is_there_and_no_other():
    pairs = join(ranking_of(BEFORE), ranking_of({"585": 1.0, "401": 0.0}))
    assert [code.code for code in pairs] == ["585", "401", "428", "250", "427"]
    assert len(pairs) == 5
    assert pairs.get(heart("486")) is None
    assert [pair.code.code for pair in pairs.leading(1)] == ["585", "428", "250"]  # the first and the predicted


def test_what_crossed_the_cut_stands_first_then_what_moved_most():
    pairs = join(ranking_of(BEFORE), ranking_of(AFTER))
    assert [pair.code.code for pair in differences_first(pairs, 10)] == ["250", "585", "427", "428"]
    assert [pair.code.code for pair in differences_first(pairs, 1)] == ["250", "585", "428"]


def test_label_spaces_may_differ():
    pairs = join(ranking_of({"428": 1.0, "250": -1.0}), ranking_of({Code("ICD10", "I50"): 1.0, heart("428"): 0.5}))
    only_first, only_second = pairs[heart("250")], pairs[Code("ICD10", "I50")]
    assert (only_first.second, only_first.climbed, only_first.gained, only_first.crossed) == (None, None, None, False)
    assert (only_second.first, only_second.crossed, only_second.best_rank) == (None, True, 1)
    assert [pair.code.code for pair in differences_first(pairs, 10)] == ["I50", "250", "428"]


def test_fields_of_both_books_stand_side_by_side():
    rows = field_masses(ranking_of({"428": 0.0, "250": 0.0}), ranking_of({Code("ICD10", "I50"): 0.0}))
    assert rows == [("circulatory", 0.5, 1.0), ("endocrine", 0.5, 0.0)]


def test_overlap_of_the_first_places():
    assert overlap(ranking_of(BEFORE), ranking_of(AFTER), 2) == 1
    assert overlap(ranking_of(BEFORE), ranking_of(AFTER), 4) == 4

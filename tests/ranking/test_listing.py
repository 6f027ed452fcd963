"""The lines of a list: scores from 0 to 100, filters, categories."""

from __future__ import annotations

import numpy as np
import pytest

from mera_core.ranking.listing import Filter, lines, points, rolled_up, strengths
from tests.rankings import ranking_of

LIST = {"428": 2.0, "250.02": 1.0, "585": 0.5, "250.01": -0.5, "427": -1.0, "V45": -3.0}


def listed(found) -> list[str]:
    return [line.code.code for line in found]


def test_the_cut_is_at_fifty_and_the_scale_is_the_logistic():
    assert strengths(
        ranking_of({"428": 1.0 + np.log(3), "427": 1.0, "585": 1.0 - np.log(3)}, cut=1.0)
    ) == pytest.approx([75, 50, 25])
    assert points(np.array([-1e9, 0, 1e9])).tolist() == pytest.approx([0, 50, 100])


def test_every_line_without_filters_in_order():
    ranking = ranking_of(LIST, recurrent=["428", "427"])
    found = lines(ranking)
    assert listed(found) == ["428", "250.02", "585", "250.01", "427", "V45"]
    assert [line.rank for line in found] == [1, 2, 3, 4, 5, 6]
    assert [line.above for line in found] == [True, True, True, False, False, False]
    assert [line.recurrent for line in found] == [True, False, False, False, True, False]
    assert sum(line.share for line in found) == pytest.approx(1)


def test_a_limit_never_hides_what_is_predicted():
    assert listed(lines(ranking_of(LIST), most=2)) == ["428", "250.02", "585"]
    assert listed(lines(ranking_of(LIST), most=4)) == ["428", "250.02", "585", "250.01"]


def test_filters_keep_the_rank_in_the_whole_list():
    ranking = ranking_of(LIST, recurrent=["428"])
    assert [(line.rank, line.code.code) for line in lines(ranking, Filter(field="circulatory"))] == [
        (1, "428"),
        (5, "427"),
    ]
    assert listed(lines(ranking, Filter(new_only=True))) == ["250.02", "585", "250.01", "427", "V45"]
    assert listed(lines(ranking, Filter(field="circulatory", new_only=True))) == ["427"]
    assert lines(ranking, Filter(field="eye")) == []


def test_categories_take_their_best_codes_place_and_all_their_shares():
    ranking = ranking_of(LIST, recurrent=["250.01"], probability=[0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    found = rolled_up(ranking)
    assert listed(found) == ["428", "250", "585", "427", "V45"]
    diabetes = found[1]
    share = {code.code: value for code, value in zip(ranking.codes, ranking.share, strict=True)}
    assert (diabetes.rank, diabetes.members, diabetes.above, diabetes.recurrent) == (2, 2, True, True)
    assert diabetes.share == pytest.approx(share["250.01"] + share["250.02"])
    assert diabetes.probability == 0.5
    assert [line.rank for line in found] == [1, 2, 3, 4, 5]
    assert sum(line.share for line in found) == pytest.approx(1)


def test_rolling_up_comes_before_the_filters():
    ranking = ranking_of(LIST, recurrent=["250.01"])
    assert "250" not in listed(lines(ranking, Filter(new_only=True, roll_up=True)))
    assert listed(lines(ranking, Filter(field="endocrine", roll_up=True))) == ["250"]

"""What a history says of the labels it holds, against an example worked by hand."""

from __future__ import annotations

from mera_core.history.records import Visit
from mera_core.model.network import SEEN_FEATURES
from mera_core.model.recurrence import seen_features
from tests.tiny import icd9

A, B, C, OUTSIDE = icd9("428.0", "401.9", "486", "V45.81")
INDEX = {A: 0, B: 1, C: 2}


def features(*visits: list) -> dict[int, list[float]]:
    rows = seen_features([Visit(codes) for codes in visits], INDEX)
    assert len({row[0] for row in rows}) == len(rows), "a label has more than one row"
    return {row[0]: row[1:] for row in rows}


def test_the_order_of_the_features() -> None:
    assert SEEN_FEATURES == ("last visit", "any visit", "more than one visit", "first code of the last visit")


def test_three_visits_by_hand() -> None:
    # last, any, more than one, first code of the last
    assert features([A, B], [A, C], [B, A]) == {
        0: [1, 1, 1, 0],  # in all three, second in the last
        1: [1, 1, 1, 1],  # in the first and, first named, in the last
        2: [0, 1, 0, 0],  # in the middle one only
    }


def test_one_visit_is_the_last_and_not_more_than_one() -> None:
    assert features([A, B]) == {0: [1, 1, 0, 1], 1: [1, 1, 0, 0]}


def test_a_code_of_an_older_visit_is_not_of_the_last() -> None:
    assert features([A], [A], [B]) == {0: [0, 1, 1, 0], 1: [1, 1, 0, 1]}


def test_codes_outside_the_label_space_are_passed_over_but_keep_their_place() -> None:
    assert features([OUTSIDE, A]) == {0: [1, 1, 0, 0]}


def test_no_visits_and_no_known_code_say_nothing() -> None:
    assert features() == {} == features([OUTSIDE])

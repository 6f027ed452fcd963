"""What a history says of the labels it holds, against an example worked by hand."""

from __future__ import annotations

import pytest

from mera_core.history.records import Visit
from mera_core.model.network import SEEN_FEATURES
from mera_core.model.recurrence import seen_features
from tests.tiny import icd9

A, B, C, OUTSIDE = icd9("428.0", "401.9", "486", "V45.81")
INDEX = {A: 0, B: 1, C: 2}


@pytest.mark.parametrize(
    ("visits", "features"),  # by label: in the last visit, in any, in more than one, first code of the last
    [
        ([[A, B], [A, C], [B, A]], {0: [1, 1, 1, 0], 1: [1, 1, 1, 1], 2: [0, 1, 0, 0]}),
        ([[A, B]], {0: [1, 1, 0, 1], 1: [1, 1, 0, 0]}),
        ([[A], [A], [B]], {0: [0, 1, 1, 0], 1: [1, 1, 0, 1]}),
        ([[OUTSIDE, A]], {0: [1, 1, 0, 0]}),  # passed over, and keeps its place
        ([[OUTSIDE]], {}),
        ([], {}),
    ],
)
def test_features_of_the_labels_that_a_history_holds(visits, features) -> None:
    rows = seen_features([Visit(codes) for codes in visits], INDEX)
    assert {row[0]: row[1:] for row in rows} == features and len(rows) == len(features)
    assert SEEN_FEATURES == ("last visit", "any visit", "more than one visit", "first code of the last visit")

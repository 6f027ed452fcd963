"""The joins by time: which stay of a person holds a moment."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mera_core.readers.common.keyed import NOWHERE, holding, plain_id

STAYS = st.lists(st.tuples(st.integers(0, 2), st.integers(-9, 9), st.integers(0, 12)), max_size=12)
ASKED = st.lists(st.tuples(st.integers(0, 3), st.integers(-12, 24)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(stays=STAYS, asked=ASKED)
def test_the_latest_begun_of_all_stays_that_hold_a_moment_is_found(stays, asked):
    owner, begun, length = (np.array([stay[at] for stay in stays], np.int64) for at in range(3))
    who, when = (np.array([each[at] for each in asked], np.int64) for at in range(2))
    found = holding(owner, begun, begun + length, who, when)
    for (person, moment), row in zip(asked, found.tolist(), strict=True):
        fits = [at for at in range(len(stays)) if owner[at] == person and begun[at] <= moment <= begun[at] + length[at]]
        assert row == max(fits, key=lambda at: (begun[at], at)) if fits else row == NOWHERE


def test_a_stay_around_many_short_ones_is_found_at_once():
    size = 200_000
    owner, begun = np.zeros(size, np.int64), np.arange(size)
    ended = begun.copy()
    ended[0] = 3 * size
    assert holding(owner, begun, ended, np.array([0, 0]), np.array([2 * size, size // 2])).tolist() == [0, size // 2]


def test_ids_lose_the_decimal_point_of_floats_only():
    assert [plain_id(text) for text in ("10.0", "10", "428.0x", "a.0", "")] == ["10", "10", "428.0x", "a.0", ""]

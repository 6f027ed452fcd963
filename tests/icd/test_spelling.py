"""Which known words are near a misspelt one, and how quickly that is told."""

from __future__ import annotations

import random
import string

import pytest
from rapidfuzz.distance import OSA

from mera_core.icd.spelling import MOST, Spelling

WORDS = {"kidney": 90, "kidneys": 2, "failure": 400, "fixture": 1, "femoral": 30, "femur": 50, "heart": 200, "hear": 3}


@pytest.mark.parametrize(
    ("word", "last", "near"),
    [
        ("kidney", False, ("kidney",)),
        ("kidny", False, ("kidney",)),
        ("kidne", True, ("kidne",)),  # unfinished, and no mistake
        ("kidnye", False, ("kidney",)),  # two letters swapped are one slip
        ("kidn", False, ()),
        ("haert", False, ("heart",)),
        ("hart", False, ("heart",)),
        ("falure", True, ("failure",)),
        ("faliu", True, ("failu",)),  # "failure" on its way
        ("fmur", False, ("femur",)),
        ("fem", False, ()),  # too short to be forgiven
        ("fxilurre", False, ("failure",)),  # two slips, in eight letters
        ("fxilur", False, ()),
        ("zzzzzz", True, ()),
    ],
)
def test_what_is_near(word, last, near):
    assert Spelling(WORDS).near(word, last) == near


def test_no_word_that_is_near_is_passed_over():
    """The quick way finds what comparing with every word finds."""
    draw = random.Random(1)
    words = {"".join(draw.choices("abcdefgh", k=draw.randint(3, 11))): draw.randint(1, 99) for _ in range(800)}
    spelling = Spelling(words)
    for _ in range(200):
        word = list(draw.choice(list(words)))
        word[draw.randrange(len(word))] = draw.choice(string.ascii_lowercase)
        typed = "".join(word)
        slips = {each: OSA.distance(typed, each) for each in words}
        allowed = 0 if len(typed) < 4 else 1 if len(typed) < 8 else 2
        fewest = min(slips.values())
        wanted = {each for each, count in slips.items() if count == fewest} if fewest <= allowed else set()
        found = spelling.near(typed, False)
        assert set(found) <= wanted
        assert len(found) == min(len(wanted), MOST)

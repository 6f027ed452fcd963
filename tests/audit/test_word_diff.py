"""Word by word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mera_core.audit.word_diff import word_diff

WORDS = st.lists(st.sampled_from(["acute", "heart", "failure", "of", "the", "left", "Acute"]), max_size=12).map(
    " ".join
)


def said(runs, *kinds) -> str:
    return " ".join(run.words for run in runs if run.kind in kinds)


def test_a_changed_a_missing_and_an_added_word():
    runs = word_diff("Acute systolic heart failure", "Acute diastolic heart failure, unspecified")
    assert [(run.kind, run.words) for run in runs] == [
        ("same", "Acute"),
        ("first", "systolic"),
        ("second", "diastolic"),
        ("same", "heart"),
        ("first", "failure"),
        ("second", "failure, unspecified"),
    ]


@given(WORDS, WORDS)
def test_both_texts_can_be_read_off_the_runs(first, second):
    runs = word_diff(first, second)
    assert said(runs, "same", "first") == first
    assert said(runs, "same", "second") == second
    assert all(run.words for run in runs)

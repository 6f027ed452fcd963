"""What was done to a history, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from mera_core.history.diff import history_changes
from mera_core.history.records import Patient, Visit
from tests.tiny import icd9

HEART, KIDNEY = Visit(icd9("428.0", "401.9"), details={"stay": "4", "payer": "x"}), Visit(icd9("585.9"))
PERSON = Patient((HEART, KIDNEY), sex="F", age=72)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (PERSON, ""),
        (replace(PERSON, visits=(replace(HEART, codes=icd9("428.0")), KIDNEY)), "without 401.9"),
        (replace(PERSON, visits=(HEART, Visit((*icd9("585.9"), "foo")))), "with foo"),
        (replace(PERSON, visits=(HEART,)), "without 585.9; 1 visit instead of 2"),
        (replace(PERSON, visits=(KIDNEY, HEART)), "the same codes in another order"),
        (replace(PERSON, visits=(replace(HEART, time=datetime(2020, 1, 1)), KIDNEY)), "other dates"),
        (
            replace(PERSON, visits=(replace(HEART, details={"discharge": "home", "stay": "4"}), KIDNEY)),
            "visit 1: payer not told, discharge home",
        ),
        (replace(PERSON, age=None, sex="M"), "age not stated instead of 72; sex male instead of female"),
        (replace(PERSON, details={"ethnicity": "asian"}), "other details"),
        (
            replace(PERSON, visits=(Visit(icd9("486", "272.4", "250.00", "584.9", "491.21")),)),
            "with 486, 272.4, 250.00 and 2 more; without 428.0, 401.9, 585.9; 1 visit instead of 2",
        ),
    ],
)
def test_changes_in_words(after, words):
    assert history_changes(PERSON, after) == words

"""The quiz: ten codes, four definitions each, one of them right."""

from __future__ import annotations

import pytest

from mera_core.audit.quiz import draw_quiz
from mera_core.common.errors import InputError


@pytest.mark.parametrize("systems", [("ICD9",), ("ICD9", "ICD10")])
def test_ten_codes_with_four_different_definitions_and_the_right_one_among_them(ontology, systems):
    seen = set()
    for seed in range(20):
        quiz = draw_quiz(ontology, systems, seed)
        assert len(quiz) == 10
        assert len({question.code for question in quiz}) == 10
        for question in quiz:
            assert len(set(question.options)) == 4
            assert question.options[question.right] == ontology.definition(question.code)
            assert ontology.is_billable(question.code)
            seen.add((question.code.system, question.right))
    assert seen == {(system, place) for system in systems for place in range(4)}


def test_a_seed_draws_the_same_quiz_and_another_seed_another(ontology):
    assert draw_quiz(ontology, ("ICD9",), 7) == draw_quiz(ontology, ("ICD9",), 7)
    assert draw_quiz(ontology, ("ICD9",), 7) != draw_quiz(ontology, ("ICD9",), 8)


def test_wrong_definitions_are_near_the_right_one(ontology):
    by_definition: dict[str, set] = {}
    for code in ontology.billable("ICD9"):
        by_definition.setdefault(ontology.definition(code), set()).add(ontology.chapter(code))
    questions = [question for seed in range(10) for question in draw_quiz(ontology, ("ICD9",), seed)]
    near = [
        ontology.chapter(question.code) in by_definition[option]
        for question in questions
        for option in question.options
    ]
    assert sum(near) / len(near) > 0.97


def test_no_book_no_quiz(ontology):
    with pytest.raises(InputError, match="no ICD codes"):
        draw_quiz(ontology, (), 1)

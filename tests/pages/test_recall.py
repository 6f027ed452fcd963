"""Recall, run by itself as Streamlit runs it."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from mera_core.figures.memory import chapter_memory
from mera_core.icd.ontology import Code
from pages.shared.about.recall_view import diff_html
from pages.shared.app import engines
from tests.pages.apps import charts, html_of, open_page, press

PAGE = "3_Recall.py"


def asking(direction: str) -> AppTest:
    app = open_page(PAGE)
    app.segmented_control(key="direction").set_value(direction).run()
    assert not app.exception
    return app


def answers(app: AppTest) -> list[str]:
    return html_of(app, "mera-answer")


def verdict(app: AppTest) -> str:
    return next(element.value for kind in (app.success, app.error) for element in kind)


def test_a_code_is_answered_beside_the_official_text():
    app = open_page(PAGE)
    press(app, "example_asked_code_ICD9:428.0")
    expected = engines.engine().recall(code="428.0", system="ICD9")
    model, book = answers(app)
    assert expected.answer in model
    assert "Congestive heart failure, unspecified" in book
    assert verdict(app).startswith("Right:" if expected.exact else "Wrong:")
    assert list(app.table[0].value["Code"]) == [code.code for code, _, _ in expected.alternatives]
    assert len(app.table[0].value) == 5


def test_a_definition_is_answered_beside_the_official_code():
    app = asking("definition")
    app.text_input(key="definition_words").set_value("Congestive heart failure, unspecified").run()
    expected = engines.engine().recall(definition="Congestive heart failure, unspecified")
    model, book = answers(app)
    assert expected.answer in model
    assert "428.0" in book
    assert verdict(app).startswith("Right:" if expected.exact else "Wrong:")


def test_words_that_no_entry_has_are_neither_right_nor_wrong():
    app = asking("definition")
    app.text_input(key="definition_words").set_value("a weak heart").run()
    assert not app.exception
    assert len(app.info) == 1
    assert "No such entry" in answers(app)[1]


def test_search_asks_for_the_code_that_is_clicked():
    app = open_page(PAGE)
    app.text_input(key="recall_query").set_value("571.2").run()
    press(app, next(button.key for button in app.button if (button.key or "").startswith("found_")))
    assert app.subheader[0].value == "What does ICD-9-CM 571.2 mean?"
    assert "Alcoholic cirrhosis of liver" in answers(app)[1]


def test_a_code_that_the_model_never_learned_is_said_in_words():
    app = open_page(PAGE)
    app.text_input(key="recall_query").set_value("I50.9").run()
    assert not app.exception
    assert any("This model has memorized ICD-9-CM only." in text for text in html_of(app, "mera-found"))
    app = open_page(PAGE, asked_code=Code("ICD10", "I50.22"))
    assert app.error[0].value == "ICD10:I50.22 can't be recalled: this checkpoint memorized ICD9 only."


def test_differences_are_marked_word_by_word():
    assert diff_html("Acute <b> failure", "Acute renal failure") == "Acute <mark>&lt;b&gt;</mark> failure"
    assert diff_html("same words", "same words") == "same words"


def test_a_wrong_answer_is_marked_beside_the_official_text(monkeypatch):
    engine, wrong = engines.engine(), Code("ICD9", "428.0")  # no billable code is told wrongly by itself
    monkeypatch.setattr("mera_core.engine.recall_definitions", lambda *_: ["Congestive liver failure, unspecified"])
    app = open_page(PAGE, asked_code=wrong)
    expected = engine.recall(code=wrong)
    model, book = answers(app)
    assert diff_html(expected.answer, expected.truth) in model
    assert diff_html(expected.truth, expected.answer) in book
    assert "<mark>" in model + book


def test_ancestors_stand_beside_the_tree_of_the_icd():
    app = open_page(PAGE)
    press(app, "example_asked_code_ICD9:428.0")
    expected = engines.engine().recall_ancestors("428.0")
    assert [answer.truth for answer in expected] == ["CH07", "420-429", "428"]
    table = app.table[1].value
    assert list(table["Level"]) == ["chapter", "block", "category"]
    assert [text.split()[0] for text in table["The model's answer"]] == [answer.answer for answer in expected]
    assert [text == "the same" for text in table["Official"]] == [answer.exact for answer in expected]


def test_chapters_are_drawn_worst_first():
    app = asking("chapters")
    memory = chapter_memory(engines.engine().manifest)
    (chart,) = charts(app)
    assert chart["data"][0]["x"] == pytest.approx(sorted(100 * row.exact["code_to_definition"] for row in memory))
    app.segmented_control(key="memory_direction").set_value("definition_to_code").run()
    expected = sorted(100 * row.exact["definition_to_code"] for row in memory)
    assert charts(app)[0]["data"][0]["x"] == pytest.approx(expected)
    assert len(app.table[0].value) == len(memory)


def test_a_quiz_from_start_to_result():
    app = asking("quiz")
    press(app, "quiz_start")
    quiz = app.session_state["quiz"]
    assert quiz.model == engines.engine().recall_definitions([question.code for question in quiz.questions])
    for number, question in enumerate(quiz.questions):
        assert app.button(key="quiz_answer").disabled
        place = question.right if number < 7 else (question.right + 1) % 4
        app.radio(key=f"quiz_{number}").set_value(place).run()
        press(app, "quiz_answer")
        assert len(app.success) == (number < 7)
        press(app, "quiz_next")
    exact = sum(answer == asked.options[asked.right] for answer, asked in zip(quiz.model, quiz.questions, strict=True))
    assert app.subheader[0].value == f"You 7, the model {exact}, of 10"
    assert list(app.table[0].value["You"]).count("right") == 7
    assert press(app, "quiz_again").session_state["quiz"].chosen == []

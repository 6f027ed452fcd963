"""Recall, run by itself as Streamlit runs it."""

from __future__ import annotations

from pathlib import Path

from streamlit.testing.v1 import AppTest

from mera_core.ontology import Code
from mera_core.records import Patient, Visit
from pages.shared import session

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds: the first run loads the model


def recall(patient: Patient | None = None) -> AppTest:
    app = AppTest.from_file(ROOT / "app.py", default_timeout=PATIENCE).switch_page("pages/3_Recall.py")
    if patient is not None:
        app.session_state["patient"] = patient
    app.run()
    assert not app.exception
    return app


def answers(app: AppTest) -> list[str]:
    return [element.proto.body for element in app.get("html") if "mera-answer" in element.proto.body[:40]]


def verdict(app: AppTest) -> str:
    return next(element.value for kind in (app.success, app.error) for element in kind)


def test_an_empty_session_says_what_to_do():
    app = recall()
    assert answers(app) == []
    assert app.info[0].value == "Find a code above, or take one of the examples."


def test_a_code_is_answered_beside_the_book():
    app = recall()
    app.button(key="example_ICD9:428.0").click().run()
    assert not app.exception
    expected = session.engine().recall(code="428.0", system="ICD9")
    model, book = answers(app)
    assert expected.answer in model
    assert "Congestive heart failure, unspecified" in book
    assert verdict(app).startswith("Right:" if expected.exact else "Wrong:")
    assert list(app.table[0].value["Code"]) == [code.code for code, _, _ in expected.alternatives]
    assert len(app.table[0].value) == 5


def test_a_definition_is_answered_beside_the_book():
    app = recall()
    app.segmented_control(key="direction").set_value("definition").run()
    app.text_input(key="definition_words").set_value("Congestive heart failure, unspecified").run()
    expected = session.engine().recall(definition="Congestive heart failure, unspecified")
    model, book = answers(app)
    assert expected.answer in model
    assert "428.0" in book
    assert verdict(app).startswith("Right:" if expected.exact else "Wrong:")


def test_words_that_no_entry_has_are_neither_right_nor_wrong():
    app = recall()
    app.segmented_control(key="direction").set_value("definition").run()
    app.text_input(key="definition_words").set_value("a weak heart").run()
    assert not app.exception
    assert app.info[0].value.startswith("No entry of the book is worded exactly so")
    assert "No such entry" in answers(app)[1]


def test_search_asks_for_the_code_that_is_clicked():
    app = recall()
    app.text_input(key="recall_query").set_value("571.2").run()
    next(button for button in app.button if (button.key or "").startswith("found_")).click().run()
    assert not app.exception
    assert app.subheader[0].value == "What does ICD-9-CM 571.2 mean?"
    assert "Alcoholic cirrhosis of liver" in answers(app)[1]


def test_what_the_model_never_learned_is_an_error_in_words():
    app = recall()
    if "ICD10" in session.engine().manifest["systems"]:
        return
    app.session_state["asked_code"] = Code("ICD10", "I50.22")
    app.run()
    assert not app.exception
    assert app.error[0].value == "ICD10:I50.22 can't be recalled: this checkpoint memorized ICD9 only."


def test_a_long_and_an_icd10_history_stay_untouched():
    for visits in (
        tuple(Visit((Code("ICD9", "428.0"),)) for _ in range(60)),
        (Visit((Code("ICD10", "I50.22"),)),),
    ):
        app = recall(Patient(visits))
        app.button(key="example_ICD9:250.40").click().run()
        assert not app.exception
        assert app.session_state["patient"] == Patient(visits)

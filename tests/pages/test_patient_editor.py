"""The patient editor inside the page Predict, as Streamlit runs it, and in a page of its own with two histories."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime

import pytest
from streamlit.testing.v1 import AppTest

from mera_core.export.tables import history_csv, history_json
from mera_core.history.records import Patient, Visit, demo_patients
from mera_core.icd.ontology import Code
from pages.shared.app.histories import HistoryStack
from tests.pages.apps import TIMEOUT, button, open_page, press, send, shown, words

PAGE = "1_Predict.py"
A, B, C = Code("ICD9", "428.0"), Code("ICD9", "401.9"), Code("ICD10", "I10")
TWO = Patient((Visit((A, B), datetime(2020, 1, 1)), Visit((C, "foo"), datetime(2021, 1, 1))), "F", 72)


def _two_histories() -> None:
    from pages.shared.editor.patient_editor import patient_editor

    patient_editor()
    patient_editor("b")


def codes(app: AppTest, slot: str = "") -> list[tuple]:
    return [visit.codes for visit in shown(app, slot).patient.visits]


def test_what_was_undone_comes_again_until_something_else_is_done():
    stack = HistoryStack()
    assert not stack.can_undo and not stack.can_redo and not stack.is_edited
    ages = [replace(TWO, age=age) for age in range(60)]
    for person in ages:
        stack.change(person)
    assert stack.is_edited and stack.now.before == ages[-2]
    stack.undo()
    stack.undo()
    assert stack.now.patient == ages[-3]
    stack.redo()
    assert stack.now.patient == ages[-2] and stack.now.before == ages[-3] and stack.can_redo
    stack.change(TWO)
    assert not stack.can_redo
    for _ in range(60):
        stack.undo()
    assert stack.now.patient == ages[-2 - 49] and not stack.can_undo  # the last fifty changes
    for _ in range(60):
        stack.redo()
    assert stack.now.patient == TWO


def test_a_demo_patient_comes_back_with_its_story():
    app = open_page(PAGE)
    app.selectbox(key="demo_choice").set_value("demo-copd").run()
    app.number_input(key="age_field").set_value(40).run()
    assert button(app, "do_Redo").disabled
    press(app, "do_Undo")
    assert shown(app).demo == "demo-copd"
    press(app, "do_Redo")
    assert shown(app).demo is None and button(app, "do_Redo").disabled
    assert shown(app).patient.age == 40


@pytest.mark.parametrize("years", [250, -1])
def test_an_age_out_of_range_is_refused_in_a_sentence_and_the_old_one_stays(years):
    app = open_page(PAGE, TWO)
    app.number_input(key="age_field").set_value(72).run()
    app.number_input(key="age_field").set_value(years).run()
    assert [error.value for error in app.error] == [f"Age must be between 0 and 130 years, not {years}."]
    assert shown(app).patient.age == app.number_input(key="age_field").value == 72
    assert not app.run().error


def test_a_date_is_given_and_the_visit_goes_to_its_place():
    app = open_page(PAGE, TWO)
    press(app, "do_Date and moving codes_1")
    assert app.date_input(key="day_of_visit").value == date(2021, 1, 1)
    app.date_input(key="day_of_visit").set_value(date(2019, 5, 6)).run()
    assert not app.exception
    assert codes(app) == [(C, "foo"), (A, B)]
    assert shown(app).patient.visits[0].time == datetime(2019, 5, 6)
    assert "6 May 2019" in words(app)
    assert app.date_input(key="day_of_visit").value == date(2019, 5, 6)
    app.date_input(key="day_of_visit").set_value(None).run()
    assert shown(app).patient.visits[0].time is None
    press(app, "do_Date and moving codes_0")
    assert len(app.date_input) == 0


def test_a_visit_with_a_shifted_date_can_be_edited():
    app = open_page(PAGE, Patient((Visit((A,), datetime(2150, 3, 4)),)))
    press(app, "do_Date and moving codes_0")
    field = app.date_input(key="day_of_visit")
    assert field.value == date(2150, 3, 4)
    field.set_value(date(2150, 3, 1)).run()
    assert not app.exception
    assert shown(app).patient.visits[0].time == datetime(2150, 3, 1)


def test_a_code_moves_to_another_visit_and_to_a_new_one():
    app = open_page(PAGE, TWO)
    press(app, "do_Date and moving codes_0")
    for target, found in ((1, [(A,), (C, "foo", B)]), (-1, [(C, "foo", B), (A,)])):
        app.selectbox(key="move_which").set_value(len(codes(app)[0]) - 1).run()
        app.selectbox(key="move_target").set_value(target).run()
        press(app, "move_code")
        assert [each for each in codes(app) if each] == found


def test_a_visit_is_added_and_codes_go_there():
    app = open_page(PAGE, TWO)
    press(app, "add_visit")
    assert len(shown(app).patient.visits) == 3
    assert app.selectbox(key="add_target").value == 2
    app.text_area(key="paste_text").set_value("486").run()
    press(app, "paste_button")
    assert codes(app)[2] == (Code("ICD9", "486"),)


def test_the_panel_follows_its_visit():
    app = open_page(PAGE, TWO)
    press(app, "do_Date and moving codes_0")
    press(app, "do_Move later_0")
    assert app.session_state["editing"] == 1
    press(app, "do_Remove this visit_0")
    assert app.session_state["editing"] is None


def test_profile_words_that_the_model_reads_can_be_given_and_taken_away():
    app = open_page(PAGE, Patient((Visit((A,)),), "F", 72, details={"insurance": "private"}))
    assert any(one.value == "Not read by this model: insurance: private" for one in app.caption)
    app.text_input(key="detail_ethnicity").set_value(" hispanic ").run()
    assert not app.exception
    assert shown(app).patient.details == {"insurance": "private", "ethnicity": "hispanic"}
    app.text_input(key="detail_ethnicity").set_value("").run()
    assert shown(app).patient.details == {"insurance": "private"}
    press(app, "do_Undo")
    assert app.text_input(key="detail_ethnicity").value == "hispanic"


def test_results_are_named_by_their_code_and_said():
    app = open_page(PAGE, Patient((Visit((A,)),)))
    app.text_input(key="add_query").set_value("heart fail").run()
    found = [one for one in app.button if (one.key or "").startswith("found_")]
    assert len({one.key for one in found}) == len(found) == 10
    said = [one.proto.body for one in app.get("html") if 'class="mera-found"' in one.proto.body]
    assert said == [
        '<p class="mera-found" role="status">first 10 results: Enter takes the first, ↓ and ↑ walk through them</p>'
    ]
    app.text_input(key="add_query").set_value("xqzjv").run()
    assert any("Nothing found" in one.proto.body for one in app.get("html"))


def test_what_is_typed_outlives_a_change_of_page_and_an_error():
    app = open_page(PAGE, Patient((Visit((A,)),)))
    app.text_input(key="add_query").set_value("heart").run()
    app.text_area(key="paste_text").set_value("486; 401.9").run()
    app.switch_page("pages/3_Recall.py").run()
    app.switch_page("pages/1_Predict.py").run()
    assert not app.exception
    assert app.text_input(key="add_query").value == "heart"
    assert app.text_area(key="paste_text").value == "486; 401.9"
    assert codes(app) == [(A,)]


def test_two_histories_do_not_touch_each_other():
    app = AppTest.from_function(_two_histories, default_timeout=TIMEOUT).run()
    assert not app.exception
    app.text_area(key="paste_text").set_value("428.0").run()
    press(app, "paste_button")
    app.text_area(key="paste_text_b").set_value("I10; 401.9").run()
    press(app, "paste_button_b")
    assert codes(app) == [(A,)]
    assert codes(app, "b") == [(C, B)]
    press(app, "chip_circulatory_0_0_ICD10:I10_b")
    press(app, "do_Undo")
    assert codes(app) == []
    assert codes(app, "b") == [(B,)]
    press(app, "do_Undo_b")
    assert codes(app, "b") == [(C, B)]


def test_a_history_is_uploaded_as_it_was_typed():
    app = open_page(PAGE)
    send(app, "history_files", "mine.json", history_json(TWO).encode(), "application/json")
    assert shown(app).patient == TWO
    assert any("**foo** not read" in one.label for one in app.button)
    assert shown(app).title == "mine.json"
    assert app.session_state["add_target"] == len(TWO.visits) - 1


def test_text_that_can_only_be_one_code_is_shown_as_that_code():
    app = open_page(PAGE, Patient((Visit(("428.0", "E8021", "foo")),)))
    chips = [one for one in app.button if (one.key or "").startswith("chip_")]
    assert [one.key for one in chips] == ["chip_circulatory_0_0_ICD9:428.0", "chip_unread_0_2"]
    assert chips[0].label.endswith("Congestive heart failure, unspecified")
    assert {"settle_0_1_ICD9:E802.1", "settle_0_1_ICD10:E80.21"} <= {one.key for one in app.button}


def test_a_file_with_several_patients_lets_one_choose():
    app = open_page(PAGE)
    people = [demo.patient for demo in demo_patients()[:3]]
    send(app, "history_files", "three.csv", history_csv(people).encode())
    assert shown(app).patient == Patient()
    assert "kept: 3 patients" in words(app)
    app.selectbox(key="opened_choice").set_value(1).run()
    press(app, "open_button")
    assert codes(app) == [visit.codes for visit in people[1].visits]


def test_a_wrong_file_is_told_changes_nothing_and_is_not_read_together_with_the_corrected_one():
    app = send(open_page(PAGE, TWO), "history_files", "notes.csv", b"a,b\n1,2\n")
    (error,) = [one.value for one in app.error if "format" in one.value]
    assert error.startswith("Notes.csv is in no format that is known here") and "tmp" not in error
    assert shown(app).patient == TWO
    table = history_csv(Patient((Visit(("428.0",)),), id="mine")).encode()
    assert not send(app, "history_files_1", "notes.csv", table).error
    assert codes(app) == [(A,)]


def test_downloads_stand_only_where_there_is_a_history():
    app = open_page(PAGE)
    history = {one.key: one.proto.disabled for one in app.download_button if (one.key or "").startswith("save_")}
    assert history == {"save_json": True, "save_csv": True}
    app = open_page(PAGE, TWO)
    assert not any(one.proto.disabled for one in app.download_button if (one.key or "").startswith("save_"))

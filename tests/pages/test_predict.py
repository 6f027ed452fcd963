"""Predict, run by itself as Streamlit runs it: empty, with a demo patient, a long history, an ICD-10 history."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from streamlit.testing.v1 import AppTest

from mera_core.history.records import Patient, Visit, demo_patients
from mera_core.icd.ontology import Code
from pages.shared.app import session

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds: the first run loads the model


def predict(patient: Patient | None = None, **query: str) -> AppTest:
    app = AppTest.from_file(ROOT / "app.py", default_timeout=PATIENCE).switch_page("pages/1_Predict.py")
    if patient is not None:
        app.session_state["patient"] = patient
    for key, value in query.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


class _Rows(HTMLParser):
    """The cells of each row of the ranked list, and the class of the row."""

    def __init__(self, text: str):
        super().__init__()
        self.rows: list[tuple[str, list[str]]] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append((dict(attributes).get("class") or "", []))
        elif tag in ("td", "th"):
            self.rows[-1][1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._in_cell:
            self.rows[-1][1][-1] += data


def rows(app: AppTest) -> list[tuple[str, list[str]]]:
    """(class, cells) of each row below the head."""
    lists = [element.proto.body for element in app.get("html") if "mera-list" in element.proto.body[:40]]
    return _Rows(lists[0]).rows[1:] if lists else []


def ranked(app: AppTest) -> list[str]:
    return [cells[1] for kind, cells in rows(app) if not kind.startswith("cut")]


def shown(app: AppTest, key: str):
    return next(button for button in app.button if button.key == key)


def charts(app: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def test_an_empty_session_says_what_to_do():
    app = predict()
    assert rows(app) == []
    assert charts(app) == []
    assert any("No diagnoses yet" in element.proto.body for element in app.get("html"))
    assert app.selectbox(key="demo_choice").value is None
    shown(app, "suggest_demo-heart-failure").click().run()
    assert not app.exception
    assert len(ranked(app)) == 10


def test_the_list_is_the_engines_ranking_with_the_cut_where_it_belongs():
    demo = demo_patients()[0]
    app = predict(demo=demo.id)
    ranking = session.engine().rank(demo.patient)
    assert ranked(app) == [code.code for code in ranking.codes[:10]]
    kinds = [kind for kind, _ in rows(app)]
    assert kinds.index("cut" if ranking.predicted else "cut top") == ranking.predicted
    assert kinds.count("above") == ranking.predicted
    assert f"{ranking.predicted} predicted" in rows(app)[ranking.predicted][1][0]
    marks = ["recurrent" if mark else "new" for mark in ranking.recurrent[:10]]
    assert [re.search(r"(recurrent|new)Why\?$", cells[2])[1] for kind, cells in rows(app) if "cut" not in kind] == marks
    scores = [int(cells[3]) for kind, cells in rows(app) if "cut" not in kind]
    assert scores == sorted(scores, reverse=True)
    assert all(score >= 50 for score in scores[: ranking.predicted])
    assert all(score <= 50 for score in scores[ranking.predicted :])


def test_below_the_cut_can_be_hidden_and_more_rows_shown():
    app = predict(demo="demo-heart-failure")
    cut = [kind for kind, _ in rows(app)].count("above")
    app.toggle(key="show_below").set_value(False).run()
    assert len(ranked(app)) == cut
    app.toggle(key="show_below").set_value(True).run()
    app.selectbox(key="rows").set_value(50).run()
    assert len(ranked(app)) == 50


def test_a_long_history_folds_its_earlier_visits():
    visits = [Visit((Code("ICD9", "428.0"), Code("ICD9", code))) for code in ("401.9", "250.00", "585.9") * 20]
    app = predict(Patient(tuple(visits), sex="F", age=81))
    assert len(ranked(app)) == 10
    chips = [button for button in app.button if (button.key or "").startswith("chip_")]
    assert len(chips) == 12
    app.toggle(key="show_earlier").set_value(True).run()
    assert not app.exception
    chips = [button for button in app.button if (button.key or "").startswith("chip_")]
    assert len(chips) == 120


def test_an_icd10_history_is_ranked_and_the_mapping_said():
    visit = Visit((Code("ICD10", "I50.22"), Code("ICD10", "E11.9")))
    app = predict(Patient((visit,), sex="M", age=70))
    assert len(ranked(app)) == 10
    read = " ".join(element.value for expander in app.expander for element in expander.markdown)
    assert "ICD10:I50\\.22" in read.replace("\\:", ":")
    assert "general equivalence maps" in read


def test_codes_are_removed_and_brought_back():
    app = predict(Patient((Visit((Code("ICD9", "428.0"), Code("ICD9", "401.9"))),)))
    chip = next(button for button in app.button if (button.key or "").endswith("_0_1_ICD9:401.9"))
    assert "Unspecified essential hypertension" in chip.label
    chip.click().run()
    assert [visit.codes for visit in app.session_state["patient"].visits] == [(Code("ICD9", "428.0"),)]
    next(button for button in app.button if button.label == "Undo").click().run()
    assert len(app.session_state["patient"].visits[0].codes) == 2


def test_profile_reaches_the_history():
    app = predict(demo="demo-heart-failure")
    app.number_input(key="age_field").set_value(40).run()
    app.segmented_control(key="sex_field").set_value("F").run()
    assert (app.session_state["patient"].age, app.session_state["patient"].sex) == (40.0, "F")
    assert app.session_state["demo"] is None
    assert "demo" not in app.query_params


def test_a_pasted_list_keeps_and_names_what_it_could_not_read():
    app = predict(Patient((Visit((Code("ICD9", "428.0"),)),)))
    app.selectbox(key="add_target").set_value(-1).run()
    app.text_area(key="paste_text").set_value("250.00; 585.9 | I10, foo\nE8021").run()
    app.button(key="paste_button").click().run()
    assert not app.exception
    assert app.session_state["patient"].visits[1].codes == (
        Code("ICD9", "250.00"), Code("ICD9", "585.9"), Code("ICD10", "I10"), "foo", "E8021",
    )  # fmt: skip
    warnings = [session_words(warning.value) for warning in app.warning]
    assert "Not read, and kept as typed: foo, E8021" in warnings
    (unread,) = [words for words in warnings if words.startswith("**Not used for the prediction (2)**")]
    assert "- Visit 2: 'foo' is not a code of ICD-9-CM or ICD-10-CM." in unread
    assert "- Visit 2: 'E8021' is ambiguous" in unread
    choice = next(button for button in app.button if (button.key or "").endswith("ICD10:E80.21"))
    choice.click().run()
    assert app.session_state["patient"].visits[1].codes[-1] == Code("ICD10", "E80.21")
    assert dict(app.query_params) == {}


def session_words(markdown: str) -> str:
    return markdown.replace("\\", "")


def test_search_finds_and_adds():
    app = predict()
    app.text_input(key="add_query").set_value("heart fail").run()
    found = [button for button in app.button if (button.key or "").startswith("found_")]
    assert len(found) == 10
    assert "**Heart** **fail**ure" in found[0].label
    next(button for button in found if button.label.startswith("428\\.9")).click().run()
    assert not app.exception
    assert app.session_state["patient"].visits[0].codes == (Code("ICD9", "428.9"),)
    assert app.text_input(key="add_query").value == ""
    assert len(ranked(app)) == 10


def test_nothing_readable_is_an_error_in_words():
    app = predict(Patient((Visit(("foo",)),)))
    assert len(app.error) == 1
    assert app.error[0].value.startswith("The history holds no code that this model can read")
    assert any("foo" in button.label for button in app.button)


def test_a_list_too_long_stays_in_its_field():
    app = predict()
    text = "428.0, " * 4000
    app.text_area(key="paste_text").set_value(text).run()
    app.button(key="paste_button").click().run()
    assert [error.value for error in app.error] == [
        "The list has 28,000 characters, and at most 20,000 can be pasted at once."
    ]
    assert app.text_area(key="paste_text").value == text


def test_a_link_to_no_demo_patient_is_said():
    app = predict(demo="nobody")
    assert app.warning[0].value == "The link names a demo patient that is not here; choose one below."
    assert app.session_state["patient"] == Patient()


def test_visits_move_but_dates_stay():
    demo = demo_patients()[0]
    app = predict(demo=demo.id)
    next(button for button in app.button if button.key == "do_Move later_0").click().run()
    before, after = demo.patient.visits, app.session_state["patient"].visits
    assert (after[0].codes, after[1].codes) == (before[1].codes, before[0].codes)
    assert [visit.time for visit in after] == [visit.time for visit in before]
    next(button for button in app.button if button.key == "do_Remove this visit_0").click().run()
    assert len(app.session_state["patient"].visits) == len(before) - 1

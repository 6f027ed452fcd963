"""What can be asked of a prediction: filters, why, what if, the code book, downloads."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from streamlit.elements.lib import policies

from mera_core.explain import leave_one_out
from mera_core.history.records import Patient, Visit, demo_patients
from mera_core.icd.ontology import Code
from pages.shared.app import session
from pages.shared.ranking import ranking_view, why_view
from tests.pages.apps import alts, button, charts, every_history, html_of, open_page

PAGE = "1_Predict.py"
DEMO = {"demo": "demo-heart-failure"}
PANELS = ("Code book", "Why", "What if", "Download")


def person() -> Patient:
    return next(demo.patient for demo in demo_patients() if demo.id == DEMO["demo"])


def listed(app) -> list[str]:
    tables = html_of(app, 'class="mera-list" ')
    return re.findall(r'<td class="code"><span[^>]*>([^<]+)<', tables[0]) if tables else []


def open_panel(app, panel: str):
    app.segmented_control(key="panel").set_value(panel).run()
    assert not app.exception
    return app


@every_history
@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_bears_every_history(patient, panel):
    app = open_page(PAGE, patient)
    if patient is None:
        assert not app.segmented_control(key="sex_field").value or listed(app) == []
        assert any("No diagnoses yet" in text for text in html_of(app, "mera-empty"))
        return
    open_panel(app, panel)
    if panel == "Why" and len(patient.visits) > 20:
        assert "takes some seconds" in app.info[0].value
        assert not charts(app)
        button(app, "why_all").click().run()
        assert not app.exception
    assert len(listed(app)) >= 10
    assert all(words.strip() for words in alts(app))
    assert len(app.get("plotly_chart")) == (1 if panel in ("Why", "Code book") else 0)


def test_the_notice_stands_under_the_title():
    assert html_of(open_page(PAGE), "mera-notice") == [
        '<p class="mera-notice">Research use, not for clinical decisions.</p>'
    ]


# --- filters


def test_chapter_and_new_only():
    ranking = session.engine().rank(person())
    app = open_page(PAGE, query=DEMO)
    app.selectbox(key="field").set_value("circulatory").run()
    circulatory = [
        code.code for code in ranking.codes if session.engine().ontology.chapter(code) == Code("ICD9", "CH07")
    ]
    assert listed(app) == circulatory[:10]
    app.toggle(key="new_only").set_value(True).run()
    held = {code.code for code, known in zip(ranking.codes, ranking.recurrent, strict=True) if known}
    assert held & set(circulatory[:10]), "nothing to leave out: the test says nothing"
    assert listed(app) == [code for code in circulatory if code not in held][:10]


def test_filters_that_leave_nothing_say_so():
    app = open_page(PAGE, query=DEMO)
    app.selectbox(key="field").set_value("pregnancy").run()
    app.toggle(key="show_below").set_value(False).run()
    assert not app.exception
    assert listed(app) == []
    assert any("above the cut. Change the filters" in text for text in html_of(app, "mera-empty"))


def test_rolled_up_to_categories():
    app = open_page(PAGE, Patient((Visit((Code("ICD9", "250.02"), Code("ICD9", "250.60"))),)))
    app.selectbox(key="rows").set_value(100).run()
    assert sum(code.startswith("250") for code in listed(app)) > 1
    app.toggle(key="roll_up").set_value(True).run()
    assert not app.exception
    assert [code for code in listed(app) if code.startswith("250")] == ["250"]
    assert all("." not in code for code in listed(app))


def test_a_calibrated_probability_has_a_column():
    ranking = session.engine().rank(person())
    size = len(ranking.codes)
    calibrated = replace(ranking, probability=np.linspace(0.8, 0.001, size))
    shown = ranking_view.lines(calibrated, most=10)
    table = ranking_view.list_html(calibrated, shown)
    assert '<th scope="col">Probability</th>' in table
    assert '<td class="number">80 %</td>' in table
    assert "Probability" not in ranking_view.list_html(replace(ranking, probability=None), shown)


# --- why


def test_why_of_a_row_is_the_leave_one_out_of_that_code():
    app = open_panel(open_page(PAGE, query=DEMO), "Why")
    engine = session.engine()
    third = engine.rank(person()).codes[2]
    app.selectbox(key="why").set_value(third).run()
    assert not app.exception
    (chart,) = charts(app)
    found = leave_one_out(engine, person()).of(third)
    assert chart["layout"]["title"]["text"] == f"Points of score that each entry adds to {third.code}"
    assert [round(x, 4) for x in chart["data"][0]["x"]] == [round(effect.added or 0, 4) for effect in found]
    assert "sensitivity, not cause" in " ".join(caption.value for caption in app.caption)
    table = next(expander for expander in app.expander if "each code and visit" in expander.label).table[0].value
    assert len(table) == len(found)


def test_every_row_has_a_button_that_names_its_code():
    app = open_page(PAGE, query=DEMO)
    (table,) = html_of(app, 'class="mera-list" ')
    asked = re.findall(r'data-code="ICD9:([^"]+)" aria-label="Why is ([^ ]+) on the list\?"', table)
    assert [code for code, _ in asked] == [code for _, code in asked] == listed(app)


def test_asking_from_a_row_chooses_the_panel_and_the_code(monkeypatch):
    state: dict = {"patient": person()}
    monkeypatch.setattr(why_view.st, "session_state", state)
    ranking = session.engine().rank(person())
    why_view.ask(str(ranking.codes[60]), ranking)
    assert (state["why"], state["panel"], state["why_agreed"]) == (ranking.codes[60], "Why", person())
    why_view.ask("ICD9:<script>", ranking)
    assert state["why"] == ranking.codes[60]


def test_a_diagnosis_far_down_the_list_can_be_asked_for():
    far = session.engine().rank(person()).codes[300]
    app = open_page(PAGE, query=DEMO, why=far, panel="Why")
    assert app.selectbox(key="why").value == far
    assert far.code in charts(app)[0]["layout"]["title"]["text"]


def test_a_panel_chosen_by_a_row_is_no_second_default(monkeypatch):
    """Streamlit logs a warning with a stack trace where a widget has a default beside a value of the session."""
    complaints = []
    monkeypatch.setattr(policies._LOGGER, "warning", lambda *said: complaints.append(said))
    monkeypatch.setattr(policies, "_shown_default_value_warning", False)
    open_page(PAGE, query=DEMO, panel="Why")
    assert complaints == []


# --- what if


def chips(app) -> list:
    return [each for each in app.button if (each.key or "").startswith("chip_")]


def test_a_removed_code_shows_what_moved_and_the_way_back():
    app = open_page(PAGE, query=DEMO)
    before = app.session_state["patient"]
    assert "mera-change" not in html_of(app, 'class="mera-list" ')[0]
    chips(app)[-1].click().run()
    after = app.session_state["patient"]
    assert after != before
    (table,) = html_of(app, 'class="mera-list" ')
    engine = session.engine()
    old, new = engine.rank(before), engine.rank(after)
    places = [list(old.codes).index(code) - list(new.codes).index(code) for code in new.codes[:10]]
    said = re.findall(r'mera-change (up|down|same)"><span aria-hidden="true">([▲▼=]) (?:(\d+)|rank) ·', table)
    assert [int(number or 0) * {"▲": 1, "▼": -1, "=": 0}[arrow] for _, arrow, number in said] == places
    open_panel(app, "What if")
    words = " ".join(element.value for element in app.markdown)
    assert "Compared with the history before the last change: **without " in words
    assert html_of(app, "mera-pairs")
    button(app, "back").click().run()
    assert app.session_state["patient"] == before


def test_a_pinned_history_stays_the_baseline():
    app = open_panel(open_page(PAGE, query=DEMO), "What if")
    before = app.session_state["patient"]
    button(app, "pin").click().run()
    assert "Change it: what moves is shown here" in " ".join(info.value for info in app.info)
    chips(app)[-1].click().run()
    app.number_input(key="age_field").set_value(30).run()
    words = " ".join(element.value for element in app.markdown)
    assert "Compared with the pinned history: **without " in words
    assert "age 30 instead of" in words
    button(app, "back").click().run()
    assert app.session_state["patient"] == before
    button(app, "unpin").click().run()
    assert not app.exception


def test_a_demo_patient_is_not_compared_with_the_one_before():
    app = open_page(PAGE, query=DEMO)
    app.selectbox(key="demo_choice").set_value("demo-copd").run()
    assert "mera-change" not in html_of(app, 'class="mera-list" ')[0]
    open_panel(app, "What if")
    assert any("Change the history" in info.value for info in app.info)


# --- the code book


def test_charts_hold_the_ranking_mass():
    app = open_panel(open_page(PAGE, query=DEMO), "Code book")
    ranking = session.engine().rank(person())
    (tree,) = charts(app)
    assert tree["data"][0]["type"] == "treemap"
    top = [v for v, p in zip(tree["data"][0]["values"], tree["data"][0]["parents"], strict=True) if not p]
    assert sum(top) == pytest.approx(1, abs=1e-6)
    app.segmented_control(key="chart").set_value("Rings").run()
    assert charts(app)[0]["data"][0]["type"] == "sunburst"
    app.segmented_control(key="chart").set_value("Bars").run()
    assert charts(app)[0]["layout"]["title"]["text"] == "Share of ranking mass by chapter"
    app.selectbox(key="level").set_value("code").run()
    assert max(charts(app)[0]["data"][0]["x"]) == pytest.approx(100 * ranking.share.max())
    app.selectbox(key="within").set_value(Code("ICD9", "CH03")).run()
    assert "within Endocrine" in charts(app)[0]["layout"]["title"]["text"]


# --- nothing of a patient leaves


def test_addresses_hold_the_demo_and_nothing_of_an_edited_history():
    app = open_page(PAGE, query=DEMO)
    assert [app.query_params["demo"]] in (["demo-heart-failure"], [["demo-heart-failure"]])
    chips(app)[-1].click().run()
    for panel in PANELS:
        open_panel(app, panel)
        assert dict(app.query_params) == {}


def test_an_address_that_the_browser_goes_back_to_leaves_edits_alone():
    app = open_page(PAGE, query=DEMO)
    chips(app)[-1].click().run()
    edited = app.session_state["patient"]
    app.query_params["demo"] = DEMO["demo"]  # as the button Back does
    app.run()
    assert not app.exception
    assert app.session_state["patient"] == edited
    assert "demo" not in app.query_params
    assert "Your edited history stays" in app.toast[0].value
    app.switch_page("app.py").run()
    app.query_params["demo"] = DEMO["demo"]
    app.switch_page(f"pages/{PAGE}").run()  # a link of the home page means what it says
    assert app.session_state["patient"] == person()


def test_a_visit_in_which_nothing_is_written_yet_is_no_warning():
    app = open_page(PAGE, query=DEMO)
    button(app, "add_visit").click().run()
    assert not app.exception
    assert app.session_state["patient"].visits[-1].codes == ()
    assert not app.warning

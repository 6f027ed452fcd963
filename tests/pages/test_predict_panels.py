"""What can be asked of a prediction: why, what if, where it points; downloads. By every history."""

from __future__ import annotations

import re

import pytest

from mera_core.explain import leave_one_out
from mera_core.icd.ontology import Code
from pages.shared.app import engines
from tests.pages.apps import HISTORIES, alts, charts, html_of, open_page, press, shown, titles, words
from tests.pages.test_predict import DEMO, PAGE, chips, demo_page, ranked


def open_panel(app, panel: str):
    app.segmented_control(key="panel").set_value(panel).run()
    assert not app.exception
    return app


@pytest.mark.parametrize("history", ["a long history", "an ICD-10 history"])
def test_every_panel_bears_every_history(history):
    app = open_page(PAGE, HISTORIES[history])
    for panel in ("Chapters", "Why", "What if", "Download"):
        open_panel(app, panel)
        if panel == "Why" and history == "a long history":
            assert not charts(app)  # it would take seconds: one is asked first
            press(app, "why_all")
        assert len(ranked(app)) >= 10
        assert all(each.strip() for each in alts(app))
        assert len(charts(app)) == (1 if panel in ("Why", "Chapters") else 0)
        assert dict(app.query_params) == {}
    assert {each.key for each in app.download_button} >= {
        f"export_{end}" for end in ("html", "csv", "json", "fhir.json")
    }


def test_why_of_a_row_is_the_leave_one_out_of_that_code():
    app = open_panel(demo_page(), "Why")
    engine = engines.engine()
    third = engine.rank(DEMO.patient).codes[2]
    app.selectbox(key="why").set_value(third).run()
    assert not app.exception
    assert titles(app) == [f"Points of score that each entry adds to {third.code}"]
    found = leave_one_out(engine, DEMO.patient).of(third)
    assert [round(x, 4) for x in charts(app)[0]["data"][0]["x"]] == [round(effect.added or 0, 4) for effect in found]
    assert "sensitivity, not cause" in words(app)
    table = next(expander for expander in app.expander if "each code and visit" in expander.label).table[0].value
    assert len(table) == len(found)


def test_a_diagnosis_far_down_the_list_can_be_asked_for():
    far = engines.engine().rank(DEMO.patient).codes[300]
    app = open_page(PAGE, query={"demo": DEMO.id}, why=far, panel="Why")
    assert app.selectbox(key="why").value == far
    assert far.code in titles(app)[0]


def test_a_removed_code_shows_what_moved_and_the_way_back():
    app = demo_page()
    before = shown(app).patient
    assert "mera-change" not in html_of(app, 'class="mera-list" ')[0]
    press(app, chips(app)[-1].key)
    after = shown(app).patient
    assert after != before
    (table,) = html_of(app, 'class="mera-list" ')
    engine = engines.engine()
    old, new = engine.rank(before), engine.rank(after)
    places = [list(old.codes).index(code) - list(new.codes).index(code) for code in new.codes[:10]]
    said = re.findall(r'mera-change (up|down|same)"><span aria-hidden="true">([▲▼=]) (?:(\d+)|rank) ·', table)
    assert [int(number or 0) * {"▲": 1, "▼": -1, "=": 0}[arrow] for _, arrow, number in said] == places
    open_panel(app, "What if")
    assert "Compared with the history before the last change: **without " in words(app)
    assert html_of(app, "mera-pairs")
    assert shown(press(app, "back")).patient == before


def test_a_pinned_history_stays_the_baseline():
    app = press(open_panel(demo_page(), "What if"), "pin")
    press(app, chips(app)[-1].key)
    app.number_input(key="age_field").set_value(30).run()
    assert "Compared with the pinned history: **without " in words(app)
    assert "age 30 instead of" in words(app)
    assert shown(press(app, "back")).patient == DEMO.patient
    press(app, "unpin")


def test_a_demo_patient_is_not_compared_with_the_one_before():
    app = demo_page()
    app.selectbox(key="demo_choice").set_value("demo-copd").run()
    assert "mera-change" not in html_of(app, 'class="mera-list" ')[0]
    assert len(open_panel(app, "What if").info) == 1


def test_charts_hold_the_ranking_mass():
    app = open_panel(demo_page(), "Chapters")
    ranking = engines.engine().rank(DEMO.patient)
    (tree,) = charts(app)
    assert tree["data"][0]["type"] == "treemap"
    top = [v for v, p in zip(tree["data"][0]["values"], tree["data"][0]["parents"], strict=True) if not p]
    assert sum(top) == pytest.approx(1, abs=1e-6)
    app.segmented_control(key="chart").set_value("Bars").run()
    assert titles(app) == ["Share of ranking mass by chapter"]
    app.selectbox(key="level").set_value("code").run()
    assert max(charts(app)[0]["data"][0]["x"]) == pytest.approx(100 * ranking.share.max())
    app.selectbox(key="within").set_value(Code("ICD9", "CH03")).run()
    assert "within Endocrine" in titles(app)[0]

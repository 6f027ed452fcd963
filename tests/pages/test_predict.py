"""Predict, run by itself as Streamlit runs it: the ranked list and its filters, how a history was read, links."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from streamlit.testing.v1 import AppTest

from mera_core.history.records import Patient, Visit, demo_patients
from mera_core.icd.ontology import Code
from mera_core.ranking.population import Population
from pages.shared.app import engines
from pages.shared.ranking import ranking_view
from tests.pages.apps import HISTORIES, html_of, open_page, press, shown, words

PAGE = "1_Predict.py"
DEMO = next(demo for demo in demo_patients() if demo.id == "demo-heart-failure")


def demo_page() -> AppTest:
    return open_page(PAGE, query={"demo": DEMO.id})


def rows(app: AppTest) -> list[tuple[str, list[str]]]:
    """(class, cells) of each row below the head."""
    found = re.findall(r'<tr class="([^"]*)">(.*?)</tr>', "".join(html_of(app, 'class="mera-list" ')))
    cells = [(kind, re.findall(r"<td[^>]*>(.*?)</td>", row)) for kind, row in found]
    return [(kind, [re.sub(r"<[^>]+>", "", cell) for cell in inside]) for kind, inside in cells]


def ranked(app: AppTest) -> list[str]:
    return [cells[1] for kind, cells in rows(app) if not kind.startswith("cut")]


def chips(app: AppTest) -> list:
    return [each for each in app.button if (each.key or "").startswith("chip_")]


def test_an_empty_session_offers_demo_patients():
    app = open_page(PAGE)
    assert rows(app) == [] and html_of(app, "mera-empty")
    assert len(ranked(press(app, f"suggest_{DEMO.id}"))) == 10


def test_the_list_is_the_engines_ranking_with_the_cut_off_where_it_belongs():
    app = demo_page()
    ranking = engines.engine().rank(DEMO.patient)
    assert ranked(app) == [code.code for code in ranking.codes[:10]]
    kinds = [kind for kind, _ in rows(app)]
    assert kinds.index("cut" if ranking.predicted else "cut top") == ranking.predicted == kinds.count("above")
    assert f"{ranking.predicted} predicted" in rows(app)[ranking.predicted][1][0]
    marks = ["recurrent" if mark else "new" for mark in ranking.recurrent[:10]]
    assert [re.search(r"(recurrent|new)Why\?$", cells[2])[1] for kind, cells in rows(app) if "cut" not in kind] == marks
    scores = [int(cells[3]) for kind, cells in rows(app) if "cut" not in kind]
    assert scores == sorted(scores, reverse=True)
    assert all(score >= 50 for score in scores[: ranking.predicted])
    assert all(score <= 50 for score in scores[ranking.predicted :])


def test_a_calibrated_probability_has_a_column():
    ranking = engines.engine().rank(DEMO.patient)
    calibrated = replace(ranking, probability=np.linspace(0.8, 0.001, len(ranking.codes)))
    table = ranking_view.list_html(calibrated, ranking_view.lines(calibrated, most=10))
    assert '<th scope="col">Probability</th>' in table
    assert '<td class="number">80 %</td>' in table


def test_filters_by_number_of_rows_and_cut_off():
    app = demo_page()
    predicted = [kind for kind, _ in rows(app)].count("above")
    app.toggle(key="show_below").set_value(False).run()
    assert len(ranked(app)) == predicted
    app.selectbox(key="field").set_value("pregnancy").run()
    assert not app.exception
    assert ranked(app) == [] and html_of(app, "mera-empty")
    app.selectbox(key="field").set_value(None)
    app.toggle(key="show_below").set_value(True).run()
    app.selectbox(key="rows").set_value(50).run()
    assert len(ranked(app)) == 50


def test_filters_by_chapter_and_new_only():
    engine = engines.engine()
    ranking = engine.rank(DEMO.patient)
    app = demo_page()
    app.selectbox(key="field").set_value("circulatory").run()
    circulatory = [code.code for code in ranking.codes if engine.ontology.chapter(code) == Code("ICD9", "CH07")]
    assert ranked(app) == circulatory[:10]
    app.toggle(key="new_only").set_value(True).run()
    held = {code.code for code, known in zip(ranking.codes, ranking.recurrent, strict=True) if known}
    assert held & set(circulatory[:10]), "nothing to leave out: the test says nothing"
    assert ranked(app) == [code for code in circulatory if code not in held][:10]


def test_rolled_up_to_categories():
    app = open_page(PAGE, Patient((Visit((Code("ICD9", "250.02"), Code("ICD9", "250.60"))),)))
    app.selectbox(key="rows").set_value(100).run()
    assert sum(code.startswith("250") for code in ranked(app)) > 1
    app.toggle(key="roll_up").set_value(True).run()
    assert not app.exception
    assert [code for code in ranked(app) if code.startswith("250")] == ["250"]
    assert all("." not in code for code in ranked(app))


def test_a_long_history_folds_its_earlier_visits():
    app = open_page(PAGE, HISTORIES["a long history"])
    assert len(ranked(app)) == 10
    assert len(chips(app)) == 12
    app.toggle(key="show_earlier").set_value(True).run()
    assert not app.exception
    assert len(chips(app)) == 120


def test_an_icd10_history_is_ranked_and_the_mapping_said():
    app = open_page(PAGE, HISTORIES["an ICD-10 history"])
    assert len(ranked(app)) == 10
    assert "ICD10:I50.22" in words(app) and "general equivalence maps" in words(app)


def test_a_pasted_list_keeps_and_names_what_it_could_not_read():
    app = open_page(PAGE, Patient((Visit((Code("ICD9", "428.0"),)),)))
    app.selectbox(key="add_target").set_value(-1).run()
    app.text_area(key="paste_text").set_value("250.00; 585.9 | I10, foo\nE8021").run()
    press(app, "paste_button")
    assert shown(app).patient.visits[1].codes == (
        Code("ICD9", "250.00"), Code("ICD9", "585.9"), Code("ICD10", "I10"), "foo", "E8021",
    )  # fmt: skip
    pasted, unread = sorted((warning.value.replace("\\", "") for warning in app.warning), key=len)
    assert pasted.endswith("foo, E8021")
    assert "- Visit 2: 'foo' is not a code of ICD-9-CM or ICD-10-CM." in unread
    assert "- Visit 2: 'E8021' is ambiguous" in unread
    press(app, next(each.key for each in app.button if (each.key or "").endswith("ICD10:E80.21")))
    assert shown(app).patient.visits[1].codes[-1] == Code("ICD10", "E80.21")
    assert dict(app.query_params) == {}


def test_nothing_readable_is_an_error_in_words():
    app = open_page(PAGE, Patient((Visit(("foo",)),)))
    (error,) = app.error
    assert error.value.startswith("The history holds no code that this model can read")
    assert any("foo" in each.label for each in chips(app))


def test_a_list_too_long_stays_in_its_field():
    app = open_page(PAGE)
    text = "428.0, " * 4000
    app.text_area(key="paste_text").set_value(text).run()
    (error,) = press(app, "paste_button").error
    assert "at most 20,000 can be pasted at once" in error.value
    assert app.text_area(key="paste_text").value == text


def test_a_visit_in_which_nothing_is_written_yet_is_no_warning():
    app = press(demo_page(), "add_visit")
    assert shown(app).patient.visits[-1].codes == ()
    assert not app.warning


def test_addresses_hold_the_demo_and_nothing_of_an_edited_history():
    app = demo_page()
    assert [app.query_params["demo"]] in ([DEMO.id], [[DEMO.id]])
    app.number_input(key="age_field").set_value(40).run()
    app.segmented_control(key="sex_field").set_value("F").run()
    assert (shown(app).patient.age, shown(app).patient.sex, shown(app).demo) == (40.0, "F", None)
    assert dict(app.query_params) == {}


def test_an_address_that_the_browser_goes_back_to_leaves_edits_alone():
    app = demo_page()
    press(app, chips(app)[-1].key)
    edited = shown(app).patient
    app.query_params["demo"] = DEMO.id  # as the button Back does
    app.run()
    assert shown(app).patient == edited
    assert "demo" not in app.query_params and len(app.toast) == 1
    app.switch_page("app.py").run()
    app.query_params["demo"] = DEMO.id
    app.switch_page(f"pages/{PAGE}").run()  # a link of the home page means what it says
    assert shown(app).patient == DEMO.patient


def test_a_link_to_no_demo_patient_is_said():
    app = open_page(PAGE, query={"demo": "nobody"})
    assert app.warning[0].value.startswith("The link names a demo patient that is not here")
    assert shown(app).patient == Patient()


def test_every_row_has_a_button_that_names_its_code():
    app = demo_page()
    (table,) = html_of(app, 'class="mera-list" ')
    asked = re.findall(r'data-code="ICD9:([^"]+)" aria-label="Why is ([^ ]+) on the list\?"', table)
    assert [code for code, _ in asked] == [code for _, code in asked] == ranked(app)


# --- whom the model learned from


def test_a_history_unlike_those_of_training_is_told_above_the_list(monkeypatch):
    loaded = engines.engine()
    codes = loaded._manifest.input_codes
    usual = [Patient((Visit(codes[n % 5 : n % 5 + 3], age=75),), sex="FM"[n % 2], age=75) for n in range(400)]
    monkeypatch.setattr(loaded, "population", Population.fit([(patient, ()) for patient in usual]))
    app = open_page(PAGE, Patient((Visit((Code("ICD9", "V70.0"),), age=30),), sex="F", age=30))
    (said,) = (one for one in app.warning if "unlike those the model learned from" in one.value)
    assert (
        "hospital stays of people with diabetes" in said.value and "only 1 in 1,000 of them is as unusual" in said.value
    )
    result = [element for element in app.main if element.type in ("warning", "html", "caption")]
    places = {element.type: place for place, element in reversed(list(enumerate(result)))}
    table = next(n for n, each in enumerate(result) if each.type == "html" and "mera-list" in each.proto.body)
    assert places["warning"] < table
    assert any("The model learned from hospital stays of people with diabetes" in each.value for each in app.caption)


def test_a_diagnosis_at_odds_with_the_sex_is_told_and_stays_on_the_page():
    codes = (Code("ICD9", "428.0"), Code("ICD9", "650"))
    app = open_page(PAGE, Patient((Visit(codes, age=40),), sex="M", age=40))
    assert any("Normal delivery, is a diagnosis of women and girls" in one.value for one in app.warning)
    assert shown(app).patient.visits[0].codes == codes

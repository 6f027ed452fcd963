"""Compare, run by itself as Streamlit runs it."""

from __future__ import annotations

import pytest

from mera_core.common.formatting import counted
from mera_core.history.records import demo_patients
from mera_core.ranking.compare import differences_first, field_masses, join
from pages.shared.app import checkpoints, session
from pages.shared.ranking.compare_view import differs
from tests.pages.apps import alts, button, charts, every_history, html_of, open_page

PAGE = "2_Compare.py"
HEART, OTHER = (
    next(demo for demo in demo_patients() if demo.id == name) for name in ("demo-heart-failure", "demo-copd")
)


@every_history
def test_every_history_against_a_demo_patient(patient):
    app = open_page(PAGE, patient)
    assert html_of(app, "mera-empty")
    button(app, "demo_second").click().run()
    assert not app.exception
    if patient is None:
        assert any("History A is empty" in text for text in html_of(app, "mera-empty"))
        return
    assert app.session_state["patient"] == patient
    assert html_of(app, "mera-pairs")
    assert len(charts(app)) == 1
    assert all(alts(app))


def test_the_history_of_predict_is_the_first_and_both_lists_are_joined():
    app = open_page(PAGE, HEART.patient, patient_b=OTHER.patient)
    shown = " ".join(element.value for element in app.markdown)
    for visit in HEART.patient.visits:
        for code in visit.codes:
            assert session.plain(code if isinstance(code, str) else code.code) in shown
    engine = session.engine()
    first, second = engine.rank(HEART.patient), engine.rank(OTHER.patient)
    expected = [pair for pair in differences_first(join(first, second), 10) if differs(pair)]
    (table,) = html_of(app, "mera-pairs")
    assert table.count("<tr><td") == len(expected)
    assert table.index(f">{expected[0].code.code}<") < table.index(f">{expected[1].code.code}<")
    rows = field_masses(first, second)[:12]
    left, right = charts(app)[0]["data"]
    assert left["x"] == pytest.approx([-100 * row[1] for row in rows])
    assert right["x"] == pytest.approx([100 * row[2] for row in rows])
    assert f"{first.predicted} codes" in shown


def test_a_copy_of_the_first_differs_in_nothing():
    app = open_page(PAGE, HEART.patient)
    button(app, "copy_first").click().run()
    assert not app.exception
    assert app.session_state["patient_b"] == HEART.patient
    assert app.session_state["patient"] == HEART.patient
    assert any("same codes with the same scores" in info.value for info in app.info)
    app.toggle(key="compare_only").set_value(False).run()
    assert html_of(app, "mera-pairs")


def test_edits_of_the_second_history_leave_the_first_alone():
    app = open_page(PAGE, HEART.patient, patient_b=OTHER.patient, edit_open_b=True)
    app.number_input(key="age_field_b").set_value(33).run()
    assert not app.exception
    assert app.session_state["patient_b"].age == 33
    assert app.session_state["patient"] == HEART.patient


def test_one_history_in_four_bits():
    app = open_page(PAGE, HEART.patient, compare_mode="checkpoints")
    assert app.selectbox(key="second_model").value.endswith("in 4 bits")
    full = session.engine().rank(HEART.patient)
    small = session.engine(quantize="nf4").rank(HEART.patient)
    assert full.codes != small.codes or (full.scores != small.scores).any(), "nothing was quantized"
    shared = len(set(full.codes[:10]) & set(small.codes[:10]))
    assert any(
        f"of the first 10 places both have {counted(shared, 'code')} in common" in words.value for words in app.markdown
    )


def test_two_models_and_no_history_say_what_to_do():
    app = open_page(PAGE, compare_mode="checkpoints")
    assert any("two models rank it here" in text for text in html_of(app, "mera-empty"))


def test_other_checkpoints_are_offered_by_name(monkeypatch, tiny_checkpoint):
    monkeypatch.setenv(checkpoints.CHECKPOINTS_VARIABLE, str(tiny_checkpoint.parent))
    app = open_page(PAGE, HEART.patient, compare_mode="checkpoints")
    assert "tiny" in app.selectbox(key="second_model").options
    app.selectbox(key="second_model").set_value("tiny").run()
    assert not app.exception
    assert any("only one ranks it" in text for text in html_of(app, "mera-pairs"))


def test_a_link_may_name_a_model_that_is_here_and_no_other(monkeypatch, tiny_checkpoint):
    monkeypatch.setenv(checkpoints.CHECKPOINTS_VARIABLE, str(tiny_checkpoint.parent))
    app = open_page(PAGE, HEART.patient, query={"model": "tiny"})
    assert app.session_state["model"] == "tiny"
    assert any("Model tiny" in caption.value for caption in app.caption)
    app = open_page(PAGE, HEART.patient, query={"model": "../../etc"})
    assert any("names a model that is not here" in warning.value for warning in app.warning)
    assert "model" not in app.session_state
    assert "model" not in app.query_params

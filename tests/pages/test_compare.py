"""Compare, run by itself as Streamlit runs it."""

from __future__ import annotations

import pytest

from mera_core.common.formatting import counted
from mera_core.history.records import demo_patients
from mera_core.ranking.compare import differences_first, field_masses, join
from pages.shared.app import checkpoints, engines
from pages.shared.ranking.compare_view import differs
from tests.pages.apps import alts, charts, every_history, html_of, open_page, press, shown, words

PAGE = "2_Compare.py"
HEART, OTHER = (
    next(demo for demo in demo_patients() if demo.id == name) for name in ("demo-heart-failure", "demo-copd")
)


@every_history
def test_every_history_against_a_demo_patient(patient):
    app = open_page(PAGE, patient)
    assert html_of(app, "mera-empty")
    press(app, "demo_second")
    if patient is None:
        assert html_of(app, "mera-empty")
        return
    assert shown(app).patient == patient
    assert html_of(app, "mera-pairs")
    assert len(charts(app)) == 1
    assert all(alts(app))


def test_the_history_of_predict_is_the_first_and_both_lists_are_joined():
    app = open_page(PAGE, HEART.patient, patient_b=OTHER.patient)
    for visit in HEART.patient.visits:
        for code in visit.codes:
            assert (code if isinstance(code, str) else code.code) in words(app)
    engine = engines.engine()
    first, second = engine.rank(HEART.patient), engine.rank(OTHER.patient)
    expected = [pair for pair in differences_first(join(first, second), 10) if differs(pair)]
    (table,) = html_of(app, "mera-pairs")
    assert table.count("<tr><td") == len(expected)
    assert table.index(f">{expected[0].code.code}<") < table.index(f">{expected[1].code.code}<")
    rows = field_masses(first, second)[:12]
    left, right = charts(app)[0]["data"]
    assert left["x"] == pytest.approx([-100 * row[1] for row in rows])
    assert right["x"] == pytest.approx([100 * row[2] for row in rows])
    assert f"predicts {counted(first.predicted, 'code')}" in words(app)


def test_a_copy_of_the_first_differs_in_nothing():
    app = open_page(PAGE, HEART.patient)
    press(app, "copy_first")
    assert shown(app, "b").patient == shown(app).patient == HEART.patient
    assert any("same codes with the same scores" in info.value for info in app.info)
    app.toggle(key="compare_only").set_value(False).run()
    assert html_of(app, "mera-pairs")


def test_one_history_in_four_bits():
    app = open_page(PAGE, HEART.patient, compare_mode="checkpoints")
    assert app.selectbox(key="second_model").value.endswith("(4-bit)")
    full = engines.engine().rank(HEART.patient)
    small = engines.engine(quantize="nf4").rank(HEART.patient)
    assert full.codes != small.codes or (full.scores != small.scores).any(), "nothing was quantized"
    shared = len(set(full.codes[:10]) & set(small.codes[:10]))
    assert f"of the first 10 places both have {counted(shared, 'code')} in common" in words(app)
    assert html_of(open_page(PAGE, compare_mode="checkpoints"), "mera-empty")


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

"""The page Model Card, as Streamlit runs it: the bundled checkpoint, and one without figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mera_core.checkpoint.model_card import NOT_RECORDED, evaluations, limits
from mera_core.history.records import Patient, Visit
from pages.shared.app import session

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds: the first run loads the model


def card(patient: Patient | None = None) -> AppTest:
    app = AppTest.from_file(ROOT / "app.py", default_timeout=PATIENCE).switch_page("pages/5_Model_Card.py")
    if patient is not None:
        app.session_state["patient"] = patient
    app.run()
    assert not app.exception
    return app


def words(app: AppTest) -> str:
    texts = [*(one.value for one in app.markdown), *(one.value for one in app.caption)]
    texts += [one.proto.body for one in app.get("html")]
    return " ".join(texts).replace("\\", "")


def charts(app: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def test_the_card_of_the_bundled_checkpoint():
    app = card()
    engine = session.engine()
    text = words(app)
    assert engine.name in text
    assert NOT_RECORDED in text
    for line in limits(engine.manifest):
        assert line in text
    titles = [chart["layout"]["title"]["text"] for chart in charts(app)]
    assert "recall@20 by group of patients, %" in titles
    assert "Recalled to the letter, code → definition" in titles
    result = next(iter(evaluations(engine.manifest).values()))
    for title, key in (("all codes", "reliability"), ("codes with 50 cases or more", "reliability_frequent")):
        curve = charts(app)[titles.index(f"Calibration: {title}")]["data"][1]
        assert curve["y"] == pytest.approx([100 * point["observed"] for point in result[key]])
    assert f"{100 * result['metrics']['recall@20']['value']:.1f} %" in app.table[0].value.to_string()


def test_the_figure_of_the_groups_can_be_chosen():
    app = card()
    app.segmented_control(key="card_group_figure").set_value("recall@10").run()
    assert not app.exception
    titles = [chart["layout"]["title"]["text"] for chart in charts(app)]
    assert "recall@10 by group of patients, %" in titles
    assert "recall@20 by group of patients, %" not in titles


def test_a_checkpoint_without_figures_says_so(monkeypatch, tiny_checkpoint):
    monkeypatch.setenv("MERA_CHECKPOINT", str(tiny_checkpoint))
    app = card()
    assert charts(app) == []
    assert any("no figure measured on patients" in one.value for one in app.info)
    assert "The manifest holds no figures of recall by chapter" in words(app)
    assert "No figure measured on patients is recorded." in words(app)


@pytest.mark.parametrize("codes", [("428.0",) * 1, ("ICD10:I50.22",)], ids=["ICD-9", "ICD-10"])
def test_a_patient_in_the_session_does_not_matter(codes):
    person = Patient(tuple(Visit(codes) for _ in range(60)), "F", 81)
    app = card(person)
    assert app.session_state["patient"] == person
    assert "428" not in words(app).split("Model name")[0]

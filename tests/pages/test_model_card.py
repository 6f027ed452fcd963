"""The page Model Card, as Streamlit runs it: the bundled checkpoint, and one without figures."""

from __future__ import annotations

import pytest

from mera_core.checkpoint.model_card import NOT_RECORDED, evaluations, limits
from pages.shared.app import engines
from tests.pages.apps import charts, open_page, titles, words

PAGE = "5_Model_Card.py"


def test_the_card_of_the_bundled_checkpoint():
    app = open_page(PAGE)
    engine = engines.engine()
    for line in (engine.name, NOT_RECORDED, *limits(engine.manifest)):
        assert line in words(app)
    assert "recall@20 by group of patients, %" in titles(app)
    assert any(title.startswith("Recalled to the letter") for title in titles(app))
    result = next(iter(evaluations(engine.manifest).values()))
    for title, key in (("all codes", "reliability"), ("codes with 50 cases or more", "reliability_frequent")):
        curve = charts(app)[titles(app).index(f"Calibration: {title}")]["data"][1]
        assert curve["y"] == pytest.approx([100 * point["observed"] for point in result[key]])
    assert f"{100 * result['metrics']['recall@20']['value']:.1f} %" in app.table[0].value.to_string()
    app.segmented_control(key="card_group_figure").set_value("recall@10").run()
    assert "recall@10 by group of patients, %" in titles(app)
    assert "recall@20 by group of patients, %" not in titles(app)


def test_a_checkpoint_without_figures_says_so(monkeypatch, tiny_checkpoint):
    monkeypatch.setenv("MERA_CHECKPOINT", str(tiny_checkpoint))
    app = open_page(PAGE)
    assert charts(app) == []
    assert len(app.info) == 2  # on patients, and on recall by chapter
    assert "No figure measured on patients is recorded." in words(app)

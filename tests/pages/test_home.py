"""The home page, run by itself as Streamlit runs it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mera_core.history.records import demo_patients
from pages.shared.app import session
from pages.shared.app.checkpoints import CHECKPOINT_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds: the first run loads the model


def home() -> AppTest:
    return AppTest.from_file(ROOT / "app.py", default_timeout=PATIENCE).run()


def links(app: AppTest) -> list:
    return [element.proto for element in app.get("page_link")]


def test_says_what_it_is_which_model_and_the_notice():
    app = home()
    assert not app.exception
    assert app.title[0].value == "MERA"
    notices = [element.proto.body for element in app.get("html") if "mera-notice" in element.proto.body[:40]]
    assert notices == ['<p class="mera-notice">Research use, not for clinical decisions.</p>']
    words = " ".join(element.value for element in app.markdown)
    assert "ranks the diagnoses of the next one" in words
    engine = session.engine()
    name, fingerprint = engine.name.split()
    assert f"fingerprint `{fingerprint}`" in words
    assert session.plain(name) in words
    assert f"Ranks {session.plain(engine.scope)}" in words
    assert engine.scope.startswith(f"{len(engine.label_space):,} codes of ")


def test_links_to_every_page_and_every_demo_patient():
    app = home()
    assert not app.exception
    labels = [link.label for link in links(app)]
    assert [label for label in labels if label.startswith(("**Predict**", "**Recall**"))] == [
        "**Predict**: rank the diagnoses of a patient's next visit, ask why, try what if",
        "**Recall**: ask the model what a code means, or play against it",
    ]
    queries = [link.query_string for link in links(app) if link.query_string]
    assert queries == [f"demo={demo.id}" for demo in demo_patients()]
    assert len(queries) >= 12


def test_a_missing_checkpoint_is_said_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(tmp_path / "nowhere"))
    app = home()
    assert not app.exception
    assert [error.value for error in app.error] == [f"There is no checkpoint folder {tmp_path / 'nowhere'}."]


def test_an_altered_checkpoint_is_said_in_one_sentence(monkeypatch, tmp_path):
    source = Path(os.environ.get(CHECKPOINT_VARIABLE) or session_bundle())
    folder = Path(shutil.copytree(source, tmp_path / "altered"))
    (folder / "model.safetensors").unlink()
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(folder))
    app = home()
    assert not app.exception
    assert len(app.error) == 1
    assert "model.safetensors" in app.error[0].value


def session_bundle() -> Path:
    from mera_core.engine import BUNDLED

    return BUNDLED


@pytest.mark.parametrize(("name", "shown"), [("1_Predict.py", "Predict"), ("5_Model_Card.py", "Model Card")])
def test_names_of_pages(name, shown):
    assert session.page_name(Path(name)) == shown

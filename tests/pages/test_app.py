"""Every page alone, as the first one of a session; the home page; the login in front of all."""

from __future__ import annotations

import shutil

import pytest

from mera_core.history.records import demo_patients
from mera_core.ranking.ranking import NOTICE
from pages.shared.app import engines
from pages.shared.app.checkpoints import BUNDLED, BUNDLED_FOLDER
from pages.shared.app.layout import page_files
from pages.shared.app.markdown import plain
from tests.pages.apps import every_history, html_of, open_page, shown, words

PAGES = [path.name for path in page_files()]


@every_history
@pytest.mark.parametrize("file", PAGES)
def test_opens_alone_with_its_notice_and_leaves_the_history_as_it_is(file, patient):
    app = open_page(file, patient)
    assert len(PAGES) == 6 and len(app.title) == 1
    assert not app.error
    assert html_of(app, "mera-notice") == [f'<p class="mera-notice">{NOTICE}</p>']
    if patient is not None:
        assert shown(app).patient == patient
        assert not dict(app.query_params)


def test_home_names_the_model_and_links_to_every_page_and_demo_patient():
    app = open_page("app.py")
    loaded = engines.engine()
    name, fingerprint = loaded.name.split()
    assert name in words(app) and f"fingerprint `{fingerprint}`" in words(app)
    assert f"Ranks {loaded.scope}" in words(app)
    links = [element.proto for element in app.get("page_link")]
    assert {label.split("**")[1] for label in (link.label for link in links) if "**: " in label} == {
        file.removesuffix(".py").split("_", 1)[1].replace("_", " ") for file in PAGES
    }
    assert [link.query_string for link in links if link.query_string] == [f"demo={demo.id}" for demo in demo_patients()]


def test_a_missing_and_an_altered_checkpoint_are_said_in_one_sentence(monkeypatch, tmp_path):
    altered = tmp_path / "altered"
    shutil.copytree(BUNDLED_FOLDER / BUNDLED, altered, ignore=shutil.ignore_patterns("model.safetensors"))
    for folder, said in ((altered, "model.safetensors"), (tmp_path / "nowhere", "no checkpoint folder")):
        monkeypatch.setenv("MERA_CHECKPOINT", str(folder))
        (error,) = open_page("app.py").error
        assert said in error.value


def test_text_of_others_is_no_markdown():
    assert plain("a*b [c](d) 5 < 6") == r"a\*b \[c\]\(d\) 5 \< 6"


@pytest.mark.parametrize("file", ["app.py", *PAGES])
def test_nobody_gets_in_where_a_login_is_required_and_none_is_set_up(file, monkeypatch):
    for setting in ("required", "requird"):
        monkeypatch.setenv("MERA_LOGIN", setting)
        app = open_page(file)
        assert len(app.error) == len(app.title) == 1
        assert len(app.button) == len(app.text_input) == len(app.sidebar) == 0


def test_who_is_not_logged_in_sees_a_login_and_nothing_else(monkeypatch):
    monkeypatch.setenv("MERA_LOGIN", "required")
    monkeypatch.setattr("pages.shared.app.login._is_set_up", lambda: True)
    app = open_page("1_Predict.py")
    assert [button.label for button in app.button] == ["Log in"]
    assert len(app.error) == len(app.sidebar) == 0


def test_who_is_logged_in_sees_the_page_and_so_does_everybody_by_default(monkeypatch):
    monkeypatch.delenv("MERA_LOGIN", raising=False)
    assert len(open_page("app.py").sidebar) > 0
    monkeypatch.setenv("MERA_LOGIN", "required")
    monkeypatch.setattr("pages.shared.app.login._is_logged_in", lambda: True)
    assert len(open_page("app.py").sidebar) > 0

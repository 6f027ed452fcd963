"""The login in front of every page: off unless it is asked for, and closed where it is asked for and not set up."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from pages.shared.app.session import page_files
from tests.pages.apps import PATIENCE, ROOT

FILES = ["app.py", *(f"pages/{path.name}" for path in page_files())]


def opened(file: str) -> AppTest:
    app = AppTest.from_file(ROOT / "app.py", default_timeout=PATIENCE)
    return (app if file == "app.py" else app.switch_page(file)).run()


@pytest.mark.parametrize("file", FILES)
def test_nobody_gets_in_where_a_login_is_required_and_none_is_set_up(file, monkeypatch):
    monkeypatch.setenv("MERA_LOGIN", "required")
    app = opened(file)
    assert not app.exception
    assert [error.value for error in app.error] == ["A login is required, and none is set up: see docs/deploy.md."]
    assert [title.value for title in app.title] == ["MERA"]
    assert len(app.button) == len(app.text_input) == len(app.sidebar) == 0


def test_a_setting_that_is_misspelt_lets_nobody_in(monkeypatch):
    monkeypatch.setenv("MERA_LOGIN", "requird")
    assert [error.value for error in opened("app.py").error] == ["MERA_LOGIN must be required or absent."]


def test_who_is_not_logged_in_sees_a_login_and_nothing_else(monkeypatch):
    monkeypatch.setenv("MERA_LOGIN", "required")
    monkeypatch.setattr("pages.shared.app.login._is_set_up", lambda: True)
    app = opened("pages/1_Predict.py")
    assert [button.label for button in app.button] == ["Log in"]
    assert len(app.error) == len(app.sidebar) == 0


def test_who_is_logged_in_sees_the_page(monkeypatch):
    monkeypatch.setenv("MERA_LOGIN", "required")
    monkeypatch.setattr("pages.shared.app.login._is_logged_in", lambda: True)
    assert len(opened("app.py").sidebar) > 0


def test_no_login_is_asked_for_by_default(monkeypatch):
    monkeypatch.delenv("MERA_LOGIN", raising=False)
    assert len(opened("app.py").sidebar) > 0

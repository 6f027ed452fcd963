"""What a page says while the model works for others, and that it says it in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from mera_core.serving import batch_queue as waiting_line
from pages.shared.app import session
from tests.pages.apps import html_of, open_page

DEMO = {"demo": "demo-heart-failure"}


@pytest.fixture
def held_up() -> Iterator[threading.Event]:
    """The line of all sessions, held up by somebody else until the event is set."""
    open_page("1_Predict.py", query=DEMO)  # loads the model
    go, entered = threading.Event(), threading.Event()

    def work(units: list) -> list:
        entered.set()
        go.wait(30)
        return units

    other = threading.Thread(target=session._line().ask, args=("somebody else", [0], work))
    other.start()
    assert entered.wait(10)
    yield go
    go.set()
    other.join(10)


def test_a_page_waits_its_turn_and_shows_the_ranking(held_up, monkeypatch):
    told: list[int] = []
    monkeypatch.setattr(waiting_line, "QUIET", 0.0)
    shown = session.engine()
    monkeypatch.setattr(shown, "_told", lambda place: (told.append(place), session._tell_place(place), held_up.set()))
    app = open_page("1_Predict.py", query=DEMO)
    assert told[0] == 1
    assert told[-1] == 0
    assert html_of(app, "mera-list")
    assert not html_of(app, "mera-busy")


def test_who_waits_too_long_reads_a_plain_sentence(held_up, monkeypatch):
    line = session._line()
    monkeypatch.setattr(line, "settings", replace(line.settings, patience=0.3))
    app = open_page("1_Predict.py", query=DEMO)
    (error,) = app.error
    assert error.value.startswith("The model is busy: this waited 0 seconds as number 1 in line. Please try again.")


def test_the_place_in_the_line_is_told_where_it_can_be_seen_and_heard():
    def script(place: int) -> None:
        import streamlit as st

        from pages.shared.app.session import _tell_place

        st.session_state["busy"] = st.empty()
        _tell_place(3)
        _tell_place(place)

    waiting = AppTest.from_function(script, args=(2,)).run()
    (said,) = html_of(waiting, "mera-busy")
    assert 'role="status"' in said
    assert "Busy: you are number 2 in line" in said
    assert not html_of(AppTest.from_function(script, args=(0,)).run(), "mera-busy")

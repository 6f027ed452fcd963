"""What a page says while the model works for others, and that it says it in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from streamlit.testing.v1 import AppTest

from mera_core.serving import turn_queue
from pages.shared.app import engines
from tests.pages.apps import html_of, open_page

DEMO = {"demo": "demo-heart-failure"}


@pytest.fixture
def held_up(monkeypatch) -> Iterator[threading.Event]:
    """The queue of all sessions, held up by somebody else until the event is set."""
    monkeypatch.setattr(turn_queue, "QUIET", 0.0)
    open_page("1_Predict.py", query=DEMO)  # loads the model
    go, entered = threading.Event(), threading.Event()
    other = threading.Thread(target=engines._queue().ask, args=([lambda: (entered.set(), go.wait(30))],))
    other.start()
    assert entered.wait(10)
    yield go
    go.set()
    other.join(10)


def test_a_page_waits_its_turn_and_shows_the_ranking(held_up, monkeypatch):
    told: list[int] = []
    shown = engines.engine()
    monkeypatch.setattr(shown, "_told", lambda place: (told.append(place), engines._tell_place(place), held_up.set()))
    app = open_page("1_Predict.py", query=DEMO)
    assert (told[0], told[-1]) == (1, 0)
    assert html_of(app, "mera-list")
    assert not html_of(app, "mera-busy")


def test_who_waits_too_long_reads_a_plain_sentence(held_up, monkeypatch):
    monkeypatch.setattr(engines._queue(), "timeout", 0.3)
    (error,) = open_page("1_Predict.py", query=DEMO).error
    assert error.value.startswith("The model is busy: this waited ") and "is number 1 in line" in error.value


def test_the_place_in_the_line_is_told_where_it_can_be_seen_and_heard():
    def script(place: int) -> None:
        import streamlit as st

        from pages.shared.app.engines import _tell_place

        st.session_state["busy"] = st.empty()
        _tell_place(3)
        _tell_place(place)

    (said,) = html_of(AppTest.from_function(script, args=(2,)).run(), "mera-busy")
    assert 'role="status"' in said and "Busy: you are number 2 in line" in said
    assert not html_of(AppTest.from_function(script, args=(0,)).run(), "mera-busy")

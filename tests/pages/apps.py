"""Pages run alone, as Streamlit runs them, with the histories that every page must bear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from pages.shared.app.histories import HistoryStack, State

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120  # seconds: the first run loads the model

HISTORIES = {
    "an empty session": None,
    "a long history": Patient(
        tuple(
            Visit((Code("ICD9", "428.0"), Code("ICD9", code)), age=60 + n // 4)
            for n, code in enumerate(("401.9", "250.00", "585.9") * 20)
        ),
        sex="F",
        age=81,
    ),
    "an ICD-10 history": Patient((Visit((Code("ICD10", "I50.22"), Code("ICD10", "E11.9"))),), sex="M", age=70),
}
every_history = pytest.mark.parametrize("patient", list(HISTORIES.values()), ids=list(HISTORIES))


def open_page(file: str, patient: Patient | None = None, query: dict[str, str] | None = None, **state) -> AppTest:
    """A page ("app.py" is home), run once without an exception. state: session values set before; `patient_b` a history."""
    app = AppTest.from_file(ROOT / "app.py", default_timeout=TIMEOUT)
    app = app if file == "app.py" else app.switch_page(f"pages/{file}")
    for key, person in (("history", patient), ("history_b", state.pop("patient_b", None))):
        if person is not None:
            app.session_state[key] = HistoryStack(State(person))
    for key, value in state.items():
        app.session_state[key] = value
    for key, value in (query or {}).items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


def shown(app: AppTest, slot: str = "") -> State:
    """The history on the screen."""
    return app.session_state[f"history_{slot}" if slot else "history"].now


def press(app: AppTest, key: str) -> AppTest:
    """Click the button with a key."""
    button(app, key).click().run()
    assert not app.exception
    return app


def button(app: AppTest, key: str):
    """The button with a key."""
    return next(each for each in app.button if each.key == key)


def send(app: AppTest, key: str, name: str, content: bytes, media: str = "text/csv") -> AppTest:
    """Put a file into the field with a key."""
    app.file_uploader(key=key).set_value([(name, content, media)]).run()
    assert not app.exception
    return app


def charts(app: AppTest) -> list[dict]:
    """The figures of a page, as Plotly's JSON."""
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def titles(app: AppTest) -> list[str]:
    """The titles of the figures."""
    return [chart["layout"]["title"]["text"] for chart in charts(app)]


def alts(app: AppTest) -> list[str]:
    """What each figure says to those who don't see it."""
    return [chart.proto.alt for chart in app.get("plotly_chart")]


def html_of(app: AppTest, begins: str) -> list[str]:
    """The HTML blocks of a page whose first characters hold `begins`."""
    return [element.proto.body for element in app.get("html") if begins in element.proto.body[:60]]


def words(app: AppTest) -> str:
    """All Markdown, captions and HTML of a page, without the escapes."""
    texts = [*(one.value for one in app.markdown), *(one.value for one in app.caption)]
    return " ".join([*texts, *(one.proto.body for one in app.get("html"))]).replace("\\", "")

"""Pages run alone, as Streamlit runs them, with the histories that every page must bear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds: the first run loads the model

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
    """A page, run once without an exception. state: session values set before."""
    app = AppTest.from_file(ROOT / "app.py", default_timeout=PATIENCE).switch_page(f"pages/{file}")
    if patient is not None:
        app.session_state["patient"] = patient
    for key, value in state.items():
        app.session_state[key] = value
    for key, value in (query or {}).items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


def charts(app: AppTest) -> list[dict]:
    """The figures of a page, as Plotly's JSON."""
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def alts(app: AppTest) -> list[str]:
    """What each figure says to those who don't see it."""
    return [chart.proto.alt for chart in app.get("plotly_chart")]


def html_of(app: AppTest, begins: str) -> list[str]:
    """The HTML blocks of a page whose first characters hold `begins`."""
    return [element.proto.body for element in app.get("html") if begins in element.proto.body[:60]]


def button(app: AppTest, key: str):
    """The button with a key."""
    return next(each for each in app.button if each.key == key)

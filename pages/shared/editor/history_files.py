"""A history from a file and to a file: upload in any format the readers know, download as typed."""

from __future__ import annotations

import streamlit as st

from mera_core.common.formatting import counted
from mera_core.export.tables import history_csv, history_json
from mera_core.history.records import Patient
from mera_core.readers import Cohort
from pages.shared.app.histories import open_history, patient, slot_key
from pages.shared.widgets.controls import File, button, download
from pages.shared.widgets.upload_view import show_report, upload

MOST_LISTED = 500  # patients of a file to choose from; more are found by their id


def open_or_save(slot: str = "") -> None:
    """Upload with the report of what was read; and the history as two kinds of file."""
    upload(
        "Open a history: a HISTORY.json, a visits table, or records in a format known here",
        slot_key("history", slot),
        lambda name, cohort: _take(name, cohort, slot),
    )
    opened = st.session_state.get(slot_key("opened", slot))
    if opened:
        name, cohort = opened
        show_report(name, cohort.report)
        if len(cohort.patients) > 1:
            choose_patient(cohort.patients, name, slot)
    person = patient(slot)
    st.markdown("**Save this history as typed**")
    files = (
        File("JSON", "json", "application/json", lambda: history_json(person), icon="data_object"),
        File("CSV", "csv", "text/csv", lambda: history_csv(person), icon="table"),
    )
    download("mera-history", files, slot_key("save", slot), disabled=not person.visits)


def _take(name: str, cohort: Cohort, slot: str) -> None:
    """Keep what was read; a file with one patient is opened at once, with several one chooses."""
    st.session_state[slot_key("opened", slot)] = (name, cohort)
    if len(cohort.patients) == 1:
        open_history(cohort.patients[0], name, slot=slot)


def choose_patient(patients: list[Patient], name: str, slot: str = "") -> None:
    """A choice among the patients of a file, and a button that opens the one chosen."""
    wanted = ""
    if len(patients) > MOST_LISTED:
        wanted = st.text_input("Find a patient by id", key=slot_key("opened_find", slot), type="search") or ""
    fitting = [n for n, person in enumerate(patients) if wanted in person.id]
    listed = fitting[:MOST_LISTED]
    if not listed:
        st.caption("No patient has such an id.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            f"Patient ({len(fitting):,})",
            listed,
            format_func=lambda n: f"{patients[n].id}: {counted(len(patients[n].visits), 'visit')}",
            key=slot_key("opened_choice", slot),
        )
        if chosen is not None:
            button(
                "Open this history",
                slot_key("open_button", slot),
                "",
                open_history,
                patients[chosen],
                f"{name}, patient {patients[chosen].id}",
                None,
                slot,
            )

"""Predict: a history on the left, the ranked diagnoses of the next visit and what can be asked of them on the right."""

import streamlit as st

from mera_core.ranking.ranking import Ranking
from pages.shared.app.session import (
    demos,
    engine,
    follow_link,
    footer,
    heading,
    open_demo,
    open_session,
    or_stop,
    patient,
    ranking_engine,
    ranking_of,
)
from pages.shared.editor import patient_editor
from pages.shared.ranking import export_view, mass_view, ranking_view, whatif_view, why_view
from pages.shared.widgets import row_buttons

open_session("Predict")

SUGGESTED = 3
PANELS = ("Code book", "Why", "What if", "Download")


def show_empty() -> None:
    """What to do when there is nothing to rank yet."""
    st.html(
        '<div class="mera-empty"><b>No diagnoses yet.</b><br>Choose a demo patient, or add codes to '
        "the first visit: the ranked diagnoses of the next visit appear here.</div>"
    )
    with st.container(horizontal=True, horizontal_alignment="center"):
        for identity, demo in list(demos().items())[:SUGGESTED]:
            st.button(demo.title, key=f"suggest_{identity}", on_click=open_demo, args=(identity,))


@st.fragment
def show_panel(ranking: Ranking, base: whatif_view.Baseline | None) -> None:
    """One of the panels under the list; choosing another redraws only this part."""
    panel = st.segmented_control(
        "Look closer",
        PANELS,
        # "Why?" of a row sets the choice; Streamlit complains of a default beside one
        default=None if "panel" in st.session_state else PANELS[0],
        key="panel",
        required=True,
        persist_state="session",
    )
    if panel == "Why":
        why_view.show_why(ranking, patient())
    elif panel == "What if":
        whatif_view.show_what_if(ranking, base)
    elif panel == "Code book":
        st.subheader("Where the ranking points in the code book", anchor=False)
        mass_view.show_mass(ranking, engine().ontology)
    else:
        export_view.downloads(ranking, patient())


# Parts that come and go stand in a container of their own: what follows keeps its place, and its open tab.
with st.container():
    follow_link()
    heading("Predict the next visit")
    ranking_engine()
    patient_editor.choose_demo()
    has_codes = any(visit.codes for visit in patient().visits)
    if has_codes:
        st.html(f'<a class="mera-jump" href="#{ranking_view.ANCHOR}">↓ Go to the prediction</a>')
history, result = st.columns([5, 7], gap="medium")
with history:
    st.subheader("History", anchor=False)
    with st.container():
        patient_editor.edit_profile()
        patient_editor.edit_visits()
    patient_editor.add_codes()
with result:
    if has_codes:
        ranking = or_stop(lambda: ranking_of(patient()))
        base = whatif_view.baseline()
        ranking_view.show_warnings(ranking.notes, patient())
        against = base.name if base else ""
        ranking_view.show_list(ranking, whatif_view.changes_since(base, ranking), against)
        row_buttons.listen("row_buttons", lambda code: why_view.ask(code, ranking))
        ranking_view.show_readings(ranking.notes)
        show_panel(ranking, base)
    else:
        st.subheader("Next visit", anchor=False)
        show_empty()
footer()

"""Predict: a history on the left, the ranked diagnoses of the next visit and what can be asked of them on the right."""

import streamlit as st

from mera_core.ranking.ranking import Ranking
from pages.shared.app.engines import engine, or_stop, ranking_engine, ranking_of
from pages.shared.app.histories import demos, has_codes, open_demo, patient
from pages.shared.app.layout import empty, footer, heading, open_session
from pages.shared.app.links import follow_demo_link
from pages.shared.app.markdown import plain
from pages.shared.editor import patient_editor
from pages.shared.ranking import export_view, mass_view, ranking_view, whatif_view, why_view
from pages.shared.widgets import row_buttons
from pages.shared.widgets.controls import button, choose

open_session("Predict")

SUGGESTED = 3
PANELS = ("Chapters", "Why", "What if", "Download")


def show_empty() -> None:
    """What to do when there is nothing to rank yet."""
    empty("No diagnoses yet.", "Choose a demo patient, or add codes to the first visit: the prediction appears here.")
    with st.container(horizontal=True, horizontal_alignment="center"):
        for identity, demo in list(demos().items())[:SUGGESTED]:
            button(demo.title, f"suggest_{identity}", "", open_demo, identity)


@st.fragment
def show_panel(ranking: Ranking, base: whatif_view.Baseline | None) -> None:
    """One of the panels under the list; choosing another redraws only this part."""
    panel = choose("Look closer", PANELS, "panel")
    if panel == "Why":
        why_view.show_why(ranking, patient())
    elif panel == "What if":
        whatif_view.show_what_if(ranking, base)
    elif panel == "Chapters":
        st.subheader("Where the prediction points, by chapter of the ICD", anchor=False)
        mass_view.show_mass(ranking, engine().ontology)
    else:
        export_view.downloads(ranking, patient())


# Parts that come and go stand in a container of their own: what follows keeps its place, and its open tab.
with st.container():
    follow_demo_link()
    heading("Predict the next visit")
    ranking_engine()
    patient_editor.choose_demo()
    if has_codes():
        st.html(f'<a class="mera-jump" href="#{ranking_view.ANCHOR}">↓ Go to the prediction</a>')
history, result = st.columns([5, 7], gap="medium")
with history:
    st.subheader("History", anchor=False)
    with st.container():
        patient_editor.edit_profile()
        patient_editor.edit_visits()
    patient_editor.add_codes()
with result:
    if has_codes():
        ranking = or_stop(lambda: ranking_of(patient()))
        base = whatif_view.baseline()
        ranking_view.show_warnings(ranking.notes, patient())
        if who := engine().trained_on:
            st.caption(f"The model learned from {plain(who)}.")
        against = base.name if base else ""
        ranking_view.show_list(ranking, whatif_view.changes_since(base, ranking), against)
        row_buttons.listen("row_buttons", lambda code: why_view.ask(code, ranking))
        ranking_view.show_readings(ranking.notes)
        show_panel(ranking, base)
    else:
        st.subheader("Next visit", anchor=False)
        show_empty()
footer()

"""Predict: a history on the left, the ranked diagnoses of the next visit on the right."""

import streamlit as st

from mera_core.records import Patient
from pages.shared import patient_editor, ranking_view
from pages.shared.session import demos, engine, follow_link, footer, open_demo, open_session, or_stop, patient

open_session("Predict")

SUGGESTED = 3


def ranking_of(person: Patient):
    """The ranking of a history; kept for this session while the history stays the same."""
    loaded = engine()
    kept = st.session_state.get("ranked")
    if kept is None or kept[0] != (loaded.name, person):
        kept = ((loaded.name, person), loaded.rank(person))
        st.session_state["ranked"] = kept
    return kept[1]


def show_empty() -> None:
    """What to do when there is nothing to rank yet."""
    st.html(
        '<div class="mera-empty"><b>No diagnoses yet.</b><br>Choose a demo patient, or add codes to '
        "the first visit: the ranked diagnoses of the next visit appear here.</div>"
    )
    with st.container(horizontal=True, horizontal_alignment="center"):
        for identity, demo in list(demos().items())[:SUGGESTED]:
            st.button(demo.title, key=f"suggest_{identity}", on_click=open_demo, args=(identity,))


# Parts that come and go stand in a container of their own: what follows keeps its place, and its open tab.
with st.container():
    follow_link()
    st.title("Predict the next visit", anchor=False)
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
        ranking_view.show_warnings(ranking.notes)
        ranking_view.show_list(ranking)
        ranking_view.show_readings(ranking.notes)
        ranking_view.show_mass(ranking, engine().ontology)
    else:
        st.subheader("Next visit", anchor=False)
        show_empty()
footer()

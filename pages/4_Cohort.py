"""Cohort: many patients from a file, scored with progress and a way to stop, and what they add up to."""

import streamlit as st

from pages.shared.app.engines import ranking_engine
from pages.shared.app.layout import empty, footer, heading, open_session
from pages.shared.cohort import cohort_view

open_session("Cohort")

heading("Score a cohort", "Many patients at once: where their next visits point, and how often the ranking was right.")
loaded = ranking_engine()
with st.container():
    cohort = cohort_view.choose_cohort()
if cohort is None:
    empty("No cohort yet.", "Upload records in any format known here, or take the invented sample.")
else:
    with st.container():
        scoring = cohort_view.score(loaded, cohort.patients)
    if scoring is not None and scoring.scored:
        cohort_view.show_summary(scoring)
        if scoring.hold_out:
            cohort_view.show_figures(scoring)
        cohort_view.show_chapters(scoring)
        cohort_view.show_new(scoring)
        cohort_view.show_patients(scoring, cohort.patients)
        cohort_view.download(scoring)
footer()

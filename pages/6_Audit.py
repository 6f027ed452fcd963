"""Audit: does the tree that the model learned from group what a clinician would group?"""

import streamlit as st

from pages.shared.about.audit_view import show_agreement, show_files, show_groups
from pages.shared.app.engines import engine
from pages.shared.app.layout import footer, heading, open_session

open_session("Audit")

heading(
    "Audit the hierarchy",
    "In training, a code is set against its neighbours in the ICD tree. Does the tree group what belongs together "
    "clinically? You see a few codes of one group and one intruder from a neighbouring group: find it, then say whether "
    "you agree with the tree.",
)
loaded = engine()
task, result = st.columns([7, 5], gap="large")
with task:
    show_groups(loaded)
with result:
    show_files()
    show_agreement(loaded.ontology)
footer()

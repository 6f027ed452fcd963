"""Compare: two histories, or one history under two checkpoints, side by side."""

import streamlit as st

from mera_core.common.formatting import counted
from mera_core.icd.ontology import Code
from pages.shared.app.checkpoints import ranking_models
from pages.shared.app.engines import engine, model_id, or_stop, ranking_engine, ranking_of
from pages.shared.app.histories import has_codes, history, open_demo, open_history, patient, slot_key
from pages.shared.app.layout import empty, footer, heading, open_session
from pages.shared.app.links import follow_demo_link
from pages.shared.app.markdown import plain
from pages.shared.editor import patient_editor
from pages.shared.ranking.compare_view import show_comparison
from pages.shared.widgets.controls import button, choose

open_session("Compare")

SECOND = "b"  # the slot of the second history
MODES = {"histories": "Two histories", "checkpoints": "One history, two models"}
NEWEST = 8  # visits that are listed


def edit(slot: str) -> None:
    """One history, and its editor while the switch is on; it starts on where the history is empty."""
    st.markdown(contents(slot))
    switch = slot_key("edit_open", slot)
    st.session_state.setdefault(switch, not has_codes(slot))
    if st.toggle("Look at it and edit it", key=switch, persist_state="session"):
        patient_editor.patient_editor(slot)


def contents(slot: str) -> str:
    """A history in Markdown: a line for each of its newest visits, with the codes as they are written."""
    person, title = patient(slot), history(slot).now.title
    if not has_codes(slot):
        return "No codes yet."
    lines = [f"From “{plain(title)}”"] if title else []
    first = max(0, len(person.visits) - NEWEST)
    lines += [counted(first, "earlier visit")] if first else []
    for number, visit in enumerate(person.visits[first:], start=first + 1):
        codes = ", ".join(plain(code.code if isinstance(code, Code) else str(code)) for code in visit.codes)
        lines.append(f"**Visit {number}**: {codes or 'no codes'}")
    return "  \n".join(lines)


def show_histories() -> None:
    """Two editors side by side, and the comparison of their rankings."""
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("A: the history of page Predict", anchor=False)
        edit("")
    with right:
        st.subheader("B: another history", anchor=False)
        edit(SECOND)
        with st.container(horizontal=True):
            button(
                "Copy A to B",
                "copy_first",
                "content_copy",
                lambda: open_history(patient(), history().now.title, slot=SECOND),
                disabled=not has_codes(),
            )
            if not has_codes(SECOND):
                button("Take a demo patient", "demo_second", "science", open_demo, "demo-copd", SECOND)
    if missing := "A" if not has_codes() else "B" if not has_codes(SECOND) else "":
        empty(f"History {missing} is empty.", "Add codes above, or choose a demo patient.")
        return
    first, second = or_stop(lambda: ranking_of(patient())), or_stop(lambda: ranking_of(patient(SECOND)))
    show_comparison(first, second, ("History A", "History B"), engine().ontology)


def show_checkpoints() -> None:
    """One history, ranked by the session's model and by another, as it is or in 4-bit weights."""
    models = {name: (name, None) for name in ranking_models()}
    models |= {f"{name}, compressed copy (4-bit)": (name, "nf4") for name in models}
    other = st.selectbox(
        "Second model",
        [name for name in models if name != model_id()],
        key="second_model",
        width=320,
        persist_state="session",
        help="The models of this installation, each also as a smaller copy with its weights rounded to 4 bits (NF4)",
    )
    edit("")
    if not has_codes():
        empty("No diagnoses yet.", "Add codes above, or choose a demo patient.")
        return
    first = or_stop(lambda: ranking_of(patient()))
    second = or_stop(lambda: ranking_of(patient(), *models[other]))
    show_comparison(first, second, (model_id(), other), engine().ontology)


with st.container():
    follow_demo_link()
    heading("Compare", "Two histories, or one history under two models: what differs stands first.")
    ranking_engine()
if choose("Compare", MODES, "compare_mode", label_visibility="collapsed") == "histories":
    show_histories()
else:
    show_checkpoints()
footer()

"""Compare: two histories, or one history under two checkpoints, side by side."""

import streamlit as st

from mera_core.common.formatting import counted
from mera_core.icd.ontology import Code
from pages.shared.app.checkpoints import ranking_models
from pages.shared.app.session import (
    engine,
    follow_link,
    footer,
    heading,
    model_id,
    open_demo,
    open_history,
    open_session,
    or_stop,
    patient,
    plain,
    ranking_engine,
    ranking_of,
    slot_key,
    started_from,
)
from pages.shared.editor import patient_editor
from pages.shared.ranking.compare_view import show_comparison

open_session("Compare")

SECOND = "b"  # the slot of the second history
MODES = {"histories": "Two histories", "checkpoints": "One history, two models"}
FOUR_BIT = "in 4 bits"
NEWEST = 8  # visits that are listed


def has_codes(slot: str = "") -> bool:
    """Whether there is anything to rank."""
    return any(visit.codes for visit in patient(slot).visits)


def copy_first() -> None:
    """Begin the second history as a copy of the first."""
    open_history(patient(), started_from(), slot=SECOND)


def edit(slot: str) -> None:
    """One history, and its editor while the switch is on; it starts on where the history is empty."""
    st.markdown(contents(slot))
    switch = slot_key("edit_open", slot)
    st.session_state.setdefault(switch, not has_codes(slot))
    if st.toggle("Look at it and edit it", key=switch, persist_state="session"):
        patient_editor.patient_editor(slot)


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
            st.button(
                "Copy A to B",
                icon=":material/content_copy:",
                key="copy_first",
                on_click=copy_first,
                disabled=not has_codes(),
            )
            if not has_codes(SECOND):
                st.button(
                    "Take a demo patient",
                    icon=":material/science:",
                    key="demo_second",
                    on_click=open_demo,
                    args=("demo-copd", SECOND),
                )
    if not has_codes() or not has_codes(SECOND):
        missing = "A" if not has_codes() else "B"
        st.html(
            f'<div class="mera-empty"><b>History {missing} is empty.</b><br>Add codes above, or choose a '
            "demo patient: the two rankings are compared here.</div>"
        )
        return
    first, second = or_stop(lambda: ranking_of(patient())), or_stop(lambda: ranking_of(patient(SECOND)))
    show_comparison(first, second, ("History A", "History B"), engine().ontology)


def contents(slot: str) -> str:
    """A history in Markdown: a line for each of its newest visits, with the codes as they are written."""
    person, title = patient(slot), started_from(slot)
    if not has_codes(slot):
        return "No codes yet."
    lines = [f"From “{plain(title)}”"] if title else []
    first = max(0, len(person.visits) - NEWEST)
    lines += [counted(first, "earlier visit")] if first else []
    for number, visit in enumerate(person.visits[first:], start=first + 1):
        codes = ", ".join(plain(code.code if isinstance(code, Code) else str(code)) for code in visit.codes)
        lines.append(f"**Visit {number}**: {codes or 'no codes'}")
    return "  \n".join(lines)


def checkpoints() -> dict[str, tuple[str, str | None]]:
    """What the second model can be: name -> (id, quantize); every one that ranks, as it is and in 4-bit weights."""
    found = {name: (name, None) for name in ranking_models()}
    return found | {f"{name} {FOUR_BIT}": (name, "nf4") for name in found}


def show_checkpoints() -> None:
    """One history, ranked by the session's model and by another."""
    offered = {name: kind for name, kind in checkpoints().items() if name != model_id()}
    other = st.selectbox(
        "Second model",
        list(offered),
        key="second_model",
        width=320,
        persist_state="session",
        help="Checkpoints of this installation; each also with its weights rounded to 4 bits (NF4)",
    )
    edit("")
    if not has_codes():
        st.html(
            '<div class="mera-empty"><b>No diagnoses yet.</b><br>Add codes above, or choose a '
            "demo patient: two models rank it here.</div>"
        )
        return
    first = or_stop(lambda: ranking_of(patient()))
    second = or_stop(lambda: ranking_of(patient(), *offered[other]))
    show_comparison(first, second, (model_id(), other), engine().ontology)


with st.container():
    follow_link()
    heading("Compare", "Two histories, or one history under two models: what differs stands first.")
    ranking_engine()
mode = st.segmented_control(
    "Compare", list(MODES), default="histories", format_func=MODES.get, key="compare_mode", required=True,
    label_visibility="collapsed", persist_state="session",
)  # fmt: skip
if mode == "histories":
    show_histories()
else:
    show_checkpoints()
footer()

"""What if the history were another: the ranking before and after a change, against the last state or a pinned one."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from mera_core.common.errors import InputError
from mera_core.history.diff import history_changes
from mera_core.history.records import Patient
from mera_core.ranking.compare import differences_first, join
from mera_core.ranking.ranking import Ranking
from pages.shared.app.engines import engine, ranking_of
from pages.shared.app.histories import change, history, patient
from pages.shared.app.markdown import plain
from pages.shared.ranking.compare_view import differs, show_pairs
from pages.shared.ranking.ranking_view import Changes
from pages.shared.widgets.controls import button

ROWS = 15
COMPARED = 20  # the first places of either list


@dataclass(frozen=True)
class Baseline:
    """The history and ranking that the present one is compared with. name: in words."""

    person: Patient
    ranking: Ranking
    name: str
    pinned: bool


def baseline() -> Baseline | None:
    """The pinned history, else the one before the last change; None where there is none or it can't be ranked."""
    pinned: Patient | None = st.session_state.get("pinned")
    person = history().now.before if pinned is None else pinned
    if person is None or person == patient() or not any(visit.codes for visit in person.visits):
        return None
    try:
        ranking = ranking_of(person)
    except InputError:
        return None
    name = "the history before the last change" if pinned is None else "the pinned history"
    return Baseline(person, ranking, name, pinned is not None)


def changes_since(base: Baseline | None, ranking: Ranking) -> Changes | None:
    """Pairs of the baseline's ranking and this one by code; None without a baseline."""
    return None if base is None else join(base.ranking, ranking)


def show_what_if(ranking: Ranking, base: Baseline | None) -> None:
    """The pin, what was changed, and the list before and after it."""
    st.subheader("What if the history were another?", anchor=False)
    _pin_buttons(base)
    if base is None:
        if st.session_state.get("pinned") is not None:
            st.info("The history is the pinned one. Change it: what moves is shown here.", icon=":material/keep:")
        else:
            st.info(
                "Change the history: remove or add a code, move a visit, set another age. What moves is shown here and "
                "beside each score of the list. Pin a history to compare every later change with it.",
                icon=":material/edit:",
            )
        return
    words = history_changes(base.person, patient())
    st.markdown(f"Compared with {base.name}: **{plain(words)}**.")
    pairs = differences_first(join(base.ranking, ranking), COMPARED)
    moved = [pair for pair in pairs if differs(pair)]
    show_pairs(moved[:ROWS], ("Before", "Now"), engine().ontology, "The ranking before and after the change")
    if len(moved) > ROWS:
        st.caption(
            f"The {ROWS} largest of {len(moved)} changes among the first {COMPARED} places and the predicted codes."
        )


def _pin_buttons(base: Baseline | None) -> None:
    pinned = st.session_state.get("pinned")
    with st.container(horizontal=True):
        button(
            "Pin this history" if pinned is None else "Pin this history instead",
            "pin",
            "keep",
            lambda: st.session_state.update(pinned=patient()),
            disabled=pinned == patient(),
        )
        if pinned is not None:
            button("Unpin", "unpin", "keep_off", lambda: st.session_state.update(pinned=None))
        if base is not None:
            label = "Back to the pinned history" if base.pinned else "Back to before the change"
            button(label, "back", "undo", change, base.person)

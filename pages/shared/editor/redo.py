"""Undo that can be taken back: what was undone last comes again, until the history is changed in another way."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.shared.app import session
from pages.shared.app.session import slot_key

_NAMES = ("patient", "demo", "started_from", "before")  # what a step of `session.undo` brings back


def undo(slot: str = "") -> None:
    """Take back the last change and keep it, so that `redo` can bring it again."""
    if not session.can_undo(slot):
        return
    undone = {name: st.session_state.get(slot_key(name, slot)) for name in _NAMES}
    earlier = _steps(slot)
    session.undo(slot)
    st.session_state[slot_key("redo", slot)] = [*earlier, (session.patient(slot), undone)]


def can_redo(slot: str = "") -> bool:
    """Whether an undone change can come again: only while the history is the one that the undo left."""
    return bool(_steps(slot))


def redo(slot: str = "") -> None:
    """Bring the last undone change again; `undo` takes it back."""
    steps = _steps(slot)
    if not steps:
        return
    _, undone = steps[-1]
    session.change(undone["patient"], slot)
    for name, value in undone.items():
        st.session_state[slot_key(name, slot)] = value
    st.session_state[slot_key("redo", slot)] = steps[:-1]


def _steps(slot: str) -> list[tuple[Any, dict[str, Any]]]:
    """What can come again, newest last: (the history that the undo left, what was undone)."""
    steps = st.session_state.get(slot_key("redo", slot), [])
    return steps if steps and steps[-1][0] == session.patient(slot) else []

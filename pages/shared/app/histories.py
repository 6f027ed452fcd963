"""The histories of a browser session, each with its undo and redo.

They live in the session state only: never in an address, a cache shared between users, a log or a file. A page that shows
two histories keeps the second in a slot of its own (`slot="b"`); the first slot is "".
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cache

import streamlit as st

from mera_core.history.records import DemoPatient, Patient, demo_patients

SLOTS = ("", "b")
_UNDO_DEPTH = 50


@dataclass(frozen=True)
class State:
    """What undo and redo move between.

    patient: unread pieces stand in it as text. demo: the id of the demo patient that it is; None once edited. title: of
    what it was opened as. before: the history before the last change; None where it was opened and not changed since.
    """

    patient: Patient = field(default_factory=Patient)
    demo: str | None = None
    title: str = ""
    before: Patient | None = None


class HistoryStack:
    """The history on the screen, what it was before each change, and what was undone since the last one."""

    def __init__(self, state: State | None = None) -> None:
        self.now = state or State()
        self._past: deque[State] = deque(maxlen=_UNDO_DEPTH)
        self._undone: list[State] = []

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    @property
    def is_edited(self) -> bool:
        """Whether it holds work of the user's own: changed, and neither empty nor a demo patient."""
        return self.now.before is not None and self.now.patient != Patient() and self.now.demo is None

    def show(self, state: State) -> None:
        """Put another state on the screen; `undo` brings the old one back, unless that was empty."""
        if self.now.patient != Patient():
            self._past.append(self.now)
        self._undone.clear()
        self.now = state

    def change(self, edited: Patient) -> None:
        """Put the edited history on the screen."""
        self._past.append(self.now)
        self._undone.clear()
        self.now = State(edited, None, self.now.title, self.now.patient)

    def undo(self) -> None:
        """Take back the last change, whatever it was."""
        if self._past:
            self._undone.append(self.now)
            self.now = self._past.pop()

    def redo(self) -> None:
        """Bring the last undone change again; `undo` takes it back."""
        if self._undone:
            self._past.append(self.now)
            self.now = self._undone.pop()


def history(slot: str = "") -> HistoryStack:
    """The history of a slot."""
    return st.session_state.setdefault(slot_key("history", slot), HistoryStack())


def patient(slot: str = "") -> Patient:
    """The history on the screen."""
    return history(slot).now.patient


def has_codes(slot: str = "") -> bool:
    """Whether there is anything to rank."""
    return any(visit.codes for visit in patient(slot).visits)


def change(edited: Patient, slot: str = "") -> None:
    """Put an edited history on the screen."""
    history(slot).change(edited)


def open_demo(identity: str | None, slot: str = "") -> None:
    """Put a demo patient on the screen, or with None an empty history."""
    demo = demos()[identity] if identity else None
    open_history(demo.patient if demo else Patient(), demo.title if demo else "", identity, slot)


def open_history(person: Patient, title: str = "", demo: str | None = None, slot: str = "") -> None:
    """Put another history on the screen; nothing before it is compared with it."""
    history(slot).show(State(person, demo, title))
    st.session_state.pop(slot_key("add_target", slot), None)  # codes go to this history's latest visit


@cache
def demos() -> dict[str, DemoPatient]:
    """The invented demo patients by id, in the order of their file: values that nothing changes, so every session has them."""
    return {demo.id: demo for demo in demo_patients()}


def slot_key(name: str, slot: str = "") -> str:
    """The session key of something that each slot has its own of: ("history", "b") -> 'history_b'."""
    return f"{name}_{slot}" if slot else name

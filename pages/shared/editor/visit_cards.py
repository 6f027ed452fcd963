"""The visits of a history as a timeline of cards: codes as chips, dates, moving and removing.

Widgets show the history, never own it; every edit goes through `histories.change`, so that each can be undone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import streamlit as st

from mera_core.common.formatting import counted
from mera_core.history.records import Patient, Visit
from mera_core.icd.chapters import field_of
from mera_core.icd.ontology import SYSTEM_NAMES, Code, Ontology
from mera_core.icd.readings import reading, readings
from pages.shared.app.histories import change, patient, slot_key
from pages.shared.app.markdown import plain
from pages.shared.editor import history_edits as edits
from pages.shared.editor.add_codes import NEW_VISIT
from pages.shared.editor.visit_details import edit_details
from pages.shared.widgets.controls import button

NEWEST_SHOWN = 6  # visits shown without asking; older ones fold away
EARLIEST = date(1900, 1, 1)


def edit_visits(slot: str = "") -> None:
    """The visits as cards on a line, oldest first; the earlier ones of a long history fold away."""
    person = patient(slot)
    first = max(0, len(person.visits) - NEWEST_SHOWN)
    if first and st.toggle(
        f"Show {counted(first, 'earlier visit')}", key=slot_key("show_earlier", slot), persist_state="session"
    ):
        first = 0
    for number in range(first, len(person.visits)):
        _visit_card(person, number, slot)
    button("Add a visit", slot_key("add_visit", slot), "add", _add_visit, slot, type="tertiary")


def _visit_card(person: Patient, number: int, slot: str) -> None:
    visit, last = person.visits[number], len(person.visits) - 1
    editing = st.session_state.get(slot_key("editing", slot)) == number
    with st.container(border=True, key=slot_key(f"visit_{number}", slot), gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
            st.markdown(_visit_title(visit, number, last), width="stretch")
            for icon, wanted, action, possible in (
                ("arrow_upward", "Move earlier", lambda slot, n: _move_visit(slot, n, -1), number > 0),
                ("arrow_downward", "Move later", lambda slot, n: _move_visit(slot, n, 1), number < last),
                ("edit_calendar", "Date and moving codes", _toggle_editing, True),
                ("delete", "Remove this visit", _remove_visit, True),
            ):
                button(
                    f"{wanted} (visit {number + 1})",  # read aloud; on the screen the icon stands alone
                    slot_key(f"do_{wanted}_{number}", slot),
                    icon,
                    action,
                    slot,
                    number,
                    help=f"{wanted} (visit {number + 1})",
                    type="primary" if editing and action is _toggle_editing else "tertiary",
                    disabled=not possible,
                )
        if editing:
            _edit_panel(person, number, slot)
        if not visit.codes:
            st.caption("No codes in this visit yet.")
        with st.container(horizontal=True, gap="xsmall"):
            for place, code in enumerate(visit.codes):
                _chip(code, number, place, slot)
        edit_details(person, number, slot)


def _visit_title(visit: Visit, number: int, last: int) -> str:
    facts = [f"**Visit {number + 1}**"]
    if visit.time is not None:
        facts.append(visit.time.strftime("%d %b %Y").lstrip("0"))
    if visit.age is not None:
        facts.append(f"age {visit.age:.0f}")
    return " · ".join(facts + (["latest"] if number == last and last else []))


def _edit_panel(person: Patient, number: int, slot: str) -> None:
    """The date of a visit, and where one of its codes is to go."""
    visit = person.visits[number]
    day, which, target = (slot_key(name, slot) for name in ("day_of_visit", "move_which", "move_target"))
    st.session_state[day] = None if visit.time is None else visit.time.date()
    tomorrow = date.today() + timedelta(days=1)  # it is tomorrow somewhere already; shifted dates lie far beyond it
    with st.container(horizontal=True, vertical_alignment="bottom", key=slot_key("panel_of_visit", slot)):
        st.date_input(
            "Date of the visit (optional)",
            key=day,
            value=None,
            min_value=min(EARLIEST, visit.time.date()) if visit.time else EARLIEST,
            max_value=max(tomorrow, visit.time.date()) if visit.time else tomorrow,
            format="YYYY-MM-DD",
            on_change=lambda: _set_date(slot, number),
            width=190,
        )
        if not visit.codes:
            return
        st.session_state[which] = min(st.session_state.get(which) or 0, len(visit.codes) - 1)
        targets = [number, *(other for other in range(len(person.visits)) if other != number), NEW_VISIT]
        if st.session_state.get(target) not in targets:
            st.session_state[target] = targets[-1]
        names = {number: "first in this visit", NEW_VISIT: "a new visit"}
        st.selectbox(
            "Move the code",
            list(range(len(visit.codes))),
            format_func=lambda place: _short_name(visit.codes[place]),
            key=which,
            width=210,
        )
        st.selectbox(
            "to",
            targets,
            format_func=lambda other: names.get(other, f"visit {other + 1}"),
            key=target,
            width=150,
        )
        button("Move", slot_key("move_code", slot), "", lambda: _move_code(slot, number))


def _short_name(code: Code | str) -> str:
    read = reading(code, Ontology.load())
    return f"{read.code} {Ontology.load().definition(read)}" if read else str(code)


def _chip(code: Code | str, visit: int, place: int, slot: str) -> None:
    """A code with its definition, or text that can only mean one; a click removes it. Unread text is kept; with two
    meanings it offers both."""
    unread = slot_key(f"chip_unread_{visit}_{place}", slot)
    candidates, reason = readings(code, Ontology.load())
    if len(candidates) == 1:
        read = candidates[0]
        key = slot_key(f"chip_{field_of(read)}_{visit}_{place}_{read}", slot)
        definition = plain(Ontology.load().definition(read))
        label = f"**{plain(read.code)}** {definition}"
        words = f"{plain(reason)} Remove {read.code} ({SYSTEM_NAMES[read.system]})".strip()
        _remover(label, key, words, visit, place, slot)
        return
    if not candidates:
        words = f"{plain(reason)} It is kept here and not used. Click to remove it."
        _remover(f"**{plain(str(code))}** not read", unread, words, visit, place, slot)
        return
    with (
        st.container(key=unread, width="content"),
        st.popover(f"**{plain(str(code))}** has two meanings: choose", icon=":material/help:"),
    ):
        for candidate in candidates:
            button(
                f"**{SYSTEM_NAMES[candidate.system]} {plain(candidate.code)}** "
                f"{plain(Ontology.load().definition(candidate))}",
                slot_key(f"settle_{visit}_{place}_{candidate}", slot),
                "",
                _edit,
                slot,
                edits.settle_code,
                visit,
                place,
                candidate,
                width="stretch",
            )
        button("Remove it", slot_key(f"drop_{visit}_{place}", slot), "", _edit, slot, edits.remove_code, visit, place)


def _remover(label: str, key: str, words: str, visit: int, place: int, slot: str) -> None:
    """A chip: a button that takes the code at a place away."""
    button(
        label, key, "close", _edit, slot, edits.remove_code, visit, place, icon_position="right", help=words, wrap=True
    )


def _edit(slot: str, action: Callable[..., Patient], *arguments: object) -> None:
    change(action(patient(slot), *arguments), slot)


def _add_visit(slot: str) -> None:
    _edit(slot, edits.add_visit)
    st.session_state[slot_key("add_target", slot)] = len(patient(slot).visits) - 1


def _move_visit(slot: str, number: int, step: int) -> None:
    _edit(slot, edits.move_visit, number, step)
    if st.session_state.get(slot_key("editing", slot)) is not None:
        st.session_state[slot_key("editing", slot)] = number + step


def _remove_visit(slot: str, number: int) -> None:
    _edit(slot, edits.remove_visit, number)
    st.session_state[slot_key("editing", slot)] = None


def _toggle_editing(slot: str, number: int) -> None:
    key = slot_key("editing", slot)
    st.session_state[key] = None if st.session_state.get(key) == number else number


def _set_date(slot: str, number: int) -> None:
    edited, place = edits.set_date(patient(slot), number, st.session_state[slot_key("day_of_visit", slot)])
    change(edited, slot)
    st.session_state[slot_key("editing", slot)] = place
    if place != number:
        st.toast(f"The visit stands at place {place + 1} now, by its date.", icon=":material/swap_vert:")


def _move_code(slot: str, number: int) -> None:
    target = st.session_state[slot_key("move_target", slot)]
    place = st.session_state[slot_key("move_which", slot)]
    _edit(slot, edits.move_code, number, place, None if target == NEW_VISIT else target)

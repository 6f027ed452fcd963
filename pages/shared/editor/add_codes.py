"""Ways to put codes into a history: search, a pasted list, a file; and the visit they go to."""

from __future__ import annotations

import html

import streamlit as st

from mera_core.common.errors import InputError
from mera_core.common.limits import current_limits
from mera_core.icd.ontology import SYSTEM_NAMES, Code, Ontology
from pages.shared.app.histories import change, patient, slot_key
from pages.shared.app.markdown import plain
from pages.shared.editor import history_edits as edits
from pages.shared.editor.code_search import code_search
from pages.shared.editor.history_files import open_or_save
from pages.shared.editor.pasted_list import Piece, read_list
from pages.shared.widgets.controls import button

NEW_VISIT = -1


def add_codes(slot: str = "") -> None:
    """Where codes are searched, pasted or opened from a file, and the visit they go to."""
    person = patient(slot)
    target = slot_key("add_target", slot)
    with st.container(border=True, key=slot_key("add_codes", slot)):
        targets = [*reversed(range(len(person.visits))), NEW_VISIT]
        if st.session_state.get(target) not in targets:
            st.session_state[target] = targets[0]
        st.selectbox(
            "Add codes to",
            options=targets,
            format_func=lambda number: _target_name(number, len(person.visits)),
            key=target,
            persist_state="session",
        )
        tabs = st.tabs(["Search", "Paste a list", "Open or save"], key=slot_key("add_by", slot))
        with tabs[0]:
            code_search(slot_key("add", slot), "Find a diagnosis by code or words", lambda code: _add([code], slot))
        with tabs[1]:
            _paste(slot)
        with tabs[2]:
            open_or_save(slot)
        if refusal := st.session_state.pop(slot_key("refused", slot), ""):
            st.error(refusal, icon=":material/error:")


def _target_name(number: int, visits: int) -> str:
    if number == NEW_VISIT:
        return "A new visit"
    return f"Visit {number + 1}" + (" (latest)" if number == visits - 1 else "")


def _paste(slot: str) -> None:
    st.text_area(
        "Codes separated by commas, semicolons, spaces or lines; descriptions may stand after them",
        key=slot_key("paste_text", slot),
        placeholder="250.00; 585.9\nI10 Essential (primary) hypertension",
        height=110,
        persist_state="session",
    )
    button("Add the list", slot_key("paste_button", slot), "playlist_add", _add_list, slot, type="primary")
    edited, pieces = st.session_state.get(slot_key("pasted", slot), (None, []))
    if pieces and edited == patient(slot):  # what the last list became, until the history is changed again
        _show_pieces(pieces)


def _add_list(slot: str) -> None:
    """Read the list and add every piece, unread ones as typed. A list that is refused stays in its field."""
    text = slot_key("paste_text", slot)
    try:
        pieces = read_list(st.session_state[text], Ontology.load())
    except InputError as error:
        st.session_state[slot_key("refused", slot)] = str(error)
        return
    if pieces and _add([piece.code or piece.typed for piece in pieces], slot):
        st.session_state[text] = ""
        st.session_state[slot_key("pasted", slot)] = (patient(slot), pieces)


def _show_pieces(pieces: list[Piece]) -> None:
    unread = [piece for piece in pieces if piece.code is None]
    if unread:
        named = ", ".join(plain(piece.typed) for piece in unread)
        st.warning(f"Not read, and kept as typed: {named}", icon=":material/help:")
    if doubts := [piece.doubt for piece in pieces if piece.doubt]:
        st.warning(plain(" ".join(doubts)), icon=":material/help:")
    rows = "".join(f"<tr><td>{html.escape(piece.typed)}</td><td>{_became(piece)}</td></tr>" for piece in pieces)
    st.html(f'<table class="mera-pieces"><caption class="sub">What each piece became</caption>{rows}</table>')


def _became(piece: Piece) -> str:
    if piece.code is None:
        return f"<b>not read.</b> {html.escape(piece.problem)}"
    words = " (words after or before the code taken as its description)" if piece.words else ""
    definition = html.escape(Ontology.load().definition(piece.code))
    return f"<b>{SYSTEM_NAMES[piece.code.system]} {piece.code.code}</b> {definition}{words}"


def _add(codes: list[Code | str], slot: str) -> bool:
    """Add codes to the chosen visit, which stays chosen; False where the history would be too long."""
    target = st.session_state[slot_key("add_target", slot)]
    edited = edits.add_codes(patient(slot), codes, None if target == NEW_VISIT else target)
    size = sum(len(visit.codes) for visit in edited.visits)
    limits = current_limits()
    if len(edited.visits) > limits.visits or size > limits.codes:
        st.session_state[slot_key("refused", slot)] = (
            f"A history can hold {limits.visits:,} visits and {limits.codes:,} codes; this would be more."
        )
        return False
    change(edited, slot)
    if target == NEW_VISIT:
        st.session_state[slot_key("add_target", slot)] = len(edited.visits) - 1
    return True

"""The history on the screen: demo patients, profile, visits as cards, codes as chips, search and paste.

Every edit goes through `session.change`, so that each can be undone. Widgets show the history, never own it:
their values are set from it before they are drawn.
"""

from __future__ import annotations

import html
from dataclasses import replace

import streamlit as st

from mera_core.chapters import field_of
from mera_core.errors import InputError
from mera_core.history import MAX_CODES, MAX_VISITS
from mera_core.ontology import SYSTEM_NAMES, AmbiguousCodeError, Code, Ontology
from mera_core.patient import OLDEST_AGE
from mera_core.records import Patient, Visit
from pages.shared import history_edits as edits
from pages.shared.code_search import code_search
from pages.shared.pasted_list import Piece, read_list
from pages.shared.session import change, demos, open_demo, patient, plain, undo

SEX_NAMES = {"F": "Female", "M": "Male", "U": "Not stated"}
NEWEST_SHOWN = 6  # visits shown without asking; older ones fold away
NEW_VISIT = -1


def choose_demo() -> None:
    """The list of demo patients, with undo and a fresh start beside it."""
    st.session_state["demo_choice"] = st.session_state["demo"]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Demo patient (invented)",
            options=list(demos()),
            format_func=lambda identity: demos()[identity].title,
            key="demo_choice",
            on_change=lambda: open_demo(st.session_state["demo_choice"]),
            index=None,
            placeholder="Choose one to start from",
            width=420,
        )
        st.button("Undo", icon=":material/undo:", on_click=undo, disabled=not st.session_state["undo"])
        st.button(
            "Start empty",
            icon=":material/restart_alt:",
            on_click=open_demo,
            args=(None,),
            disabled=patient() == Patient(),
        )
    shown = st.session_state["demo"]
    if shown:
        st.caption(f"{plain(demos()[shown].story)} (Invented for demonstration.)")
    elif st.session_state["started_from"]:
        st.caption(f"Edited, from the invented patient “{plain(st.session_state['started_from'])}”.")


def edit_profile() -> None:
    """Age at the last visit, sex, and what else the history says of the person."""
    person = patient()
    st.session_state["age_field"] = None if person.age is None else int(person.age)
    st.session_state["sex_field"] = person.sex
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.number_input(
            "Age at last visit",
            min_value=0,
            max_value=int(OLDEST_AGE),
            key="age_field",
            on_change=_set_age,
            placeholder="years",
            width=130,
        )
        st.segmented_control(
            "Sex",
            options=list(SEX_NAMES),
            format_func=SEX_NAMES.get,
            key="sex_field",
            on_change=_set_sex,
            required=True,
        )
    if person.details:
        st.caption(" · ".join(f"{plain(key)}: {plain(value)}" for key, value in person.details.items()))


def edit_visits() -> None:
    """The visits as cards, oldest first; the earlier ones of a long history fold away."""
    person = patient()
    hidden = max(0, len(person.visits) - NEWEST_SHOWN)
    if hidden and not st.toggle(f"Show {hidden} earlier visits", key="show_earlier", persist_state="session"):
        first = hidden
    else:
        first = 0
    for number in range(first, len(person.visits)):
        _visit_card(person, number)


def _visit_card(person: Patient, number: int) -> None:
    visit, last = person.visits[number], len(person.visits) - 1
    with st.container(border=True, key=f"visit_{number}", gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
            st.markdown(_visit_title(visit, number, last), width="stretch")
            for icon, wanted, action, step, possible in (
                (":material/arrow_upward:", "Move earlier", edits.move_visit, -1, number > 0),
                (":material/arrow_downward:", "Move later", edits.move_visit, 1, number < last),
                (":material/delete:", "Remove this visit", edits.remove_visit, None, True),
            ):
                st.button(
                    icon,
                    key=f"do_{wanted}_{number}",
                    help=f"{wanted} (visit {number + 1})",
                    type="tertiary",
                    disabled=not possible,
                    on_click=_edit,
                    args=(action, number) if step is None else (action, number, step),
                )
        if not visit.codes:
            st.caption("No codes in this visit yet.")
        with st.container(horizontal=True, gap="xsmall"):
            for place, code in enumerate(visit.codes):
                _chip(code, number, place)


def _visit_title(visit: Visit, number: int, last: int) -> str:
    facts = [f"**Visit {number + 1}**"]
    if visit.time is not None:
        facts.append(visit.time.strftime("%d %b %Y").lstrip("0"))
    if visit.age is not None:
        facts.append(f"age {visit.age:.0f}")
    return " · ".join(facts + (["latest"] if number == last and last else []))


def _chip(code: Code | str, visit: int, place: int) -> None:
    """A code with its definition; a click removes it. Unread text is kept; with two meanings it offers both."""
    if isinstance(code, Code) and code in Ontology.load():
        definition = Ontology.load().definition(code)
        st.button(
            f"**{plain(code.code)}** {plain(definition)}",
            key=f"chip_{field_of(code)}_{visit}_{place}_{code}",
            icon=":material/close:",
            icon_position="right",
            help=f"Remove {code.code} ({SYSTEM_NAMES[code.system]})",
            on_click=_edit,
            args=(edits.remove_code, visit, place),
            wrap=True,
        )
        return
    candidates, reason = _readings(code)
    if not candidates:
        st.button(
            f"**{plain(str(code))}** not read",
            key=f"chip_unread_{visit}_{place}",
            icon=":material/close:",
            icon_position="right",
            help=f"{plain(reason)} It is kept here and not used. Click to remove it.",
            on_click=_edit,
            args=(edits.remove_code, visit, place),
        )
        return
    with (
        st.container(key=f"chip_unread_{visit}_{place}", width="content"),
        st.popover(f"**{plain(str(code))}** has two meanings: choose", icon=":material/help:"),
    ):
        for candidate in candidates:
            st.button(
                f"**{SYSTEM_NAMES[candidate.system]} {plain(candidate.code)}** "
                f"{plain(Ontology.load().definition(candidate))}",
                key=f"settle_{visit}_{place}_{candidate}",
                on_click=_edit,
                args=(edits.settle_code, visit, place, candidate),
                width="stretch",
            )
        st.button("Remove it", key=f"drop_{visit}_{place}", on_click=_edit, args=(edits.remove_code, visit, place))


def _readings(code: Code | str) -> tuple[tuple[Code, ...], str]:
    """What unread text could mean, and why it was not read."""
    try:
        system = code.system if isinstance(code, Code) else None
        return (Ontology.load().parse(code.code if isinstance(code, Code) else code, system),), ""
    except AmbiguousCodeError as error:
        return error.candidates, str(error)
    except InputError as error:
        return (), str(error)


def add_codes() -> None:
    """Where codes are searched or pasted, and the visit they go to."""
    person = patient()
    with st.container(border=True, key="add_codes"):
        targets = [*reversed(range(len(person.visits))), NEW_VISIT]
        if st.session_state.get("add_target") not in targets:
            st.session_state["add_target"] = targets[0]
        st.selectbox(
            "Add codes to",
            options=targets,
            format_func=lambda number: _target_name(number, len(person.visits)),
            key="add_target",
            persist_state="session",
        )
        search_tab, paste_tab = st.tabs(["Search", "Paste a list"], key="add_by")
        with search_tab:
            code_search("add", "Find a diagnosis by code or words", lambda code: _add([code]))
        with paste_tab:
            _paste()
        if refusal := st.session_state.pop("refused", ""):
            st.error(refusal, icon=":material/error:")


def _target_name(number: int, visits: int) -> str:
    if number == NEW_VISIT:
        return "A new visit"
    return f"Visit {number + 1}" + (" (latest)" if number == visits - 1 else "")


def _paste() -> None:
    st.text_area(
        "Codes parted by commas, semicolons, spaces or lines; descriptions may stand after them",
        key="paste_text",
        placeholder="250.00; 585.9\nI10 Essential (primary) hypertension",
        height=110,
        persist_state="session",
    )
    st.button("Add the list", icon=":material/playlist_add:", type="primary", on_click=_add_list, key="paste_button")
    edited, pieces = st.session_state.get("pasted", (None, []))
    if pieces and edited is patient():  # what the last list became, until the history is changed again
        _show_pieces(pieces)


def _add_list() -> None:
    """Read the list and add every piece, unread ones as typed. A list that is refused stays in its field."""
    try:
        pieces = read_list(st.session_state["paste_text"], Ontology.load())
    except InputError as error:
        st.session_state["refused"] = str(error)
        return
    if pieces and _add([piece.code or piece.typed for piece in pieces]):
        st.session_state["paste_text"] = ""
        st.session_state["pasted"] = (patient(), pieces)


def _show_pieces(pieces: list[Piece]) -> None:
    unread = [piece for piece in pieces if piece.code is None]
    if unread:
        named = ", ".join(plain(piece.typed) for piece in unread)
        st.warning(f"Not read, and kept as typed: {named}", icon=":material/help:")
    rows = "".join(f"<tr><td>{html.escape(piece.typed)}</td><td>{_became(piece)}</td></tr>" for piece in pieces)
    st.html(f'<table class="mera-pieces"><caption class="sub">What each piece became</caption>{rows}</table>')


def _became(piece: Piece) -> str:
    if piece.code is None:
        return f"<b>not read.</b> {html.escape(piece.problem)}"
    words = " (words after or before the code taken as its description)" if piece.words else ""
    definition = html.escape(Ontology.load().definition(piece.code))
    return f"<b>{SYSTEM_NAMES[piece.code.system]} {piece.code.code}</b> {definition}{words}"


def _add(codes: list[Code | str]) -> bool:
    """Add codes to the chosen visit, which stays chosen; False where the history would be too long."""
    target = st.session_state["add_target"]
    edited = edits.add_codes(patient(), codes, None if target == NEW_VISIT else target)
    size = sum(len(visit.codes) for visit in edited.visits)
    if len(edited.visits) > MAX_VISITS or size > MAX_CODES:
        st.session_state["refused"] = (
            f"A history can hold {MAX_VISITS:,} visits and {MAX_CODES:,} codes; this would be more."
        )
        return False
    change(edited)
    if target == NEW_VISIT:
        st.session_state["add_target"] = len(edited.visits) - 1
    return True


def _edit(action, *arguments) -> None:
    change(action(patient(), *arguments))


def _set_age() -> None:
    age = st.session_state["age_field"]
    change(replace(patient(), age=None if age is None else float(age)))


def _set_sex() -> None:
    change(replace(patient(), sex=st.session_state["sex_field"]))

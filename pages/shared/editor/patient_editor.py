"""The history on the screen: demo patients with undo and redo, the profile; visits and ways to add codes beside it.

Every edit goes through `histories.change`, so that each can be undone. Widgets show the history, never own it:
their values are set from it before they are drawn. A page that shows two histories names the second by its slot.
"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from mera_core.common.errors import InputError
from mera_core.history.records import Patient
from pages.shared.app.engines import engine
from pages.shared.app.histories import change, demos, history, open_demo, patient, slot_key
from pages.shared.app.markdown import plain, sentence
from pages.shared.editor.add_codes import add_codes
from pages.shared.editor.visit_cards import edit_visits
from pages.shared.widgets.controls import button

__all__ = ["add_codes", "choose_demo", "edit_profile", "edit_visits", "patient_editor"]

SEX_NAMES = {"F": "Female", "M": "Male", "U": "Not stated"}


def patient_editor(slot: str = "") -> None:
    """Everything with which a history is made."""
    choose_demo(slot)
    edit_profile(slot)
    edit_visits(slot)
    add_codes(slot)


def choose_demo(slot: str = "") -> None:
    """The list of demo patients, with undo, redo and a fresh start beside it."""
    choice = slot_key("demo_choice", slot)
    stack = history(slot)
    st.session_state[choice] = stack.now.demo
    with st.container(horizontal=True, vertical_alignment="bottom", key=slot_key("start", slot)):
        st.selectbox(
            "Demo patient (invented)",
            options=list(demos()),
            format_func=lambda identity: demos()[identity].title,
            key=choice,
            on_change=lambda: open_demo(st.session_state[choice], slot),
            index=None,
            placeholder="Choose one to start from",
            width=420,
        )
        for label, icon, action, possible in (
            ("Undo", "undo", stack.undo, stack.can_undo),
            ("Redo", "redo", stack.redo, stack.can_redo),
            ("Start empty", "restart_alt", lambda: open_demo(None, slot), stack.now.patient != Patient()),
        ):
            button(label, slot_key(f"do_{label}", slot), icon, action, disabled=not possible)
    if stack.now.demo:
        st.caption(plain(demos()[stack.now.demo].story))
    elif stack.now.title:
        st.caption(f"Started from “{plain(stack.now.title)}”.")


def edit_profile(slot: str = "") -> None:
    """Age at the last visit, sex, and what else the history says of the person."""
    person = patient(slot)
    age, sex = slot_key("age_field", slot), slot_key("sex_field", slot)
    st.session_state[age] = None if person.age is None else int(person.age)
    st.session_state[sex] = person.sex

    def set_age() -> None:
        try:
            change(replace(patient(slot), age=st.session_state[age]), slot)
        except InputError as error:
            st.session_state[slot_key("refused_age", slot)] = sentence(str(error))

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.number_input(
            "Age at last visit",
            step=1,
            key=age,
            on_change=set_age,
            placeholder="years",
            width=130,
        )
        st.segmented_control(
            "Sex",
            options=list(SEX_NAMES),
            format_func=SEX_NAMES.get,
            key=sex,
            on_change=lambda: change(replace(patient(slot), sex=st.session_state[sex]), slot),
            required=True,
        )
        read = engine().manifest["sequence"].get("patient_details", ())
        for name in read:
            _detail(person, name, slot)
    if refusal := st.session_state.pop(slot_key("refused_age", slot), ""):
        st.error(refusal, icon=":material/error:")
    others = {key: value for key, value in person.details.items() if key not in read}
    if others:
        words = " · ".join(f"{plain(key)}: {plain(value)}" for key, value in others.items())
        st.caption(f"Not read by this model: {words}")


def _detail(person: Patient, name: str, slot: str) -> None:
    """A profile word that the checkpoint reads, such as ethnicity."""
    key = slot_key(f"detail_{name}", slot)
    st.session_state[key] = person.details.get(name, "")
    st.text_input(
        name.replace("_", " ").capitalize(),
        key=key,
        placeholder="in words, optional",
        max_chars=80,
        on_change=lambda: _set_detail(slot, name, st.session_state[key]),
        width=170,
    )


def _set_detail(slot: str, name: str, words: str) -> None:
    person = patient(slot)
    change(replace(person, details={**person.details, name: words.strip()}), slot)  # empty words are left out

"""What a visit's record says beside its codes, for a checkpoint that reads it: one field a key, in a part that folds away."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from mera_core.common.formatting import counted
from mera_core.history.records import Patient
from pages.shared.app.engines import engine
from pages.shared.app.histories import change, patient, slot_key
from pages.shared.app.markdown import plain
from pages.shared.editor.detail_options import SEVERAL, choices, chosen, key_words, left_out, with_own
from pages.shared.editor.history_edits import set_detail

NOT_TOLD = "Not told"
SHORT = (
    15  # characters of a choice that half of a card's width shows; fields with longer ones take all of it (style.css)
)


def edit_details(person: Patient, number: int, slot: str) -> None:
    """The details of a visit that the checkpoint reads; nothing where it reads none. Those of other keys are kept."""
    loaded = engine()
    sequence, known = loaded.manifest["sequence"], loaded.model.vocabulary.details
    offered = choices(sequence["detail_tokens"], known)
    in_words = [key for key in sequence["visit_details"] if key not in offered]
    if not offered and not in_words:
        return
    visit = person.visits[number]
    # Its label stays the same: another one would close it.
    part = st.expander("More about this visit", key=slot_key(f"more_{number}", slot), type="compact", on_change="rerun")
    if not part.open:  # some twenty fields a visit are drawn only where someone looks
        if visit.details:
            st.caption(f"{counted(len(visit.details), 'detail')} told.")
        return
    with part:
        with st.container(key=slot_key(f"told_{number}", slot)):
            for key, options in offered.items():
                _choice(person, number, key, options, slot)
            for key in in_words:
                _text(person, number, key, slot)
        aged = replace(visit, age=person.age) if visit.age is None and visit is person.visits[-1] else visit
        if beyond := left_out(aged, sequence, known):
            names = ", ".join(map(key_words, beyond))
            st.caption(
                f"This model reads {sequence['most_details']} facts of a visit at most, and not: {plain(names)}."
            )
        others = [
            f"{key_words(key)}: {value}" for key, value in visit.details.items() if key not in {*offered, *in_words}
        ]
        if others:
            st.caption(f"Kept, and not read by this model: {plain(' · '.join(others))}")


def _choice(person: Patient, number: int, key: str, options: dict[str, str], slot: str) -> None:
    """A list of the values that the checkpoint knows; what the visit has already stands in it too."""
    values = chosen(person.visits[number], key, options)
    several = key in SEVERAL or len(values) > 1
    wide = "_wide" if several or max(map(len, options.values())) > SHORT else ""
    field = slot_key(f"{'details' if several else 'detail'}{wide}_of_{number}_{key}", slot)
    options = with_own(key, options, values)
    st.session_state[field] = values if several else next(iter(values), None)

    def told() -> None:
        value = st.session_state[field]
        change(set_detail(patient(slot), number, key, ", ".join(value) if several else value or ""), slot)

    if several:
        st.multiselect(
            key_words(key), list(options), format_func=options.get, key=field, on_change=told, placeholder=NOT_TOLD,
        )  # fmt: skip
    else:
        st.selectbox(
            key_words(key), list(options), format_func=options.get, key=field, on_change=told, placeholder=NOT_TOLD,
            index=None
        )  # fmt: skip


def _text(person: Patient, number: int, key: str, slot: str) -> None:
    """A detail that the checkpoint reads in words."""
    field = slot_key(f"detail_wide_of_{number}_{key}", slot)
    st.session_state[field] = person.visits[number].details.get(key, "")
    st.text_input(
        key_words(key),
        key=field,
        placeholder=NOT_TOLD,
        max_chars=80,
        on_change=lambda: change(set_detail(patient(slot), number, key, st.session_state[field].strip()), slot),
    )

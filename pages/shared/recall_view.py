"""An answer of the model's memory on the screen, beside the book's."""

from __future__ import annotations

import html

import streamlit as st

from mera_core.chapters import chapter_colour, chapter_name
from mera_core.figures import OTHER_COLOUR, percent
from mera_core.ontology import SYSTEM_NAMES
from mera_core.recall import Recall

_ICONS = {True: ":material/check_circle:", False: ":material/cancel:", None: ":material/help:"}
_OF_CODE = {
    True: "Right: word for word what the book says.",
    False: "Wrong: the book says something else.",
    None: "The book has no such code, so there is nothing to compare with.",
}
_OF_DEFINITION = {
    True: "Right: this is the book's code.",
    False: "Wrong: the book gives another code.",
    None: "No entry of the book is worded exactly so: the model's nearest codes, neither right nor wrong.",
}


def show_recall(recall: Recall, asked_code: bool) -> None:
    """The verdict in words, both answers side by side, and the alternatives with their shares.

    asked_code: the question was a code and the answers are definitions; otherwise the other way round.
    """
    verdict = (_OF_CODE if asked_code else _OF_DEFINITION)[recall.exact]
    {True: st.success, False: st.error, None: st.info}[recall.exact](verdict, icon=_ICONS[recall.exact])
    first = recall.alternatives[0][0] if recall.alternatives else None
    model, book = st.columns(2, gap="medium")
    with model:
        colour = chapter_colour(first) if first else OTHER_COLOUR
        note = "" if asked_code or first is None else f"{recall.alternatives[0][1]} · {chapter_name(first)}"
        _answer("The model's memory", recall.answer or "No answer", note, colour)
    with book:
        _answer("The book", recall.truth or "No such entry", "", OTHER_COLOUR)
    if recall.alternatives:
        _alternatives(recall, asked_code)


def _answer(title: str, text: str, note: str, colour: str) -> None:
    small = f"<small>{html.escape(note)}</small>" if note else ""
    st.markdown(f"**{title}**")
    st.html(f'<div class="mera-answer" style="border-color:{colour}">{html.escape(text)}{small}</div>')


def _alternatives(recall: Recall, asked_code: bool) -> None:
    st.markdown("**Which codes the model's answer fits best**" if asked_code else "**The model's likeliest codes**")
    both = len({code.system for code, _, _ in recall.alternatives}) > 1
    rows = [
        {
            "Code": f"{SYSTEM_NAMES[code.system]} {code.code}" if both else code.code,
            "Definition in the book": definition,
            "Share": percent(share),
        }
        for code, definition, share in recall.alternatives
    ]
    st.table(rows, hide_index=True, border="horizontal")
    st.caption("Share: how the answer spreads over all codes that the model knows; all shares add up to 100 %.")

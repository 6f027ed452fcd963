"""An answer of the model's memory on the screen, beside the book's; and how well each chapter is remembered."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import streamlit as st

from mera_core.audit.word_diff import word_diff
from mera_core.common.formatting import percent
from mera_core.figures import memory as memory_figures
from mera_core.figures.style import OTHER_COLOUR
from mera_core.icd.chapters import chapter_colour, chapter_name
from mera_core.icd.ontology import SYSTEM_NAMES, Code, Ontology
from mera_core.model.recall import Recall
from pages.shared.app.session import plain
from pages.shared.widgets.charts import draw, twin

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
_MEMORY_CHARTS = {"Map": "treemap", "Bars": "bars"}


def show_recall(recall: Recall, asked_code: bool, verdicts: Mapping[bool | None, str] | None = None) -> None:
    """The verdict in words, both answers side by side, and the alternatives with their shares.

    asked_code: the question was a code and the answers are definitions; otherwise the answers are codes. verdicts: in
    place of those on a definition.
    """
    verdict = (verdicts or (_OF_CODE if asked_code else _OF_DEFINITION))[recall.exact]
    {True: st.success, False: st.error, None: st.info}[recall.exact](verdict, icon=_ICONS[recall.exact])
    first = recall.alternatives[0][0] if recall.alternatives else None
    compared = asked_code and recall.exact is False and recall.answer
    model, book = st.columns(2, gap="medium")
    with model:
        colour = chapter_colour(first) if first else OTHER_COLOUR
        note = "" if asked_code or first is None else f"{recall.alternatives[0][1]} · {chapter_name(first)}"
        text = diff_html(recall.answer, recall.truth) if compared else html.escape(recall.answer or "No answer")
        _answer("The model's memory", text, note, colour)
    with book:
        text = diff_html(recall.truth, recall.answer) if compared else html.escape(recall.truth or "No such entry")
        _answer("The book", text, "", OTHER_COLOUR)
    if compared:
        st.caption("Marked: the words that only this one of the two says.")
    if recall.alternatives:
        _alternatives(recall, asked_code)


def diff_html(text: str, other: str) -> str:
    """`text` as HTML, with the words that `other` does not say marked."""
    runs = [run for run in word_diff(text, other) if run.kind != "second"]
    return " ".join(
        html.escape(run.words) if run.kind == "same" else f"<mark>{html.escape(run.words)}</mark>" for run in runs
    )


def show_ancestors(code: Code, answers: Sequence[Recall], ontology: Ontology) -> None:
    """What the model says stands above a code, level by level, beside the book's tree."""
    right = sum(bool(answer.exact) for answer in answers)
    st.markdown(f"**Where it stands in the tree**: {right} of {len(answers)} levels right")
    rows = []
    for answer, node in zip(answers, reversed(ontology.ancestors(code)), strict=True):
        said, _, share = answer.alternatives[0]
        rows.append(
            {
                "Level": ontology.kind(node),
                "The model's memory": f"{said.code} {ontology.definition(said)}",
                "Share": percent(share),
                "The book": "the same" if answer.exact else f"{node.code} {ontology.definition(node)}",
            }
        )
    st.table(rows, hide_index=True, border="horizontal")


@st.fragment
def show_memory(memory: Sequence[memory_figures.ChapterMemory], ontology: Ontology) -> None:
    """How well each chapter is remembered: a map of the book or bars, and the numbers as a table."""
    if not memory:
        st.info("This checkpoint carries no figures on how well each chapter is remembered.", icon=":material/info:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        direction = st.segmented_control(
            "Asked",
            list(memory_figures.DIRECTIONS),
            default="code_to_definition",
            format_func=memory_figures.DIRECTIONS.get,
            key="memory_direction",
            required=True,
            persist_state="session",
        )
        chart = st.segmented_control(
            "Chart", list(_MEMORY_CHARTS), default="Map", key="memory_chart", required=True, persist_state="session"
        )
    words = memory_figures.describe_memory(memory, direction)
    st.markdown(plain(words))
    if chart == "Map":
        figure = memory_figures.memory_treemap(memory, direction, ontology)
    else:
        figure = memory_figures.memory_bars(memory, direction)
    draw(figure, "memory", words)
    st.caption(
        "Measured on every billable code when the checkpoint was made; “to the letter” means that not one word differs. "
        "A click on a chapter opens it."
    )
    twin("every chapter", memory_figures.memory_frame(memory, ontology))


def _answer(title: str, text: str, note: str, colour: str) -> None:
    """text: HTML, escaped already."""
    small = f"<small>{html.escape(note)}</small>" if note else ""
    st.markdown(f"**{title}**")
    st.html(f'<div class="mera-answer" style="border-color:{colour}">{text}{small}</div>')


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

"""The model's own answer about a code beside the official ICD text; and how well each chapter is recalled."""

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
from pages.shared.app.markdown import plain
from pages.shared.widgets.charts import draw, show_table, twin
from pages.shared.widgets.controls import choose

_ICONS = {True: ":material/check_circle:", False: ":material/cancel:", None: ":material/help:"}
_OF_CODE = {
    True: "Right: word for word the official text.",
    False: "Wrong: the official text is another.",
    None: "The ICD has no such code, so there is nothing to compare with.",
}
_OF_DEFINITION = {
    True: "Right: this is the official code.",
    False: "Wrong: the official code is another.",
    None: "No ICD entry is worded exactly so: the model's nearest codes, neither right nor wrong.",
}


def show_recall(recall: Recall, asked_code: bool, verdicts: Mapping[bool | None, str] | None = None) -> None:
    """The verdict in words, both answers side by side, and the alternatives with their shares.

    asked_code: the question was a code and the answers are definitions; otherwise the answers are codes. verdicts: in
    place of those on a definition.
    """
    verdict = (verdicts or (_OF_CODE if asked_code else _OF_DEFINITION))[recall.exact]
    {True: st.success, False: st.error, None: st.info}[recall.exact](verdict, icon=_ICONS[recall.exact])
    first = recall.alternatives[0][0] if recall.alternatives else None
    compared = asked_code and recall.exact is False and recall.answer
    model, official = st.columns(2, gap="medium")
    with model:
        note = "" if asked_code or first is None else f"{recall.alternatives[0][1]} · {chapter_name(first)}"
        text = diff_html(recall.answer, recall.truth) if compared else html.escape(recall.answer or "No answer")
        st.markdown("**The model's answer**")
        show_answer(text, note, chapter_colour(first) if first else OTHER_COLOUR)
    with official:
        text = diff_html(recall.truth, recall.answer) if compared else html.escape(recall.truth or "No such entry")
        st.markdown("**Official ICD text**" if asked_code else "**Official ICD code**")
        show_answer(text, "", OTHER_COLOUR)
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
    """What the model says stands above a code, level by level, beside the ICD's own tree."""
    right = sum(bool(answer.exact) for answer in answers)
    st.markdown(f"**Where it stands in the tree**: {right} of {len(answers)} levels right")
    rows = []
    for answer, node in zip(answers, reversed(ontology.ancestors(code)), strict=True):
        said, _, share = answer.alternatives[0]
        rows.append(
            {
                "Level": ontology.kind(node),
                "The model's answer": f"{said.code} {ontology.definition(said)}",
                "Share": percent(share),
                "Official": "the same" if answer.exact else f"{node.code} {ontology.definition(node)}",
            }
        )
    show_table(rows)


@st.fragment
def show_memory(memory: Sequence[memory_figures.ChapterMemory], ontology: Ontology) -> None:
    """How well each chapter is recalled: bars, and the numbers as a table."""
    if not memory:
        st.info("This model carries no figures on recall by chapter.", icon=":material/info:")
        return
    direction = choose("Asked", memory_figures.DIRECTIONS, "memory_direction")
    words = memory_figures.describe_memory(memory, direction)
    st.markdown(plain(words))
    draw(memory_figures.memory_bars(memory, direction), "memory", words)
    st.caption(
        "Measured on every billable code when the checkpoint was made; “to the letter” means that not one word differs."
    )
    twin("every chapter", memory_figures.memory_frame(memory, ontology))


def show_answer(text: str, note: str, colour: str) -> None:
    """A definition or code in a frame. text: HTML, escaped already."""
    small = f"<small>{html.escape(note)}</small>" if note else ""
    st.html(f'<div class="mera-answer" style="border-color:{colour}">{text}{small}</div>')


def _alternatives(recall: Recall, asked_code: bool) -> None:
    st.markdown("**Which codes the model's answer fits best**" if asked_code else "**The model's likeliest codes**")
    both = len({code.system for code, _, _ in recall.alternatives}) > 1
    rows = [
        {
            "Code": f"{SYSTEM_NAMES[code.system]} {code.code}" if both else code.code,
            "Official definition": definition,
            "Share": percent(share),
        }
        for code, definition, share in recall.alternatives
    ]
    show_table(rows)
    st.caption("Share: how the answer spreads over all codes that the model knows; all shares add up to 100 %.")

"""Two rankings joined, as a table on the screen: what both say, differences first."""

from __future__ import annotations

import html
from collections.abc import Sequence

import streamlit as st

from mera_core.icd import chapters
from mera_core.icd.ontology import SYSTEM_NAMES, Ontology
from mera_core.ranking.compare import Pair, Side
from pages.shared.ranking.ranking_view import change_html


def differs(pair: Pair) -> bool:
    """Whether rank, score (to a tenth of a point) or being predicted are not the same."""
    return pair.crossed or pair.gained is None or bool(pair.climbed) or bool(round(pair.gained, 1))


def pairs_html(pairs: Sequence[Pair], names: tuple[str, str], ontology: Ontology, title: str) -> str:
    """Pairs as an HTML table: rank and score on both sides, and the change from the first to the second.

    names: of the two rankings, as heads of their columns. title: what a screen reader calls the table.
    """
    first, second = map(html.escape, names)
    head = (
        '<tr><th scope="col">Code</th><th scope="col">Diagnosis</th>'
        f'<th scope="col">{first}</th><th scope="col">{second}</th><th scope="col">Δ rank · Δ score</th></tr>'
    )
    body = "".join(_row(pair, names, ontology) for pair in pairs)
    return (
        f'<table class="mera-list mera-pairs" aria-label="{html.escape(title)}">'
        f"<thead>{head}</thead><tbody>{body}</tbody></table>"
    )


def _row(pair: Pair, names: tuple[str, str], ontology: Ontology) -> str:
    colour = chapters.chapter_colour(pair.code)
    mark = ""
    if pair.crossed:
        where = names[1 if pair.second and pair.second.above else 0]
        mark = f'<span class="mera-mark new">predicted: {html.escape(where)} only</span>'
    change = change_html(pair) or '<span class="mera-change same">only one ranks it</span>'
    return (
        f'<tr><td class="code"><span style="border-color:{colour}" title="{SYSTEM_NAMES[pair.code.system]}">'
        f"{html.escape(pair.code.code)}</span></td>"
        f"<td>{html.escape(ontology.definition(pair.code))}"
        f'<span class="chapter">{html.escape(chapters.chapter_name(pair.code))}{mark}</span></td>'
        f"<td>{_side(pair.first)}</td><td>{_side(pair.second)}</td><td>{change}</td></tr>"
    )


def _side(side: Side | None) -> str:
    if side is None:
        return "not ranked"
    above = "predicted" if side.above else "not predicted"
    return f'<b>{side.rank}</b><span class="chapter">score {side.strength:.0f}, {above}</span>'


def show_pairs(pairs: Sequence[Pair], names: tuple[str, str], ontology: Ontology, title: str) -> None:
    """The table, or a sentence where there is nothing in it."""
    if pairs:
        st.html(pairs_html(pairs, names, ontology, title))
    else:
        st.info("Both rank the same codes with the same scores.", icon=":material/check:")

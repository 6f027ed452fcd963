"""Two rankings side by side on the screen: what differs first, the chapters mirrored, both lists in full."""

from __future__ import annotations

import html
from collections.abc import Sequence

import streamlit as st

from mera_core.common.formatting import counted
from mera_core.figures.effects import describe_masses, masses_frame, mirrored_masses
from mera_core.icd.ontology import Ontology
from mera_core.ranking import compare
from mera_core.ranking.ranking import Ranking
from pages.shared.app.markdown import plain
from pages.shared.ranking.ranking_view import change_html, code_cells
from pages.shared.widgets.charts import draw, twin

TOPS = (10, 20, 50)


@st.fragment
def show_comparison(first: Ranking, second: Ranking, names: tuple[str, str], ontology: Ontology) -> None:
    """The comparison of two rankings. names: what they are called, short enough for the head of a column."""
    pairs = compare.join(first, second)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        top = st.selectbox("First places of either list", TOPS, key="compare_top", width=210, persist_state="session")
        only = st.toggle("Only what differs", value=True, key="compare_only", persist_state="session")
    shown = compare.differences_first(pairs, top)
    if only:
        shown = [pair for pair in shown if differs(pair)]
    st.markdown(plain(summary(first, second, names, top)))
    show_pairs(shown, names, ontology, f"{names[0]} and {names[1]} compared, differences first")
    st.caption(f"▲ ▼: places and points that a code has more or less in {plain(names[1])} than in {plain(names[0])}.")
    rows = compare.field_masses(first, second)
    words = describe_masses(rows, names)
    st.subheader("Where each prediction points, by chapter of the ICD", anchor=False)
    st.caption(f"Share of the ranking that falls on each chapter; not the probability of a diagnosis. {plain(words)}")
    draw(mirrored_masses(rows, names), "mirrored", words)
    twin("chapters", masses_frame(rows, names))


def summary(first: Ranking, second: Ranking, names: Sequence[str], top: int) -> str:
    """How many codes each predicts and how many of the first places they share, in a sentence."""
    shared = compare.overlap(first, second, top)
    places = min(top, len(first.codes), len(second.codes))
    return (
        f"{names[0]} predicts {counted(first.predicted, 'code')}, {names[1]} {second.predicted}; "
        f"of the first {counted(places, 'place')} both have {counted(shared, 'code')} in common."
    )


def differs(pair: compare.Pair) -> bool:
    """Whether rank, score (to a tenth of a point) or being predicted are not the same."""
    return pair.crossed or pair.gained is None or bool(pair.climbed) or bool(round(pair.gained, 1))


def pairs_html(pairs: Sequence[compare.Pair], names: tuple[str, str], ontology: Ontology, title: str) -> str:
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


def _row(pair: compare.Pair, names: tuple[str, str], ontology: Ontology) -> str:
    mark = ""
    if pair.crossed:
        where = names[1 if pair.second and pair.second.above else 0]
        mark = f'<span class="mera-mark new">predicted: {html.escape(where)} only</span>'
    change = change_html(pair) or '<span class="mera-change same">only one ranks it</span>'
    return (
        f"<tr>{code_cells(pair.code, ontology, mark)}"
        f"<td>{_side(pair.first)}</td><td>{_side(pair.second)}</td><td>{change}</td></tr>"
    )


def _side(side: compare.Side | None) -> str:
    if side is None:
        return "not ranked"
    above = "predicted" if side.above else "not predicted"
    return f'<b>{side.rank}</b><span class="chapter">score {side.strength:.0f}, {above}</span>'


def show_pairs(pairs: Sequence[compare.Pair], names: tuple[str, str], ontology: Ontology, title: str) -> None:
    """The table, or a sentence where there is nothing in it."""
    if pairs:
        st.html(pairs_html(pairs, names, ontology, title))
    else:
        st.info("Both rank the same codes with the same scores.", icon=":material/check:")

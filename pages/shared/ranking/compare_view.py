"""Two rankings side by side on the screen: what differs first, the chapters mirrored, both lists in full."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from mera_core.common.formatting import counted
from mera_core.figures.effects import describe_masses, masses_frame, mirrored_masses, pairs_frame
from mera_core.icd.ontology import Ontology
from mera_core.ranking import compare
from mera_core.ranking.ranking import Ranking
from pages.shared.app.markdown import plain
from pages.shared.ranking.pairs_view import differs, show_pairs
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
    if pairs:
        twin("every code compared", pairs_frame(shown, names, ontology))


def summary(first: Ranking, second: Ranking, names: Sequence[str], top: int) -> str:
    """How many codes each predicts and how many of the first places they share, in a sentence."""
    shared = compare.overlap(first, second, top)
    places = min(top, len(first.codes), len(second.codes))
    return (
        f"{names[0]} predicts {counted(first.predicted, 'code')}, {names[1]} {second.predicted}; "
        f"of the first {counted(places, 'place')} both have {counted(shared, 'code')} in common."
    )

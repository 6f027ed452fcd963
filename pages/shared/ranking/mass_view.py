"""Where the ranking points in the code book: a map, rings or bars of the ranking mass, and the numbers as a table."""

from __future__ import annotations

import streamlit as st

from mera_core.figures import ranking as figures
from mera_core.icd.chapters import chapter_name
from mera_core.icd.ontology import SYSTEM_NAMES, Ontology
from mera_core.ranking.ranking import Ranking
from pages.shared.app.session import plain
from pages.shared.widgets.charts import draw, twin

TREES = {"Map": figures.mass_treemap, "Rings": figures.mass_sunburst}
CHARTS = (*TREES, "Bars")
LEVEL_NAMES = {"chapter": "Chapters", "block": "Blocks", "category": "Categories", "code": "Codes"}
_MOST_ROWS = 50


def show_mass(ranking: Ranking, ontology: Ontology) -> None:
    """A chart of the ranking mass over the code book, and its numbers as a table."""
    st.caption(
        "Share of ranking mass: how the model spreads its weight over all the codes it ranks; all shares add "
        "up to 100 %. It is not the probability of a diagnosis. " + plain(figures.describe(ranking, ontology))
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chart = st.segmented_control(
            "Chart", CHARTS, default="Map", key="chart", required=True, persist_state="session"
        )
        level = st.selectbox(
            "Level",
            list(LEVEL_NAMES),
            format_func=LEVEL_NAMES.get,
            key="level",
            width=150,
            persist_state="session",
            help="Of the bars and of the table",
        )
        within = _choose_chapter(ranking, ontology) if level != "chapter" else None
    words = figures.describe(ranking, ontology)
    if chart in TREES:
        st.caption("A click on a field opens it; a click on the bar above goes back.")
        draw(TREES[chart](ranking, ontology), "mass_tree", words)
    else:
        draw(figures.mass_bars(ranking, ontology, level, within), "mass_bars", words)
    table = figures.mass_frame(figures.mass_by(ranking, ontology, level, within)[:_MOST_ROWS])
    table["share"] = [figures.percent(share) for share in table["share"]]
    twin(LEVEL_NAMES[level].lower(), table)


def _choose_chapter(ranking: Ranking, ontology: Ontology):
    """The chapter that bars and table are of; None for all."""
    found = [mass.code for mass in figures.mass_by(ranking, ontology, "chapter")]
    both = len({code.system for code in found}) > 1
    if st.session_state.get("within") not in (None, *found):
        st.session_state["within"] = None
    return st.selectbox(
        "Within",
        found,
        format_func=lambda code: chapter_name(code) + (f" ({SYSTEM_NAMES[code.system]})" if both else ""),
        key="within",
        index=None,
        placeholder="All chapters",
        width=210,
        persist_state="session",
    )

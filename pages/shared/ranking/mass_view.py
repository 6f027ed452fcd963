"""Where the ranking points in the ICD's tree: a map or bars of the ranking mass, and the numbers as a table."""

from __future__ import annotations

import streamlit as st

from mera_core.common.formatting import percent
from mera_core.figures import ranking as figures
from mera_core.icd.chapters import chapter_name
from mera_core.icd.ontology import SYSTEM_NAMES, Ontology
from mera_core.ranking.ranking import Ranking
from pages.shared.app.markdown import plain
from pages.shared.widgets.charts import draw, twin
from pages.shared.widgets.controls import choose

LEVEL_NAMES = {"chapter": "Chapters", "block": "Blocks", "category": "Categories", "code": "Codes"}
_MOST_ROWS = 50


def show_mass(ranking: Ranking, ontology: Ontology) -> None:
    """A chart of the ranking mass over chapters, blocks and codes, and its numbers as a table."""
    words = figures.describe(ranking, ontology)
    st.caption(
        "Share of ranking mass: how the model spreads its weight over all the codes it ranks; all shares add "
        f"up to 100 %. It is not the probability of a diagnosis. {plain(words)}"
    )
    found = [mass.code for mass in figures.mass_by(ranking, ontology, "chapter")]
    both = len({code.system for code in found}) > 1
    if st.session_state.get("within") not in (None, *found):
        st.session_state["within"] = None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chart = choose("Chart", ("Map", "Bars"), "chart")
        level = st.selectbox(
            "Level",
            list(LEVEL_NAMES),
            format_func=LEVEL_NAMES.get,
            key="level",
            width=150,
            persist_state="session",
            help="Of the bars and of the table",
        )
        within = level != "chapter" and st.selectbox(
            "Within",
            found,
            format_func=lambda code: chapter_name(code) + (f" ({SYSTEM_NAMES[code.system]})" if both else ""),
            key="within",
            index=None,
            placeholder="All chapters",
            width=210,
            persist_state="session",
        )
    if chart == "Map":
        st.caption("A click on a field opens it; a click on the bar above goes back.")
        draw(figures.mass_treemap(ranking, ontology), "mass_tree", words)
    else:
        draw(figures.mass_bars(ranking, ontology, level, within or None), "mass_bars", words)
    table = figures.mass_frame(figures.mass_by(ranking, ontology, level, within or None)[:_MOST_ROWS])
    table["share"] = [percent(share) for share in table["share"]]
    twin(LEVEL_NAMES[level].lower(), table)

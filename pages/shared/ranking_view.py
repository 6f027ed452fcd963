"""A Ranking on the screen: the list with its cut, how the history was read, where the ranking mass is."""

from __future__ import annotations

import html
from collections import Counter

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from mera_core import chapters, figures
from mera_core.ontology import SYSTEM_NAMES, Code, Ontology
from mera_core.ranking import Ranking
from mera_core.records import Note
from pages.shared.session import plain, sentence

ROWS = (10, 20, 50, 100)
ANCHOR = "next-visit"
MOST_WARNINGS = 4
CHARTS = {"Map": figures.mass_treemap, "Rings": figures.mass_sunburst}
LEVEL_NAMES = {"chapter": "Chapters", "block": "Blocks", "code": "Codes"}
_CUT_HELP = (
    "The model learned where to stop: codes that score above its end-of-visit mark are predicted for the "
    "next visit. The score runs from 0 to 100 and the mark is at 50. It orders the list and is not a probability."
)
_NOTE_TITLES = {
    "unread": "left out",
    "ambiguous": "left out for having two meanings",
    "duplicate": "named twice, counted once",
    "rolled_up": "read as a broader code",
    "mapped": "translated between code books",
    "truncated": "shortened",
}
_URGENT = ("unread", "ambiguous", "truncated")  # the model never saw it


@st.fragment
def show_list(ranking: Ranking) -> None:
    """The ranked codes, best first, with the cut as a line. Its switches redraw only this list."""
    codes = "code" if ranking.predicted == 1 else "codes"
    st.subheader(f"Next visit: {ranking.predicted} {codes} predicted", anchor=ANCHOR, help=_CUT_HELP)
    with st.container(horizontal=True, vertical_alignment="center"):
        below = st.toggle("Show codes below the cut", value=True, key="show_below", persist_state="session")
        rows = st.selectbox(
            "Rows",
            ROWS,
            key="rows",
            format_func=lambda rows: f"{rows} rows",
            label_visibility="collapsed",
            width=110,
            persist_state="session",
        )
    st.html(list_html(ranking, rows, below))
    st.caption(
        "**Recurrent**: already in the history. **New**: not in it. The mark in each bar is the cut; "
        f"the score is not a probability. Ranked: {len(ranking.codes):,} codes, {plain(ranking.label_level)}."
    )


def list_html(ranking: Ranking, rows: int, below: bool) -> str:
    """The first `rows` codes (at least the predicted) as an HTML table; without `below` only the predicted."""
    cut = ranking.predicted
    shown = min(max(rows, cut) if below else cut, len(ranking.codes))
    strength = relative_scores(ranking)
    lines = [_row(ranking, place, strength[place]) for place in range(shown)]
    words = f"The cut: {cut} predicted, above this line" if cut else "The cut: 0 predicted, no code scores above it"
    edge, columns = "" if cut else " top", 4 if ranking.probability is None else 5
    lines.insert(cut, f'<tr class="cut{edge}"><td colspan="{columns}">{words}</td></tr>')
    calibrated = "<th>Probability</th>" if ranking.probability is not None else ""
    head = f'<tr><th class="number">#</th><th>Code</th><th>Diagnosis</th><th>Score</th>{calibrated}</tr>'
    return (
        '<table class="mera-list" aria-label="Ranked diagnoses of the next visit">'
        f"<thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>"
    )


def relative_scores(ranking: Ranking) -> np.ndarray:
    """Scores [C] from 0 to 100 with the cut at 50: the logistic of their distance to it."""
    return 100 / (1 + np.exp(-(np.asarray(ranking.scores, np.float64) - ranking.cut)))


def _row(ranking: Ranking, place: int, strength: float) -> str:
    code: Code = ranking.codes[place]
    colour = chapters.chapter_colour(code)
    mark = "recurrent" if ranking.recurrent[place] else "new"
    probability = ""
    if ranking.probability is not None:
        probability = f'<td class="number">{figures.percent(float(ranking.probability[place]))}</td>'
    return (
        f'<tr class="{"above" if place < ranking.predicted else "below"}">'
        f'<td class="number">{place + 1}</td>'
        f'<td class="code"><span style="border-color:{colour}" title="{SYSTEM_NAMES[code.system]}">'
        f"{html.escape(code.code)}</span></td>"
        f"<td>{html.escape(ranking.ontology.definition(code))}"
        f'<span class="chapter">{html.escape(chapters.chapter_name(code))}'
        f'<span class="mera-mark {mark}">{mark}</span></span></td>'
        f'<td class="score"><span class="mera-bar" aria-hidden="true">'
        f'<i style="width:{strength:.1f}%;background:{colour}"></i><b></b></span>{strength:.0f}</td>{probability}</tr>'
    )


def show_warnings(notes: tuple[Note, ...]) -> None:
    """What of the history did not reach the model, in one box."""
    lines = [_with_place(note) for note in notes if note.kind in _URGENT]
    if len(lines) == 1:
        st.warning(lines[0], icon=":material/warning:")
    elif lines:
        more = len(lines) - MOST_WARNINGS
        listed = "\n".join(f"- {line}" for line in lines[:MOST_WARNINGS])
        rest = f"\n- and {more} more, listed below under “How the model read the history”" if more > 0 else ""
        st.warning(f"**Not used for the prediction ({len(lines)})**\n{listed}{rest}", icon=":material/warning:")


def show_readings(notes: tuple[Note, ...]) -> None:
    """Every note on the history, folded away: which codes were left out or read as other ones."""
    if not notes:
        return
    counts = Counter(note.kind for note in notes)
    words = ", ".join(f"{count} {_NOTE_TITLES.get(kind, kind)}" for kind, count in counts.items())
    with st.expander(f"How the model read the history: {words}"):
        st.markdown("\n".join(f"- {_with_place(note)}" for note in notes))


def _with_place(note: Note) -> str:
    """The note's sentence, with its visit where it does not name one itself."""
    unplaced = note.visit is not None and "visit" not in note.message.lower()
    return plain(sentence(f"Visit {note.visit + 1}: {note.message}" if unplaced else note.message))


@st.fragment
def show_mass(ranking: Ranking, ontology: Ontology) -> None:
    """Two charts of the ranking mass over the code book, and their numbers as a table."""
    st.subheader("Where the ranking points in the code book", anchor=False)
    st.caption(
        "Share of ranking mass: how the model spreads its weight over all the codes it ranks; all shares add "
        "up to 100 %. It is not the probability of a diagnosis. " + plain(figures.describe(ranking, ontology))
    )
    level = st.segmented_control(
        "Level of the bars",
        list(LEVEL_NAMES),
        default="chapter",
        format_func=LEVEL_NAMES.get,
        key="level",
        required=True,
        label_visibility="collapsed",
        persist_state="session",
    )
    _draw(figures.mass_bars(ranking, ontology, level), "mass_bars", ranking, ontology)
    chart = st.segmented_control(
        "Shape of the tree",
        list(CHARTS),
        default="Map",
        key="chart",
        required=True,
        label_visibility="collapsed",
        persist_state="session",
    )
    _draw(CHARTS[chart](ranking, ontology), "mass_tree", ranking, ontology)
    with st.expander(f"The numbers as a table ({LEVEL_NAMES[level].lower()})"):
        masses = figures.mass_by(ranking, ontology, level)[:50]
        table = figures.mass_frame(masses)
        table["share"] = [figures.percent(share) for share in table["share"]]
        st.table(table, hide_index=True)


def _draw(figure: go.Figure, key: str, ranking: Ranking, ontology: Ontology) -> None:
    words = f"{figure.layout.title.text}. {figures.describe(ranking, ontology)}"
    st.plotly_chart(figure, key=key, config=figures.PLOTLY_CONFIG, alt=words)

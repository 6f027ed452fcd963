"""A Ranking on the screen: the list with its cut-off and filters, and how the history was read."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping

import streamlit as st

from mera_core.common.formatting import counted, percent, signed
from mera_core.history.records import Note, Patient
from mera_core.icd import chapters
from mera_core.icd.ontology import SYSTEM_NAMES, Code, Ontology
from mera_core.ranking.compare import Pair
from mera_core.ranking.listing import CATEGORY, Filter, Line, lines
from mera_core.ranking.ranking import Ranking
from pages.shared.app.layout import empty
from pages.shared.app.markdown import plain, sentence
from pages.shared.widgets.row_buttons import button_html

ROWS = (10, 20, 50, 100)
ANCHOR = "next-visit"
MOST_WARNINGS = 4
_CUT_HELP = (
    "The score runs from 0 to 100. The model has learned a cut-off, which stands at 50: codes that score above it are "
    "predicted for the next visit."
)
NOTE_TITLES = {
    "unread": "left out",
    "ambiguous": "left out for having two meanings",
    "duplicate": "named twice, counted once",
    "repaired": "read with a digit for a letter",
    "as_category": "not in the code set, read as the code above",
    "rolled_up": "read as a broader code",
    "mapped": "translated between ICD-9 and ICD-10",
    "truncated": "shortened",
    "implausible": "at odds with the sex or the age",
    "unlike_training": "unlike the training patients",
    "details": "with details that this model does not read",
}
_URGENT = ("unread", "ambiguous", "truncated")  # the model never saw it

Changes = Mapping[Code, Pair]


@st.fragment
def show_list(ranking: Ranking, changes: Changes | None = None, against: str = "") -> None:
    """The ranked codes, best first, with the cut-off as a line. Its switches redraw only this list.

    changes: pairs with the ranking that this one is compared with. against: that ranking in words.
    """
    st.subheader(f"Next visit: {counted(ranking.predicted, 'code')} predicted", anchor=ANCHOR, help=_CUT_HELP)
    chosen, rows, below = _choose(ranking)
    shown = lines(ranking, chosen, rows)
    if not below:
        shown = [line for line in shown if line.above]
    if shown:
        st.html(list_html(ranking, shown, None if chosen.roll_up else changes))
    else:
        empty("No code fits these filters.", "Change them to see more.")
    words = (
        "**Recurrent**: already in the history. **New**: not in it. The mark in each bar is the cut-off; the score is "
        "not a probability."
    )
    if ranking.probability is not None:
        words += " **Probability**: fitted on patients whom the model was not trained on."
    if changes:
        words += f" **▲ ▼**: places and points won or lost against {plain(against)}."
    st.caption(words)


def _choose(ranking: Ranking) -> tuple[Filter, int, bool]:
    """The filters above the list: which lines, how many rows, and whether those below the cut-off are shown."""
    fields = sorted({chapters.field_of(code) for code in ranking.codes}, key=lambda field: chapters.FIELDS[field][0])
    if st.session_state.get("field") not in (None, *fields):
        st.session_state["field"] = None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        field = st.selectbox(
            "Chapter",
            fields,
            format_func=lambda key: chapters.FIELDS[key][0],
            key="field",
            index=None,
            placeholder="All chapters",
            width=210,
            persist_state="session",
        )
        rows = st.selectbox("Rows", ROWS, key="rows", width=90, persist_state="session")
        below = st.toggle("Show codes below the cut-off", value=True, key="show_below", persist_state="session")
        new = st.toggle("New only", key="new_only", persist_state="session", help="Leave out what the history holds")
        divided = any(ranking.ontology.level(code) > CATEGORY for code in ranking.codes)
        roll_up = divided and st.toggle(
            "Roll up to categories",
            key="roll_up",
            persist_state="session",
            help="One line for each three-character category: the rank of its best code, the shares added up",
        )
    return Filter(field, new, roll_up), rows, below


def list_html(ranking: Ranking, shown: list[Line], changes: Changes | None = None) -> str:
    """Lines as an HTML table with the cut-off between the predicted ones and the rest."""
    cut = sum(line.above for line in shown)
    body = [_row(ranking, line, changes) for line in shown]
    words = f"Cut-off: {ranking.predicted} predicted" + (", above this line" if ranking.predicted else "")
    if cut < ranking.predicted and not any(line.members > 1 for line in shown):
        words += f" ({cut} of them shown)"
    edge, columns = "" if cut else " top", 4 if ranking.probability is None else 5
    body.insert(cut, f'<tr class="cut{edge}"><td colspan="{columns}">{words}</td></tr>')
    calibrated = '<th scope="col">Probability</th>' if ranking.probability is not None else ""
    head = (
        '<tr><th scope="col" class="number">#</th><th scope="col">Code</th><th scope="col">Diagnosis</th>'
        f'<th scope="col">Score</th>{calibrated}</tr>'
    )
    return (
        '<table class="mera-list" aria-label="Ranked diagnoses of the next visit">'
        f"<thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"
    )


def _row(ranking: Ranking, line: Line, changes: Changes | None) -> str:
    colour = chapters.chapter_colour(line.code)
    mark = "recurrent" if line.recurrent else "new"
    probability = ""
    if ranking.probability is not None:
        least = "≥ " if line.members > 1 else ""
        probability = f'<td class="number">{least}{percent(line.probability or 0.0)}</td>'
    if line.members > 1:
        more = f'<span class="mera-mark">{line.members} codes</span>'
    else:
        more = button_html(html.escape(str(line.code)), "Why?", f"Why is {html.escape(line.code.code)} on the list?")
    marks = f'<span class="mera-mark {mark}">{mark}</span>{more}'
    return (
        f'<tr class="{"above" if line.above else "below"}">'
        f'<td class="number">{line.rank}</td>{code_cells(line.code, ranking.ontology, marks)}'
        f'<td class="score"><span class="mera-bar" aria-hidden="true">'
        f'<i style="width:{line.strength:.1f}%;background:{colour}"></i><b></b></span>{line.strength:.0f}'
        f"{change_html(changes.get(line.code) if changes else None)}</td>{probability}</tr>"
    )


def code_cells(code: Code, ontology: Ontology, marks: str) -> str:
    """The two cells of a table that name a code: itself and its definition. marks: HTML after its chapter."""
    return (
        f'<td class="code"><span style="border-color:{chapters.chapter_colour(code)}" title="{SYSTEM_NAMES[code.system]}">'
        f"{html.escape(code.code)}</span></td><td>{html.escape(ontology.definition(code))}"
        f'<span class="chapter">{html.escape(chapters.chapter_name(code))}{marks}</span></td>'
    )


def change_html(pair: Pair | None) -> str:
    """How far a code has moved, e.g. '▲ 2 · +3.1' or '= rank · 0'; "" where there is nothing to compare with."""
    if pair is None or pair.climbed is None:
        return ""
    rank, score = pair.climbed, signed(pair.gained)
    arrow, kind = ("▲", "up") if rank > 0 else ("▼", "down") if rank < 0 else ("=", "same")
    places = f"{counted(abs(rank), 'place')} {kind}" if rank else "same rank"
    moved = f"{arrow} {abs(rank)}" if rank else f"{arrow} rank"
    return (
        f'<span class="mera-change {kind}"><span aria-hidden="true">{moved} · {score}</span>'
        f'<span class="mera-unseen">{places}, score {score}</span></span>'
    )


def show_warnings(notes: tuple[Note, ...], person: Patient) -> None:
    """What to know before reading the list: a history unlike those of training, implausible codes, what was not used.

    A visit in which nothing is written yet is no news.
    """
    for note in notes:
        if note.kind == "unlike_training":
            st.warning(plain(sentence(note.message)), icon=":material/group_off:")
    _show_box([_with_place(note) for note in notes if note.kind == "implausible"], "Please check")
    said = [
        _with_place(note)
        for note in notes
        if note.kind in _URGENT and (note.code or note.visit is None or person.visits[note.visit].codes)
    ]
    _show_box(said, "Not used for the prediction")


def _show_box(said: list[str], title: str) -> None:
    """Sentences in one box, the first few of them where they are many."""
    if len(said) == 1:
        st.warning(said[0], icon=":material/warning:")
    elif said:
        more = len(said) - MOST_WARNINGS
        listed = "\n".join(f"- {line}" for line in said[:MOST_WARNINGS])
        rest = f"\n- and {more} more, listed below under “How the model read the history”" if more > 0 else ""
        st.warning(f"**{title} ({len(said)})**\n{listed}{rest}", icon=":material/warning:")


def show_readings(notes: tuple[Note, ...]) -> None:
    """Every note on the history, folded away: which codes were left out or read as other ones."""
    if not notes:
        return
    counts = Counter(note.kind for note in notes)
    words = ", ".join(f"{count} {NOTE_TITLES.get(kind, kind)}" for kind, count in counts.items())
    with st.expander(f"How the model read the history: {words}"):
        st.markdown("\n".join(f"- {_with_place(note)}" for note in notes))


def _with_place(note: Note) -> str:
    """The note's sentence, with its visit where it does not name one itself."""
    unplaced = note.visit is not None and "visit" not in note.message.lower()
    return plain(sentence(f"Visit {note.visit + 1}: {note.message}" if unplaced else note.message))

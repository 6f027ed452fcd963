"""Why a diagnosis stands where it stands: the effect of leaving out each past code and visit, on the timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mera_core.explain import Sensitivity, leave_one_out
from mera_core.figures.effects import MOST_BARS, describe_effects, effect_bars, effect_frame
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code
from mera_core.ranking.listing import lines
from mera_core.ranking.ranking import Ranking
from pages.shared.app.engines import engine, or_stop
from pages.shared.app.histories import patient
from pages.shared.app.markdown import plain
from pages.shared.widgets.charts import draw, twin
from pages.shared.widgets.controls import button

if TYPE_CHECKING:
    from mera_core.engine import Engine

OFFERED = 50  # diagnoses to choose from; a row's own button reaches any of them
AT_ONCE = 30  # entries of a history that are left out in turn without asking: below a second
_CAVEAT = (
    "This is **sensitivity, not cause**: the history is ranked again without each code and without each visit, and the "
    "difference is shown. It says what the model reacts to, not why a patient falls ill. Two codes that say the same can "
    "each seem to matter little, and the bars do not add up to the score."
)


def ask(code: str, ranking: Ranking) -> None:
    """Choose the diagnosis to explain, given as text such as 'ICD9:428'; what is not ranked is passed over."""
    found = next((each for each in ranking.codes if str(each) == code), None)
    if found is not None:
        st.session_state["why"] = found
        st.session_state["panel"] = "Why"
        _agree()


def show_why(ranking: Ranking, person: Patient) -> None:
    """The diagnosis to explain, the chart of effects, and the same numbers as a table."""
    offered = [line.code for line in lines(ranking, most=OFFERED)]
    chosen = st.session_state.get("why")
    if chosen in ranking.codes and chosen not in offered:
        offered.append(chosen)
    elif chosen not in offered:
        st.session_state["why"] = offered[0]
    places = {code: place for place, code in enumerate(ranking.codes, start=1)}
    st.subheader("Why is it on the list?", anchor="why")
    diagnosis: Code = st.selectbox(
        "Diagnosis",
        offered,
        format_func=lambda code: f"{places[code]} · {code.code} {ranking.ontology.definition(code)}",
        key="why",
        persist_state="session",
    )
    found = _sensitivity(person)
    if found is None:
        return
    effects, rank = found.of(diagnosis), found.rank(diagnosis)
    words = describe_effects(effects, ranking.ontology)
    st.markdown(
        f"**{plain(diagnosis.code)}** has rank {rank} and a score of {found.strength(diagnosis):.0f}. {plain(words)}"
    )
    draw(effect_bars(effects, rank, diagnosis, ranking.ontology), "why_bars", words)
    if len(effects) > MOST_BARS:
        st.caption(f"The {MOST_BARS} strongest of {len(effects)} entries are drawn; the table holds all of them.")
    if found.untested:
        st.caption(f"The oldest {found.untested:,} entries of this long history were not left out in turn.")
    st.caption(_CAVEAT)
    twin("each code and visit", effect_frame(effects, rank, ranking.ontology))


def _leave_out(loaded: Engine, person: Patient, entries: int) -> Sensitivity:
    """The work itself: under a spinner where it is short, else with its progress and a way to stop it."""
    words = "Ranking the history again without each code and visit"
    if entries <= AT_ONCE:
        with st.spinner(f"{words} …"):
            return or_stop(lambda: leave_one_out(loaded, person))
    place = st.empty()
    with place.container():
        bar = st.progress(0.0, words)
        # a click ends this run at its next look at the progress; the question stands again
        button("Stop", "why_stop", "stop", st.session_state.update, {"why_agreed": None})
        found = or_stop(lambda: leave_one_out(loaded, person, lambda done: bar.progress(done, f"{words}: {done:.0%}")))
    place.empty()
    return found


def _agree() -> None:
    """Let the history on the screen be taken apart however long it is."""
    st.session_state["why_agreed"] = patient()


def _sensitivity(person: Patient) -> Sensitivity | None:
    """The effects of a history's parts; the newest is kept for this session, whatever diagnosis is asked for.

    None, and a button, for a long history that nobody has asked about yet: every edit of it would take seconds.
    """
    loaded = engine()
    kept = st.session_state.get("sensitivity")
    if kept is None or kept[0] != (loaded.name, person):
        entries = sum(1 + len(visit.codes) for visit in person.visits)
        if entries > AT_ONCE and st.session_state.get("why_agreed") != person:
            st.info(
                f"This history has {entries} codes and visits, and leaving out each of them takes some seconds.",
                icon=":material/hourglass:",
            )
            button("Work it out", "why_all", "", _agree, type="primary")
            return None
        kept = ((loaded.name, person), _leave_out(loaded, person, entries))
        st.session_state["sensitivity"] = kept
    return kept[1]

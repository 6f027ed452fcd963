"""A cohort on the screen: upload, scoring that can be stopped, distributions, figures, download.

Patients stay in the session state. A scoring is stopped by Streamlit itself: a click on Cancel ends the running script
at its next look at the progress, and what was scored by then is kept. Going to another page does the same, and coming back
goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from mera_core.checkpoint.model_card import figure_name, interval
from mera_core.cohort.scoring import CohortScoring
from mera_core.common.errors import InputError
from mera_core.common.formatting import counted, percent
from mera_core.export.tables import Provenance, file_stem, to_csv
from mera_core.figures import cohort as cohort_figures
from mera_core.history.history_json import DEMO_PATIENTS
from mera_core.history.records import Patient
from mera_core.ranking.ranking import NOTICE
from mera_core.readers import Cohort, read
from pages.shared.app.engines import or_stop
from pages.shared.app.histories import open_history
from pages.shared.app.markdown import plain, sentence
from pages.shared.ranking.ranking_view import NOTE_TITLES
from pages.shared.widgets.charts import draw, show_table, twin
from pages.shared.widgets.controls import File, button, choose
from pages.shared.widgets.controls import download as download_files
from pages.shared.widgets.upload_view import show_report, upload

if TYPE_CHECKING:
    from mera_core.engine import Engine

SAMPLE = DEMO_PATIENTS.with_name("cohort.csv")
SAMPLE_NAME = "the invented sample cohort"
MODES = {"next": "Predict each next visit", "held out": "Hold out the last visit and measure"}
# of the session: a cohort, and what was worked out of it
_KEYS = (
    "cohort", "scoring", "scoring_runs", "cohort_measured", "cohort_refused", "scoring_refused", "cohort_wide",
)  # fmt: skip
PATIENTS_SHOWN = 15
LISTED = 3  # predicted codes named beside a patient
_SPLITS = {"all": "All codes", "recurrent": "Recurrent", "new onset": "New onset"}


def choose_cohort() -> Cohort | None:
    """Upload or sample, with the report of what was read; the cohort of this session, None where there is none yet."""
    upload("Records of many patients", "cohort", _take)
    with st.container(horizontal=True):
        button("Use the invented sample cohort", "cohort_sample", "science", _open_sample)
        if "cohort" in st.session_state:
            button("Remove this file", "cohort_away", "close", _forget)
    if "cohort" not in st.session_state:
        return None
    name, cohort = st.session_state["cohort"]
    show_report(name, cohort.report)
    return cohort


def _open_sample() -> None:
    _take(SAMPLE_NAME, read(SAMPLE, "table"))


def _take(name: str, cohort: Cohort) -> None:
    for key in _KEYS:
        st.session_state.pop(key, None)
    st.session_state["cohort"] = (name, cohort)


def _forget() -> None:
    """Drop the cohort, what was worked out of it, and the files it came in."""
    for key in (*_KEYS, "cohort_sent"):
        st.session_state.pop(key, None)


def score(loaded: Engine, patients: list[Patient]) -> CohortScoring | None:
    """Start, stop and go on; the scoring of this session as far as it has come, None before the first."""
    hold_out = choose("What to score", MODES, "cohort_mode") == "held out"
    scoring: CohortScoring | None = st.session_state.get("scoring")
    if scoring is not None and (scoring.engine.name != loaded.name or scoring.patients is not patients):
        scoring = None  # the cohort or the model is another one now
    same = scoring is not None and scoring.hold_out == hold_out
    running = same and st.session_state.get("scoring_runs", False)
    going_on = same and not scoring.finished
    with st.container(horizontal=True, vertical_alignment="center"):
        if running and going_on:
            button("Cancel", "cohort_cancel", "stop", _stop)
        else:
            button(
                f"Go on with the other {len(patients) - scoring.done:,}"
                if going_on
                else f"Score {counted(len(patients), 'patient')}",
                "cohort_score",
                "play_arrow",
                _start,
                scoring if going_on else None,
                loaded,
                patients,
                hold_out,
                type="primary",
                disabled=same and not going_on,
            )
            if going_on:
                st.caption(
                    f"Stopped after {scoring.done:,} of {counted(len(patients), 'patient')}; what follows is of these."
                )
    if refusal := st.session_state.pop("scoring_refused", ""):
        st.error(refusal, icon=":material/error:")
    if running and going_on:
        _run(scoring)
    return scoring


def _start(scoring: CohortScoring | None, loaded: Engine, patients: list[Patient], hold_out: bool) -> None:
    try:
        st.session_state["scoring"] = scoring or CohortScoring(loaded, patients, hold_out)
    except InputError as error:
        st.session_state["scoring_refused"] = sentence(str(error))
        return
    st.session_state["scoring_runs"] = True


def _stop() -> None:
    """Streamlit starts this run while the one before is still in its step: its few patients count."""
    st.session_state["scoring_runs"] = False
    if "scoring" in st.session_state:
        st.session_state["scoring"].settle()


def _run(scoring: CohortScoring) -> None:
    """Score to the end, a chunk at a time; each look at the progress is where Cancel takes hold."""
    total = len(scoring.patients)
    bar = st.progress(scoring.done / total, f"{scoring.done:,} of {total:,} patients")
    while not scoring.finished:
        or_stop(scoring.step)
        bar.progress(scoring.done / total, f"{scoring.done:,} of {total:,} patients")
    st.session_state["scoring_runs"] = False
    st.rerun()


def show_summary(scoring: CohortScoring) -> None:
    """How many were scored, how many were not and why, and how their histories were read."""
    sizes = scoring.sizes()
    left_out = sum(scoring.left_out.values())
    title = "Last visits, predicted from those before" if scoring.hold_out else "Next visits"
    st.subheader(title, anchor=False)
    with st.container(horizontal=True):
        st.metric("Patients scored", f"{len(scoring.scored):,}")
        st.metric("Not scored", f"{left_out:,}")
        st.metric("Codes predicted, a patient", f"{sizes.mean():.1f}")
        st.metric("Patients with none predicted", f"{int((sizes == 0).sum()):,}")
    lines = [f"{counted(count, 'patient')} not scored: {reason}" for reason, count in scoring.left_out.most_common()]
    for kind, count in scoring.notes().most_common():
        of_histories = ("truncated", "unlike_training", "details")
        nouns = ("history", "histories") if kind in of_histories else ("code", "codes")
        lines.append(f"{counted(count, *nouns)} {NOTE_TITLES.get(kind, kind)}")
    if lines:
        with st.expander("How the histories were read"):
            st.markdown("\n".join(f"- {plain(line)}" for line in lines))
    words = f"On average {sizes.mean():.1f} codes are predicted for a patient, at most {sizes.max()}."
    draw(cohort_figures.predicted_sizes(sizes), "cohort_sizes", words)
    twin("codes predicted", cohort_figures.sizes_frame(sizes))


def show_figures(scoring: CohortScoring) -> None:
    """Recall and F1 on the held-out visits with intervals."""
    kept = st.session_state.get("cohort_measured")
    if kept is None or kept[0] is not scoring or kept[1] != scoring.done:
        with st.spinner("Measuring, with 1,000 draws of the patients …"):
            kept = (scoring, scoring.done, scoring.figures())
        st.session_state["cohort_measured"] = kept
    st.subheader("How often the ranking was right", anchor=False)
    rows = [
        {"Figure": figure_name(name)[:1].upper() + figure_name(name)[1:]}
        | {
            title: interval(name, kept[2][split][name].to_dict()) if name in kept[2][split] else ""
            for split, title in _SPLITS.items()
        }
        for name in kept[2]["all"]
    ]
    show_table(rows)
    st.caption(
        "With 95 % intervals over patients drawn again. Recurrent: codes that the history held; new onset: codes that it "
        "did not. True codes that the model can't rank count as missed. If the model was trained on these patients, the "
        "figures say nothing about others."
    )


def show_chapters(scoring: CohortScoring) -> None:
    """Where the rankings point, beside what the histories hold."""
    chapters = scoring.chapters()
    named = ", ".join(f"{name} {percent(mass)}" for name, mass in chapters[["name", "mass"]].head(3).to_numpy())
    draw(cohort_figures.chapter_distribution(chapters), "cohort_chapters", f"The rankings point most to: {named}.")
    names = {
        "name": "chapter",
        "past": "codes of the histories",
        "mass": "ranking mass",
        "predicted": "predicted codes",
    }
    table = chapters.drop(columns="field").rename(columns=names)
    for column in table.columns[1:]:
        table[column] = [percent(share) for share in table[column]]
    twin("chapters", table)


def show_new(scoring: CohortScoring) -> None:
    """The codes most often predicted for patients who never had them."""
    new = scoring.new_predictions()
    if new.empty:
        st.info("No code is predicted for a patient who has not had it.", icon=":material/info:")
        return
    first = new.iloc[0]
    words = f"Most often: {first['code'].code} {first['definition']}, for {counted(int(first['patients']), 'patient')}."
    draw(cohort_figures.new_prediction_bars(new), "cohort_new", words)
    table = new.assign(system=[code.system for code in new["code"]], code=[code.code for code in new["code"]])
    table["share"] = [percent(share) for share in table["share"]]
    twin("new predictions", table[["system", "code", "definition", "patients", "share"]])


def show_patients(scoring: CohortScoring, patients: list[Patient]) -> None:
    """The first patients with their best codes, and one of them opened on the page Predict."""
    st.subheader("Patients", anchor=False)
    book = scoring.engine.ontology
    rows = []
    for one in scoring.scored[:PATIENTS_SHOWN]:
        best = [scoring.engine.label_space[label] for label in one.labels[:LISTED]]
        rows.append(
            {
                "Patient": plain(one.patient_id),
                "Visits read": one.visits,
                "Predicted": one.predicted,
                "Best ranked": "; ".join(plain(f"{code.code} {book.definition(code)}") for code in best),
            }
        )
    show_table(rows)
    if len(scoring.scored) > PATIENTS_SHOWN:
        st.caption(f"The first {PATIENTS_SHOWN} of {len(scoring.scored):,}; all are in the download.")
    by_id = {patient.id: patient for patient in patients}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Look at one of them",
            [one.patient_id for one in scoring.scored[:500]],
            key="cohort_patient",
            persist_state="session",
            width=320,
        )
        if st.button("Open in Predict", icon=":material/open_in_new:", key="cohort_open", disabled=chosen is None):
            open_history(by_id[chosen], f"{st.session_state['cohort'][0]}, patient {chosen}")
            st.switch_page("pages/1_Predict.py")


def download(scoring: CohortScoring) -> None:
    """Predictions of every patient scored, made when a button is clicked: CSV and Parquet."""
    provenance = Provenance.now(scoring.engine.name, scoring.engine.manifest, scoring.engine.ontology)

    title = f"Predictions of {counted(len(scoring.scored), 'patient')}"

    def table() -> pd.DataFrame:
        return scoring.predictions().assign(**provenance.cells())

    files = [
        File(
            f"{title} (CSV)",
            "csv",
            "text/csv",
            lambda: "\ufeff" + to_csv(table()),  # for Excel: it is UTF-8
            "Nothing in it can run as a formula.",
        ),
        File(
            f"{title} (Parquet)",
            "parquet",
            "application/vnd.apache.parquet",
            lambda: table().to_parquet(index=False),
            "The same rows, for other programs.",
        ),
    ]
    download_files(file_stem("cohort", provenance), files, "cohort")
    st.caption(f"The first twenty codes of each patient, and all predicted ones. {NOTICE}")

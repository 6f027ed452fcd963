"""A cohort on the screen: upload, scoring that can be stopped, distributions, figures, download.

Patients stay in the session state. A scoring is stopped by Streamlit itself: a click on Cancel ends the running script
at its next look at the progress, and what was scored by then is kept. Going to another page does the same, and coming back
goes on.
"""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import streamlit as st

from mera_core.cohort.meds import WATCHED, has_dates, meds_archive
from mera_core.cohort.scoring import CohortScoring
from mera_core.common.errors import InputError
from mera_core.common.formatting import counted, percent
from mera_core.export.tables import Provenance, file_stem, to_csv
from mera_core.figures import cohort as cohort_figures
from mera_core.history.history_json import DEMO_PATIENTS
from mera_core.history.records import Patient
from mera_core.ranking.ranking import NOTICE
from mera_core.readers import Cohort, read
from pages.shared.app.session import open_history, or_stop, plain, sentence
from pages.shared.widgets.charts import draw, twin
from pages.shared.widgets.upload_view import show_report, upload

SAMPLE = DEMO_PATIENTS.with_name("cohort.csv")
SAMPLE_NAME = "the invented sample cohort"
MODES = {"next": "Predict each next visit", "held out": "Hold out the last visit and measure"}
PATIENTS_SHOWN = 15
LISTED = 3  # predicted codes named beside a patient
_NOTES = {
    "unread": ("code", "codes", "left out"),
    "ambiguous": ("code", "codes", "left out for having two meanings"),
    "duplicate": ("code", "codes", "named twice in a visit"),
    "repaired": ("code", "codes", "read with a digit for a letter"),
    "as_category": ("code", "codes", "not in the code set, read as the one above"),
    "rolled_up": ("code", "codes", "read as a broader one"),
    "mapped": ("code", "codes", "translated between code systems"),
    "truncated": ("history", "histories", "shortened"),
}
_FIGURES = {
    "recall@10": "Recall at 10: true codes among the first ten",
    "recall@20": "Recall at 20: true codes among the first twenty",
    "weighted_f1_oracle": "Weighted F1 at the true number of codes",
    "weighted_f1_cut": "Weighted F1 at the model's cut",
    "cut_precision": "Precision of the cut: predicted codes that came true",
    "cut_recall": "Recall of the cut: true codes that were predicted",
    "cut_size_mean": "Codes predicted, a patient",
    "true_size_mean": "Codes in the held-out visit, a patient",
}


def choose_cohort() -> Cohort | None:
    """Upload or sample, with the report of what was read; the cohort of this session, None where there is none yet."""
    upload("Records of many patients", "cohort", _take)
    with st.container(horizontal=True):
        st.button(
            "Use the invented sample cohort", icon=":material/science:", on_click=_open_sample, key="cohort_sample"
        )
        if "cohort" in st.session_state:
            st.button("Put it away", icon=":material/close:", on_click=_forget, key="cohort_away")
    if "cohort" not in st.session_state:
        return None
    name, cohort = st.session_state["cohort"]
    show_report(name, cohort.report)
    return cohort


def _open_sample() -> None:
    _take(SAMPLE_NAME, read(SAMPLE, "table"))


def _take(name: str, cohort: Cohort) -> None:
    _put_away()
    st.session_state["cohort"] = (name, cohort)


def _put_away() -> None:
    for key in (
        "cohort",
        "scoring",
        "scoring_runs",
        "cohort_measured",
        "cohort_refused",
        "scoring_refused",
        "cohort_wide",
    ):
        st.session_state.pop(key, None)


def _forget() -> None:
    """Put the cohort away, and the files it came in."""
    _put_away()
    st.session_state.pop("cohort_sent", None)


def score(loaded: Any, patients: list[Patient]) -> CohortScoring | None:
    """Start, stop and go on; the scoring of this session as far as it has come, None before the first."""
    mode = st.segmented_control(
        "What to score",
        list(MODES),
        default="next",
        format_func=MODES.get,
        key="cohort_mode",
        required=True,
        persist_state="session",
    )
    hold_out = mode == "held out"
    scoring: CohortScoring | None = st.session_state.get("scoring")
    if scoring is not None and (scoring.engine.name != loaded.name or scoring.patients is not patients):
        scoring = None  # the cohort or the model is another one now
    same = scoring is not None and scoring.hold_out == hold_out
    running = same and st.session_state.get("scoring_runs", False)
    going_on = same and not scoring.finished
    with st.container(horizontal=True, vertical_alignment="center"):
        if running and going_on:
            st.button("Cancel", icon=":material/stop:", on_click=_stop, key="cohort_cancel")
        else:
            st.button(
                f"Go on with the other {len(patients) - scoring.done:,}"
                if going_on
                else f"Score {counted(len(patients), 'patient')}",
                icon=":material/play_arrow:",
                type="primary",
                key="cohort_score",
                on_click=_start,
                args=(scoring if going_on else None, loaded, patients, hold_out),
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


def _start(scoring: CohortScoring | None, loaded: Any, patients: list[Patient], hold_out: bool) -> None:
    try:
        st.session_state["scoring"] = scoring or CohortScoring(loaded, patients, hold_out, WATCHED)
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
        one, several, done = _NOTES.get(kind, (f"note of the kind {kind}", f"notes of the kind {kind}", ""))
        lines.append(f"{counted(count, one, several)} {done}")
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
    rows = []
    for name, one in kept[2]["all"].items():
        share = not name.endswith("size_mean")
        row = {"Figure": _FIGURES[name], "All codes": _interval(one, share)}
        for split in ("recurrent", "new onset"):
            other = kept[2][split].get(name)
            row[split.capitalize()] = "" if other is None else _interval(other, share)
        rows.append(row)
    st.table(rows, hide_index=True, border="horizontal")
    st.caption(
        "With 95 % intervals over patients drawn again. Recurrent: codes that the history held; new onset: codes that it "
        "did not. True codes that the model can't rank count as missed. If the model was trained on these patients, the "
        "figures say nothing about others."
    )


def _interval(one: Any, share: bool) -> str:
    values = one.to_dict()
    if values["value"] is None:
        return "not defined"
    scale, digits, unit = (100, 1, " %") if share else (1, 2, "")
    interval = (
        f" ({scale * values['low']:.{digits}f} to {scale * values['high']:.{digits}f})"
        if values["low"] is not None
        else ""
    )
    return f"{scale * values['value']:.{digits}f}{unit}{interval}"


def show_chapters(scoring: CohortScoring) -> None:
    """Where the rankings point, beside what the histories hold."""
    chapters = scoring.chapters()
    named = ", ".join(
        f"{row.name_} {percent(row.mass)}" for row in chapters.rename(columns={"name": "name_"}).head(3).itertuples()
    )
    draw(cohort_figures.chapter_distribution(chapters), "cohort_chapters", f"Most ranking mass: {named}.")
    table = chapters.drop(columns="field").rename(
        columns={
            "name": "chapter",
            "past": "codes of the histories",
            "mass": "ranking mass",
            "predicted": "predicted codes",
        }
    )
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
    st.table(rows, hide_index=True, border="horizontal")
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
    """Predictions of every patient scored, made when a button is clicked: CSV, Parquet, and MEDS where it can be."""
    provenance = Provenance.now(scoring.engine.name, scoring.engine.manifest, scoring.engine.ontology)

    def table() -> pd.DataFrame:
        return scoring.predictions().assign(**provenance.cells())

    def csv() -> bytes:
        return ("\ufeff" + to_csv(table())).encode("utf-8")

    def parquet() -> bytes:
        made = io.BytesIO()
        table().to_parquet(made, index=False)
        return made.getvalue()

    kinds = [
        ("CSV", "csv", "text/csv", csv, "Nothing in it can run as a formula."),
        ("Parquet", "parquet", "application/vnd.apache.parquet", parquet, "The same rows, for other programs."),
    ]
    if scoring.hold_out and has_dates(scoring):
        words = "Labels and predictions of heart failure in the held-out visits, as MEDS evaluation tools read them."
        kinds.append(("MEDS", "meds.zip", "application/zip", lambda: meds_archive(scoring), words))
    with st.container(horizontal=True, gap="xsmall"):
        for label, ending, media, make, words in kinds:
            st.download_button(
                f"Predictions of {counted(len(scoring.scored), 'patient')} ({label})",
                data=make,
                file_name=f"{file_stem('cohort', provenance)}.{ending}",
                mime=media,
                key=f"cohort_{ending}",
                icon=":material/download:",
                help=words,
                on_click="ignore",
            )
    st.caption(f"The first twenty codes of each patient, and all predicted ones. {NOTICE}")

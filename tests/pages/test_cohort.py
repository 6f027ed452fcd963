"""The page Cohort, as Streamlit runs it: empty, with the sample, an upload, a scoring that was stopped."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from mera_core.cohort.scoring import CohortScoring
from mera_core.export.tables import history_csv
from mera_core.history.records import Patient, Visit, demo_patients
from mera_core.readers import Cohort, read
from pages.shared.app import engines
from tests.pages.apps import ROOT, button, charts, html_of, open_page, press, send, shown, titles

PAGE = "4_Cohort.py"
SAMPLE = ROOT / "sample_data" / "cohort.csv"


def sample() -> AppTest:
    return press(open_page(PAGE), "cohort_sample")


def keys(app: AppTest) -> set[str]:
    return {one.key for one in [*app.button, *app.download_button] if one.key}


def test_the_sample_is_scored_and_looked_at():
    app = sample()
    people = read(SAMPLE, "table").patients
    assert charts(app) == []
    press(app, "cohort_score")
    scoring: CohortScoring = app.session_state["scoring"]
    assert scoring.finished
    assert len(scoring.scored) + sum(scoring.left_out.values()) == len(people)
    values = {one.label: one.value for one in app.metric}
    assert values["Patients scored"] == f"{len(scoring.scored):,}"
    assert titles(app) == [
        "How many codes are predicted for a patient",
        "Chapters: the histories, and where the rankings point",
        "Most frequent new predictions, in patients",
    ]
    mass = charts(app)[1]["data"][0]["x"]
    assert mass == pytest.approx((100 * scoring.chapters()["mass"].head(14)).tolist())
    assert {"cohort_csv", "cohort_parquet"} <= keys(app)
    first = people[0]
    ranking = engines.engine().rank(first)
    assert ranking.codes[0].code in app.table[-1].value.to_string()


def test_holding_out_the_last_visit_measures():
    app = sample()
    app.segmented_control(key="cohort_mode").set_value("held out").run()
    press(app, "cohort_score")
    scoring = app.session_state["scoring"]
    assert scoring.hold_out
    figures = scoring.figures()["all"]
    (table,) = [table.value for table in app.table if "Figure" in table.value]
    (recall,) = [row for row in table.to_dict("records") if row["Figure"].startswith("Recall at 20")]
    assert recall["All codes"].startswith(f"{100 * figures['recall@20'].value:.1f} % (")
    assert recall["New onset"].endswith(")")


def test_a_stopped_scoring_keeps_what_it_has_and_goes_on():
    app = sample()
    _, cohort = app.session_state["cohort"]
    stopped = CohortScoring(engines.engine(), cohort.patients)
    stopped.step(9)
    app.session_state["scoring"], app.session_state["scoring_runs"] = stopped, False
    app.run()
    assert not app.exception
    assert {one.label: one.value for one in app.metric}["Patients scored"] == str(len(stopped.scored))
    assert any(one.value.startswith("Stopped after 9 of") for one in app.caption)
    press(app, "cohort_score")
    assert app.session_state["scoring"] is stopped
    assert stopped.finished


def test_uploads_are_read_reported_and_long_or_icd10_histories_scored():
    visit = demo_patients()[0].patient.visits[0]
    long = Patient(tuple(Visit(visit.codes) for _ in range(200)), "F", 80, "long")
    ten = Patient((Visit(("ICD10:I50.22",)), Visit(("I10", "nonsense"))), "M", 70, "ten")
    app = send(open_page(PAGE), "cohort_files", "two.csv", history_csv([long, ten]).encode())
    assert any("2 patients" in one.label.replace("\\", "") for one in app.expander)
    assert any("nonsense (1)" in line.value.replace("\\", "") for one in app.expander for line in one.markdown)
    press(app, "cohort_score")
    assert [one.patient_id for one in app.session_state["scoring"].scored] == ["long", "ten"]
    assert any("- 1 history shortened" in line.value for one in app.expander for line in one.markdown)


def test_a_wrong_upload_is_told_and_the_cohort_before_it_stays():
    app = sample()
    app = send(app, "cohort_files", "notes.csv", b"a,b\n1,2\n")
    (refusal,) = app.error
    assert app.run().error[0].value == refusal.value  # until the next files come
    assert app.session_state["cohort"][0] == "the invented sample cohort"


def test_a_patient_of_the_cohort_is_opened_in_predict_and_the_cohort_stays():
    app = press(sample(), "cohort_score")
    chosen = app.selectbox(key="cohort_patient").value
    press(app, "cohort_open")
    assert shown(app).patient.id == chosen
    app.switch_page("pages/4_Cohort.py").run()
    assert not app.exception
    assert len(charts(app)) == 3


def test_another_choice_of_what_to_score_asks_to_score_again():
    app = press(sample(), "cohort_score")
    assert button(app, "cohort_score").disabled
    app.segmented_control(key="cohort_mode").set_value("held out").run()
    assert not button(app, "cohort_score").disabled
    press(app, "cohort_away")
    assert html_of(app, "mera-empty") and "cohort_score" not in keys(app)


def test_a_scoring_that_can_not_begin_says_why():
    app = sample()
    name, cohort = app.session_state["cohort"]
    app.session_state["cohort"] = (name, Cohort([], cohort.report))
    press(app.run(), "cohort_score")
    assert [each.value for each in app.error] == ["There is no patient to score."]
    assert "scoring" not in app.session_state


def test_a_table_of_one_row_a_stay_is_read_once_its_columns_are_named():
    table = b"who,day,dx_1,dx_1_desc,dx_2\na,2020-01-01,I10,pressure,E11.9\na,2020-03-01,I50.9,heart,\n"
    app = send(open_page(PAGE), "cohort_files", "wide.csv", table)
    assert "cohort" not in app.session_state and not app.error
    boxes = {box.key: box for box in app.selectbox}
    assert boxes["cohort_wide_code"].options == ["dx_*"]
    next(each for each in app.button if each.label == "Read the table").click().run()
    assert [one.value for one in app.error] == ["Say which column holds the patient's id."]
    boxes = {box.key: box for box in app.selectbox}
    boxes["cohort_wide_patient_id"].select("who")
    boxes["cohort_wide_time"].select("day")
    next(each for each in app.button if each.label == "Read the table").click().run()
    assert not app.exception and not app.error
    _, cohort = app.session_state["cohort"]
    assert [[str(code) for code in visit.codes] for visit in cohort.patients[0].visits] == [
        ["ICD10:I10", "ICD10:E11.9"],
        ["ICD10:I50.9"],
    ]
    assert "cohort_wide_code" not in {box.key for box in app.selectbox}

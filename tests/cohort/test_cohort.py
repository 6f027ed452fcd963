"""A cohort scored in chunks: the engine's own rankings and figures, whatever the chunk, and everyone accounted for."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from mera_core.cohort.scoring import CohortScoring
from mera_core.common.errors import InputError
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap
from mera_core.figures.cohort import chapter_distribution, new_prediction_bars, predicted_sizes
from mera_core.history.records import Patient, Visit, resolve
from mera_core.icd.chapters import field_of
from mera_core.icd.ontology import Code
from tests.conftest import invented_patients
from training.common.split import histories_and_truth, with_codes


@pytest.fixture(scope="module")
def patients() -> list[Patient]:
    return invented_patients(60)


def scored(engine, patients, hold_out=False, size=7) -> CohortScoring:
    scoring = CohortScoring(engine, patients, hold_out)
    while not scoring.finished:
        scoring.step(size)
    return scoring


def test_every_patient_is_scored_as_the_engine_ranks(engine, patients):
    scoring = scored(engine, patients)
    known = [patient for patient in patients if engine.read_history(patient)[0].visits]
    assert [one.patient_id for one in scoring.scored] == [patient.id for patient in known]
    assert len(scoring.scored) + sum(scoring.left_out.values()) == len(patients)
    for one, patient in zip(scoring.scored, known, strict=True):
        ranking = engine.rank(patient)
        assert tuple(engine.label_space[label] for label in one.labels) == ranking.codes
        assert one.scores == pytest.approx(ranking.scores, abs=1e-4)
        assert one.predicted == ranking.predicted
        assert one.recurrent.tolist() == ranking.recurrent.tolist()
        assert one.mass.sum() == pytest.approx(1)
        assert one.past.sum() == sum(len(set(visit.codes)) for visit in patient.visits)


def test_the_size_of_a_chunk_changes_nothing(engine, patients):
    tables = [scored(engine, patients, size=size).predictions() for size in (1, 1000)]
    one, other = (table.drop(columns=["score", "share"]) for table in tables)
    assert one.equals(other) and len(one) > 100


def test_a_step_that_is_broken_off_changes_nothing(engine, patients, monkeypatch):
    people = [Patient((Visit(()),), id="empty"), *patients]
    scoring = CohortScoring(engine, people)
    scoring.step(10)
    before = (scoring.done, len(scoring.scored), scoring.left_out.copy())
    with monkeypatch.context() as broken:
        broken.setattr(engine, "scores", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            scoring.step(10)
    assert (scoring.done, len(scoring.scored), scoring.left_out) == before
    scoring.settle()  # does not wait for the broken step
    while not scoring.finished:
        scoring.step(10)
    assert len(scoring.scored) + scoring.left_out.total() == len(people)


def test_two_runs_of_a_page_take_no_patient_twice(engine, patients):
    scoring = CohortScoring(engine, patients)
    with ThreadPoolExecutor(2) as runs:
        list(runs.map(lambda _: scoring.step(3), range(30)))
    names = [one.patient_id for one in scoring.scored]
    assert len(names) == len(set(names))
    assert scoring.finished
    assert len(names) + scoring.left_out.total() == len(patients)


def test_who_is_not_scored_is_counted_by_reason(engine):
    known, foreign = Code("ICD9", "428.0"), Code("ICD9", "E880.9")
    people = [
        Patient((Visit((known,)), Visit((known,))), id="fine"),
        Patient((Visit(()),), id="empty"),
        Patient((Visit((known,)),), id="one visit"),
        Patient((Visit(("foo",)), Visit(("bar",))), id="unread"),
        Patient((Visit((known,)), Visit(("foo",))), id="unread target"),
        Patient((Visit((foreign,)), Visit((known,))), id="unread history"),
    ]
    assert scored(engine, people).left_out == {
        "no visit with a code": 1,
        "no code that this model can read": 1,
    }
    assert scored(engine, people, hold_out=True).left_out == {
        "no visit with a code": 1,
        "fewer than two visits with codes, so none can be held out": 1,
        "the held-out visit has no code that can be read": 2,
        "no code that this model can read": 1,
    }


def test_held_out_figures_are_those_of_the_evaluation(engine, patients):
    """The same patients through `training.evaluate.run`'s own path, which keeps every score, give the same figures."""
    scoring = scored(engine, patients, hold_out=True)
    ours = scoring.figures(draws=50)
    several = [patient for patient in with_codes(patients) if len(patient.visits) > 1]
    histories, truth, kept = histories_and_truth(engine, several)
    assert [one.patient_id for one in scoring.scored] == [patient.id for patient in kept]
    scores, eov = engine.scores(histories)
    ranked = engine.ranked(scores, eov, truth.seen.toarray() > 0)
    theirs = metrics.evaluate_ranking(
        ranked, truth, metrics.above_cut(ranked, eov), ks=(5, 10), bootstrap=Bootstrap(len(kept), 50), areas=False
    )
    for name in ("recall@10", "weighted_f1_oracle", "weighted_f1_cut", "cut_precision", "cut_recall", "cut_size_mean"):
        assert ours["all"][name].to_dict() == pytest.approx(theirs.metrics[name].to_dict(), nan_ok=True), name
    assert ours["recurrent"]["recall@10"].value == pytest.approx(theirs.recurrent["recall@10"].value)
    assert ours["new onset"]["recall@10"].value == pytest.approx(theirs.new_onset["recall@10"].value)
    assert ours["all"]["true_size_mean"].value == truth.size.mean()


def test_the_held_out_visit_changes_nothing_in_the_input(engine):
    past, other = (Visit((Code("ICD9", "428.0"), Code("ICD9", "401.9")), age=70),), Code("ICD9", "585.9")
    people = [Patient((*past, Visit((code,), age=71)), id=str(code)) for code in (Code("ICD9", "486"), other)]
    first, second = scored(engine, people, hold_out=True).scored
    assert first.labels.tolist() == second.labels.tolist()
    assert first.scores.tolist() == second.scores.tolist()
    assert first.target.labels != second.target.labels


def test_measuring_needs_held_out_visits(engine, patients):
    with pytest.raises(InputError, match="held-out"):
        scored(engine, patients[:3]).figures()
    with pytest.raises(InputError, match="no patient"):
        CohortScoring(engine, [])


def test_chapters_sum_to_one_in_each_column(engine, patients):
    scoring = scored(engine, patients)
    chapters = scoring.chapters()
    assert chapters[["past", "mass"]].sum().tolist() == pytest.approx([1, 1])
    assert chapters["mass"].is_monotonic_decreasing
    counts = Counter(
        field_of(code)
        for patient in patients
        if engine.read_history(patient)[0].visits
        for visit in resolve(patient, engine.ontology)[0].visits
        for code in visit.codes
    )
    circulatory = chapters.set_index("field")["past"]["circulatory"]
    assert circulatory == pytest.approx(counts["circulatory"] / sum(counts.values()))
    assert CohortScoring(engine, patients).chapters().empty


def test_new_predictions_are_predicted_and_not_in_the_history(engine, patients):
    scoring = scored(engine, patients)
    new = scoring.new_predictions(top=100)
    expected = Counter()
    for patient in patients:
        if engine.read_history(patient)[0].visits:
            ranking = engine.rank(patient)
            expected.update(
                code for place, code in enumerate(ranking.codes[: ranking.predicted]) if not ranking.recurrent[place]
            )
    assert dict(zip(new["code"], new["patients"], strict=True)) == dict(expected)
    assert new["patients"].is_monotonic_decreasing
    assert new["share"].tolist() == [count / len(scoring.scored) for count in new["patients"]]


def test_predictions_are_rows_best_first_with_all_that_is_predicted(engine, patients):
    table = scored(engine, patients[:10], hold_out=True).predictions(top=2)
    for _, rows in table.groupby("patient_id"):
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
        assert len(rows) >= 2
        assert rows["above_cut"].is_monotonic_decreasing
    by_id = {patient.id: patient for patient in patients}
    for row in table.itertuples():
        last = [str(code) for code in resolve(by_id[row.patient_id], engine.ontology)[0].visits[-1].codes]
        assert row.came_true == (row.concept in last)


def dated(patients) -> list[Patient]:
    """The patients, each with their visits a month apart; every fourth stays without dates."""
    months = [datetime(2020, month, 3) for month in range(1, 13)]
    made = [tuple(replace(v, time=time) for v, time in zip(p.visits, months, strict=False)) for p in patients]
    return [p if n % 4 == 0 else replace(p, visits=made[n]) for n, p in enumerate(patients)]


def test_size_figure_counts_everyone_once():
    (bars,) = predicted_sizes(np.array([0, 0, 2, 3, 40, 15]), largest=15).data
    assert sum(bars.y) == 6
    assert (bars.y[0], bars.y[2], bars.x[15], bars.y[15]) == (2, 1, "15 or more", 2)


def test_figures_hold_the_shares_and_the_patients(engine, patients):
    scoring = scored(engine, patients)
    chapters, new = scoring.chapters(), scoring.new_predictions(top=3)
    mass, past = chapter_distribution(chapters).data
    assert list(mass.x) == pytest.approx((100 * chapters["mass"]).tolist())
    assert list(past.x) == pytest.approx((100 * chapters["past"]).tolist())
    cut = chapter_distribution(chapters, largest=2)
    assert len(cut.data[0].x) == 2 and f"and {len(chapters) - 2} more" in cut.layout.annotations[0].text
    (bars,) = new_prediction_bars(new).data
    assert list(bars.x) == new["patients"].tolist()
    assert list(bars.y) == [str(code) for code in new["code"]]

"""Every figure of a checkpoint on patients it never saw: the contract, who is counted, and what can't be measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mera_core.cohort.targets import before_last
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap
from mera_core.history.records import Patient, Visit, write_visits
from mera_core.icd.ontology import Code
from mera_core.ranking.calibration import Calibration, Calibrations
from mera_core.ranking.population import Population
from mera_core.readers import read
from tests.conftest import ROOT
from training.common.split import split_of, with_codes
from training.evaluate import run as evaluate
from training.evaluate.scored import Scored

DRAWS = 20
SCHEMA = json.loads((ROOT / "docs" / "evidence" / "evaluate.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def result(tiny_checkpoint, invented_cohort) -> dict[str, Any]:
    return evaluated(tiny_checkpoint, invented_cohort)


def in_part(cohort: Path, part: str) -> list[Patient]:
    patients = with_codes(read(str(cohort), "table").patients)
    return [patient for patient in patients if split_of(patient.id) == part and len(patient.visits) > 1]


def evaluated(checkpoint: Path, cohort: Path, *more, **options) -> dict[str, Any]:
    return evaluate.run(checkpoint, str(cohort), "table", *more, **({"draws": DRAWS} | options))


# --- the contract


def test_the_json_is_of_the_published_schema_and_finite(result, tiny_checkpoint, invented_cohort) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(result, SCHEMA)
    jsonschema.validate(evaluated(tiny_checkpoint, invented_cohort, paper=True), SCHEMA)
    for broken in (result | {"metrics": {}}, {key: value for key, value in result.items() if key != "auprc_of"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["mode"] == "honest" and result["notice"] == "Research use, not for clinical decisions."


def test_the_share_of_histories_unlike_those_of_training_is_reported(
    tiny_checkpoint, invented_cohort, monkeypatch, capsys
) -> None:
    engine = evaluate.load(tiny_checkpoint)
    # every history counts as unusual whose score is below that of the median
    plain = Scored.of(engine, in_part(invented_cohort, "test"))
    read = [engine.read_history(before_last(patient)) for patient in plain.patients]
    population = Population(dict.fromkeys(engine._manifest.input_codes, 1), (1,) * 10, (1, 1))
    scores = [population.score(*one) for one in read]
    limit = float(np.median(scores))
    engine.population = replace(population, tail=(limit,) * 6)
    monkeypatch.setattr(evaluate, "load", lambda checkpoint: engine)
    out = evaluated(tiny_checkpoint, invented_cohort, part="test")
    jsonschema.validate(out, SCHEMA)
    assert out["unlike_training"]["value"] == pytest.approx(np.mean([score <= limit for score in scores]))
    evaluate.print_table(out)
    assert "histories unlike those of training" in capsys.readouterr().out


def test_intervals_hold_their_value_and_shares_stay_between_0_and_1(result) -> None:
    for name in ("recall@5", "recall@10", "recall@20", "weighted_f1_oracle", "weighted_f1_cut"):
        figure = result["metrics"][name]
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    values = [result["metrics"][f"recall@{k}"]["value"] for k in (5, 10, 20, 30)]
    assert values == sorted(values)


# --- the figures are those of the lists that users see


def test_recall_and_cut_are_those_of_the_engines_rankings(result, tiny_checkpoint, invented_cohort) -> None:
    engine = Engine.load(tiny_checkpoint)
    found, sizes, true_sizes = [], [], []
    for patient in in_part(invented_cohort, "test"):
        history = Patient(patient.visits[:-1], sex=patient.sex, age=patient.visits[-2].age, details=patient.details)
        ranking = engine.rank(history)
        true = set(patient.visits[-1].codes)
        found.append(len(true & set(ranking.codes[:10])) / len(true))
        sizes.append(ranking.predicted)
        true_sizes.append(len(true))
    assert result["patients"] == len(found) > 5
    assert result["metrics"]["recall@10"]["value"] == pytest.approx(np.mean(found), abs=1e-6)
    assert result["metrics"]["cut_size_mean"]["value"] == pytest.approx(np.mean(sizes), abs=1e-6)
    assert result["metrics"]["true_size_mean"]["value"] == pytest.approx(np.mean(true_sizes), abs=1e-6)


def test_six_passes_over_the_invented_courses_beat_the_plain_frequency(result) -> None:
    rows = {row["name"]: row for row in result["baselines"]}
    ours, theirs = result["metrics"]["recall@5"]["value"], rows["code frequency"]["metrics"]["recall@5"]["value"]
    assert ours > theirs + 0.1


def test_a_difference_from_a_baseline_is_ours_minus_its(result) -> None:
    assert len(result["baselines"]) >= 3
    for row in result["baselines"]:
        for name in evaluate.COMPARED:
            difference = result["metrics"][name]["value"] - row["metrics"][name]["value"]
            assert row["ours_minus_this"][name]["value"] == pytest.approx(difference, abs=1e-9)


def test_new_only_is_told_of_the_checkpoint_and_of_each_baseline(result, capsys) -> None:
    names = {"recall@5", "recall@10", "recall@20", "auprc_micro", "ece"}
    ours = result["new_only"]
    assert set(ours) == names and all(0 <= ours[name]["low"] <= ours[name]["high"] <= 1 for name in names)
    assert ours["auprc_micro"] == result["new_onset"]["auprc_micro"]
    assert ours["recall@5"]["value"] > result["new_onset"]["recall@5"]["value"]  # no place is lost to the history
    rows = {row["name"]: row for row in result["baselines"]}
    for name, row in rows.items():
        assert set(row["new_only"]) == names - ({"ece"} if name.startswith("copy") else set()), name
        assert set(row["new_only_ours_minus_this"]) == {"recall@10", "recall@20"}
        for k, difference in row["new_only_ours_minus_this"].items():
            assert difference["value"] == pytest.approx(ours[k]["value"] - row["new_only"][k]["value"], abs=1e-9)
    assert result["told"] == rows["logistic regression told the record"]["told"] == "codes, sex, age, ethnicity"
    assert rows["logistic regression on the history"]["told"] == "codes"
    frequency, copied = (
        row["new_only"] for name, row in sorted(rows.items()) if name.startswith(("code frequency", "copy"))
    )
    assert copied == {name: figure for name, figure in frequency.items() if name != "ece"}  # nothing is left to copy
    evaluate.print_table(result)
    printed = capsys.readouterr().out
    assert printed.index("new_only: recall@5") < printed.index("weighted_f1_oracle")


def test_the_order_f1_stands_beside_the_default_one(result, tiny_checkpoint, invented_cohort, capsys) -> None:
    engine, patients = Engine.load(tiny_checkpoint), in_part(invented_cohort, "test")
    histories = [replace(p, visits=p.visits[:-1], age=p.visits[-2].age) for p in patients]
    f1, found = result["f1_order"], []
    for patient, ranking in zip(patients, engine.rank_many(histories, order="f1"), strict=True):
        true = set(patient.visits[-1].codes)
        found.append(len(true & set(ranking.codes[:10])) / len(true))
    assert f1["metrics"]["recall@10"]["value"] == pytest.approx(np.mean(found), abs=1e-6)
    for name, difference in f1["minus_default"].items():
        by_hand = f1["metrics"][name]["value"] - result["metrics"][name]["value"]
        assert difference["value"] == pytest.approx(by_hand, abs=1e-9) and difference["low"] <= difference["high"]
    for name, difference in f1["new_only_minus_default"].items():
        by_hand = f1["new_only"][name]["value"] - result["new_only"][name]["value"]
        assert difference["value"] == pytest.approx(by_hand, abs=1e-9)
    assert set(f1["new_only"]) == {"recall@5", "recall@10", "recall@20"}
    evaluate.print_table(result)
    assert f"Order f1: {f1['order']}" in " ".join(capsys.readouterr().out.split())


def test_the_learned_cut_stands_beside_the_others(result) -> None:
    learned = result["cuts"]["learned"]["value"]
    assert learned == result["metrics"]["weighted_f1_cut"]["value"]
    names = [row["cut"] for row in result["cuts"]["others"]]
    assert sum("best threshold" in name for name in names) == 3 and any("fixed k" in name for name in names)
    for row in result["cuts"]["others"]:
        assert row["learned_minus_this"]["value"] == pytest.approx(learned - row["weighted_f1"]["value"], abs=1e-9)


def test_areas_are_of_what_can_be_compared_between_patients(result, tiny_checkpoint, invented_cohort) -> None:
    """A list is sorted by a score that holds each patient's own EOV: adding to it per patient must change no area."""
    engine = Engine.load(tiny_checkpoint)
    ours = Scored.of(engine, in_part(invented_cohort, "test"))
    truth, shown = ours.truth.positive.toarray().ravel() > 0, ours.probability().ravel()
    assert result["auprc_of"] == "the probability that the engine shows"
    assert result["metrics"]["auprc_micro"]["value"] == pytest.approx(average_precision_score(truth, shown))
    assert result["metrics"]["auprc_micro"]["value"] != pytest.approx(
        average_precision_score(truth, ours.ranked.ravel())
    )
    areas = [
        metrics.evaluate_ranking(
            ranked, ours.truth, bootstrap=Bootstrap(len(ours.patients), 5), comparable=ours.margin
        ).metrics
        for ranked in (ours.ranked, ours.ranked + np.arange(len(ours.ranked))[:, None])
    ]
    assert areas[0]["auprc_micro"].value == areas[1]["auprc_micro"].value


def test_without_a_calibration_areas_are_of_the_margin(tiny_checkpoint, invented_cohort, monkeypatch) -> None:
    load = Engine.load

    def uncalibrated(path):
        engine = load(path)
        engine.calibration = None
        return engine

    monkeypatch.setattr(evaluate.Engine, "load", uncalibrated)
    out = evaluated(tiny_checkpoint, invented_cohort)
    assert out["auprc_of"].startswith("score of the code - score of EOV")
    ours = Scored.of(uncalibrated(tiny_checkpoint), in_part(invented_cohort, "test"))
    expected = average_precision_score(ours.truth.positive.toarray().ravel() > 0, ours.margin.ravel())
    assert out["metrics"]["auprc_micro"]["value"] == pytest.approx(expected)
    jsonschema.validate(out, SCHEMA)


def test_subgroups_count_the_patients(result) -> None:
    # each kind of group divides the patients, those of unknown age apart
    names = {row["name"]: row["n"] for row in result["subgroups"]}
    for kind in ("sex ", "age ", "ethnicity "):
        assert sum(n for name, n in names.items() if name.startswith(kind)) == result["patients"], kind
    assert sum(n for name, n in names.items() if "past visit" in name) == result["patients"]


def test_heart_failure_is_scored_over_its_own_codes(result) -> None:
    assert result["heart_failure"]["codes"] == ["ICD9:428.0", "ICD9:428.23"]


# --- probabilities


def test_the_calibration_of_the_checkpoint_is_what_is_judged(tiny_checkpoint, invented_cohort) -> None:
    engine = Engine.load(tiny_checkpoint)
    patients = in_part(invented_cohort, "test")
    engine.calibration = None
    plain = Scored.of(engine, patients)
    np.testing.assert_allclose(plain.probability(), 1 / (1 + np.exp(-plain.margin)))
    assert "carries no calibration" in evaluate.calibration_in_words(plain)["ece_of"]
    engine.calibration = Calibrations(
        Calibration("platt", 0.5, -1.0, patients=7), Calibration("platt", 0.8, patients=7)
    )
    calibrated = Scored.of(engine, patients)
    for p, ranked in zip(calibrated.probability(), calibrated.ranked, strict=True):
        assert (np.diff(p[np.argsort(-ranked, kind="stable")]) <= 0).all()  # listed by each code's own probability
    log_odds = np.where(calibrated.held, 0.8 * calibrated.margin, 0.5 * calibrated.margin - 1)
    expected = 1 / (1 + np.exp(-log_odds))
    np.testing.assert_allclose(calibrated.probability(), expected)
    words = evaluate.calibration_in_words(calibrated)
    assert (
        "platt calibration for new codes, platt for recorded ones, fitted on 7 validation patients" in words["ece_of"]
    )
    columns = calibrated.heart_failure_columns()
    np.testing.assert_allclose(calibrated.event(columns), expected[:, columns].max(1))


# --- two checkpoints


def test_a_checkpoint_against_itself_differs_by_nothing(tiny_checkpoint, invented_cohort) -> None:
    out = evaluated(tiny_checkpoint, invented_cohort, against=tiny_checkpoint)
    against = out["against"]
    assert against["patients"] == out["patients"]
    for name, figure in against["ours_minus_this"].items():
        assert figure["value"] == 0 and figure["low"] in (0, None) and figure["high"] in (0, None), name
    assert against["metrics"]["recall@20"]["value"] == out["metrics"]["recall@20"]["value"]
    jsonschema.validate(out, SCHEMA)


def test_a_difference_between_checkpoints_is_paired_on_the_same_patients(tiny_checkpoint, invented_cohort) -> None:
    patients = in_part(invented_cohort, "test")
    ours, theirs = (Scored.of(Engine.load(tiny_checkpoint), patients) for _ in range(2))
    worse = Scored(theirs.engine, theirs.patients, theirs.truth, theirs.scores, theirs.eov, -theirs.ranked)
    out = evaluate.compare(ours, worse, DRAWS)
    figure = out["ours_minus_this"]["recall@5"]
    assert figure["value"] == pytest.approx(
        evaluate.compare(worse, ours, DRAWS)["metrics"]["recall@5"]["value"] - out["metrics"]["recall@5"]["value"]
    )
    assert 0 < figure["low"] <= figure["value"] <= figure["high"] <= 1
    fewer = ours.take({patients[0].id, patients[3].id})
    assert evaluate.compare(fewer, worse, DRAWS)["patients"] == 2


# --- who is counted


def test_patients_of_the_training_part_are_never_evaluated_on_the_data_of_training(result, invented_cohort) -> None:
    assert result["patients"] == len(in_part(invented_cohort, "test"))
    assert result["data"]["patients"].startswith("test part (first byte of SHA-256")


def test_the_records_of_training_in_another_form_are_not_taken_for_new_patients(
    result, own_checkpoint, invented_cohort
) -> None:
    """As when UCI's records are converted to a visits table: the test part alone, and the words say why."""
    path = own_checkpoint / "mera.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["data"]["format"] = "uci_diabetes130"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    again = evaluated(own_checkpoint, invented_cohort)
    assert again["patients"] == result["patients"] and again["metrics"] == result["metrics"]
    assert "may be those of training (uci_diabetes130) in another form" in again["data"]["patients"]
    everybody = evaluated(own_checkpoint, invented_cohort, part="all")
    assert everybody["patients"] > again["patients"] and everybody["data"]["patients"] == "all"


def test_new_patients_can_be_evaluated_beside_the_training_data(tiny_checkpoint, invented_cohort, tmp_path) -> None:
    """Baselines are fitted on --train-data where the evaluated records hold no training patients."""
    visits = [Visit([Code("ICD9", code) for code in codes]) for codes in (("428.0", "427.31"), ("428.0", "584.9"))]
    ids = [identity for identity in map(str, range(400)) if split_of(identity) == "test"][:12]
    cohort = tmp_path / "new.csv"
    write_visits([Patient(visits, id=identity) for identity in ids], cohort)
    without = evaluated(tiny_checkpoint, cohort)
    assert without["patients"] == 12 and without["baselines"] == []
    assert without["baselines_absent"].startswith("no training patients at hand to fit them on")
    beside = evaluated(tiny_checkpoint, cohort, str(invented_cohort))
    assert len(beside["baselines"]) >= 3 and beside["metrics"] == without["metrics"]


def test_paper_mode_drops_patients_with_an_empty_visit_and_says_how_many(tiny_checkpoint, tmp_path) -> None:
    ids = [identity for identity in map(str, range(400)) if split_of(identity) == "test"][:14]
    visits = [Visit([Code("ICD9", code)]) for code in ("428.0", "427.31", "584.9")]
    patients = [Patient(visits, id=identity) for identity in ids[:10]]
    patients += [Patient([visits[0], Visit([]), visits[1]], id=identity) for identity in ids[10:]]
    path = tmp_path / "gaps.csv"
    write_visits(patients, path)
    paper = evaluated(tiny_checkpoint, path, paper=True)
    honest = evaluated(tiny_checkpoint, path)
    assert (paper["patients"], honest["patients"]) == (10, 14)
    assert paper["mode"] == "paper" and paper["dropped_for_a_visit_without_codes"] == 4
    assert "subgroups" not in paper and "subgroups" in honest
    assert {"recall@10", "recall@20", "weighted_f1_oracle"} <= set(paper["metrics"])


# --- refused


def test_a_stage_1_checkpoint_has_nothing_to_evaluate(tiny_stage1, invented_cohort) -> None:
    with pytest.raises(InputError, match="was not trained to rank"):
        evaluate.run(tiny_stage1, str(invented_cohort), "table")


def test_data_without_a_second_visit(tiny_checkpoint, tmp_path) -> None:
    path = tmp_path / "single.csv"
    write_visits([Patient([Visit([Code("ICD9", "486")])], id=str(n)) for n in range(50)], path)
    with pytest.raises(InputError, match="holds no patient with two visits"):
        evaluate.run(tiny_checkpoint, str(path), "table")


def test_figures_that_are_not_defined_become_null() -> None:
    value = {"a": float("nan"), "b": [np.float32(0.5), np.nan], "c": (1, "x"), "d": np.int64(3)}
    assert evaluate.without_nan(value) == {"a": None, "b": [0.5, None], "c": [1, "x"], "d": 3}

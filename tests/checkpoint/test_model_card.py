"""A model card read from a manifest: what it holds, what it says of what is missing, limits worked out from figures."""

from __future__ import annotations

import pytest

from mera_core.checkpoint.model_card import (
    NOT_RECORDED,
    baseline_figures,
    calibration_words,
    evaluations,
    event_figures,
    interval,
    limits,
    main_figures,
    measured_on,
    sections,
)
from mera_core.figures.model_card import reliability_curve, subgroup_intervals
from tests.tiny import tiny_manifest

NAME = "mera-mini 1f0c9a2b7d3e"


def figure(value: float, low: float | None = None, high: float | None = None) -> dict:
    return {"value": value, "low": low, "high": high}


RESULT = {
    "patients": 40,
    "notice": "Not for anything.",
    "data": {"source": "a.csv", "patients": "test part"},
    "metrics": {
        "recall@20": figure(0.5, 0.4, 0.6),
        "cut_size_mean": figure(3.25, 3, 3.5),
        "ece": figure(0.00012, 0.0001, 0.0002),
        "ece_frequent": figure(0.0044, 0.0038, 0.007),
        "ece_frequent_mean": figure(0.0131, 0.0113, 0.0149),
        "ece_frequent_max": figure(0.0383, 0.03, 0.05),
        "ece_frequent_mean_if_right": figure(0.0107),
    },
    "recurrent": {
        "recall@20": figure(0.9, 0.8, 0.95),
        "ece_frequent": figure(0.021, 0.015, 0.03),
        "ece_frequent_if_right": figure(0.02),
    },
    "new_only": {"recall@20": figure(0.4), "ece_frequent": figure(0.0015, 0.001, 0.002)},
    "new_onset": {"recall@20": figure(None)},
    "baselines": [
        {
            "name": "copy the past",
            "metrics": {"recall@10": figure(0.3, 0.2, 0.4), "recall@20": figure(0.45, 0.4, 0.5)},
            "ours_minus_this": {"recall@20": figure(0.05, -0.01, 0.1), "recall@10": figure(0.1, 0.05, 0.2)},
        }
    ],
    "subgroups": [
        {"name": "sex F", "n": 25, "metrics": {"recall@20": figure(0.55, 0.4, 0.7)}},
        {"name": "sex U", "n": 1, "metrics": {"recall@20": figure(None)}},
        {"name": "age 0 to 49", "n": 300, "metrics": {"recall@20": figure(0.45, 0.46, 0.5)}},
    ],
    "heart_failure": {"all": {"n": 40, "cases": 8, "auroc": figure(0.8, 0.7, 0.9)}},
}
MANIFEST = tiny_manifest(metrics={"test": RESULT, "recall": {"code_to_definition": {"words": 0.8508}}}).to_json()


def facts(manifest: dict) -> dict[str, str]:
    return {fact.name: fact.value for part in sections(manifest, NAME).values() for fact in part}


def test_facts_come_from_the_manifest_and_name_their_place():
    parts = {"train": {"patients": 1234, "with_two_visits": 567}}
    data = {
        "source": "a.csv",
        "format": "table",
        "sha256": "abc",
        "split_rule": "by id",
        "commit": "c0ffee",
        "parts": parts,
    }
    manifest = MANIFEST | {
        "data": data | {"import": {"left_out": {"no code recorded": 7}}},
        "versions": {"torch": "2.13"},
    }
    made = facts(manifest | {"files": {"model.safetensors": "00"}})
    assert (made["Model name"], made["Release version"]) == (NAME, "1f0c9a2b7d3e")
    assert (made["Trained by the code at commit"], made["Split"]) == ("c0ffee", "by id")
    assert made["Input data source"] == "a.csv (table), SHA-256 abc"
    for words in ("1,234 patients", "567 with two visits", "7 no code recorded"):
        assert words in made["Development data"]
    assert made["Intended use"] == "Not for anything." and "10 codes" in made["Summary"]
    assert all(fact.source for part in sections(manifest, NAME).values() for fact in part if fact.recorded)


def test_what_is_not_recorded_is_said_and_taken_up_where_it_is():
    made = facts(MANIFEST)
    for name in ("Developer", "Clinical trial", "Funding source", "Bias mitigation approaches", "Split", "Libraries"):
        assert made[name] == NOT_RECORDED
    own = facts(MANIFEST | {"card": {"developer": "A group", "peer_reviewed_publications": "none"}})
    assert own["Developer"] == "A group"
    assert own["Peer-reviewed publications"] == "none"


def test_an_all_but_empty_manifest_makes_a_card():
    bare = {"systems": ("ICD9",), "label_space": [], "icd_release": {}}
    assert facts(bare)["Summary"] == "Has memorized ICD-9-CM; it does not rank."
    assert limits(bare) == ["It was not trained to rank."]
    assert evaluations(bare) == {}


def test_figures_stand_with_their_intervals():
    rows = main_figures(RESULT).set_index("figure")
    assert rows.loc["recall at 20"].tolist() == ["50.0 % (40.0 to 60.0)", "90.0 % (80.0 to 95.0)", "not defined"]
    assert rows.loc["codes predicted, a patient", "all codes"] == "3.25 (3.00 to 3.50)"
    assert rows.loc["expected calibration error", "all codes"] == "0.012 % (0.010 to 0.020)"
    frequent = "expected calibration error, codes with 50 cases or more"
    calibrated = ["0.440 % (0.380 to 0.700)", "2.1 % (1.5 to 3.0)", "0.150 % (0.100 to 0.200)"]
    assert rows.loc[frequent].tolist() == calibrated  # of new codes: from those of the lists without recorded ones
    exact = "expected calibration error, such codes, if every probability were exact"
    assert rows.loc[exact].tolist() == ["", "2.0 %", ""]
    # each code's own error is a share as well, though its name ends as that of a number of codes does
    assert rows.loc["the same of each such code by itself, mean", "all codes"] == "1.3 % (1.1 to 1.5)"
    assert rows.loc["the same of each such code by itself, worst", "all codes"] == "3.8 % (3.0 to 5.0)"
    assert rows.loc["what that mean would be if every probability were exact", "all codes"] == "1.1 %"
    (row,) = baseline_figures(RESULT).to_dict("records")
    assert row["recall at 20"] == "45.0 % (40.0 to 50.0)"
    assert row["this model minus it, recall at 20"] == "+5.0 points (−1.0 to +10.0)"
    (event,) = event_figures(RESULT).to_dict("records")
    assert (event["n"], event["cases"], event["AUROC"]) == ("40", "8", "80.0 % (70.0 to 90.0)")
    assert (interval("recall", 0.5), interval("recall", None)) == ("50.0 %", "not defined")
    assert list(evaluations(MANIFEST | {"metrics": {"validation": RESULT, "test": RESULT}})) == ["test", "validation"]


def test_limits_are_worked_out_from_the_figures():
    lines = limits(MANIFEST)
    for words in (
        "outside its 10 (",
        "recalls 85.1 %",
        "not calibrated",
        "fewer than 100 patients, so uncertain: sex F (25)",
    ):
        assert any(words in line for line in lines)
    (weak,) = [line for line in lines if "Not shown to be better" in line]
    assert "copy the past" in weak and "+5.0 points (−1.0 to +10.0)" in weak
    stated = limits(MANIFEST | {"limits": ["Only adults."], "calibration": {"kind": "platt"}})
    assert stated[0] == "Only adults." and not any("not calibrated" in line for line in stated)


def test_how_probabilities_were_fitted_is_said_in_words():
    one = {"kind": "platt", "patients": 7}
    assert calibration_words({"calibration": one}) == "platt calibration, fitted on 7 validation patients"
    for nothing in ({}, {"calibration": {}}, {"calibration": {"new": 3}}):
        assert calibration_words(nothing) == ""


def test_whom_it_was_measured_on_is_said():
    same = measured_on(MANIFEST | {"data": {"source": "a.csv"}}, RESULT)
    assert same.startswith("40 patients, test part, of a.csv. Mode: not recorded. Test type: internal, on patients of")
    assert "Test type: external" in measured_on(MANIFEST | {"data": {"source": "b.csv"}}, RESULT)
    assert "Test type" not in measured_on(MANIFEST, RESULT)


def test_calibration_figure_holds_the_bins():
    curve = [{"n": 1000, "predicted": 0.01, "observed": 0.02}, {"n": 10, "predicted": 0.5, "observed": 0.4}]
    ideal, observed = reliability_curve(curve).data
    assert list(ideal.x) == list(ideal.y) == [0, 100]
    assert list(observed.x) == pytest.approx([1, 50])
    assert list(observed.y) == pytest.approx([2, 40])
    assert observed.marker.size[0] > observed.marker.size[1]
    assert reliability_curve(curve, "all codes").layout.title.text == "Calibration: all codes"


def test_subgroup_figure_leaves_out_what_is_not_defined_and_never_draws_a_negative_arm():
    made = subgroup_intervals(RESULT["subgroups"], "recall@20", RESULT["metrics"]["recall@20"])
    (points,) = made.data
    assert list(points.x) == pytest.approx([55, 45])
    assert list(points.y) == ["sex F (n = 25)", "age 0 to 49 (n = 300)"]
    assert list(points.error_x.array) == pytest.approx([15, 5])
    assert list(points.error_x.arrayminus) == pytest.approx([15, 0])
    assert made.layout.shapes[0].x0 == pytest.approx(50)

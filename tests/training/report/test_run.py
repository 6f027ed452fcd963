"""The evidence report: built from JSON alone, the same each time, and silent about nothing that is missing."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from mera_core.checkpoint.folder import read_manifest
from mera_core.common.errors import InputError
from training.evaluate import run as evaluate
from training.release import publish
from training.report import run as report
from training.report.text import above, listed, percent, plain, points, significant, table


def figure(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


BASELINE_FIGURES = (
    "recall@10",
    "recall@20",
    "recall@30",
    "weighted_f1_oracle",
    "weighted_f1_cut",
    "new_onset_recall@20",
)
BASELINES = {
    "checkpoint": "tiny 0",
    "patients": {"train": 1000, "validation": 100, "test": 200},
    "seeds": [1, 2, 3],
    "budget": "at most 8 settings each.",
    "cut": "weighted F1, own cut: the best cut on validation patients",
    "mera": {part: {name: figure(0.5) for name in BASELINE_FIGURES} for part in ("validation", "test")},
    "rows": [
        {
            "name": name,
            **{
                part: {
                    "metrics": {one: figure(0.5 - gap) for one in BASELINE_FIGURES},
                    "mera_minus_this": {one: figure(gap) for one in BASELINE_FIGURES},
                }
                for part in ("validation", "test")
            },
        }
        for name, gap in (("copy", 0.1), ("GRU", 0.0), ("Dipole", -0.1))
    ]
    + [{"name": "PyHealth RETAIN", "not_run": "no environment was named"}],
}
SHOWN = (
    "recall@10",
    "recall@20",
    "weighted_f1_oracle",
    "weighted_f1_cut",
    "recurrent_recall@20",
    "new_onset_recall@20",
)
ABLATIONS = {
    "interval": "95 %",
    "stage1_memory_of": "2,000 codes",
    "rows": [
        {
            "name": "MERA",
            "group": "reference",
            "seeds": [1, 2, 3],
            "changes": {},
            "stage1_memory": {"code_to_definition": 0.123, "definition_to_code": 0.456},
            "test": {"metrics": {n: figure(0.5) for n in SHOWN}},
        },
        *(
            {
                "name": name,
                "group": "paper",
                "claim": f"without {name} it falls",
                "about": "",
                "seeds": [1, 2, 3],
                "figure": "recall@20",
                "verdict": verdict,
                "test": {
                    "metrics": {n: figure(0.5) for n in SHOWN},
                    "minus_reference": {n: figure(gap) for n in SHOWN},
                },
            }
            for name, verdict, gap in (
                ("level 0", "holds", -0.1),
                ("order", "does not hold", 0.1),
                ("profile", "not settled", 0),
            )
        ),
        {"name": "no memorization", "group": "paper", "claim": "x", "about": "", "seeds": [], "not_run": "not run yet"},
    ],
}
QUESTIONS = {
    1: {
        "question": "Does contrast inside the tree cost predictions across its branches?",
        "patients": 200, "k": 20, "reference": "MERA", "new_codes": {"in_branch": 50, "cross_branch": 150},
        "models": [
            {"name": "MERA", "seeds": 3, "in_branch": figure(0.4), "cross_branch": figure(0.3)},
            {"name": "level 0 alone", "seeds": 3, "in_branch": figure(0.3), "cross_branch": figure(0.31),
             "minus_reference": {"in_branch": figure(-0.1), "cross_branch": figure(0.01)}},
        ],
        "pairs": {"level 0 alone": [{"history": "Circulatory", "new": "Respiratory", "codes": 40, "reference": 0.25,
                                     "difference": figure(-0.1)}]},
    },
    2: {
        "question": "Do the cut and the cost hold up as the label space grows?",
        "padding": "never true", "passes": 2.0, "seed": 1,
        "rows": [
            {"label_space": name, "labels": labels, "patients": 100,
             "metrics": {n: figure(0.3) for n in ("recall@20", "weighted_f1_cut", "cut_precision", "cut_recall")}
             | {n: figure(3.0) for n in ("cut_size_mean", "true_size_mean")},
             "plain_eov_cut": {"cut_size_mean": figure(0.4)},
             "precision_recall": [{"codes_a_patient": 1.0, "precision": 0.4, "recall": 0.1}],
             "seconds_a_step": 0.1 * labels / 900, "milliseconds_a_ranking": 2.0, "peak_memory_gb": 1.5,
             "cut_patients": 600, "cut_seconds": labels / 100, "peak_memory_with_cut_gb": 2.5}
            for name, labels in (("codes of the data", 900), ("ICD-9-CM", 14_567))
        ],
    },
    3: {
        "question": "Does shuffling throw away order that matters?", "patients": 200,
        "rows": [
            {"order": order, "head_knows_first_code": True, "seeds": 3,
             "metrics": {n: figure(0.3) for n in ("principal_recall@1", "principal_recall@5", "principal_recall@10",
                                                  "principal_recall@20", "recall@20")}}
            | ({} if order == "shuffled" else {"minus_shuffled": {"principal_recall@10": figure(0.01)}})
            for order in ("shuffled", "as recorded (by priority)")
        ],
    },
    4: {
        "question": "Does it travel: trained on one source, tested on others with no tuning?",
        "checkpoint": "tiny 0", "level": "ICD-9-CM categories (800)",
        "rows": [
            {"source": name, "home": name == "home", "patients": 100, "true_codes_a_visit": 3.0, "recurrent": 0.3,
             "true_codes_within": 0.9,
             "models": [
                 {"name": model, "metrics": {n: figure(0.5) for n in ("recall@10", "recall@20", "weighted_f1_oracle",
                                                                      "new_onset_recall@20")}}
                 | ({} if model == "MERA" else {"mera_minus_this": {"recall@20": figure(0.1)}})
                 for model in ("MERA", "copy the past, then frequency")
             ]}
            for name in ("home", "demo")
        ] + [{"source": "nowhere", "format": "omop", "not_run": "there is nothing at nowhere"}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def published(tiny_checkpoint, invented_cohort, tmp_path_factory) -> Path:
    """The tiny checkpoint with the figures of its evaluation in its manifest."""
    import shutil

    from mera_core.checkpoint.folder import Manifest, write_manifest

    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("published") / "tiny"))
    results = {
        part: evaluate.run(tiny_checkpoint, str(invented_cohort), "table", draws=20, part=part)
        for part in ("test", "validation")
    }
    manifest = Manifest(**{**vars(read_manifest(folder)), "metrics": results})
    out = folder.with_name("with-figures")
    write_manifest(manifest, folder, out)
    return out


def test_without_experiments_the_report_says_what_is_missing(published, tmp_path) -> None:
    text = report.run(published, tmp_path).read_text(encoding="utf-8")
    assert text.startswith("# Evidence\n\n**Research use, not for clinical decisions.**")
    for name in ("baselines.json", "ablations.json", "question-1.json", "question-4.json"):
        assert f"there is no `{name}`" in text and f"- `{name}` has not been made yet." in text
    result = read_manifest(published).metrics["test"]["metrics"]["recall@20"]
    assert percent(result) in text  # the manifest's own figure, not another


def test_the_worst_calibrated_code_is_printed(published, tmp_path) -> None:
    manifest = read_manifest(published)
    names = ("ece_frequent", "ece_frequent_mean", "ece_frequent_mean_if_right", "calibration_slope", "brier")
    curve = [{"n": 9, "predicted": 0.1, "observed": 0.2}]
    (tmp_path / "figures").mkdir()
    test = {**manifest.metrics["test"], "reliability_frequent": curve}
    test["metrics"] = test["metrics"] | {name: figure(0.01) for name in names} | {"ece_frequent_max": figure(0.1234)}
    lines = report.checkpoint_section(manifest.metrics | {"test": test}, tmp_path)
    assert "the worst of them 12.34 %" in "\n".join(lines)


def test_the_whole_report_is_built_from_json_and_is_the_same_each_time(published, tmp_path) -> None:
    (tmp_path / "baselines.json").write_text(json.dumps(BASELINES))
    (tmp_path / "ablations.json").write_text(json.dumps(ABLATIONS))
    for number, found in QUESTIONS.items():
        (tmp_path / f"question-{number}.json").write_text(json.dumps(found))
    first = report.run(published, tmp_path).read_bytes()
    figures = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert {"baselines.svg", "ablations.svg", *(f"question-{n}.svg" for n in (1, 2, 3, 4))} <= set(figures)
    assert report.run(published, tmp_path).read_bytes() == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()} == figures
    text = first.decode()
    assert "has not been made yet" not in text
    assert "recall@20, test: MERA is above copy; level with GRU; below Dipole." in text
    assert "Not run: PyHealth RETAIN: no environment was named." in text
    assert "- *holds*: without level 0 it falls." in text and "- *does not hold*: without order it falls." in text
    assert "- *not settled*: without profile it falls." in text and "Not run: no memorization: not run yet." in text
    assert "| MERA | 12.3 % | 45.6 % |" in text and "(2,000 codes)" in text
    assert "Of 3 intervals of 95 %" in text
    assert "−10.0 (−12.0 to −8.0)" in text and "+10.0 (+8.0 to +12.0)" in text
    assert "Not run: nowhere: there is nothing at nowhere" in text
    assert "Fitting the cut on 600 patients, once after training, takes 146 in place of 9 seconds" in text
    for name in figures:
        assert f"figures/{name}" in text  # every figure has its place


def test_every_link_of_the_report_leads_somewhere(published, tmp_path) -> None:
    (tmp_path / "baselines.json").write_text(json.dumps(BASELINES))
    text = report.run(published, tmp_path).read_text(encoding="utf-8")
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert links and all((tmp_path / link).is_file() for link in links)


def test_a_changed_figure_changes_the_report(published, tmp_path) -> None:
    changed = copy.deepcopy(BASELINES)
    changed["rows"][0]["test"]["mera_minus_this"]["recall@20"] = figure(-0.3)
    (tmp_path / "baselines.json").write_text(json.dumps(changed))
    assert (
        "recall@20, test: MERA is level with GRU; below copy and Dipole." in report.run(published, tmp_path).read_text()
    )


def test_a_checkpoint_without_figures_is_refused(tiny_checkpoint, tmp_path) -> None:
    with pytest.raises(InputError, match="holds no figures: publish it first"):
        report.run(tiny_checkpoint, tmp_path)


def test_figures_in_words() -> None:
    assert percent(figure(0.5)) == "50.0 % (48.0 to 52.0)"
    assert percent({"value": None, "low": None, "high": None}) == "not defined"
    assert points(figure(-0.001, 0.02)) == "−0.1 (−2.1 to +1.9)"
    assert points({"value": 0.0, "low": -0.0, "high": 0.0001}) == "0.0 (0.0 to 0.0)"
    assert plain({"value": 2.934, "low": None, "high": None}) == "2.93"
    assert listed(["a"]) == "a" and listed(["a", "b", "c"]) == "a, b and c"
    assert significant(figure(0.1)) and not significant(figure(0.01))
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "|---|---|", "| 1 | 2 |"]
    assert above([], "test", "recall@20") == "no other model was run."
    open_ended = {"value": 0.1, "low": None, "high": None}
    rows = [{"name": "GRU", "test": {"mera_minus_this": {"recall@20": open_ended}}}]
    assert above(rows, "test", "recall@20") == "MERA is level with GRU." and not significant(open_ended)
    assert publish.percent(figure(0.5)) == percent(figure(0.5))

"""The evidence report: built from JSON alone, the same each time, and silent about nothing that is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mera_core.common.formatting import with_interval as plain
from training.report import run as report
from training.report.figures import significant
from training.report.run import above, listed, percent, points

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINT, EVIDENCE = ROOT / "sample_data" / "mera-mini", ROOT / "docs" / "evidence"


def figure(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


@pytest.fixture
def evidence(tmp_path):
    """Writes one file of the evidence to a folder of its own, changed where that is asked for; returns what it holds."""

    def write(name: str, change=lambda found: None) -> dict:
        found = json.loads((EVIDENCE / name).read_text("utf-8"))
        change(found)
        (tmp_path / name).write_text(json.dumps(found), encoding="utf-8")
        return found

    return write


def test_the_committed_page_is_what_its_files_say_and_its_figures_are_the_same_each_time(evidence, tmp_path) -> None:
    """Make it again with: python -m training report"""
    for name in ("baselines.json", "ablations.json", *(f"question-{n}.json" for n in range(1, 5))):
        evidence(name)
    text = report.run(CHECKPOINT, tmp_path).read_text("utf-8")
    assert text == (EVIDENCE / "README.md").read_text("utf-8")
    figures = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert set(figures) == {path.name for path in (EVIDENCE / "figures").iterdir()}
    report.run(CHECKPOINT, tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()} == figures


def test_without_experiments_the_report_says_what_is_missing(tmp_path) -> None:
    text = report.run(CHECKPOINT, tmp_path).read_text("utf-8")
    for name in ("baselines.json", "ablations.json", "question-1.json", "question-4.json"):
        assert f"there is no `{name}`" in text and f"- `{name}` has not been made yet." in text
    assert (tmp_path / "figures" / "calibration.svg").is_file() and len(re.findall(r"\.svg", text)) == 1


def test_a_changed_figure_and_a_row_that_was_not_run_change_the_report(evidence, tmp_path) -> None:
    def change(found: dict) -> None:
        found["rows"] = [*found["rows"][:3], {"name": "RETAIN", "not_run": "no environment was named"}]
        for row, value in zip(found["rows"], (0.1, 0.0, -0.1), strict=False):
            row["test"]["mera_minus_this"]["recall@20"] = figure(value)

    first, second, third, _ = (row["name"] for row in evidence("baselines.json", change)["rows"])
    text = report.run(CHECKPOINT, tmp_path).read_text("utf-8")
    assert f"recall@20, test: MERA is above {first}; level with {second}; below {third}." in text
    assert "- Not run: RETAIN: no environment was named." in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert "figures/baselines.svg" in links and all((tmp_path / link).is_file() for link in links)


def test_new_codes_stand_first_and_every_row_says_what_it_was_told(evidence, tmp_path) -> None:
    def change(found: dict) -> None:
        found["rows"] = found["rows"][:3]
        found["told"] = {"mera": "codes, sex"}
        for value, row in enumerate(found["rows"]):
            row["told"] = f"what row {value} is told"
        for part in ("test", "validation"):
            for k in (5, 10, 20):
                found["mera"][part][f"new_only_recall@{k}"] = figure(0.5)
                for row, value in zip(found["rows"], (0.2, 0.4, 0.3), strict=True):
                    row[part]["metrics"][f"new_only_recall@{k}"] = figure(value)
                    row[part]["mera_minus_this"][f"new_only_recall@{k}"] = figure(0.01 if value == 0.4 else 0.5 - value)

    names = [row["name"] for row in evidence("baselines.json", change)["rows"]]
    text = report.run(CHECKPOINT, tmp_path).read_text("utf-8")
    section = text[text.index("## 2.") : text.index("## 3.")]
    new, lists = section.split("**Whole lists**")
    assert new.index("**New codes only**") < new.index("| **MERA** | codes, sex | **50.0 % (48.0 to 52.0)** |")
    rows = [
        new.index(f"| {names[n]} | what row {n} is told | {v} % (") for n, v in ((1, "40.0"), (2, "30.0"), (0, "20.0"))
    ]
    assert rows == sorted(rows)  # the strongest first
    assert f"recall@20, new codes only, test: MERA is above {names[0]} and {names[2]}; level with {names[1]}." in new
    assert "new codes only" not in lists and f"| {names[0]} |" in lists


def test_verdicts_stand_by_their_claims_and_an_unfinished_table_is_told(evidence, tmp_path) -> None:
    def change(found: dict) -> None:
        found["rows"] = found["rows"][:4]
        for row, verdict in zip(found["rows"][1:], ("holds", "does not hold"), strict=False):
            row |= {"verdict": verdict, "claim": f"it {verdict}", "figure": "recall@20", "about": "short"}
            row["test"]["minus_reference"]["recall@20"] = figure(-0.1)
        found["rows"][3] = {"name": "no memorization", "group": "paper", "changes": {}, "not_run": "not run yet"}

    rows = evidence("ablations.json", change)["rows"]
    text = report.run(CHECKPOINT, tmp_path).read_text("utf-8")
    told = f'Row "{rows[1]["name"]}": recall@20 −10.0 (−12.0 to −8.0) (short).'
    assert f"- *holds*: it holds. {told}" in text and "- *does not hold*: it does not hold. Row" in text
    assert "- Not run: no memorization: not run yet." in text and "Of 2 intervals of 95 %" in text
    evidence("ablations.json", lambda found: found["rows"][0].update(not_run="not run yet"))
    assert "The reference row has not been run (not run yet)." in report.run(CHECKPOINT, tmp_path).read_text("utf-8")


def test_figures_in_words() -> None:
    assert percent(figure(0.5)) == "50.0 % (48.0 to 52.0)"
    assert percent({"value": None, "low": None, "high": None}) == "not defined"
    assert points(figure(-0.001, 0.02)) == "−0.1 (−2.1 to +1.9)"
    assert points({"value": 0.0, "low": -0.0, "high": 0.0001}) == "0.0 (0.0 to 0.0)"
    open_ended = {"value": 2.934, "low": None, "high": None}
    assert plain(open_ended) == "2.93" and not significant(open_ended)
    assert significant(figure(0.1)) and not significant(figure(0.01))
    assert listed(["a"]) == "a" and listed(["a", "b", "c"]) == "a, b and c"
    assert above([], "test", "recall@20") == "no other model was run."

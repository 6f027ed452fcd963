"""The evidence's figures as SVG files: JSON of the experiments in, drawings out, the same bytes each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from training.report.text import significant

INK, OURS, THEIRS, GOOD, BAD, QUIET = "#222222", "#0b6e99", "#b0532a", "#2b7a3d", "#a8322d", "#8a8a8a"
plt.rcParams.update(
    {
        "svg.hashsalt": "mera",
        "svg.fonttype": "none",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK,
    }
)


def save(figure: Figure, path: Path) -> None:
    """Write the SVG, without a date in it."""
    figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def calibration(test: dict[str, Any], path: Path) -> None:
    """Predicted probability against the share that came true, for codes with 50 cases or more, and how many pairs."""
    curve = test["reliability_frequent"]
    drawing, (above, below) = plt.subplots(2, 1, figsize=(5, 5.5), height_ratios=(4, 1), sharex=True)
    above.plot([0, 1], [0, 1], color=QUIET, linestyle="--", label="as predicted")
    above.plot(
        [point["predicted"] for point in curve],
        [point["observed"] for point in curve],
        color=OURS,
        marker="o",
        label="observed",
    )
    above.set(ylabel="share that came true", xlim=(0, 1), ylim=(0, 1))
    above.legend(frameon=False)
    below.bar([point["predicted"] for point in curve], [point["n"] for point in curve], width=0.03, color=OURS)
    below.set(yscale="log", xlabel="predicted probability", ylabel="pairs")
    save(drawing, path)


def in_per_cent(figure: dict[str, float | None]) -> tuple[float, float, float]:
    """Value, low and high times 100; without an interval all three are the value, NaN where that is not defined."""
    value = np.nan if figure["value"] is None else figure["value"]
    low, high = (value if figure[key] is None else figure[key] for key in ("low", "high"))
    return 100 * value, 100 * low, 100 * high


def intervals(axes: Axes, names: Sequence[str], figures: Sequence[dict[str, float]], title: str) -> None:
    """Differences in points, one a line, with intervals; those that leave out 0 in colour."""
    axes.axvline(0, color=QUIET, linewidth=1)
    for place, figure in enumerate(figures):
        value, low, high = in_per_cent(figure)
        color = QUIET if not significant(figure) else GOOD if low > 0 else BAD
        axes.plot([low, high], [place, place], color=color, linewidth=2)
        axes.plot(value, place, color=color, marker="o")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(title=title, xlabel="points")


def baselines(found: dict[str, Any], path: Path) -> None:
    """MERA minus each baseline on test patients: recall@20 and weighted F1 of the cut."""
    rows = [row for row in found["rows"] if "not_run" not in row]
    drawing, both = plt.subplots(1, 2, figsize=(10, 0.45 * len(rows) + 1.5), sharey=True)
    for axes, name, title in zip(
        both, ("recall@20", "weighted_f1_cut"), ("recall@20", "weighted F1, own cut"), strict=True
    ):
        differences = [row["test"]["mera_minus_this"][name] for row in rows]
        intervals(axes, [row["name"] for row in rows], differences, f"MERA minus it: {title}")
    save(drawing, path)


def ablations(found: dict[str, Any], path: Path) -> None:
    """Each row minus the reference on test patients: recall@20 and weighted F1 with the oracle cut."""
    rows = [row for row in found["rows"][1:] if "minus_reference" in row.get("test", {})]
    drawing, both = plt.subplots(1, 2, figsize=(10, 0.35 * len(rows) + 1.5), sharey=True)
    shown = (("recall@20", "recall@20"), ("weighted_f1_oracle", "weighted F1, oracle cut"))
    for axes, (name, title) in zip(both, shown, strict=True):
        differences = [row["test"]["minus_reference"][name] for row in rows]
        intervals(axes, [row["name"] for row in rows], differences, f"minus the reference: {title}")
    save(drawing, path)


def question(number: int, found: dict[str, Any], path: Path) -> None:
    """The figure of one open question."""
    {1: _branches, 2: _growth, 3: _order, 4: _travel}[number](found, path)


def _branches(found: dict[str, Any], path: Path) -> None:
    models = [model for model in found["models"] if "minus_reference" in model]
    drawing, both = plt.subplots(1, 2, figsize=(10, 0.5 * len(models) + 1.5), sharey=True)
    for axes, branch, title in zip(both, ("in_branch", "cross_branch"), ("in branch", "across branches"), strict=True):
        differences = [model["minus_reference"][branch] for model in models]
        intervals(
            axes, [model["name"] for model in models], differences, f"new codes {title}, minus {found['reference']}"
        )
    save(drawing, path)


def _growth(found: dict[str, Any], path: Path) -> None:
    drawing, (curves, cost) = plt.subplots(1, 2, figsize=(10, 4))
    for row, color in zip(found["rows"], (OURS, GOOD, THEIRS), strict=False):
        points = row["precision_recall"]
        label = f"{row['labels']:,} labels"
        curves.plot([p["recall"] for p in points], [p["precision"] for p in points], color=color, label=label)
        metrics = row["metrics"]
        curves.plot(metrics["cut_recall"]["value"], metrics["cut_precision"]["value"], color=color, marker="o")
    curves.set(xlabel="recall", ylabel="precision", title="The cut moved up and down; dots: where it is fitted")
    curves.legend(frameon=False)
    labels = [row["labels"] for row in found["rows"]]
    cost.plot(labels, [row["seconds_a_step"] for row in found["rows"]], color=OURS, marker="o", label="seconds a step")
    cost.plot(
        labels,
        [row["peak_memory_gb"] for row in found["rows"]],
        color=THEIRS,
        marker="s",
        label="peak memory in training, GB",
    )
    with_cut = [row["peak_memory_with_cut_gb"] for row in found["rows"]]
    cost.plot(labels, with_cut, color=QUIET, marker="s", linestyle="--", label="peak memory with the cut, GB")
    cost.set(xscale="log", yscale="log", xlabel="labels", title="Cost of training")
    cost.set_xticks(labels, [f"{count:,}" for count in labels])
    cost.set_xticks([], minor=True)
    cost.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    cost.yaxis.set_major_formatter("{x:g}")
    cost.yaxis.set_minor_formatter(NullFormatter())
    cost.legend(frameon=False)
    save(drawing, path)


def _order(found: dict[str, Any], path: Path) -> None:
    drawing, axes = plt.subplots(figsize=(6, 0.45 * len(found["rows"]) + 1.5))
    names, values = [], []
    for row in found["rows"]:
        names.append(row["order"] + ("" if row["head_knows_first_code"] else ", no term"))
        values.append(row["metrics"]["principal_recall@10"])
    _levels(axes, names, values, "recall@10 of the principal diagnosis, %")
    save(drawing, path)


def _travel(found: dict[str, Any], path: Path) -> None:
    done = [row for row in found["rows"] if "not_run" not in row]
    names = [f"{row['source']}: {model['name']}" for row in done for model in row["models"]]
    values = [model["metrics"]["recall@20"] for row in done for model in row["models"]]
    drawing, axes = plt.subplots(figsize=(7, 0.35 * len(names) + 1.5))
    _levels(axes, names, values, "recall@20, %")
    save(drawing, path)


def _levels(axes: Axes, names: Sequence[str], figures: Sequence[dict[str, float]], title: str) -> None:
    """Figures in per cent, one a line, with intervals."""
    for place, figure in enumerate(figures):
        value, low, high = in_per_cent(figure)
        axes.plot([low, high], [place, place], color=OURS, linewidth=2)
        axes.plot(value, place, color=OURS, marker="o")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel=title)

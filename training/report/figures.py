"""The evidence's figures as SVG files: JSON of the experiments in, drawings out, the same bytes each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, NullFormatter

from mera_core.common.formatting import Figure

"""value, and low and high of its 95 % interval; None where it is not defined."""
INK, OURS, THEIRS, GOOD, BAD, QUIET = "#222222", "#0b6e99", "#b0532a", "#2b7a3d", "#a8322d", "#8a8a8a"
STYLE: dict = {"svg.hashsalt": "mera", "svg.fonttype": "none", "font.size": 10, "axes.edgecolor": INK}
plt.rcParams.update(STYLE | {"axes.spines.top": False, "axes.spines.right": False})


def significant(difference: Figure) -> bool:
    """Whether the interval leaves out 0; a difference without an interval shows nothing."""
    low, high = difference["low"], difference["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def save(drawing: Drawing, path: Path) -> None:
    """Write the SVG, without a date in it."""
    drawing.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(drawing)


def calibration(test: dict[str, Any], path: Path) -> None:
    """Predicted probability against the share that came true, for codes with 50 cases or more, and how many pairs."""
    predicted, observed, n = (
        [p[name] for p in test["reliability_frequent"]] for name in ("predicted", "observed", "n")
    )
    drawing, (above, below) = plt.subplots(2, 1, figsize=(5, 5.5), height_ratios=(4, 1), sharex=True)
    above.plot([0, 1], [0, 1], color=QUIET, linestyle="--", label="as predicted")
    above.plot(predicted, observed, color=OURS, marker="o", label="observed")
    above.set(ylabel="share that came true", xlim=(0, 1), ylim=(0, 1))
    above.legend(frameon=False)
    below.bar(predicted, n, width=0.03, color=OURS)
    below.set(yscale="log", xlabel="predicted probability", ylabel="pairs")
    save(drawing, path)


def in_per_cent(figure: Figure) -> tuple[float, float, float]:
    """Value, low and high times 100; without an interval all three are the value, NaN where that is not defined."""
    value = np.nan if figure["value"] is None else figure["value"]
    low, high = (value if figure[key] is None else figure[key] for key in ("low", "high"))
    return 100 * value, 100 * low, 100 * high


def intervals(axes: Axes, named: dict[str, Figure], differences: bool = False, **labels: str) -> None:
    """Figures in per cent, one a line, with intervals; differences that leave out 0 in colour."""
    if differences:
        axes.axvline(0, color=QUIET, linewidth=1)
    for place, figure in enumerate(named.values()):
        value, low, high = in_per_cent(figure)
        color = OURS if not differences else QUIET if not significant(figure) else GOOD if low > 0 else BAD
        axes.plot([low, high], [place, place], color=color, linewidth=2)
        axes.plot(value, place, color=color, marker="o")
    axes.set_yticks(range(len(named)), list(named))
    axes.invert_yaxis()
    axes.set(**labels)


def two_panels(panels: dict[str, dict[str, Figure]], height: float, path: Path) -> None:
    """Differences in points of the same rows in two figures, side by side; panels: title -> row -> difference."""
    drawing, both = plt.subplots(1, 2, figsize=(10, height * len(next(iter(panels.values()))) + 1.5), sharey=True)
    for axes, (title, named) in zip(both, panels.items(), strict=True):
        intervals(axes, named, differences=True, title=title, xlabel="points")
    save(drawing, path)


def one_panel(named: dict[str, Figure], size: tuple[float, float], xlabel: str, path: Path) -> None:
    """Figures in per cent, one a line. size: width, and height of a line, in inches."""
    drawing, axes = plt.subplots(figsize=(size[0], size[1] * len(named) + 1.5))
    intervals(axes, named, xlabel=xlabel)
    save(drawing, path)


def baselines(found: dict[str, Any], path: Path) -> None:
    """MERA minus each baseline on test patients: recall@20 and weighted F1 of the cut."""
    minus = {row["name"]: row["test"]["mera_minus_this"] for row in found["rows"] if "not_run" not in row}
    shown = (("recall@20", "recall@20"), ("weighted_f1_cut", "weighted F1, own cut"))
    two_panels({f"MERA minus it: {title}": _of(minus, name) for name, title in shown}, 0.45, path)


def ablations(found: dict[str, Any], path: Path) -> None:
    """Each row minus the reference on test patients: recall@20 and weighted F1 with the oracle cut."""
    rows = [row for row in found["rows"][1:] if "minus_reference" in row.get("test", {})]
    minus = {row["name"]: row["test"]["minus_reference"] for row in rows}
    shown = (("recall@20", "recall@20"), ("weighted_f1_oracle", "weighted F1, oracle cut"))
    two_panels({f"minus the reference: {title}": _of(minus, name) for name, title in shown}, 0.35, path)


def branches(found: dict[str, Any], path: Path) -> None:
    """Question 1: new codes found in and across branches, each model minus the reference."""
    minus = {model["name"]: model["minus_reference"] for model in found["models"] if "minus_reference" in model}
    shown = (("in_branch", "in branch"), ("cross_branch", "across branches"))
    panels = {f"new codes {title}, minus {found['reference']}": _of(minus, name) for name, title in shown}
    two_panels(panels, 0.5, path)


def _of(rows: dict[str, dict[str, Figure]], name: str) -> dict[str, Figure]:
    return {row: figures[name] for row, figures in rows.items()}


def growth(found: dict[str, Any], path: Path) -> None:
    """Question 2: precision and recall as the cut moves, and what training costs, by size of the label space."""
    drawing, (curves, cost) = plt.subplots(1, 2, figsize=(10, 4))
    for row, color in zip(found["rows"], (OURS, GOOD, THEIRS), strict=False):
        recall, precision = ([point[name] for point in row["precision_recall"]] for name in ("recall", "precision"))
        curves.plot(recall, precision, color=color, label=f"{row['labels']:,} labels")
        cut = (row["metrics"][name]["value"] for name in ("cut_recall", "cut_precision"))
        curves.plot(*cut, color=color, marker="o")
    curves.set(xlabel="recall", ylabel="precision", title="The cut moved up and down; dots: where it is fitted")
    curves.legend(frameon=False)
    labels = [row["labels"] for row in found["rows"]]
    for name, label, form in (
        ("seconds_a_step", "seconds a step", {"color": OURS, "marker": "o"}),
        ("peak_memory_gb", "peak memory in training, GB", {"color": THEIRS, "marker": "s"}),
        ("peak_memory_with_cut_gb", "peak memory with the cut, GB", {"color": QUIET, "marker": "s", "linestyle": "--"}),
    ):
        cost.plot(labels, [row[name] for row in found["rows"]], label=label, **form)
    cost.set(xscale="log", yscale="log", xlabel="labels", title="Cost of training")
    cost.set_xticks(labels, [f"{count:,}" for count in labels])
    cost.set_xticks([], minor=True)
    cost.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    cost.yaxis.set_major_formatter("{x:g}")
    cost.yaxis.set_minor_formatter(NullFormatter())
    cost.legend(frameon=False)
    save(drawing, path)


def order(found: dict[str, Any], path: Path) -> None:
    """Question 3: recall@10 of the principal diagnosis by order of the codes."""
    named = {
        row["order"] + ("" if row["head_knows_first_code"] else ", no term"): row["metrics"]["principal_recall@10"]
        for row in found["rows"]
    }
    one_panel(named, (6, 0.45), "recall@10 of the principal diagnosis, %", path)


def travel(found: dict[str, Any], path: Path) -> None:
    """Question 4: recall@20 of each model on each source."""
    done = [row for row in found["rows"] if "not_run" not in row]
    named = {f"{row['source']}: {one['name']}": one["metrics"]["recall@20"] for row in done for one in row["models"]}
    one_panel(named, (7, 0.35), "recall@20, %", path)


DRAWN = {"baselines": baselines, "ablations": ablations}
DRAWN |= {f"question-{number}": draw for number, draw in enumerate((branches, growth, order, travel), 1)}
"""What draws the figure of a file."""

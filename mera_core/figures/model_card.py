"""Figures of a model card: calibration curve, subgroups with intervals. Pure functions.

Boundary: knows the JSON that `python -m training evaluate` writes into a manifest; no screen, no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from mera_core.figures.style import LISTED, OTHER_COLOUR, escaped, field_colour, layout

_LINE = field_colour("respiratory")


def reliability_curve(curve: Sequence[Mapping[str, float]], of: str = "") -> go.Figure:
    """Probability given against the share that came true, a point a bin, its area as the number of pairs (log scale).

    curve: bins with n, predicted and observed (0 to 1), as `probability_metrics.reliability` makes them. of: whose
    pairs, in words for the title.
    """
    largest = max((point["n"] for point in curve), default=1)
    figure = go.Figure(
        [
            go.Scatter(
                x=[0, 100], y=[0, 100], mode="lines", line={"dash": "dash", "color": OTHER_COLOUR}, hoverinfo="skip",
                name="as it should be",
            ),
            go.Scatter(
                x=[100 * point["predicted"] for point in curve],
                y=[100 * point["observed"] for point in curve],
                mode="lines+markers",
                name="observed",
                line={"color": _LINE},
                marker={"size": [6 + 12 * (point["n"] / largest) ** 0.25 for point in curve], "color": _LINE},
                customdata=[f"{int(point['n']):,}" for point in curve],
                hovertemplate="given %{x:.1f} %, came true %{y:.1f} %<br>%{customdata} patient-code pairs<extra></extra>",
            ),
        ]
    )  # fmt: skip
    figure.update_layout(
        **layout(f"Calibration: {of or 'probability given, and share that came true'}", 380, bottom=45),
        xaxis={"title": {"text": "probability given (%)"}, "range": [0, 100], "fixedrange": True},
        yaxis={"title": {"text": "came true (%)"}, "range": [0, 100], "fixedrange": True, "automargin": True},
    )
    return figure


def subgroup_intervals(
    subgroups: Sequence[Mapping[str, Any]], figure_name: str, overall: Mapping[str, float] | None = None
) -> go.Figure:
    """A figure of each group of patients with its 95 % interval, in percent; a dashed line where all patients are.

    subgroups: name, n and metrics each; groups without the figure are left out. overall: the figure of all.
    """
    shown = [
        (group, value)
        for group in subgroups
        if (value := group["metrics"].get(figure_name)) and value.get("value") is not None
    ]
    names = [escaped(f"{group['name']} (n = {group['n']:,})") for group, _ in shown]
    points = [100 * value["value"] for _, value in shown]
    # An interval of draws need not hold the value itself: an arm of negative length would be refused.
    above = [max(0.0, 100 * value["high"] - point) for (_, value), point in zip(shown, points, strict=True)]
    below = [max(0.0, point - 100 * value["low"]) for (_, value), point in zip(shown, points, strict=True)]
    figure = go.Figure(
        go.Scatter(
            x=points,
            y=names,
            mode="markers",
            marker={"size": 9, "color": _LINE},
            error_x={"type": "data", "array": above, "arrayminus": below, "color": _LINE},
            hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
        )
    )
    if overall and overall.get("value") is not None:
        figure.add_vline(x=100 * overall["value"], line={"dash": "dash", "color": OTHER_COLOUR})
    figure.update_layout(
        **layout(f"{figure_name} by group of patients, %", 110 + 26 * max(len(shown), 3), bottom=30),
        xaxis={"fixedrange": True, "rangemode": "tozero"},
        yaxis=LISTED,
    )
    return figure

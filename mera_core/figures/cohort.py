"""A scored cohort as Plotly figures: chapters before and after, new predictions, how many codes. Pure functions.

Boundary: knows the tables of `cohort.CohortScoring`, no patients, no screen and no model.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mera_core.common.formatting import percent
from mera_core.figures.style import escaped, field_colour, layout, shortened, wrapped
from mera_core.icd.chapters import chapter_colour

_BARE = {"visible": False, "fixedrange": True}


def chapter_distribution(chapters: pd.DataFrame, largest: int = 14) -> go.Figure:
    """Bars per medical field, in percent: ranking mass for the next visits (filled), codes of the histories (outline).

    chapters: as `CohortScoring.chapters` gives it. Fields beyond the `largest` by mass are counted in a line below.
    """
    shown, rest = chapters.head(largest), chapters.iloc[largest:]
    names = [escaped(name) for name in shown["name"]]
    colours = [field_colour(field) for field in shown["field"]]
    figure = go.Figure(
        [
            go.Bar(
                name="Next visits: share of ranking mass",
                y=names,
                x=(100 * shown["mass"]).tolist(),
                orientation="h",
                marker={"color": colours},
                text=[percent(share) for share in shown["mass"]],
                textposition="outside",
                cliponaxis=False,
                hovertemplate="%{y}: %{text} of the ranking mass<extra></extra>",
            ),
            go.Bar(
                name="Histories: share of codes",
                y=names,
                x=(100 * shown["past"]).tolist(),
                orientation="h",
                marker={"color": "rgba(127,127,127,0.15)", "line": {"color": colours, "width": 1.5}},
                text=[percent(share) for share in shown["past"]],
                textposition="outside",
                cliponaxis=False,
                hovertemplate="%{y}: %{text} of the codes in the histories<extra></extra>",
            ),
        ]
    )
    longest = float(shown[["mass", "past"]].to_numpy().max(initial=0.0))
    figure.update_layout(
        **layout("Chapters: the histories, and where the rankings point", 120 + 40 * max(len(shown), 3)),
        barmode="group",
        bargap=0.25,
        legend={"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0, "traceorder": "normal"},
        xaxis=_BARE | {"range": [0, 120 * longest or 1]},
        yaxis={"autorange": "reversed", "automargin": True, "fixedrange": True},
    )
    if len(rest):
        _below(figure, f"and {len(rest)} more with {percent(float(rest['mass'].sum()))} of the mass together")
    return figure


def new_prediction_bars(new: pd.DataFrame) -> go.Figure:
    """Bars of the codes most often predicted for patients who never had them, by number of patients.

    new: as `CohortScoring.new_predictions` gives it.
    """
    keys = [str(code) for code in new["code"]]
    figure = go.Figure(
        go.Bar(
            x=new["patients"].tolist(),
            y=keys,
            orientation="h",
            marker={"color": [chapter_colour(code) for code in new["code"]]},
            text=[f"{count:,}" for count in new["patients"]],  # short: it stands beside a bar on a phone
            textposition="outside",
            cliponaxis=False,
            customdata=[
                [wrapped(definition), percent(share)]
                for definition, share in zip(new["definition"], new["share"], strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>%{text} patients (%{customdata[1]})<extra></extra>",
        )
    )
    longest = int(new["patients"].max()) if len(new) else 1
    labels = [
        escaped(f"{code.code}  {shortened(definition, 30)}")
        for code, definition in zip(new["code"], new["definition"], strict=True)
    ]
    figure.update_layout(
        **layout("Most frequent new predictions, in patients", 90 + 28 * max(len(new), 3)),
        bargap=0.25,
        showlegend=False,
        xaxis=_BARE | {"range": [0, 1.3 * longest]},
        yaxis={
            "autorange": "reversed",
            "automargin": True,
            "fixedrange": True,
            "tickmode": "array",
            "tickvals": keys,
            "ticktext": labels,
        },
    )
    return figure


def predicted_sizes(sizes: np.ndarray, largest: int = 15) -> go.Figure:
    """Patients by how many codes are predicted for them; `largest` and more share the last bar."""
    table = sizes_frame(sizes, largest)
    ticks, counts = table["codes predicted"].tolist(), table["patients"].to_numpy()
    figure = go.Figure(
        go.Bar(
            x=ticks,
            y=counts.tolist(),
            marker={"color": field_colour("respiratory")},
            text=[f"{count:,}" if count else "" for count in counts],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{x} codes: %{y:,} patients<extra></extra>",
        )
    )
    figure.update_layout(
        **layout("How many codes are predicted for a patient", 280),
        showlegend=False,
        xaxis={"type": "category", "title": {"text": "codes predicted"}, "fixedrange": True},
        yaxis=_BARE | {"range": [0, 1.15 * int(counts.max(initial=1))]},
    )
    figure.update_layout(margin_b=40)
    return figure


def sizes_frame(sizes: np.ndarray, largest: int = 15) -> pd.DataFrame:
    """The numbers of `predicted_sizes`: codes predicted in words, patients."""
    counts = np.bincount(np.minimum(sizes, largest), minlength=1)
    ticks = [f"{size}{' or more' if size == largest else ''}" for size in range(len(counts))]
    return pd.DataFrame({"codes predicted": ticks, "patients": counts})


def _below(figure: go.Figure, words: str) -> None:
    figure.add_annotation(
        text=words, xref="paper", yref="paper", x=1, y=0, yshift=-14, xanchor="right", showarrow=False
    )

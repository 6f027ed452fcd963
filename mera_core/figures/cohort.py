"""A scored cohort as Plotly figures: chapters before and after, new predictions, how many codes. Pure functions.

Boundary: knows the tables of `cohort.CohortScoring`, no patients, no screen and no model.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mera_core.common.formatting import percent
from mera_core.figures import style
from mera_core.figures.style import escaped, field_colour, horizontal, layout, listed, shortened, wrapped
from mera_core.icd.chapters import chapter_colour


def chapter_distribution(chapters: pd.DataFrame, largest: int = 14) -> go.Figure:
    """Bars per medical field, in percent: ranking mass for the next visits (filled), codes of the histories (outline).

    chapters: as `CohortScoring.chapters` gives it. Fields beyond the `largest` by mass are counted in a line below.
    """
    shown, rest = chapters.head(largest), chapters.iloc[largest:]
    names = [escaped(name) for name in shown["name"]]
    colours = [field_colour(field) for field in shown["field"]]
    outline = {"color": "rgba(127,127,127,0.15)", "line": {"color": colours, "width": 1.5}}
    bars = [
        horizontal(
            100 * shown[column],
            names,
            colours,
            f"%{{y}}: %{{text}} of the {of}",
            name=name,
            text=[percent(share) for share in shown[column]],
            **look,
        )
        for column, name, of, look in (
            ("mass", "Next visits: share of ranking mass", "ranking mass", {}),
            ("past", "Histories: share of codes", "codes in the histories", {"marker": outline}),
        )
    ]
    longest = float(shown[["mass", "past"]].to_numpy().max(initial=0.0))
    figure = go.Figure(
        bars,
        {
            **layout("Chapters: the histories, and where the rankings point", 120 + 40 * max(len(shown), 3)),
            "showlegend": True,
            "barmode": "group",
            "bargap": 0.25,
            "legend": {"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0, "traceorder": "normal"},
            "xaxis": style.BARE | {"range": [0, 120 * longest or 1]},
            "yaxis": style.LISTED,
        },
    )
    if len(rest):
        share = percent(float(rest["mass"].sum()))
        style.note_below(figure, f"and {len(rest)} more with {share} of the mass together", -14)
    return figure


def new_prediction_bars(new: pd.DataFrame) -> go.Figure:
    """Bars of the codes most often predicted for patients who never had them, by number of patients.

    new: as `CohortScoring.new_predictions` gives it.
    """
    bars = horizontal(
        new["patients"].tolist(),
        [str(code) for code in new["code"]],
        [chapter_colour(code) for code in new["code"]],
        "%{customdata[0]}<br>%{text} patients (%{customdata[1]})",
        text=[f"{count:,}" for count in new["patients"]],  # short: it stands beside a bar on a phone
        customdata=[
            [wrapped(words), percent(share)] for words, share in zip(new["definition"], new["share"], strict=True)
        ],
    )
    names = [
        escaped(f"{code.code}  {shortened(definition, 30)}")
        for code, definition in zip(new["code"], new["definition"], strict=True)
    ]
    longest = int(new["patients"].max()) if len(new) else 1
    return listed(bars, names, "Most frequent new predictions, in patients", 1.3 * longest)


def predicted_sizes(sizes: np.ndarray, largest: int = 15) -> go.Figure:
    """Patients by how many codes are predicted for them; `largest` and more share the last bar."""
    table = sizes_frame(sizes, largest)
    counts = table["patients"].to_numpy()
    bars = go.Bar(
        x=table["codes predicted"].tolist(),
        y=counts.tolist(),
        marker={"color": field_colour("respiratory")},
        text=[f"{count:,}" if count else "" for count in counts],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{x} codes: %{y:,} patients<extra></extra>",
    )
    axes = {
        "xaxis": {"type": "category", "title": {"text": "codes predicted"}, "fixedrange": True},
        "yaxis": style.BARE | {"range": [0, 1.15 * int(counts.max(initial=1))]},
    }
    return go.Figure(bars, layout("How many codes are predicted for a patient", 280, bottom=40) | axes)


def sizes_frame(sizes: np.ndarray, largest: int = 15) -> pd.DataFrame:
    """The numbers of `predicted_sizes`: codes predicted in words, patients."""
    counts = np.bincount(np.minimum(sizes, largest), minlength=1)
    ticks = [f"{size}{' or more' if size == largest else ''}" for size in range(len(counts))]
    return pd.DataFrame({"codes predicted": ticks, "patients": counts})

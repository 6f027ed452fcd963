"""What all charts share: the layout, how text is shortened and escaped. Knows no ranking."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from mera_core.icd.chapters import FIELDS

PLOTLY_CONFIG = {"showSendToCloud": False, "displaylogo": False, "displayModeBar": False, "responsive": True}
OTHER_COLOUR = "#7f7f7f"


def field_colour(field: str) -> str:
    """The colour of a medical field; grey for what is none."""
    return FIELDS[field][1] if field in FIELDS else OTHER_COLOUR


def escaped(text: str) -> str:
    """Text that Plotly shows as it stands: it reads tags and entities."""
    return html.escape(text, quote=False)


def wrapped(text: str, width: int = 48) -> str:
    """Text in lines, for what appears under the pointer."""
    return "<br>".join(escaped(line) for line in textwrap.wrap(text, width))


def shortened(text: str, width: int) -> str:
    """Text of at most `width` characters, with an ellipsis where it is cut."""
    return text if len(text) <= width else text[: width - 1].rstrip(" ,") + "…"


def layout(title: str, height: int, top: int = 40, bottom: int = 4) -> dict[str, Any]:
    """Title, height in pixels and margins of a chart, for `go.Figure(layout=...)`: changing a figure later takes longer."""
    return {
        "title": {"text": escaped(title), "font": {"size": 15}, "x": 0, "xanchor": "left"},
        "height": height,
        "margin": {"l": 0, "r": 0, "t": top, "b": bottom},
    }


def share_bars(
    shares: Sequence[float], keys: Sequence[str], names: Sequence[str], title: str, **trace: Any
) -> go.Figure:
    """Horizontal bars of shares (0 to 1) in percent, the first on top, with room for the text behind each.

    keys: one of each bar, unlike any other. names: written beside them. trace: further arguments of `go.Bar`.
    """
    bars = go.Bar(
        x=[100 * share for share in shares],
        y=list(keys),
        orientation="h",
        textposition="outside",
        cliponaxis=False,
        **trace,
    )
    return go.Figure(
        bars,
        {
            **layout(title, 90 + 28 * max(len(keys), 3), bottom=34),
            "bargap": 0.25,
            "showlegend": False,
            "xaxis": {"visible": False, "range": [0, 118 * max(shares, default=0.0) or 1], "fixedrange": True},
            "yaxis": {
                "autorange": "reversed",
                "automargin": True,
                "fixedrange": True,
                "tickmode": "array",
                "tickvals": list(keys),
                "ticktext": [escaped(name) for name in names],
            },
        },
    )

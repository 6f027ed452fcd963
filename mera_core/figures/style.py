"""What all charts share: layout, axes, bars, how text is shortened and escaped. Knows no ranking."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from mera_core.icd.chapters import FIELDS

PLOTLY_CONFIG = {"showSendToCloud": False, "displaylogo": False, "displayModeBar": False, "responsive": True}
OTHER_COLOUR = "#7f7f7f"
LISTED = {"autorange": "reversed", "automargin": True, "fixedrange": True}
"""An axis of names, the first on top."""
BARE = {"visible": False, "fixedrange": True}
"""An axis that is not drawn: each bar has its number beside it."""
LEGIBLE = {"minsize": 9, "mode": "hide"}
"""For `layout.uniformtext`: text that does not fit is left out."""


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
        "showlegend": False,
    }


def named(keys: Iterable[str], names: Iterable[str]) -> dict[str, Any]:
    """An axis of names, the first on top. keys: one of each bar, unlike any other. names: as Plotly reads them."""
    return LISTED | {"tickmode": "array", "tickvals": list(keys), "ticktext": list(names)}


def horizontal(
    values: Iterable[float], keys: Iterable[str], colours: Sequence[str], hover: str, **trace: Any
) -> go.Bar:
    """Horizontal bars with room for the text behind each. trace: further arguments of `go.Bar`."""
    look = {
        "orientation": "h",
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": f"{hover}<extra></extra>",
    }
    return go.Bar(x=list(values), y=list(keys), **look, **{"marker": {"color": colours}, **trace})


def listed(bars: go.Bar, names: Iterable[str], title: str, longest: float, bottom: int = 4) -> go.Figure:
    """A figure of `horizontal` bars with a name beside each. longest: the axis's end, in the bars' units."""
    rows = max(len(bars.y), 3)
    axes = {"xaxis": BARE | {"range": [0, longest]}, "yaxis": named(bars.y, names)}
    return go.Figure(bars, {**layout(title, 90 + 28 * rows, bottom=bottom), "bargap": 0.25, **axes})


def share_bars(
    shares: Sequence[float], keys: Sequence[str], names: Sequence[str], title: str, **trace: Any
) -> go.Figure:
    """Bars of shares (0 to 1) in percent, the first on top. trace: colours, hover and further arguments of `horizontal`."""
    bars = horizontal([100 * share for share in shares], keys, **trace)
    return listed(bars, map(escaped, names), title, 118 * max(shares, default=0.0) or 1, 34)


def note_below(figure: go.Figure, words: str, shift: int = -26) -> None:
    """Words under the right end of the horizontal axis, `shift` pixels from it."""
    where = {"xref": "paper", "yref": "paper", "x": 1, "y": 0, "yshift": shift, "xanchor": "right"}
    figure.add_annotation(text=words, showarrow=False, **where)

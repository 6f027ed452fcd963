"""What all charts share: the layout, how text is shortened and escaped, how a share is said. Knows no ranking."""

from __future__ import annotations

import html
import textwrap
from typing import Any

from mera_core.chapters import FIELDS

PLOTLY_CONFIG = {"showSendToCloud": False, "displaylogo": False, "displayModeBar": False, "responsive": True}
OTHER_COLOUR = "#7f7f7f"
MINUS = "−"


def field_colour(field: str) -> str:
    """The colour of a medical field; grey for what is none."""
    return FIELDS[field][1] if field in FIELDS else OTHER_COLOUR


def percent(share: float) -> str:
    """A share in words: '12 %', '3.4 %', 'below 0.1 %'."""
    if share < 0.001:
        return "below 0.1 %" if share > 0 else "0 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign: '+3.2', '−0.4'; '0' for what rounds to nothing.

    >>> signed(3.21), signed(-0.44), signed(0.01)
    ('+3.2', '−0.4', '0')
    """
    rounded = round(value, digits)
    if rounded == 0:
        return "0"
    return f"{'+' if rounded > 0 else MINUS}{abs(rounded):.{digits}f}"


def counted(count: int, noun: str, nouns: str = "") -> str:
    """A number with its noun; nouns: of several, where that is not the noun with an s.

    >>> counted(1, "code"), counted(2400, "code"), counted(0, "category", "categories")
    ('1 code', '2,400 codes', '0 categories')
    """
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


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

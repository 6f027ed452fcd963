"""Numbers as people read them: a share, a difference, a count with its noun. Knows nothing of what is counted."""

from __future__ import annotations

from collections.abc import Mapping

MINUS = "−"
Figure = Mapping[str, float | None]


def percent(share: float) -> str:
    """A share in words: '12 %', '3.4 %', 'below 0.1 %'."""
    if share < 0.001:
        return "below 0.1 %" if share > 0 else "0 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def with_interval(figure: Figure, scale: float = 1, digits: int = 2, unit: str = "", sign: str = "") -> str:
    """A figure (value, and low and high where it has them) with its 95 % interval; sign: "+" for a difference.

    >>> with_interval({"value": 0.621, "low": 0.606, "high": 0.635}, 100, 1, " %")
    '62.1 % (60.6 to 63.5)'
    """
    if figure["value"] is None:
        return "not defined"

    def number(value: float) -> str:
        text = f"{scale * value:{sign}.{digits}f}"
        return text.lstrip("+-") if float(text) == 0 else text.replace("-", MINUS)

    value = number(figure["value"]) + unit
    if figure.get("low") is None or figure.get("high") is None:
        return value
    return f"{value} ({number(figure['low'])} to {number(figure['high'])})"


def share_words(figure: Figure, digits: int = 1) -> str:
    """A share in per cent with its interval."""
    return with_interval(figure, 100, digits, " %")


def difference_words(figure: Figure, digits: int = 1) -> str:
    """A difference of shares in points, signed, with its interval."""
    return with_interval(figure, 100, digits, "", "+")


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


def records_counted(patients: int, visits: int, codes: int) -> str:
    """How much of a data set there is.

    >>> records_counted(1, 2, 1200)
    '1 patient, 2 visits, 1,200 codes'
    """
    return ", ".join(
        counted(count, noun) for count, noun in ((patients, "patient"), (visits, "visit"), (codes, "code"))
    )

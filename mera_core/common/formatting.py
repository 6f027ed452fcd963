"""Numbers as people read them: a share, a difference, a count with its noun. Knows nothing of what is counted."""

from __future__ import annotations

MINUS = "−"


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


def records_counted(patients: int, visits: int, codes: int) -> str:
    """How much of a data set there is.

    >>> records_counted(1, 2, 1200)
    '1 patient, 2 visits, 1,200 codes'
    """
    return ", ".join(
        counted(count, noun) for count, noun in ((patients, "patient"), (visits, "visit"), (codes, "code"))
    )

"""The style rules of the app: `style.css`, and each medical field's colour as `mera_core.icd.chapters` has it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mera_core.icd.chapters import FIELDS


@cache
def stylesheet() -> str:
    """CSS text: the app's rules, and the chapter colours on the left edge of chips and search results."""
    rules = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    edges = (
        f'[class*="st-key-chip_{field}_"] button, [class*="st-key-found_{field}_"] button'
        f" {{ border-left-color: {colour}; }}"
        for field, (_, colour) in FIELDS.items()
    )
    return rules + "\n".join(edges)

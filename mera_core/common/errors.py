"""What a user can mend. Every message is one plain sentence that says what is wrong and where."""

from __future__ import annotations

from typing import Any


class InputError(ValueError):
    """Input that can't be used as it is; `str(error)` is shown to the user as it stands."""


def shown(value: Any) -> str:
    """What stands there, short enough for a sentence."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    return repr(shortened(value)) if isinstance(value, str) else shortened(repr(value))


def shortened(text: str) -> str:
    """At most 60 characters of a text."""
    return text if len(text) <= 60 else text[:59] + "…"

"""MERA's engine: a patient's history becomes tokens, one forward pass becomes a ranking, a ranking becomes a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit

if TYPE_CHECKING:
    from mera_core.engine import Engine

__all__ = ["Engine", "InputError", "Patient", "Visit"]


def __getattr__(name: str):
    """`Engine` is imported when first asked for: it brings torch, which reading a table does not need."""
    if name == "Engine":
        from mera_core.engine import Engine

        return Engine
    raise AttributeError(f"module 'mera_core' has no attribute {name!r}")

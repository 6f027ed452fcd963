"""Figures of a finished run in a file, with every bootstrap draw, so that differences can still be paired later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mera_core.resampling import Estimate, estimate


def save_figures(path: Path, figures: Mapping[str, Estimate], **numbers: float) -> None:
    """Write figures, and plain numbers beside them, whole or not at all."""
    parts = {f"{name}|{what}": getattr(one, what) for name, one in figures.items() for what in ("value", "draws")}
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **parts, **{f"{name}|number": value for name, value in numbers.items()})
    partial.replace(path)


def load_figures(path: Path) -> tuple[dict[str, Estimate], dict[str, float]] | None:
    """What `save_figures` wrote: figures and numbers; None where the run has not been finished."""
    if not path.is_file():
        return None
    with np.load(path) as stored:
        numbers = {key.removesuffix("|number"): stored[key].item() for key in stored.files if key.endswith("|number")}
        names = [key.removesuffix("|value") for key in stored.files if key.endswith("|value")]
        return {name: estimate(stored[f"{name}|value"].item(), stored[f"{name}|draws"]) for name in names}, numbers

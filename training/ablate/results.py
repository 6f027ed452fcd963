"""Figures of a finished run in a file, with every bootstrap draw, so that differences can still be paired later; and
which process may work on one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mera_core.evaluation.bootstrap import Estimate, estimate

try:
    import fcntl
except ImportError:  # Windows: one process at a time
    fcntl = None  # type: ignore[assignment]


@contextmanager
def claimed(path: Path, wait: bool = False) -> Iterator[bool]:
    """Whether this process has `path` to itself while the block runs: a lock that goes with its process.

    wait: until another process lets go of it, and then True.
    """
    if fcntl is None:
        yield True
        return
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def rounded(one: Estimate) -> Estimate:
    """A figure with its draws in half the space, as it is kept: precise enough for an interval."""
    return estimate(one.value, one.draws.astype(np.float32))


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

"""Figures of a finished run in a file, with every bootstrap draw, so that differences can still be paired later; their
means over seeds; and which process may work on one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from mera_core.common.files import written_whole
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap, Estimate, estimate, over_seeds
from mera_core.evaluation.truth import Truth

try:
    import fcntl
except ImportError:  # Windows: one process at a time
    fcntl = None  # type: ignore[assignment]

Figures = Mapping[str, Estimate]


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


def figures_of(
    scores: np.ndarray, truth: Truth, bootstrap: Bootstrap, sets: sparse.csr_matrix | None, ks: Sequence[int]
) -> dict[str, Estimate]:
    """Every figure of a ranking but the areas, and recall@20 of recurrent codes and of new onsets."""
    found = metrics.evaluate_ranking(scores, truth, sets, ks=ks, bootstrap=bootstrap, areas=False)
    groups = {f"{group}_recall@20": getattr(found, group)["recall@20"] for group in ("recurrent", "new_onset")}
    return found.metrics | groups


def means(runs: Sequence[Figures]) -> dict[str, Estimate]:
    """Each figure, averaged over runs of one method with different seeds."""
    return {name: over_seeds([one[name] for one in runs]) for name in runs[0]}


def mean_differences(ours: Sequence[Figures], theirs: Sequence[Figures]) -> dict[str, Estimate]:
    """Ours minus theirs of each figure: paired by patient and by seed, then averaged over seeds."""
    return means([{name: a[name].minus(b[name]) for name in a} for a, b in zip(ours, theirs, strict=True)])


def as_json(figures: Figures) -> dict[str, dict[str, float | None]]:
    """JSON-ready figures."""
    return {name: one.to_dict() for name, one in figures.items()}


def rounded(one: Estimate) -> Estimate:
    """A figure with its draws in half the space, as it is kept: precise enough for an interval."""
    return estimate(one.value, one.draws.astype(np.float32))


def save_figures(path: Path, figures: Figures, **numbers: float) -> None:
    """Write figures, and plain numbers beside them, whole or not at all."""
    parts: dict = {f"{name}|{what}": getattr(one, what) for name, one in figures.items() for what in ("value", "draws")}
    partial = path.with_suffix(".partial.npz")
    parts |= {f"{name}|number": value for name, value in numbers.items()}
    np.savez_compressed(partial, **parts)
    partial.replace(path)


def load_figures(path: Path) -> tuple[dict[str, Estimate], dict[str, float]] | None:
    """What `save_figures` wrote: figures and numbers; None where the run has not been finished."""
    if not path.is_file():
        return None
    with np.load(path) as stored:
        numbers = {key.removesuffix("|number"): stored[key].item() for key in stored.files if key.endswith("|number")}
        names = [key.removesuffix("|value") for key in stored.files if key.endswith("|value")]
        return {name: estimate(stored[f"{name}|value"].item(), stored[f"{name}|draws"]) for name in names}, numbers


def write_json(path: Path, value: Any) -> None:
    """Write a result, whole or not at all."""
    with written_whole(path, folder=False) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def slug(name: str) -> str:
    """A row's name as part of a file's: "no level 0" -> "no-level-0"."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())

"""`python -m training benchmark`: how long things take and how much memory, each beside its alternative in the same run.

A section is a module of this folder, with its line in SECTIONS, a `TITLE` and `measure(setting)`, which yields one row a
figure (`training.benchmark.rows`). It raises InputError for what can't be measured here (no GPU, no data).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mera_core.common.errors import InputError
from training.ablate.results import write_json
from training.benchmark.machine import machine
from training.benchmark.rows import Row, Setting

__all__ = ["SECTIONS", "Row", "Setting", "run"]

SECTIONS: dict[str, str] = {  # name -> module with TITLE and measure(setting)
    "train": "training.benchmark.train_step",
    "serve": "training.benchmark.serve",
    "precision": "training.benchmark.precisions",
    "score": "training.benchmark.score",
    "gpu": "training.benchmark.gpu_7b",
}


def run(
    names: Sequence[str],
    setting: Setting,
    out: Path | None = None,
    tell: Callable[[Row], None] = lambda row: None,
) -> Iterator[dict[str, Any]]:
    """The result of each section in turn; benchmark-<section>.json in `out` is written anew with each row.

    `complete` in the file says whether the section came to its end. tell: called with each row as it comes. Raises
    InputError for an unknown section and a missing folder.
    """
    unknown = [name for name in names if name not in SECTIONS]
    if unknown or not names:
        raise InputError(f"There is no benchmark section {', '.join(unknown)!r}; there are {', '.join(SECTIONS)}.")
    if out is not None and not out.is_dir():
        raise InputError(f"There is no folder {out} to write the figures into.")
    for name in names:
        section = import_module(SECTIONS[name])
        result = {"section": name, "title": section.TITLE, "quick": setting.quick, "complete": False}
        result |= {"machine": machine(), "rows": []}
        for row in section.measure(setting):
            result["rows"].append(row)
            _write(result, out)
            tell(row)
        result["complete"] = True
        _write(result, out)
        yield result


def _write(result: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        write_json(out / f"benchmark-{result['section']}.json", result)

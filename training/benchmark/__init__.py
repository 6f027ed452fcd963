"""`python -m training benchmark`: how long things take and how much memory, each beside its alternative in the same run.

A section is a module of this folder (or elsewhere) with its line in SECTIONS and two names:

    TITLE = "Importing tables of MIMIC-IV's size"
    def measure(setting: Setting) -> Iterator[Row]: ...

`measure` yields one plain dict a figure, best made by `row` (see `training.benchmark.rows`):

    yield row("convert to parquet", seconds, "s", against="a bare scan", theirs=other_seconds, rows=6_400_000)

where `seconds` and `other_seconds` are PAIRED runs (`rows.paired` makes them, in turn and in alternating order): the figure
is their median, the ratio the median of the ratios of each pair. Further keys are plain numbers, texts or booleans; no
host names, no paths: `run` refuses a row that holds one. `setting.quick` asks for a size that takes seconds, to see that the
section works; its figures are never evidence. What needs a process of its own (memory, import time, a framework that must
not share a process) uses `processes.child`. Raise InputError for what can't be measured here (no GPU, no data).

`run` writes benchmark-<section>.json anew with each row, so that a machine that is stopped loses one figure and not all:
title, rows, the machine in general terms, and whether the section came to its end (`complete`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mera_core.common.errors import InputError
from mera_core.common.files import written_whole
from training.benchmark.machine import machine
from training.benchmark.rows import Row, Setting, checked

__all__ = ["SECTIONS", "Row", "Setting", "run"]

SECTIONS: dict[str, str] = {  # name -> module with TITLE and measure(setting)
    "import": "training.benchmark.importing",
    "app": "training.benchmark.app",
    "train": "training.benchmark.train_step",
    "forms": "training.benchmark.sample_forms",
    "labels": "training.benchmark.large_labels",
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
    """The result of each section in the order given, as its file has it, which is written with every row.

    out: folder of benchmark-<section>.json; None writes nothing. tell: called with each row as it comes.
    Raises InputError for an unknown section before anything is measured, for a missing folder, and for a row that is not
    fit to be published.
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
            result["rows"].append(checked(row, name))
            _write(result, out)
            tell(row)
        result["complete"] = True
        _write(result, out)
        yield result


def _write(result: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        with written_whole(out / f"benchmark-{result['section']}.json", folder=False) as part:
            part.write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")

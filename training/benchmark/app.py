"""How long the app keeps a reader waiting: page by click, explanation, type-ahead, start. Asks a driver, imports no app."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from training.benchmark.processes import child
from training.benchmark.rows import Row, Setting, paired, percentile, row

TITLE = "The app: from a click to the page, server time"
_LOAD = "from mera_core import Engine; Engine.load()"
_RERUN = "the same page run again without a click"
_FIGURES = {
    "click_why": ("click on a code to the new list and the why chart", _RERUN),
    "click_map": ("click on a code to the new list and the code book map", _RERUN),
    "click_what_if": ("click on a code to the new list and the what-if panel", _RERUN),
    "why_of_10_codes": ("explain a ranking: leave one out, 10 codes in 3 visits, in a batch", "the same one by one"),
    "type_ahead": ("type-ahead over both code books", "looking for the words in every title"),
    "type_ahead_misspelt": (
        "type-ahead with a word misspelt",
        "looking for the words in every title, which finds none",
    ),
}


def measure(setting: Setting) -> Iterator[Row]:
    """Milliseconds, with the 95th percentile; the start of the engine in a process that has loaded nothing."""

    def loaded() -> float:
        return 1000 * child([sys.executable, "-c", _LOAD]).seconds

    def bare() -> float:
        return 1000 * child([sys.executable, "-c", "import torch, transformers"]).seconds

    ours, theirs = paired(loaded, bare, setting.times(5))
    yield row(
        "start: load the bundled checkpoint in a new process", ours, "ms", "importing torch and transformers", theirs
    )
    runs = str(setting.times(40, quick=2))
    done = child([sys.executable, "-m", "training.benchmark.app_driver", runs])
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    for name, (what, against) in _FIGURES.items():
        ours, theirs = ([1000 * each for each in side] for side in figures[name])
        yield row(what, ours, "ms", against, theirs, p95=percentile(ours, 95))

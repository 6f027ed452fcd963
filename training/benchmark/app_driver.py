"""How long the app keeps a reader waiting: page by click, explanation, type-ahead, start.

Clicks go through the real app, in this process and without a browser. Server time: from the click to the last element of
the page handed over, by Streamlit's own AppTest, so without the network and the browser's drawing. The first run of a
page, which loads the model, is left out.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from itertools import tee
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from mera_core.engine import Engine
from mera_core.explain import leave_one_out
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import SYSTEMS, Ontology
from mera_core.icd.search import search
from training.benchmark.machine import child
from training.benchmark.rows import Row, Setting, Timed, paired, row, seconds, short

TITLE = "The app: from a click to the page, server time"
ROOT = Path(__file__).resolve().parents[2]
PANELS = {"Why": "why chart", "Chapters": "code set map", "What if": "what-if panel"}
Pair = tuple[Timed, Timed]


def measure(setting: Setting) -> Iterator[Row]:
    """Milliseconds, with the 95th percentile; the start of the engine in a process that has loaded nothing."""

    def started(script: str) -> Timed:
        return lambda: 1000 * child([sys.executable, "-c", script]).seconds

    load, bare = started("from mera_core import Engine; Engine.load()"), started("import torch, transformers")
    took = paired(load, bare, setting.times(5))
    yield row("start: load the bundled checkpoint in a new process", "ms", "importing torch and transformers", *took)
    runs = setting.times(40, quick=2)
    for panel, shown in PANELS.items():
        what = f"click on a code to the new list and the {shown}"
        yield _row(what, click(panel), "the same page run again without a click", runs, 1)
    what = "explain a ranking: leave one out, 10 codes in 3 visits, in a batch"
    yield _row(what, why(), "the same one by one", runs, 1)
    against = "looking for the words in every title"
    yield _row("type-ahead over both code sets", type_ahead(beginning), against, 10 * runs, 2)
    misspelling = type_ahead(misspelt)
    yield _row("type-ahead with a word misspelt", misspelling, f"{against}, which finds none", 10 * runs, 2)


def _row(what: str, pair: Pair, against: str, runs: int, warm: int) -> Row:
    took, theirs = ([1000 * one for one in side] for side in paired(*pair, runs, warm))
    return row(what, "ms", against, took, theirs, p95=short(np.percentile(took, 95, method="inverted_cdf")))


def click(panel: str) -> Pair:
    """Predict with a panel open: a click on a code that is then ranked without, or on Undo; beside a rerun without a click."""
    app = AppTest.from_file(ROOT / "app.py", default_timeout=60).switch_page("pages/1_Predict.py")
    app.query_params["demo"] = "demo-heart-failure"
    app.session_state["panel"] = panel
    app.run()
    app.run()
    draw = random.Random(1)

    def step() -> float:
        chips = [each for each in app.button if (each.key or "").startswith("chip_")]
        press = draw.choice(chips)
        undo = next(each for each in app.button if each.label == "Undo")
        press = undo if len(chips) < 4 and not undo.disabled else press
        app.session_state["rankings"] = []  # nothing is ranked before it is asked for
        app.session_state["sensitivity"] = None
        taken = seconds(press.click().run)
        assert not app.exception
        assert len(app.get("plotly_chart")) == (panel != "What if")
        return taken

    return step, lambda: seconds(app.run)


def why() -> Pair:
    """Leave-one-out of a history of ten codes in three visits; beside ranking the shortened histories one by one."""
    engine, draw = Engine.load(), random.Random(2)

    def patient() -> Patient:
        codes = draw.sample(engine.label_space, 10)
        return Patient((Visit(codes[:3], age=60), Visit(codes[3:6], age=61), Visit(codes[6:], age=62)), sex="M", age=62)

    def one_by_one(whole: Patient) -> None:
        visits = whole.visits
        shorter = [visits, *(visits[:place] + visits[place + 1 :] for place in range(len(visits)))]
        for place, visit in enumerate(visits):
            for i in range(len(visit.codes)):
                rest = Visit(visit.codes[:i] + visit.codes[i + 1 :], age=visit.age)
                shorter.append((*visits[:place], rest, *visits[place + 1 :]))
        for each in shorter:
            engine.rank(Patient(each, sex=whole.sex, age=whole.age))

    ours, theirs = tee(iter(patient, None))
    return lambda: seconds(leave_one_out, engine, next(ours)), lambda: seconds(one_by_one, next(theirs))


def beginning(title: str, draw: random.Random) -> str:
    """The first letters of a definition's words."""
    return " ".join(title.split()[:3])[: draw.randint(2, 14)]


def misspelt(title: str, draw: random.Random) -> str:
    """Up to three words of a definition, the longest with a letter left out, changed or swapped with the next."""
    words = title.split()[:3]
    longest = max(words, key=len)
    place = draw.randrange(max(1, len(longest) - 1))
    head, letter, rest = longest[:place], longest[place : place + 1], longest[place + 1 :]
    slips = (head + rest, head + draw.choice("etaoin") + rest, head + rest[:1] + letter + rest[1:])
    return " ".join(draw.choice(slips) if word is longest else word for word in words)


def type_ahead(write: Callable[[str, random.Random], str]) -> Pair:
    """A search for what is written for a definition of either code set; beside looking for its words in every title."""
    ontology, draw = Ontology.load(), random.Random(3)
    titles = [node.definition for system in SYSTEMS for node in ontology.nodes(system)]
    lower = [title.lower() for title in titles]

    def look(text: str) -> list[str]:
        words = text.lower().split()
        return [title for title in lower if all(word in title for word in words)][:20]

    ours, theirs = tee(iter(lambda: write(draw.choice(titles), draw), None))
    return lambda: seconds(search, next(ours)), lambda: seconds(look, next(theirs))

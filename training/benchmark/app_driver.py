"""Clicks through the real app, in this process and without a browser, and prints seconds as JSON: the work of section `app`.

Run by `training.benchmark.app` in a process of its own, from the project's folder, so that nothing else of training knows
Streamlit or the app. A figure is a list of pairs: seconds of ours, and of the alternative taken in turn with it. Server time:
from the click to the last element of the page handed over, by Streamlit's own AppTest, so without the network and the
browser's drawing. The first run of a page, which loads the model, is left out.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from streamlit.testing.v1 import AppTest

from mera_core.engine import Engine
from mera_core.explain import leave_one_out
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import SYSTEMS, Ontology
from mera_core.icd.search import search
from training.benchmark.rows import paired, seconds

ROOT = Path(__file__).resolve().parents[2]
PANELS = {"why": "Why", "map": "Code book", "what_if": "What if"}
Drawn = TypeVar("Drawn")
Pair = tuple[Callable[[], float], Callable[[], float]]


def main(runs: int) -> None:
    """Print {figure: [seconds of ours, seconds of the alternative]}."""
    figures = {f"click_{name}": paired(*click(panel), runs, warm=1) for name, panel in PANELS.items()}
    figures["why_of_10_codes"] = paired(*why(), runs, warm=1)
    figures["type_ahead"] = paired(*type_ahead(beginning), 10 * runs, warm=2)
    figures["type_ahead_misspelt"] = paired(*type_ahead(misspelt), 10 * runs, warm=2)
    print(json.dumps(figures))


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
    engine = Engine.load()
    draw = random.Random(2)

    def patient() -> Patient:
        codes = draw.sample(engine.label_space, 10)
        return Patient((Visit(codes[:3], age=60), Visit(codes[3:6], age=61), Visit(codes[6:], age=62)), sex="M", age=62)

    def one_by_one(whole: Patient) -> None:
        engine.rank(whole)
        for row, visit in enumerate(whole.visits):
            engine.rank(Patient(whole.visits[:row] + whole.visits[row + 1 :], sex=whole.sex, age=whole.age))
            for place in range(len(visit.codes)):
                engine.rank(without(whole, row, place))

    each = twice(patient)
    return lambda: timed(leave_one_out, engine, each()), lambda: timed(one_by_one, each())


def without(patient: Patient, row: int, place: int) -> Patient:
    """The history without one code of one visit."""
    visits = list(patient.visits)
    codes = visits[row].codes
    visits[row] = Visit(codes[:place] + codes[place + 1 :], age=visits[row].age)
    return Patient(visits, sex=patient.sex, age=patient.age)


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
    """A search for what is written for a definition of either book; beside looking for its words in every title."""
    book = Ontology.load()
    titles = [node.definition for system in SYSTEMS for node in book.nodes(system)]
    lower = [title.lower() for title in titles]
    draw = random.Random(3)

    def typed() -> str:
        return write(draw.choice(titles), draw)

    def look(text: str) -> list[str]:
        words = text.lower().split()
        return [title for title in lower if all(word in title for word in words)][:20]

    each = twice(typed)
    return lambda: timed(search, each()), lambda: timed(look, each())


def twice(draw: Callable[[], Drawn]) -> Callable[[], Drawn]:
    """Gives each thing that is drawn twice in a row: once for either side of a pair."""
    kept: list[Drawn] = []

    def give() -> Drawn:
        if kept:
            return kept.pop()
        kept.append(draw())
        return kept[0]

    return give


def timed(call: Callable[..., object], *given: object) -> float:
    """Seconds that a call takes; drawing what it is given is not counted."""
    return seconds(lambda: call(*given))


if __name__ == "__main__":
    main(int(sys.argv[1]))

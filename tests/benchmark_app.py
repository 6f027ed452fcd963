"""How long the app keeps a reader waiting: `python -m tests.benchmark_app` prints figures as JSON. Run it on two cores.

Server time: from the click to the last element of the page handed over, by Streamlit's own AppTest, so without the
network and the browser's drawing. The first run of each page, which loads the model, is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from mera_core.engine import Engine
from mera_core.explain import leave_one_out
from mera_core.ontology import SYSTEMS, Ontology
from mera_core.records import Patient, Visit
from mera_core.search import search

ROOT = Path(__file__).resolve().parent.parent
LOAD = (
    "import time; t = time.perf_counter(); from mera_core import Engine; Engine.load(); print(time.perf_counter() - t)"
)


def main() -> None:
    """Measure, and print one JSON object; every figure but `runs` in milliseconds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark_app")
    parser.add_argument("--runs", type=int, default=40, help="repetitions of each figure")
    runs = parser.parse_args().runs
    print(json.dumps({"cores": len(os.sched_getaffinity(0)), **measure(runs)}, indent=1))


def measure(runs: int) -> dict[str, dict[str, float]]:
    """Each figure of the app as its median and 95th percentile."""
    return {
        "engine_load_new_process": spread(fresh_load, min(runs, 5)),
        "click_to_list_and_why_chart": spread(click("Why"), runs),
        "click_to_list_and_map": spread(click("Code book"), runs),
        "click_to_list_and_what_if": spread(click("What if"), runs),
        "why_of_10_codes": spread(why(), runs),
        "type_ahead": spread(type_ahead(), 25 * runs),
    }


def spread(step: Callable[[], float], runs: int) -> dict[str, float]:
    """Median and 95th percentile of the seconds that `step` gives, in milliseconds."""
    taken = [1000 * step() for _ in range(runs)]
    return {"median": round(float(np.median(taken)), 2), "p95": round(float(np.percentile(taken, 95)), 2), "runs": runs}


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def fresh_load() -> float:
    """Seconds to import and load the bundled checkpoint in a process that has loaded nothing."""
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def click(panel: str) -> Callable[[], float]:
    """Predict with a panel open: a click on a code that is then ranked without, or on Undo, in turn."""
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
        taken = timed(press.click().run)
        assert not app.exception
        assert len(app.get("plotly_chart")) == (panel != "What if")
        return taken

    return step


def why() -> Callable[[], float]:
    """Leave-one-out of a history of ten codes in three visits."""
    engine = Engine.load()
    draw = random.Random(2)

    def step() -> float:
        codes = draw.sample(engine.label_space, 10)
        visits = (Visit(codes[:3], age=60), Visit(codes[3:6], age=61), Visit(codes[6:], age=62))
        return timed(lambda: leave_one_out(engine, Patient(visits, sex="M", age=62)))

    step()
    return step


def type_ahead() -> Callable[[], float]:
    """A search for the first letters of words of a random definition of either book."""
    book = Ontology.load()
    titles = [node.definition for system in SYSTEMS for node in book.nodes(system)]
    draw = random.Random(3)
    search("a")

    def step() -> float:
        words = draw.choice(titles).split()[:3]
        typed = " ".join(words)[: draw.randint(2, 14)]
        return timed(lambda: search(typed))

    return step


if __name__ == "__main__":
    main()

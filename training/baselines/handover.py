"""Hands the split to PyHealth in an environment of its own, as a file, and takes scores back as a file.

PyHealth 1.1.6 pins pandas below 2 and urllib3 below 1.26.16, which no environment of ours can hold. Nothing but codes
and label numbers is handed over: no id, no date, no profile.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from training.baselines.goals import GOALS, Goal
from training.baselines.samples import index_of, last_visit, samples

MODELS = ("PyHealth RETAIN", "PyHealth Transformer")
VERSION = "1.1.6"
HOW = (
    f"make one with Python 3.11: `python3.11 -m venv .venv-pyhealth && .venv-pyhealth/bin/pip install pyhealth=={VERSION} "
    "'numpy<2' 'setuptools<81' torch==2.9.1 torchvision==0.24.1` (its pandas and its imports need them; the two of torch "
    "belong together), and name it by --pyhealth-python .venv-pyhealth/bin/python"
)
RUNNER = Path(__file__).with_name("pyhealth_runner.py")


def as_rows(pairs: Sequence[tuple[Sequence[Visit], Visit]], index: Mapping[Code, int]) -> list[dict[str, Any]]:
    """(history, next visit) pairs as JSON: codes of each past visit as text, labels of the past and of the next as numbers."""
    return [
        {
            "history": [[str(code) for code in visit.codes] for visit in past if visit.codes],
            "seen": sorted({index[code] for visit in past for code in visit.codes if code in index}),
            "next": sorted({index[code] for code in target.codes if code in index}),
        }
        for past, target in pairs
    ]


def run(
    model: str,
    train: Sequence[Patient],
    parts: Mapping[str, Sequence[Patient]],
    labels: Sequence[Code],
    seeds: Sequence[int],
    python: Path,
    folder: Path,
) -> tuple[dict[Goal, list[dict[str, np.ndarray]]], dict[str, Any]]:
    """Tune and fit one of MODELS in PyHealth's environment, and score the patients of each part.

    Returns for each goal the scores of each seed by part, and what the runner tells: settings by goal, tried, runs, version.
    Raises InputError where the environment does not hold PyHealth, or its run fails (its words go to `folder`/log.txt).
    """
    index = index_of(labels)
    folder.mkdir(parents=True, exist_ok=True)
    split = {"labels": len(labels), "train": [row for row in as_rows(samples(train), index) if row["next"]]}
    split |= {name: as_rows([last_visit(patient) for patient in patients], index) for name, patients in parts.items()}
    (folder / "split.json").write_text(json.dumps(split), encoding="utf-8")
    kind = model.removeprefix("PyHealth ")
    command = [str(python), str(RUNNER), kind, str(folder), ",".join(map(str, seeds))]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        try:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT)
        except OSError as error:
            raise InputError(f"PyHealth can't be run: {python} is no Python ({error.strerror}).") from error
    if done.returncode:
        raise InputError(f"PyHealth's run of {kind} failed; its own words are in {folder / 'log.txt'}.")
    scores: dict[Goal, list[dict[str, np.ndarray]]] = {}
    for goal, seed in product(GOALS, seeds):
        with np.load(folder / f"{kind}-{goal.value}-{seed}.npz") as stored:
            scores.setdefault(goal, []).append({name: stored[name] for name in parts})
        for name, patients in parts.items():
            shape = scores[goal][-1][name].shape
            if shape != (len(patients), len(labels)):
                raise InputError(f"PyHealth gave {shape} scores for {len(patients)} {name} patients.")
    return scores, json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))

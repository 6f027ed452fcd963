"""`score --engine ray`: the same rows from Ray Data's workers; without Ray a sentence that says how to get it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mera_core import scoring
from mera_core.common.errors import InputError
from mera_core.history.records import write_visits
from mera_core.scoring import on_ray, store
from mera_core.scoring.workers import Spec
from tests.conftest import ROOT, invented_patients


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "visits.csv"
    write_visits(invented_patients(150), path)
    return path


def command(source: Path, out: Path, checkpoint: Path, *more: str) -> list[str]:
    asked = [str(source), "--format", "table", "--out", str(out), "--checkpoint", str(checkpoint), "--part", "20"]
    return [sys.executable, "-m", "mera_core", "score", *asked, *more]


def test_two_workers_of_ray_give_the_same_bytes(source, random_checkpoint, tmp_path):
    job = scoring.Job(source, tmp_path / "local.parquet", scoring.Settings(part=20), "table", random_checkpoint)
    scoring.run(job)
    out = tmp_path / "ray.parquet"
    ray = command(source, out, random_checkpoint, "--engine", "ray", "--workers", "2", "--json")
    environment = {**os.environ, "RAY_worker_niceness": "0"}  # at Ray's own 15, workers of a busy machine starve
    done = subprocess.run(ray, cwd=ROOT, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["parts"], told["resumed"], told["patients"]) == (8, 0, 150)
    assert out.read_bytes() == job.out.read_bytes()
    assert store.left_out_file(out).read_bytes() == store.left_out_file(job.out).read_bytes()


def test_a_worker_that_finds_another_checkpoint_says_so(source, random_checkpoint):
    """What an actor does, without Ray: its error comes back as a result, which ends the run."""
    spec = Spec(random_checkpoint, "tiny 000000000000", scoring.Settings(part=20))
    worker = on_ray._Worker(spec)
    answer = pickle.loads(worker({"part": b""})["scored"])
    assert isinstance(answer, InputError)
    assert str(answer).startswith("A worker found the checkpoint tiny ")
    assert str(answer).endswith("and the run is of tiny 000000000000.")


def test_without_ray_it_says_how_to_get_it(source, random_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray is not installed; pip install -r requirements-ray\.txt"):
        scoring.Job(source, tmp_path / "p.parquet", scoring.Settings(part=20), "table", random_checkpoint, "ray", 2)


def test_no_word_leaves_this_machine(monkeypatch):
    """Ray counts its users unless told not to: it is told before it is imported."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with pytest.raises(InputError):
        on_ray.load_ray()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"

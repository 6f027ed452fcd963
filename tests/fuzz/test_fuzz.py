"""Fuzzing, the short version: the committed corpus and some hundreds of inputs a target. The long one: python -m tests.fuzz."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mera_core.common.errors import InputError
from tests.fuzz.__main__ import NAMES, ROOT, mutated
from tests.fuzz.grown import grown
from tests.fuzz.properties import inputs
from tests.fuzz.targets import CORPUS, SLOWEST, TARGETS, Target

EXAMPLES = {
    "codes": 300,
    "pasted": 150,
    "history": 300,
    "checkpoint": 150,
    "table": 60,
    "fhir": 60,
    "upload": 60,
    "loader": 40,
}
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@each_target
def test_the_corpus_keeps_every_promise_and_is_partly_read_partly_refused(target):
    seeds = target.seeds()
    assert len(seeds) >= 6 and all(len(seed) <= target.longest for seed in seeds)
    assert {target.run(seed) for seed in seeds} == {True, False}


@each_target
def test_mutations_of_the_corpus_keep_every_promise(target):
    draw, seeds = random.Random(7), target.seeds()
    read = 0
    for _ in range(EXAMPLES[target.name]):
        read += target.run(mutated(draw.choice(seeds), draw.choice(seeds), draw)[: target.longest])
    assert read > 0


@each_target
def test_any_bytes_keep_every_promise(target):
    @given(st.binary(max_size=300))
    @settings(max_examples=EXAMPLES[target.name], deadline=None, suppress_health_check=list(HealthCheck))
    @example(b"")
    @example(b"\x00")
    @example(b"\xff" * 50)
    def keeps(data: bytes) -> None:
        target.run(data)

    keeps()


@each_target
def test_inputs_that_nearly_make_sense_keep_every_promise(target):
    read = []

    @given(inputs(target.name))
    @settings(max_examples=EXAMPLES[target.name], deadline=None, suppress_health_check=list(HealthCheck))
    def keeps(data: bytes) -> None:
        read.append(target.run(data))

    keeps()
    assert sum(read) > len(read) / 60, "hardly any was read: these are to nearly make sense"


@given(st.text(max_size=60))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_code_or_a_plain_refusal(text):
    for choice in range(6):
        TARGETS["codes"].run(bytes([choice]) + text.encode())


@given(
    st.lists(
        st.sampled_from(["428.0", "I50.22", "E8021", "heart failure", "ICD-9 428", "250", "x1", "-", ","]), max_size=9
    )
)
@settings(max_examples=60, deadline=None)
def test_nothing_of_a_pasted_list_is_dropped(parts):
    for parted in ("\n", " ", ", ", ";", " | ", "\t"):
        TARGETS["pasted"].run(parted.join(parts).encode())


def test_a_target_that_breaks_a_promise_is_found():
    """The harness can fail: on an error that is none of ours, a refusal of two lines, too long a time, a printed traceback."""

    def broken(data: bytes) -> bool:
        raise KeyError(data)

    def two_lines(data: bytes) -> bool:
        raise InputError("one\ntwo")

    def slow(data: bytes) -> bool:
        end = time.thread_time() + SLOWEST
        while time.thread_time() < end:
            pass
        return True

    def told_by_python(data: bytes) -> bool:
        class Ended:
            def __del__(self) -> None:
                raise ValueError("lost")

        Ended()
        return True

    with pytest.raises(KeyError):
        Target(broken, 10).run(b"x")
    with pytest.raises(AssertionError, match="no plain sentence"):
        Target(two_lines, 10).run(b"x")
    with pytest.raises(AssertionError, match="one input took"):
        Target(slow, 10).run(b"x")
    with pytest.raises(AssertionError, match="a traceback is printed: ValueError"):
        Target(told_by_python, 10).run(b"x")


def test_grown_values_are_the_same_for_the_same_bytes_and_reach_what_is_read():
    draw = random.Random(3)
    values = [grown(draw.randbytes(60), "history") for _ in range(300)]
    assert grown(b"\x01\x05\x02abc", "history") == grown(b"\x01\x05\x02abc", "history")
    assert sum(isinstance(value, dict) and "visits" in value for value in values) > 10
    assert all(json.dumps(value) for value in values)


@pytest.mark.parametrize("engine", ["plain", "properties"])
def test_the_command_runs_a_target_and_counts_its_inputs(engine, tmp_path):
    assert tuple(TARGETS) == NAMES
    counts = tmp_path / "counts.json"
    counts.write_text('{"codes": {"plain": 40}}')
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--runs", "60", "--engine", engine, "--target", "codes", "--count", counts],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "60 inputs in all, 0 targets broken" in done.stdout
    assert json.loads(counts.read_text())["codes"] == {"plain": 40} | {engine: 100 if engine == "plain" else 60}


def test_the_committed_corpus_is_small():
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(NAMES)
    assert sum(path.stat().st_size for path in files) < 60_000
    assert Path(CORPUS).is_dir()

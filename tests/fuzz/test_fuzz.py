"""Fuzzing, the short version: the committed corpus and some hundreds of inputs a target. The long one: python -m tests.fuzz."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mera_core.common.errors import InputError
from tests.fuzz.__main__ import NAMES, ROOT, mutated
from tests.fuzz.targets import TARGETS, Target

EXAMPLES = dict(zip(NAMES, (400, 200, 400, 200, 100, 100, 80, 60), strict=True))
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@each_target
def test_the_corpus_keeps_every_promise_and_is_partly_read_partly_refused(target):
    seeds = target.seeds()
    assert len(seeds) >= 6 and all(len(seed) <= target.longest for seed in seeds)
    assert {target.run(seed) for seed in seeds} == {True, False}


@each_target
def test_mutations_of_the_corpus_keep_every_promise(target):
    draw, seeds = random.Random(7), target.seeds()
    inputs = (mutated(draw.choice(seeds), draw.choice(seeds), draw) for _ in range(EXAMPLES[target.name]))
    assert sum(target.run(data[: target.longest]) for data in inputs) > 0


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


def broken(data: bytes) -> bool:
    raise KeyError(data)


def two_lines(data: bytes) -> bool:
    raise InputError("one\ntwo")


def told_by_python(data: bytes) -> bool:
    class Ended:
        def __del__(self) -> None:
            raise ValueError("lost")

    Ended()
    return True


@pytest.mark.parametrize(
    ("check", "error", "said"),
    [
        (broken, KeyError, "x"),
        (two_lines, AssertionError, "no plain sentence"),
        (told_by_python, AssertionError, "a traceback is printed: ValueError"),
    ],
)
def test_a_target_that_breaks_a_promise_is_found(check, error, said):
    with pytest.raises(error, match=said):
        Target(check, 10).run(b"x")


def test_the_command_runs_a_target_and_counts_its_inputs():
    assert tuple(TARGETS) == NAMES
    command = [sys.executable, "-m", "tests.fuzz", "--runs", "60", "--engine", "plain", "--target", "codes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, "60 inputs in all, 0 targets broken" in done.stdout) == (0, True), done.stderr

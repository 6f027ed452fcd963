"""A scoring that is killed again and again and started again: `python -m tests.killed_scoring SOURCE OUT CHECKPOINT`.

This process scores once itself, unbroken, and each attempt after that is a fork of it, so that death comes at a random moment
of the scoring and not of the imports. Prints what happened as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mera_core import scoring
from mera_core.scoring import store

MOST_FURTHER = 8  # parts of an attempt that is killed by their number
PATCHED = ("replace", "unlink")  # each a step after which the folder is in another state


def main() -> None:
    """Kill at random moments, or at every step."""
    parser = argparse.ArgumentParser(prog="python -m tests.killed_scoring")
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--every-step", action="store_true", help="at each rename and removal in place of random moments"
    )
    parser.add_argument("--part", type=int, default=20)
    asked = parser.parse_args()
    settings = scoring.Settings(part=asked.part)
    job = scoring.Job(asked.source, asked.out, settings, format="table", checkpoint=asked.checkpoint)
    found = at_every_step(job) if asked.every_step else at_random(job, asked.kills, random.Random(asked.seed))
    print(json.dumps(found))


def at_random(job: scoring.Job, kills: int, draw: random.Random) -> dict:
    """Kill so many attempts, then let one end.

    Every other one is killed after a random share of the time that an unbroken one takes, the others when a random number of
    further parts is there: parts come so quickly that few moments of the clock fall among them. A result that came to be
    before its process was killed is taken away, so that every kill has a scoring to hit.
    """
    whole = unbroken(job)
    began = time.monotonic()
    assert finished(start(lambda: scoring.run(_to(job, whole)))) == 0, "the unbroken run failed"
    took = time.monotonic() - began
    killed, parts_then = 0, []
    while killed < kills:
        child = start(lambda: scoring.run(job))
        if len(parts_then) % 2:
            _sleep_until(child, _parts(job) + draw.randint(1, MOST_FURTHER), job)
        else:
            time.sleep(draw.uniform(0, took))
        os.kill(child, signal.SIGKILL)
        died = finished(child) == -signal.SIGKILL
        if job.out.exists():  # it was through, or as good as through
            job.out.unlink()
        elif died:
            killed += 1
            parts_then.append(_parts(job))
    status = finished(start(lambda: scoring.run(job)))
    return _told(job, whole, status) | {"killed": killed, "seconds_unbroken": took, "parts_when_killed": parts_then}


def _parts(job: scoring.Job) -> int:
    return len(list(store.parts_folder(job.out).glob("part-*.parquet")))


def _sleep_until(child: int, parts: int, job: scoring.Job) -> None:
    """Until so many parts are there, or the process has ended."""
    while _parts(job) < parts and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.0005)


def at_every_step(job: scoring.Job) -> dict:
    """Die before and after the n-th step of an attempt, n from 1 until an attempt gets to its end."""
    whole, steps = unbroken(job), 0
    for after in (False, True):
        for number in range(1, 1_000):
            _fresh(job)
            status = finished(start(lambda number=number, after=after: dying(job, number, after)))
            if status == 0:
                break
            steps += 1
            assert finished(start(lambda: scoring.run(job))) == 0, f"no restart after step {number}"
            told = _told(job, whole, 0)
            assert told["same"] and not told["left"], f"another result after step {number}: {told}"
    return _told(job, whole, 0) | {"killed": steps}


def unbroken(job: scoring.Job) -> Path:
    """The result as it is when nothing happens, made by this process: whatever is loaded late is loaded then."""
    whole = job.out.with_name(f"whole-{job.out.name}")
    scoring.run(_to(job, whole))
    return whole


def dying(job: scoring.Job, number: int, after: bool) -> None:
    """A run whose process is gone before or after its n-th step."""
    left = number

    def counted(name: str) -> Callable:
        real = getattr(os, name)

        def step(*arguments, **named):
            nonlocal left
            left -= 1
            if left == 0 and not after:
                os._exit(9)
            try:
                return real(*arguments, **named)
            finally:  # the removal of what is not there is a step as well
                if left == 0 and after:
                    os._exit(9)

        return step

    for name in PATCHED:
        setattr(os, name, counted(name))
    scoring.run(job)


def start(call: Callable[[], object]) -> int:
    """The process id of a fork that does this and ends with 0, or with 1 where it fails."""
    child = os.fork()
    if child:
        return child
    try:
        call()
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def finished(child: int) -> int:
    """Its exit status; minus the signal's number where it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _to(job: scoring.Job, out: Path) -> scoring.Job:
    return scoring.Job(job.source, out, job.settings, format=job.format, checkpoint=job.checkpoint)


def _fresh(job: scoring.Job) -> None:
    for path in (job.out, store.left_out_file(job.out)):
        path.unlink(missing_ok=True)


def _told(job: scoring.Job, whole: Path, status: int) -> dict:
    same = job.out.exists() and job.out.read_bytes() == whole.read_bytes()
    beside, other = store.left_out_file(job.out), store.left_out_file(whole)
    known = {job.out.name, whole.name, beside.name, other.name, job.source.name}
    return {
        "status": status,
        "same": same and beside.read_bytes() == other.read_bytes(),
        "left": sorted(path.name for path in job.out.parent.iterdir() if path.name not in known),
    }


if __name__ == "__main__":
    main()

"""A scoring that dies at every step that changes its folder: `python -m tests.scoring.killed_scoring SOURCE OUT CHECKPOINT`.

Each attempt is a fork of this process, which scores once itself, unbroken. Prints how often an attempt died, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mera_core import scoring
from mera_core.scoring import store

PATCHED = ("replace", "unlink")  # each a step after which the folder is in another state


def main(source: Path, out: Path, checkpoint: Path) -> None:
    """Die before and after the n-th step of an attempt, n from 1 until one gets to its end, and go on each time."""
    job = scoring.Job(source, out, scoring.Settings(part=60), format="table", checkpoint=checkpoint)
    whole, died = out.with_name(f"whole-{out.name}"), 0
    scoring.run(replace(job, out=whole))
    kept = {whole, store.left_out_file(whole), out, store.left_out_file(out)}
    for after in (False, True):
        for number in range(1, 1_000):
            out.unlink(missing_ok=True)
            store.left_out_file(out).unlink(missing_ok=True)
            if status_of_fork(lambda number=number, after=after: dying(job, number, after)) == 0:
                break
            died += 1
            assert status_of_fork(lambda: scoring.run(job)) == 0, f"no restart after step {number}"
            for one, other in ((out, whole), (store.left_out_file(out), store.left_out_file(whole))):
                assert one.read_bytes() == other.read_bytes(), f"another {one.name} after step {number}"
            assert set(out.parent.iterdir()) == kept, f"something is left after step {number}"
    print(json.dumps(died))


def dying(job: scoring.Job, number: int, after: bool) -> None:
    """A run whose process is gone before or after its n-th step."""
    left = number

    def counted(real: Callable) -> Callable:
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
        setattr(os, name, counted(getattr(os, name)))
    scoring.run(job)


def status_of_fork(call: Callable[[], object]) -> int:
    """Do this in a fork: 0, or 1 where it fails, or the status it dies with."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        call()
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

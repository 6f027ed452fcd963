"""python -m tests.fuzz --runs 1000000: fuzz every target, guided by coverage where atheris is installed (requirements-fuzz.txt).

Each target runs in a process of its own, because atheris ends the process it runs in. Without atheris the same targets are fed
by plain mutation of the corpus, which finds less. Prints one line a target and exits with 1 where an input broke a promise;
that input is then in build/fuzz/TARGET/crash-* and its traceback above.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "fuzz"  # inputs found to be of interest, kept between runs and not committed
NAMES = ("codes", "pasted", "history", "checkpoint", "table", "fhir")
SHARES = dict(
    zip(NAMES, (0.40, 0.20, 0.20, 0.10, 0.05, 0.05), strict=True)
)  # those of targets.TARGETS: see test_fuzz.py


def main() -> int:
    """Run the targets asked for, one after another; 0 where every input kept every promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs of all targets together")
    parser.add_argument("--target", choices=NAMES, action="append", help="this target alone, with all runs; repeatable")
    parser.add_argument("--seconds", type=int, default=0, help="at most this long for each target; 0: no end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="plain mutation, even where atheris is installed")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    guided = find_spec("atheris") is not None and not asked.plain
    if asked.child:
        return _guided(asked) if guided else _plain(asked)
    print("guided by coverage (atheris)" if guided else "plain mutation: atheris is not installed, or not wanted")
    names = asked.target or list(NAMES)
    whole = sum(SHARES[name] for name in names)
    inputs = failed = 0
    for name in names:
        runs = max(1, round(asked.runs * SHARES[name] / whole))
        command = [sys.executable, "-m", "tests.fuzz", "--child", name, "--runs", str(runs)]
        command += ["--seconds", str(asked.seconds), "--seed", str(asked.seed), *(["--plain"] if asked.plain else [])]
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", env=_environment())
        taken = time.monotonic() - began
        told = done.stdout + done.stderr
        found = re.findall(r"(?:number_of_executed_units:|inputs) +(\d+)", told) or re.findall(r"^#(\d+)\t", told, re.M)
        executed = int(found[-1]) if found else 0
        inputs += executed
        broken = done.returncode != 0
        failed += broken
        covered = re.findall(r"cov: (\d+)", told)
        kept = f", {covered[-1]} places of the code reached" if covered else ""
        print(
            f"{name}: {executed:,} inputs in {taken:.0f} s{kept}: {'BROKEN' if broken else 'kept every promise'}",
            flush=True,
        )
        if broken:
            print(told[-4_000:], file=sys.stderr)
    print(f"{inputs:,} inputs in all, {failed} targets broken")
    return int(failed > 0)


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}


def _guided(asked: argparse.Namespace) -> int:
    import atheris

    with atheris.instrument_imports(include=["mera_core", "pages.shared.pasted_list"]):
        from tests.fuzz.targets import CORPUS, TARGETS
    target = TARGETS[asked.child]
    kept = WORK / target.name
    kept.mkdir(parents=True, exist_ok=True)
    options = {"runs": asked.runs, "max_len": target.longest, "timeout": 20, "rss_limit_mb": 4_000, "seed": asked.seed}
    options |= {"print_final_stats": 1, "max_total_time": asked.seconds}
    flags = [f"-{name}={value}" for name, value in options.items()] + [f"-artifact_prefix={kept}/"]
    atheris.Setup([sys.argv[0], *flags, str(kept), str(CORPUS / target.name)], lambda data: _called(target, data))
    atheris.Fuzz()
    return 0


def _called(target: object, data: bytes) -> None:
    target.run(data)  # atheris wants None


def _plain(asked: argparse.Namespace) -> int:
    import random

    from tests.fuzz.targets import TARGETS

    target, draw, done = TARGETS[asked.child], random.Random(asked.seed), 0
    seeds, end = target.seeds(), time.monotonic() + (asked.seconds or 1e9)
    while done < asked.runs and time.monotonic() < end:
        data = mutated(draw.choice(seeds), draw.choice(seeds), draw)[: target.longest]
        try:
            target.run(data)
        except BaseException:
            kept = WORK / target.name
            kept.mkdir(parents=True, exist_ok=True)
            (kept / f"crash-{done}").write_bytes(data)
            print(f"inputs {done}")
            raise
        done += 1
    print(f"inputs {done}")
    return 0


def mutated(one: bytes, other: bytes, draw) -> bytes:
    """A seed with a few pieces changed, doubled, dropped or taken from another seed."""
    data = bytearray(one)
    for _ in range(draw.randint(1, 6)):
        begin = draw.randint(0, len(data))
        end = min(len(data), begin + draw.choice((0, 1, 1, 2, 8, 40)))
        piece = bytes(data[begin:end])
        at = draw.randint(0, len(other))
        data[begin:end] = draw.choice(
            (
                b"",
                bytes(draw.randrange(256) for _ in range(draw.randint(1, 4))),
                piece * draw.choice((2, 2, 3, 50)),
                other[at : at + draw.choice((1, 4, 16, 64))],
                draw.choice(
                    (b'"', b"{", b"[", b",", b"\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"999999999", b"-1", b".", b"\\u")
                ),
            )
        )
    return bytes(data)


if __name__ == "__main__":
    sys.exit(main())

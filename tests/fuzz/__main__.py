"""python -m tests.fuzz --runs 1000000: fuzz every target, each with as many inputs.

Three engines: `guided` by coverage (atheris, requirements-fuzz.txt), `properties` (hypothesis: inputs that nearly make sense) and
`plain` (mutation of the corpus, the quickest and the blindest). Without --engine it is guided where atheris is installed, else
properties. Each target runs in a process of its own, because atheris ends the process it runs in. Prints one line a target and
exits with 1 where an input broke a promise; that input is then in build/fuzz/TARGET/crash-* and its traceback above. --count FILE
adds the inputs of this run to those of earlier ones.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "fuzz"  # inputs found to be of interest, kept between runs and not committed
NAMES = ("codes", "pasted", "history", "checkpoint", "table", "fhir", "upload", "loader")
ONE_IN = {"upload": 4, "loader": 40}  # these get one input in so many: they lay down files, or build a model
ENGINES = ("guided", "properties", "plain")
EXAMPLES_AT_ONCE = 2_000  # of hypothesis, which remembers all it has tried


def main() -> int:
    """Run the targets asked for, one after another; 0 where every input kept every promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs of all targets together")
    parser.add_argument("--target", choices=NAMES, action="append", help="this target alone, with all runs; repeatable")
    parser.add_argument("--engine", choices=ENGINES, default="guided" if find_spec("atheris") else "properties")
    parser.add_argument("--seconds", type=int, default=0, help="at most this long for each target; 0: no end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=Path, help="a JSON file of inputs by target and engine, to add to")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        return {"guided": _guided, "properties": _properties, "plain": _plain}[asked.engine](asked)
    print(f"engine: {asked.engine}")
    names = asked.target or list(NAMES)
    inputs = failed = 0
    for name in names:
        runs = round(asked.runs / len(names) / ONE_IN.get(name, 1))
        executed, broken = _target(name, max(1, runs), asked)
        inputs, failed = inputs + executed, failed + broken
    print(f"{inputs:,} inputs in all, {failed} targets broken")
    return int(failed > 0)


def _target(name: str, runs: int, asked: argparse.Namespace) -> tuple[int, bool]:
    """Inputs that a target got, and whether one broke a promise."""
    command = [sys.executable, "-m", "tests.fuzz", "--child", name, "--runs", str(runs), "--engine", asked.engine]
    command += ["--seconds", str(asked.seconds), "--seed", str(asked.seed)]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", env=_environment())
    taken = time.monotonic() - began
    told = done.stdout + done.stderr
    found = re.findall(r"(?:number_of_executed_units:|inputs) +(\d+)", told) or re.findall(r"^#(\d+)\t", told, re.M)
    executed, broken = int(found[-1]) if found else 0, done.returncode != 0
    covered = re.findall(r"cov: (\d+)", told)
    kept = f", {covered[-1]} places of the code reached" if covered else ""
    said = "BROKEN" if broken else "kept every promise"
    print(f"{name}: {executed:,} inputs in {taken:.0f} s{kept}: {said}", flush=True)
    if broken:
        print(told[-4_000:], file=sys.stderr)
    if asked.count is not None:
        counts = json.loads(asked.count.read_text()) if asked.count.exists() else {}
        of_target = counts.setdefault(name, {})
        of_target[asked.engine] = of_target.get(asked.engine, 0) + executed
        asked.count.write_text(json.dumps(counts, indent=1) + "\n")
    return executed, broken


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}


def _guided(asked: argparse.Namespace) -> int:
    import atheris

    with atheris.instrument_imports(include=["mera_core", "pages.shared.editor.pasted_list"]):
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


def _properties(asked: argparse.Namespace) -> int:
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from tests.fuzz.properties import inputs

    def some(runs: int, number: int, run: Callable[[bytes], None]) -> None:
        @seed(asked.seed * 1_000_003 + number)
        @settings(
            max_examples=runs, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )  # fmt: skip
        @given(inputs(asked.child))
        def keeps(data: bytes) -> None:
            run(data)

        keeps()

    return _fed(asked, lambda left, number, run: some(min(left, EXAMPLES_AT_ONCE), number, run))


def _plain(asked: argparse.Namespace) -> int:
    from tests.fuzz.targets import TARGETS

    draw, target = random.Random(asked.seed), TARGETS[asked.child]
    seeds = target.seeds()

    def some(left: int, number: int, run: Callable[[bytes], None]) -> None:
        for _ in range(min(left, 200)):
            run(mutated(draw.choice(seeds), draw.choice(seeds), draw)[: target.longest])

    return _fed(asked, some)


def _fed(asked: argparse.Namespace, some: Callable[[int, int, Callable[[bytes], None]], None]) -> int:
    """Let `some` feed the target until the runs or the seconds are over; what broke a promise is kept."""
    from tests.fuzz.targets import TARGETS

    target, done, last = TARGETS[asked.child], 0, b""

    def run(data: bytes) -> None:
        nonlocal done, last
        done, last = done + 1, data
        target.run(data)

    end, number = time.monotonic() + (asked.seconds or 1e9), 0
    try:
        while done < asked.runs and time.monotonic() < end:
            some(asked.runs - done, number, run)
            number += 1
    except BaseException:
        kept = WORK / target.name
        kept.mkdir(parents=True, exist_ok=True)
        (kept / f"crash-{asked.engine}-{asked.seed}-{done}").write_bytes(last)
        raise
    finally:
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

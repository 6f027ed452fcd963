"""python -m tests.fuzz --runs 1000000: fuzz every target, each with as many inputs.

Guided by coverage where atheris is installed (requirements-fuzz.txt), else by mutation of the corpus. Each target runs in a
process of its own, because atheris ends the process it runs in. Prints one line a target and exits with 1 where an input broke a
promise; that input is then in build/fuzz/TARGET/crash-* and its traceback above.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "fuzz"  # inputs found to be of interest, kept between runs and not committed
NAMES = ("codes", "pasted", "history", "checkpoint", "table", "fhir", "upload", "loader")
ONE_IN = {"upload": 4, "loader": 40}  # these get one input in so many: they lay down files, or build a model
ODD = (b'"', b"{", b"[", b",", b"\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"999999999", b"-1", b".", b"\\u")


def main() -> int:
    """Run the targets asked for, one after another; 0 where every input kept every promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs of all targets together")
    parser.add_argument("--target", choices=NAMES, action="append", help="this target alone, with all runs; repeatable")
    parser.add_argument("--engine", choices=("guided", "plain"), default="guided" if find_spec("atheris") else "plain")
    parser.add_argument("--seconds", type=int, default=0, help="at most this long for each target; 0: no end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        (_guided if asked.engine == "guided" else _plain)(asked)
        return 0
    print(f"engine: {asked.engine}")
    names = asked.target or list(NAMES)
    found = [_target(name, max(1, round(asked.runs / len(names) / ONE_IN.get(name, 1))), asked) for name in names]
    failed = sum(broken for _, broken in found)
    print(f"{sum(inputs for inputs, _ in found):,} inputs in all, {failed} targets broken")
    return int(failed > 0)


def _target(name: str, runs: int, asked: argparse.Namespace) -> tuple[int, bool]:
    """Inputs that a target got, and whether one broke a promise."""
    command = [sys.executable, "-m", "tests.fuzz", "--child", name, "--runs", str(runs), "--engine", asked.engine]
    command += ["--seconds", str(asked.seconds), "--seed", str(asked.seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", env=environment)
    told = done.stdout + done.stderr
    found = re.findall(r"(?:number_of_executed_units:|inputs) +(\d+)", told) or re.findall(r"^#(\d+)\t", told, re.M)
    executed, broken = int(found[-1]) if found else 0, done.returncode != 0
    said = "BROKEN" if broken else "kept every promise"
    print(f"{name}: {executed:,} inputs in {time.monotonic() - began:.0f} s: {said}", flush=True)
    if broken:
        print(told[-4_000:], file=sys.stderr)
    return executed, broken


def _guided(asked: argparse.Namespace) -> None:
    import atheris

    with atheris.instrument_imports(include=["mera_core", "pages.shared.editor.pasted_list"]):
        from tests.fuzz.targets import CORPUS, TARGETS
    target, kept = TARGETS[asked.child], WORK / asked.child
    kept.mkdir(parents=True, exist_ok=True)
    options = {"runs": asked.runs, "max_len": target.longest, "timeout": 20, "rss_limit_mb": 4_000, "seed": asked.seed}
    options |= {"print_final_stats": 1, "max_total_time": asked.seconds, "artifact_prefix": f"{kept}/"}
    flags = [f"-{name}={value}" for name, value in options.items()]

    def called(data: bytes) -> None:  # atheris wants None
        target.run(data)

    atheris.Setup([sys.argv[0], *flags, str(kept), str(CORPUS / target.name)], called)
    atheris.Fuzz()


def _plain(asked: argparse.Namespace) -> None:
    from tests.fuzz.targets import TARGETS

    draw, target = random.Random(asked.seed), TARGETS[asked.child]
    seeds, end, done, data = target.seeds(), time.monotonic() + (asked.seconds or 1e9), 0, b""
    try:
        while done < asked.runs and time.monotonic() < end:
            data = mutated(draw.choice(seeds), draw.choice(seeds), draw)[: target.longest]
            done += 1
            target.run(data)
    except BaseException:
        (WORK / target.name).mkdir(parents=True, exist_ok=True)
        (WORK / target.name / f"crash-{asked.seed}-{done}").write_bytes(data)
        raise
    finally:
        print(f"inputs {done}")


def mutated(one: bytes, other: bytes, draw: random.Random) -> bytes:
    """A seed with a few pieces changed, doubled, dropped or taken from another seed."""
    data = bytearray(one)
    for _ in range(draw.randint(1, 6)):
        begin = draw.randint(0, len(data))
        end = min(len(data), begin + draw.choice((0, 1, 1, 2, 8, 40)))
        at = draw.randint(0, len(other))
        borrowed = other[at : at + draw.choice((1, 4, 16, 64))]
        repeated = bytes(data[begin:end]) * draw.choice((2, 2, 3, 50))
        data[begin:end] = draw.choice((b"", draw.randbytes(draw.randint(1, 4)), repeated, borrowed, draw.choice(ODD)))
    return bytes(data)


if __name__ == "__main__":
    sys.exit(main())

"""A command in a process of its own: its wall-clock seconds, peak memory and output."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mera_core.common.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
_LOOK_EVERY = 0.02  # seconds between two looks at a process's memory


@dataclass(frozen=True)
class Done:
    """What a process that ended well took: seconds from start to end, peak resident memory in GB, what it printed."""

    seconds: float
    peak_gb: float
    stdout: str
    stderr: str


def child(command: Sequence[str]) -> Done:
    """Run a command in the project's folder. Raises InputError with its last line where it fails.

    The peak is the kernel's own (VmHWM on Linux). Where that can't be read it is `ru_maxrss`, which never says less than
    this process held when it started the other.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        peak = _watched(process)
        took = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        told = Done(took, round(peak, 3), out.read(), err.read())
    if process.returncode:
        last = (told.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"A measured process failed with status {process.returncode}: {last}")
    return told


def _watched(process: subprocess.Popen) -> float:
    """Peak memory in GB of a process, which has ended when this returns."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return _waited(process)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _high_water(status))
        time.sleep(_LOOK_EVERY)
    return peak * 1024 / 1e9


def _high_water(status: Path) -> int:
    """The most memory that a process has held, in kilobytes; 0 where it has just ended."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _waited(process: subprocess.Popen) -> float:
    if not hasattr(os, "wait4"):
        process.wait()
        return 0.0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kilobytes
    return usage.ru_maxrss * unit / 1e9

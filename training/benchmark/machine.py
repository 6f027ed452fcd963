"""The machine a benchmark ran on, in general terms, and a command measured in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mera_core.common.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch", "transformers", "pyarrow", "pandas", "numpy", "streamlit", "bitsandbytes", "peft")
# A small process stands between: what a process holds when it starts another counts as memory of the other.
_MEASURE = """
import resource, subprocess, sys, time
began = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)
took = time.perf_counter() - began
unit = 1 if sys.platform == "darwin" else 1024
print("", took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e9, file=sys.stderr)
sys.exit(status if status >= 0 else 128 - status)
"""


def machine() -> dict[str, Any]:
    """Cores that this process may use, memory in GB, GPU by name (or None), and versions; no name, address or path."""
    libraries = {name: version(name) for name in LIBRARIES}
    pages = os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}) else None
    return {
        "cores": cores(),
        "memory_gb": None if pages is None else round(pages * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "architecture": platform.machine(),
        "versions": {"python": platform.python_version(), **libraries},
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Done:
    """A finished process: seconds from start to end, peak resident memory in GB (of its largest process), what it printed."""

    seconds: float
    peak_gb: float
    stdout: str
    stderr: str


def child(command: Sequence[str]) -> Done:
    """Run a command in the project's folder. Raises InputError with its last line where it fails."""
    done = subprocess.run([sys.executable, "-c", _MEASURE, *command], cwd=ROOT, capture_output=True, text=True)
    told, _, figures = done.stderr.rstrip("\n").rpartition("\n")
    if done.returncode:
        last = (told.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"A measured process failed with status {done.returncode}: {last}")
    seconds, peak = map(float, figures.split()[-2:])
    return Done(seconds, round(peak, 3), done.stdout, told)

"""The machine a benchmark ran on, in general terms, and a command measured in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mera_core.common.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch", "transformers", "pyarrow", "pandas", "numpy", "streamlit", "bitsandbytes", "peft")


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


def child_seconds(command: Sequence[str]) -> float:
    """Seconds that a command takes in the project's folder. Raises InputError with its last line where it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"A measured process failed with status {done.returncode}: {last}")
    return took

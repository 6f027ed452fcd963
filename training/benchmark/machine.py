"""The machine a benchmark ran on, in general terms: cores, memory, GPU, versions; never its name, address or paths."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from training.benchmark.processes import child

LIBRARIES = ("torch", "transformers", "pyarrow", "pandas", "numpy", "streamlit", "bitsandbytes", "peft")
_GPU = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"


def machine() -> dict[str, Any]:
    """Cores that this process may use, memory in GB, GPU by name (or None), and versions."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cores": cores(),
        "memory_gb": _memory(),
        "gpu": _gpu(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "versions": versions,
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def _gpu() -> str | None:
    """Asked in a process of its own, so that torch's memory is not in this one."""
    return child([sys.executable, "-c", _GPU]).stdout.strip() or None

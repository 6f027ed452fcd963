"""How long `convert` takes on tables of MIMIC-IV's size, beside a bare scan of the same files that does nothing with them.

    python -m training.benchmark_import --out runs/import.json

The tables are invented (see `make_test_tables`). Time is wall-clock, memory the peak of the converting process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import typer

from mera_core.errors import InputError
from training.make_test_tables import invent, write_mimic4

SUFFIXES = (".parquet", ".csv")


def measure(patients: int, admissions: int, diagnoses: int) -> dict[str, Any]:
    """Seconds of the scan and of each conversion, their ratio, and the peak memory in GB."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        write_mimic4(invent(patients, admissions, diagnoses), source)
        began = time.perf_counter()
        rows = {path.name.split(".")[0]: pa_csv.read_csv(path).num_rows for path in sorted(source.rglob("*.csv.gz"))}
        scan = time.perf_counter() - began
        found: dict[str, Any] = {
            "rows": rows,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "pyarrow": pa.__version__,
            "scan_seconds": round(scan, 2),
        }
        for suffix in SUFFIXES:
            began = time.perf_counter()
            command = [sys.executable, "-m", "mera_core", "convert", str(source), "--out", f"{folder}/visits{suffix}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise InputError(f"convert failed: {done.stderr.strip()}")
            seconds = time.perf_counter() - began
            found[f"convert{suffix}"] = {"seconds": round(seconds, 2), "times_the_scan": round(seconds / scan, 2)}
        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
        found["peak_gb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e9, 2)
    return found


def main(
    out: Annotated[Path | None, typer.Option(help="Write the figures here, as JSON.")] = None,
    patients: int = 364_000,
    admissions: int = 546_000,
    diagnoses: int = 6_400_000,
) -> None:
    """Measure and print."""
    figures = json.dumps(measure(patients, admissions, diagnoses), indent=2)
    if out is not None:
        out.write_text(figures + "\n", encoding="utf-8")
    print(figures)


if __name__ == "__main__":
    typer.run(main)

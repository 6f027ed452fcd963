"""How long `convert` takes on large invented records of each shape, beside a bare scan of the same files.

The scan reads every value and does nothing with it: pyarrow for tables, `json.loads` a line for FHIR. Both are whole
processes, from start to end. The records come from `make_test_tables`; at full size they are those of MIMIC-IV 3.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.benchmark.machine import Done, child
from training.benchmark.rows import Row, Setting, paired, row

TITLE = "Importing records: convert, beside a bare scan of the same files"
LIMIT_SECONDS, LIMIT_GB = 60, 3
_SCAN = "import json, sys; from pathlib import Path; import pyarrow.csv as csv, pyarrow.parquet as parquet\n"
_SCAN += "files = lambda pattern: Path(sys.argv[1]).rglob(pattern)\n"
CSV = _SCAN + "print(sum(csv.read_csv(path).num_rows for path in files('*.csv*')))"
PARQUET = _SCAN + "print(sum(parquet.read_table(path).num_rows for path in files('*.parquet')))"
LINES = "import json, sys; from pathlib import Path\n"
LINES += "print(sum(len(json.loads(x)) > 0 for path in Path(sys.argv[1]).rglob('*.ndjson') for x in path.open('rb')))"


@dataclass(frozen=True)
class Size:
    """How many of each to invent."""

    patients: int
    admissions: int
    diagnoses: int

    def made(self, folder: Path) -> Path:
        """The records on disk, written by a process of its own: their memory is not to be measured."""
        sizes = [f"--{name}={number}" for name, number in vars(self).items()]
        child([sys.executable, "-m", "training.tools.make_test_tables", str(folder), *sizes])
        return folder


MIMIC4 = Size(364_000, 546_000, 6_400_000)
FHIR = Size(40_000, 60_000, 700_000)
QUICK = Size(300, 450, 5_000)


def measure(setting: Setting) -> Iterator[Row]:
    """Tables in MIMIC-IV's shape to parquet and CSV, the visits table read again, MEDS shards, FHIR NDJSON."""
    large, small = (QUICK, QUICK) if setting.quick else (MIMIC4, FHIR)
    runs = setting.times(3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = large.made(folder / "mimic4")
        for told, suffix in (("parquet", ".parquet"), ("CSV", ".csv")):
            scan = (CSV, tables, "pyarrow.csv.read_csv of the same files")
            what = f"MIMIC-IV tables (CSV, gzipped) to {told}"
            yield measured(what, tables, f"visits{suffix}", scan, runs, large)
        for suffix, script in ((".parquet", PARQUET), (".csv", CSV)):
            source = folder / f"table{suffix}" / f"visits{suffix}"
            source.parent.mkdir()
            convert(tables, source)
            scan = (script, source.parent, f"pyarrow's reading of the same {suffix.lstrip('.')} file")
            what = f"the visits table ({suffix}) read again"
            yield measured(what, source, "again.parquet", scan, runs, large)
        shards = folder / "meds"
        convert(tables, shards, "--to", "meds")
        scan = (PARQUET, shards / "data", "pyarrow.parquet.read_table of the same files")
        yield measured("MEDS shards to parquet", shards, "visits.parquet", scan, runs, large)
        made = folder / "fhir"
        convert(small.made(folder / "for_fhir"), made, "--to", "fhir")
        megabytes = round(sum(path.stat().st_size for path in made.rglob("*.ndjson")) / 1e6)
        scan = (LINES, made, "json.loads of every line of the same files")
        figure = measured("FHIR bulk export (NDJSON) to parquet", made, "visits.parquet", scan, runs, small)
        yield figure | {"megabytes": megabytes}


def measured(what: str, source: Path, name: str, scan: tuple[str, Path, str], runs: int, size: Size) -> Row:
    """One row: `convert` of a source beside the scan, with the peak memory of both and how often progress was told."""
    script, files, words = scan
    done: tuple[list[Done], list[Done]] = [], []
    with tempfile.TemporaryDirectory() as target:

        def took(side: int) -> float:
            scanned = [sys.executable, "-c", script, str(files)]
            done[side].append(child(scanned) if side else convert(source, Path(target) / name))
            return done[side][-1].seconds

        measured = paired(lambda: took(0), lambda: took(1), runs)
    peak, theirs = (max(one.peak_gb for one in side) for side in done)
    progress = sum(line.endswith("%") for line in done[0][0].stderr.splitlines())
    sizes = {"patients": size.patients, "visits": size.admissions, "diagnoses": size.diagnoses}
    figure = row(what, "s", words, *measured, peak_gb=peak, against_peak_gb=theirs, progress_lines=progress)
    if size == MIMIC4:
        within = max(measured[0]) <= LIMIT_SECONDS and peak <= LIMIT_GB
        sizes |= {"limit_s": LIMIT_SECONDS, "limit_gb": LIMIT_GB, "within_limits": within}
    return figure | sizes


def convert(source: Path, out: Path, *options: str) -> Done:
    """`python -m mera_core convert` in a process of its own, overwriting a file it wrote before."""
    return child([sys.executable, "-m", "mera_core", "convert", str(source), "--out", str(out), *options])

"""How long `convert` takes on large invented records of each shape, beside a bare scan of the same files.

The scan reads every value and does nothing with it: pyarrow for tables, `json.loads` a line for FHIR. Both are whole
processes, from start to end. The records come from `make_test_tables`; at full size they are those of MIMIC-IV 3.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.benchmark.processes import Done, child
from training.benchmark.rows import Row, Setting, paired, row

TITLE = "Importing records: convert, beside a bare scan of the same files"
LIMIT_SECONDS, LIMIT_GB = 60, 3
_GZIPPED_CSV = """
import sys; from pathlib import Path; import pyarrow.csv as csv
print(sum(csv.read_csv(path).num_rows for path in Path(sys.argv[1]).rglob("*.csv*")))
"""
_PARQUET = """
import sys; from pathlib import Path; import pyarrow.parquet as pq
print(sum(pq.read_table(path).num_rows for path in Path(sys.argv[1]).rglob("*.parquet")))
"""
_LINES = """
import json, sys; from pathlib import Path
print(sum(len(json.loads(line)) > 0 for path in Path(sys.argv[1]).rglob("*.ndjson") for line in path.open("rb")))
"""


@dataclass(frozen=True)
class Size:
    """How many of each to invent."""

    patients: int
    admissions: int
    diagnoses: int

    def made(self, shape: str, folder: Path) -> Path:
        """The records on disk, written by a process of its own: their memory is not to be measured."""
        sizes = [f"--{name}={number}" for name, number in vars(self).items()]
        child([sys.executable, "-m", "training.tools.make_test_tables", shape, str(folder), *sizes])
        return folder

    def facts(self) -> dict[str, int]:
        """For the row."""
        return {"patients": self.patients, "visits": self.admissions, "diagnoses": self.diagnoses}


MIMIC4 = Size(364_000, 546_000, 6_400_000)
FHIR = Size(40_000, 60_000, 700_000)
QUICK = Size(300, 450, 5_000)


def measure(setting: Setting) -> Iterator[Row]:
    """Tables in MIMIC-IV's shape to parquet and CSV, the visits table read again, MEDS shards, FHIR NDJSON."""
    large, small = (QUICK, QUICK) if setting.quick else (MIMIC4, FHIR)
    runs = setting.times(3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = large.made("mimic4", folder / "mimic4")
        scan = (_GZIPPED_CSV, tables, "pyarrow.csv.read_csv of the same files")
        yield _convert("MIMIC-IV tables (CSV, gzipped) to parquet", tables, "visits.parquet", scan, runs, large)
        yield _convert("MIMIC-IV tables (CSV, gzipped) to CSV", tables, "visits.csv", scan, runs, large)
        yield from _read_again(tables, folder, runs, large)
        shards = large.made("meds", folder / "meds")
        scan = (_PARQUET, shards / "data", "pyarrow.parquet.read_table of the same files")
        yield _convert("MEDS shards to parquet", shards, "visits.parquet", scan, runs, large)
        yield _fhir(folder, runs, small)


def _read_again(tables: Path, folder: Path, runs: int, size: Size) -> Iterator[Row]:
    """The visits table, as `convert` wrote it, through `convert` once more."""
    for suffix, scan in ((".parquet", _PARQUET), (".csv", _GZIPPED_CSV)):
        kept = folder / suffix.lstrip(".")
        kept.mkdir()
        source = kept / f"visits{suffix}"
        convert(tables, source)
        words = f"pyarrow's reading of the same {suffix.lstrip('.')} file"
        yield _convert(
            f"the visits table ({suffix}) read again", source, "again.parquet", (scan, kept, words), runs, size
        )


def _fhir(folder: Path, runs: int, size: Size) -> Row:
    made = folder / "fhir"
    convert(size.made("mimic4", folder / "for_fhir"), made, "--to", "fhir")
    files = list(made.rglob("*.ndjson"))
    megabytes = round(sum(path.stat().st_size for path in files) / 1e6)
    scan = (_LINES, made, "json.loads of every line of the same files")
    return _convert("FHIR bulk export (NDJSON) to parquet", made, "visits.parquet", scan, runs, size) | {
        "megabytes": megabytes
    }


def _convert(what: str, source: Path, name: str, scan: tuple[str, Path, str], runs: int, size: Size) -> Row:
    """One row: `convert` of a source beside the scan, with the peak memory of both and whether progress was told."""
    script, files, words = scan
    ours: list[Done] = []
    theirs: list[Done] = []
    with tempfile.TemporaryDirectory() as target:

        def converted() -> float:
            ours.append(convert(source, Path(target) / name))
            return ours[-1].seconds

        def scanned() -> float:
            theirs.append(child([sys.executable, "-c", script, str(files)]))
            return theirs[-1].seconds

        values, others = paired(converted, scanned, runs)
    peak = max(done.peak_gb for done in ours)
    figure = row(what, values, "s", words, others, peak_gb=peak, against_peak_gb=max(done.peak_gb for done in theirs))
    figure |= {"progress_lines": sum(line.endswith("%") for line in ours[0].stderr.splitlines())} | size.facts()
    if size == MIMIC4:
        within = max(values) <= LIMIT_SECONDS and peak <= LIMIT_GB
        figure |= {"limit_s": LIMIT_SECONDS, "limit_gb": LIMIT_GB, "within_limits": within}
    return figure


def convert(source: Path, out: Path, *options: str) -> Done:
    """`python -m mera_core convert` in a process of its own, overwriting a file it wrote before."""
    command: Sequence[str] = [sys.executable, "-m", "mera_core", "convert", str(source), "--out", str(out), *options]
    return child(command)

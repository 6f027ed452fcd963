"""A population scored once and whole: `python -m mera_core score`. Source in, one result out; resumable; prints nothing.

Patients are read and cut into parts, parts are scored by this process, by several, or by Ray (`workers`, `on_ray`), each is
kept as soon as it is there (`store`), and the result is put together when all are. Nothing of how parts were shared out is in
it: one worker or many, stopped or not, it is the same bytes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mera_core.checkpoint.folder import check_files, folder_hash, read_manifest, refuse_unranked
from mera_core.cohort.convert import ended_by_signals, read_source
from mera_core.common.errors import InputError
from mera_core.common.files import refuse_target
from mera_core.engine import BUNDLED
from mera_core.export.tables import source_fingerprint
from mera_core.history.columns import VisitColumns
from mera_core.ranking.ranking import NOTICE
from mera_core.readers import ImportReport, Progress
from mera_core.scoring import on_ray, store, workers
from mera_core.scoring.predict import Part, Scored, Settings, schema

__all__ = ["ENGINES", "Job", "Result", "Settings", "run"]

ENGINES = ("local", "ray")
TABLES = (".parquet", ".csv")
COMMONEST = 20  # codes left out that a result names
_LIBRARIES = ("numpy", "pyarrow", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class Job:
    """What to score, by whom, and where to.

    out: .parquet or .csv. options, columns: as in `convert.Job`. workers: how many score at once. address: of a Ray cluster.
    restart: begin anew where an earlier run was stopped.
    Raises InputError for what can be seen to fail before anything is read.
    """

    source: Path
    out: Path
    settings: Settings = field(default_factory=Settings)
    format: str = "auto"
    checkpoint: Path | None = None
    engine: str = "local"
    workers: int = 1
    address: str | None = None
    restart: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise InputError(f"--engine must be {' or '.join(ENGINES)}, not {self.engine!r}.")
        if self.address is not None and self.engine != "ray":
            raise InputError("--address is that of a Ray cluster; it needs --engine ray.")
        if self.engine == "ray":
            on_ray.load_ray()
        if self.workers < 1:
            raise InputError(f"there must be at least one worker, not {self.workers}.")
        if self.out.suffix.lower() not in TABLES:
            raise InputError(f"--out must end in {' or '.join(TABLES)}, not {self.out.name!r}.")
        refuse_target(self.out, self.source)


@dataclass
class Result:
    """What a run came to. resumed: parts that an earlier run had finished. left_out: reason -> patients; who they are stands in
    `left_out_file`. notes: kind of a note on a history -> times. unread: code left out of a history -> times."""

    report: ImportReport
    checkpoint: str
    out: Path
    left_out_file: Path
    patients: int
    parts: int
    resumed: int
    scored: int = 0
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "checkpoint": self.checkpoint,
            "patients": self.patients,
            "scored": self.scored,
            "left_out": dict(self.left_out.most_common()),
            "rows": self.rows,
            "codes_left_out": dict(self.unread.most_common(COMMONEST)),
            "codes_left_out_distinct": len(self.unread),
            "notes": dict(self.notes.most_common()),
            "parts": self.parts,
            "resumed": self.resumed,
            "out": str(self.out),
            "left_out_file": str(self.left_out_file),
            "import": self.report.to_dict(),
            "notice": NOTICE,
        }

    def lines(self) -> list[str]:
        """The same in plain sentences, one a line."""
        lines = [*self.report.lines(), f"scored: {self.scored:,} of {self.patients:,} patients by {self.checkpoint}"]
        if self.resumed:
            lines.append(f"resumed: {self.resumed:,} of {self.parts:,} parts were finished by an earlier run")
        lines += [f"not scored: {count:,} patients: {reason}" for reason, count in self.left_out.most_common()]
        lines += [f"histories: {count:,} notes of the kind {kind}" for kind, count in self.notes.most_common()]
        if self.unread:
            named = ", ".join(f"{code} ({count:,})" for code, count in self.unread.most_common(COMMONEST))
            more = len(self.unread) - COMMONEST
            lines.append(f"codes left out of histories: {named}" + (f" and {more:,} more" if more > 0 else ""))
        lines.append(f"written: {self.out} ({self.rows:,} rows) and {self.left_out_file.name}")
        return [*lines, NOTICE]


def run(job: Job, progress: Progress | None = None) -> Result:
    """Score a population, or go on where an earlier run of the same job was stopped.

    Raises InputError for whatever the user can mend; parts that were finished by then are kept.
    """
    with ended_by_signals():
        name = _checked(job)
        cohort = read_source(job.source, job.format, job.options, job.columns, progress)
        columns = cohort.columns
        if not columns.ids:
            raise InputError(f"{job.source} holds no patient to score.")
        parts = -(-len(columns.ids) // job.settings.part)
        with store.opened(job.out, _facts(job, name, columns), parts, job.restart) as kept:
            missing = [number for number in range(parts) if not kept.has(number)]
            result = Result(
                cohort.report,
                name,
                job.out,
                store.left_out_file(job.out),
                len(columns.ids),
                parts,
                parts - len(missing),
            )
            for done, scored in enumerate(_each(job, name, missing, columns), start=result.resumed + 1):
                kept.put(scored)
                if progress is not None:
                    progress("scoring", done, parts)
            _finish(job, kept, result)
    return result


def slice_of(columns: VisitColumns, number: int, size: int) -> Part:
    """A part: `size` people in a row, with their visits."""
    first = number * size
    return Part(number, first, columns.slice_people(first, min(first + size, len(columns.ids))))


def _checked(job: Job) -> str:
    """The checkpoint's name, as `Engine.name`; every file of it is looked at before many workers load it."""
    folder = job.checkpoint or BUNDLED
    manifest = read_manifest(folder)
    name = f"{manifest.name} {folder_hash(manifest)}"
    refuse_unranked(name, manifest.label_space)
    check_files(folder, manifest.files)
    return name


def _facts(job: Job, name: str, columns: VisitColumns) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "form": 1,
        "patients": store.columns_hash(columns),
        "checkpoint": name,
        "settings": asdict(job.settings) | {"kind": job.out.suffix.lower()},
        "software": source_fingerprint(),
        "libraries": {library: version(library) for library in _LIBRARIES},
    }


def _each(job: Job, name: str, numbers: list[int], columns: VisitColumns) -> Iterator[Scored]:
    if not numbers:
        return iter(())
    spec = workers.Spec(job.checkpoint and job.checkpoint.resolve(), name, job.settings)
    count = min(job.workers, len(numbers))

    def load(number: int) -> Part:
        return slice_of(columns, number, job.settings.part)

    if job.engine == "ray":
        return on_ray.on_ray(spec, numbers, load, count, job.address)
    return workers.here(spec, numbers, load) if count == 1 else workers.processes(spec, numbers, load, count)


def _finish(job: Job, kept: store.Store, result: Result) -> None:
    """Put the result together; the file that was asked for comes last, so that where it stands all is done."""
    for part in kept.each():
        result.scored += part.patients - len(part.left_out)
        result.rows += len(part.table)
        result.left_out.update(reason for _, _, reason, _ in part.left_out)
        result.notes.update(part.notes)
        result.unread.update(part.unread)
    kept.write_left_out(result.left_out_file)
    tables = (part.table for part in kept.each())
    shape = schema(job.settings.hold_out)
    if job.out.suffix.lower() == ".csv":
        kept.write_csv(tables, shape, job.out)
    else:
        about = {"checkpoint": result.checkpoint, "notice": NOTICE}
        kept.write_parquet(tables, shape, about, job.out)
    kept.remove()


def usable_workers() -> int:
    """As many as cores that this process may use; one where there is a GPU, which has room for one model."""
    if torch.cuda.is_available():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""One import from a source to a file: read, apply cohort rules if asked, write whole or not at all, report.

Knows readers, cohort rules and writers; prints nothing.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mera_core.common.errors import InputError
from mera_core.common.files import Report as WriteReport
from mera_core.common.files import refuse_target, written_whole
from mera_core.history import cohort_rules
from mera_core.history.cohort_rules import Flow
from mera_core.history.records import TABLE_SUFFIXES
from mera_core.history.visits_file import write_visits
from mera_core.readers import Cohort, ImportReport, Progress, detect, options_of, read
from mera_core.writers import WRITERS, write

VISITS = "visits"


@dataclass(frozen=True)
class Job:
    """What to read, how, and where to.

    to: 'visits' for the visits table, or one of `writers.WRITERS`. options: those of the format's reader. columns: our name ->
    the table's name. Without `out` the source is read and counted.

    Raises InputError for what can be seen to fail before anything is read.
    """

    source: Path
    out: Path | None
    format: str = "auto"
    report: Path | None = None
    rules: str | None = None
    to: str = VISITS
    options: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.to not in (VISITS, *WRITERS):
            raise InputError(f"--to must be {', '.join((VISITS, *WRITERS))}, not {self.to!r}.")
        if self.out is None and self.to != VISITS:
            raise InputError(f"--out must name where to write {self.to}.")
        if self.out and self.to == VISITS and self.out.suffix.lower() not in TABLE_SUFFIXES:
            raise InputError(f"--out must end in {', '.join(TABLE_SUFFIXES)}, not {self.out.name!r}.")
        if self.out:
            refuse_target(self.out, self.source, folder=self.to != VISITS)
        if self.report is not None:
            refuse_target(self.report, self.source)
        if self.report and self.out and self.report.resolve() == self.out.resolve():
            raise InputError("--out and --report name the same file.")
        if self.rules is not None:
            cohort_rules.named(self.rules)


@dataclass
class Result:
    """What was read, what the rules left, and where it was written."""

    report: ImportReport
    out: Path | None
    flow: Flow | None = None
    written: WriteReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the report, the cohort rules' steps where there are any, and the file."""
        flow = {"cohort": self.flow.to_dict()} if self.flow else {}
        written = {"written": self.written.to_dict()} if self.written else {}
        return {**self.report.to_dict(), **flow, **written, "out": str(self.out) if self.out else None}

    def lines(self) -> list[str]:
        """The same in plain sentences."""
        written = (
            self.written.lines() if self.written else [f"written: {self.out or 'nothing, as --out names no file'}"]
        )
        return [*self.report.lines(), *(self.flow.lines() if self.flow else []), *written]


def run(job: Job, progress: Progress | None = None) -> Result:
    """Do one job. Raises InputError for whatever the user can mend; then neither file is written."""
    with ended_by_signals():
        cohort = read_source(job.source, job.format, job.options, job.columns, progress)
        columns, flow = cohort.columns, None
        if not cohort.report.codes:
            reasons = [line for line in cohort.report.lines() if line.startswith(("left out", "unknown codes"))]
            raise InputError("; ".join([f"{job.source}: no code was kept, so nothing is written", *reasons]) + ".")
        if job.rules is not None:
            columns, flow = cohort_rules.apply(columns, cohort_rules.named(job.rules))
            if not columns.ids:
                raise InputError(f"the cohort rules {job.rules} leave no patient of {job.source}.")
        result = Result(cohort.report, job.out, flow)
        with written_whole(job.report, folder=False) if job.report else nullcontext() as aside:
            if job.out is None:
                pass
            elif job.to == VISITS:
                write_visits(columns, job.out, progress)
            else:
                result.written = write(Cohort.of(columns, cohort.report), job.out, job.to, progress=progress)
            if aside is not None:
                aside.write_text(json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def read_source(
    source: Path, format: str, options: Mapping[str, str], columns: Mapping[str, str], progress: Progress | None
) -> Cohort:
    """The source with the options of its format as text; InputError where one does not fit."""
    found: dict[str, Any] = {}
    if options or columns:
        name = format if format != "auto" else "table" if columns else detect(source)[0]
        known = options_of(name)
        if columns and "columns" not in known:
            raise InputError(f"the format {name} has columns of its own, so --column is for the format table.")
        found = {key: _of_kind(key, value, known.get(key)) for key, value in options.items()}
        found |= {"columns": dict(columns)} if columns else {}
    return read(source, format, progress=progress, **found)


def _of_kind(name: str, value: str, default: object) -> object:
    """The text of an option as the kind of thing that its default is."""
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        return value
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"the option {name} must be a number, not {value!r}.") from error


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A request to end the process unwinds it, so that the file written aside is taken away."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
    heeded = [each for each in ends if signal.getsignal(each) not in (signal.SIG_IGN, None)]  # nohup has SIGHUP ignored
    before = {each: signal.signal(each, stop) for each in heeded}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

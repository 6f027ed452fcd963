"""What every reader shares: the source, the count of what was kept and left out, and the cohort that comes out.

Knows no format and no code set. A reader is a module of this folder with `FORMAT`, `detect(source)` and
`read(source, report, ontology, **options)`; delimited files are read by `readers.delimited`, columns become a cohort in
`readers.assemble`, and `readers.read` picks the reader.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mera_core.common.errors import InputError
from mera_core.common.formatting import counted, records_counted
from mera_core.common.limits import changed_by, current_limits
from mera_core.history.columns import VisitColumns
from mera_core.history.records import Patient

GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
COMMONEST = 20  # unknown codes that a report names
_LONGEST_SHOWN = 60  # characters of an unknown code that a report prints
_HEAD = 1 << 16  # bytes read to recognise a file
_PARQUET_MAGIC = b"PAR1"
_WRONG_STARTS = {
    b"\xff\xfe": "UTF-16 text (line 1); save it as UTF-8",
    b"\xfe\xff": "UTF-16 text (line 1); save it as UTF-8",
    b"pk\x03\x04": "a ZIP archive or a spreadsheet; unpack it, or save it as CSV",
    b"<!doctype": "a web page, not the data that it should have been",
    b"<html": "a web page, not the data that it should have been",
}
Progress = Callable[[str, int, int], None]
"""Called now and then while reading: what is read, how much is done, of how much (bytes or rows)."""


@dataclass
class ImportReport:
    """What a reader kept, and what it left out and why.

    rows: diagnosis entries in the source; always codes + the sum of left_out.
    left_out: reason -> diagnosis entries. aside: reason -> whole visits, patients or files without diagnoses,
    which take no entry with them. unknown_codes: the text of each unread code -> times it was met.
    read_otherwise: how -> entries whose code was read otherwise than it was written.
    systems: code system -> codes kept in it. approximate: kept codes that are a translation, not the code recorded.
    guessed_order: visits whose place among their patient's visits the source does not settle.
    """

    format: str
    why: str = ""
    patients: int = 0
    visits: int = 0
    codes: int = 0
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    aside: Counter[str] = field(default_factory=Counter)
    unknown_codes: Counter[str] = field(default_factory=Counter)
    read_otherwise: Counter[str] = field(default_factory=Counter)
    systems: Counter[str] = field(default_factory=Counter)
    approximate: int = 0
    guessed_order: int = 0
    remarks: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count diagnosis entries that are not kept."""
        if count:
            self.left_out[reason] += int(count)

    def set_aside(self, reason: str, count: int = 1) -> None:
        """Count whole visits, patients or files that take no entry with them."""
        if count:
            self.aside[reason] += int(count)

    def count(self, kept: VisitColumns) -> None:
        """Set the counts of what was kept."""
        self.patients, self.visits, self.codes = len(kept.ids), len(kept.person), len(kept.code)
        times = pd.Series(kept.code).value_counts()
        self.systems = Counter()
        for row, count in times.items():
            self.systems[getattr(kept.codes[row], "system", "unresolved")] += int(count)

    def commonest_unknown(self) -> list[tuple[str, int]]:
        """The commonest unread codes as they may be shown, and how often each was met; those that look alike as one."""
        shown: Counter[str] = Counter()
        for code, count in self.unknown_codes.most_common(COMMONEST):
            shown[_shown(code)] += count
        return shown.most_common()

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {
            "format": self.format,
            "why": self.why,
            "patients": self.patients,
            "visits": self.visits,
            "codes": self.codes,
            "rows": self.rows,
            "left_out": dict(self.left_out.most_common()),
            "aside": dict(self.aside.most_common()),
            "unknown_codes": dict(self.commonest_unknown()),
            "unknown_codes_distinct": len(self.unknown_codes),
            "read_otherwise": dict(self.read_otherwise.most_common()),
            "systems": dict(sorted(self.systems.items())),
            "approximate": self.approximate,
            "guessed_order": self.guessed_order,
            "remarks": list(self.remarks),
        }

    def to_frame(self) -> pd.DataFrame:
        """The report as a table: one row a count, with the columns kind, what and count."""
        rows: list[tuple[str, str, int]] = [
            ("source", "diagnosis entries", self.rows),
            ("kept", "patients", self.patients),
            ("kept", "visits", self.visits),
            ("kept", "codes", self.codes),
            *[("kept", f"codes of {system}", count) for system, count in sorted(self.systems.items())],
            *[("read otherwise", how, count) for how, count in self.read_otherwise.most_common()],
            ("kept", "codes that are an approximate translation", self.approximate),
            ("kept", "visits whose order is a guess", self.guessed_order),
            *[("left out", reason, count) for reason, count in self.left_out.most_common()],
            *[("aside", reason, count) for reason, count in self.aside.most_common()],
            *[("unknown code", code, count) for code, count in self.commonest_unknown()],
        ]
        return pd.DataFrame(rows, columns=["kind", "what", "count"])

    def lines(self) -> list[str]:
        """The report in plain sentences, one a line."""
        kept = f"kept: {records_counted(self.patients, self.visits, self.codes)}"
        lines = [
            f"format: {self.format}" + (f" ({self.why})" if self.why else ""),
            f"{kept} of {self.rows:,} diagnosis entries",
        ]
        if self.systems:
            lines.append("code systems: " + ", ".join(f"{name} {n:,}" for name, n in sorted(self.systems.items())))
        lines += [f"{how}: {counted(count, 'entry', 'entries')}" for how, count in self.read_otherwise.most_common()]
        lines += [
            f"left out: {counted(count, 'entry', 'entries')}: {reason}" for reason, count in self.left_out.most_common()
        ]
        lines += [f"aside: {count:,} {reason}" for reason, count in self.aside.most_common()]
        if self.unknown_codes:
            named = ", ".join(f"{code} ({count:,})" for code, count in self.commonest_unknown())
            more = len(self.unknown_codes) - COMMONEST
            lines.append(f"unknown codes: {named}" + (f" and {more:,} more" if more > 0 else ""))
        if self.approximate:
            lines.append(f"approximate: {self.approximate:,} codes are translated, not as recorded")
        if self.guessed_order:
            lines.append(f"order: that of {self.guessed_order:,} visits among their patient's visits is a guess")
        return lines + self.remarks


def _shown(text: str) -> str:
    """A text of a source as one may print it: nothing that moves a terminal's cursor, and not without end."""
    plain = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    return plain if len(plain) <= _LONGEST_SHOWN else plain[:_LONGEST_SHOWN] + " ..."


class Cohort:
    """What was read from a source, and the report of how.

    It is held either as columns or as records; the other form is made when it is first asked for.
    """

    def __init__(self, patients: list[Patient], report: ImportReport) -> None:
        self.report = report
        self.patients = patients

    @classmethod
    def of(cls, columns: VisitColumns, report: ImportReport) -> Cohort:
        """A cohort held as columns."""
        cohort = cls.__new__(cls)
        cohort.report, cohort.columns = report, columns
        return cohort

    @cached_property
    def patients(self) -> list[Patient]:
        """The patients as records, in the order of the source."""
        return self.columns.patients()

    @cached_property
    def columns(self) -> VisitColumns:
        """The same as columns."""
        return VisitColumns.of(self.patients)

    def table(self) -> pd.DataFrame:
        """The visits table (see `mera_core.history.records`)."""
        return self.columns.table()


class Source:
    """A file or a folder, plain or gzipped, looked at without being read whole.

    Raises InputError when there is no such file or folder, or it is empty.
    """

    def __init__(self, path: str | Path, progress: Progress | None = None) -> None:
        self.path = Path(path)
        self._listener = progress
        try:
            if not self.path.exists():
                raise InputError(f"there is no file or folder {self.path}.")
            if self.path.is_file() and self.path.stat().st_size == 0:
                raise InputError(f"{self.path} is empty.")
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} can't be opened: {getattr(error, 'strerror', None) or error}.") from error

    def progress(self, what: str, done: int, total: int) -> None:
        """Tell whoever listens how far the reading is (bytes or rows)."""
        if self._listener is not None:
            self._listener(what, done, total)

    def within(self, path: Path) -> Source:
        """A part of this source, with the same listener."""
        return Source(path, self._listener)

    @cached_property
    def _named(self) -> dict[str, list[Path]]:
        """Lower-case name without .gz -> every file so called, the plain one first."""
        try:
            paths = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
        except OSError as error:
            raise InputError(f"{self.path} can't be opened: {error.strerror or error}.") from error
        found: dict[str, list[Path]] = {}
        for path in sorted(paths, key=lambda path: path.name.lower().endswith(".gz")):
            if path.is_file() and not path.name.startswith("."):
                found.setdefault(path.name.lower().removesuffix(".gz"), []).append(path)
        return found

    @cached_property
    def files(self) -> dict[str, Path]:
        """Lower-case name without .gz -> path, of the files in the folder, or of the file itself."""
        return {name: paths[0] for name, paths in self._named.items()}

    def file(self, name: str) -> Path:
        """The file of that name in any case, plain or gzipped.

        Raises InputError when the folder lacks it, or holds two that could be meant and differ in more than packing.
        """
        paths = self._named.get(name.lower())
        if not paths:
            raise InputError(f"{self.path} has no file {name} or {name}.gz.")
        rivals = [path for path in paths[1:] if path.name.removesuffix(".gz") != paths[0].name]
        if rivals:
            raise InputError(
                f"{self.path} holds both {paths[0].name} and {rivals[0].name}; which is meant isn't clear."
            )
        return paths[0]

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Lower-case column names of a comma-separated text file; () for a folder or anything else."""
        return self.header_by(",")

    def header_by(self, delimiter: str) -> tuple[str, ...]:
        """Lower-case column names of a text file separated so; () for a folder or anything else."""
        if not self.path.is_file():
            return ()
        try:
            with open_bytes(self.path) as stream:
                head = stream.read(_HEAD)
            text = head.removeprefix(BOM).decode("utf-8", errors="ignore")
            names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
            return tuple(name.strip().lower() for name in names)
        except (OSError, EOFError, zlib.error, csv.Error, StopIteration):
            return ()


def open_bytes(path: Path) -> io.BufferedReader | gzip.GzipFile:
    """The file's bytes, unpacked when it is gzipped (told by its first bytes, not by its name)."""
    with path.open("rb") as stream:
        gzipped = stream.read(2) == GZIP_MAGIC
    return gzip.open(path, "rb") if gzipped else path.open("rb")


@contextmanager
def fault_named(path: Path) -> Iterator[None]:
    """Turn what reading a plain or gzipped file raises into one InputError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged gzip file: it is cut short or altered.") from error
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error


def read_bytes(path: Path) -> bytes:
    """All bytes of a plain or gzipped file; InputError when it is unreadable, empty, cut short or too large to be held."""
    limits = current_limits()
    with fault_named(path), open_bytes(path) as stream:
        content = stream.read(limits.document_bytes + 1)
    limits.refuse_above("document_bytes", len(content), f"{path}, unpacked,")
    if not content.strip():
        raise InputError(f"{path} is empty.")
    return content


def refuse_damaged(source: Source, endless_lines: bool = True) -> None:
    """Raise InputError where the first bytes of a file, or of one in a folder, are of no text, table or JSON.

    endless_lines: a first line longer than the limit is refused too; a sound file of JSON may have one.
    """
    most = current_limits().line_bytes
    for path in source.files.values():
        with fault_named(path), open_bytes(path) as stream:
            head = stream.read(_HEAD)
            endless = endless_lines and b"\n" not in head and not head.startswith(_PARQUET_MAGIC)
            line = head + stream.read(most + 1 - len(head)) if endless and most >= len(head) else head
        for start, what in _WRONG_STARTS.items():
            if head.lstrip()[: len(start)].lower() == start:
                raise InputError(f"{path} is {what}.")
        if endless and len(line) > most and b"\n" not in line[: most + 1]:
            raise too_long(path, 1, most)


def yes(value: bool | str, name: str) -> bool:
    """A switch, which the command line gives as a word."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in known:
        raise InputError(f"the option {name} must be yes or no, not {value!r}.")
    return known[str(value).lower()]


def too_long(path: Path | str, line: int, most: int) -> InputError:
    """The refusal of a line above the limit line_bytes, which is `most`."""
    return InputError(
        f"{path}: line {line} is longer than {most:,} bytes, so it is not a table of this kind{changed_by('line_bytes')}."
    )

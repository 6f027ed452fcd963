"""What every reader shares: sources, strict delimited files, and the count of what was kept and left out.

Knows no format and no code book; readers build on it, `readers.read` picks the reader.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from mera_core.errors import InputError
from mera_core.ontology import AmbiguousCodeError, Code, Ontology, UnknownCodeError
from mera_core.records import Patient

_GZIP_MAGIC = b"\x1f\x8b"
_HEAD = 1 << 16  # bytes read to recognise a file


@dataclass
class ImportReport:
    """What a reader kept, and what it left out and why.

    rows: diagnosis entries in the source; always codes + the sum of left_out.
    left_out: reason -> diagnosis entries. aside: reason -> whole visits, patients or files without diagnoses,
    which take no entry with them. unknown_codes: the text of each unread code -> times it was met.
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
    remarks: list[str] = field(default_factory=list)

    def count(self, patients: Iterable[Patient]) -> None:
        """Set the counts of what was kept."""
        patients = list(patients)
        self.patients = len(patients)
        self.visits = sum(len(patient.visits) for patient in patients)
        self.codes = sum(len(visit.codes) for patient in patients for visit in patient.visits)

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
            "unknown_codes": dict(self.unknown_codes.most_common()),
            "remarks": list(self.remarks),
        }

    def lines(self) -> list[str]:
        """The report in plain sentences, one a line."""
        kept = f"kept: {self.patients:,} patients, {self.visits:,} visits, {self.codes:,} codes"
        lines = [
            f"format: {self.format}" + (f" ({self.why})" if self.why else ""),
            f"{kept} of {self.rows:,} diagnosis entries",
        ]
        lines += [f"left out: {count:,} entries: {reason}" for reason, count in self.left_out.most_common()]
        lines += [f"aside: {count:,} {reason}" for reason, count in self.aside.most_common()]
        if self.unknown_codes:
            named = ", ".join(f"{code} ({count:,})" for code, count in self.unknown_codes.most_common(20))
            more = len(self.unknown_codes) - 20
            lines.append(f"unknown codes: {named}" + (f" and {more:,} more" if more > 0 else ""))
        return lines + self.remarks


@dataclass
class Cohort:
    """Patients read from a source, and the report of how."""

    patients: list[Patient]
    report: ImportReport


class Source:
    """A file or a folder, plain or gzipped, looked at without being read whole.

    Raises InputError when there is no such file or folder, or it is empty.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            if not self.path.exists():
                raise InputError(f"there is no file or folder {self.path}.")
            if self.path.is_file() and self.path.stat().st_size == 0:
                raise InputError(f"{self.path} is empty.")
        except OSError as error:
            raise InputError(f"{self.path} can't be opened: {error.strerror or error}.") from error

    @cached_property
    def files(self) -> dict[str, Path]:
        """Lower-case name without .gz -> path, of the files in the folder, or of the file itself."""
        paths = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
        found: dict[str, Path] = {}
        for path in paths:
            if path.is_file():
                found.setdefault(path.name.lower().removesuffix(".gz"), path)
        return found

    def file(self, name: str) -> Path:
        """The file of that name in any case, plain or gzipped; InputError when the folder lacks it."""
        if name.lower() not in self.files:
            raise InputError(f"{self.path} has no file {name} or {name}.gz.")
        return self.files[name.lower()]

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Lower-case column names of a delimited text file; () for a folder or anything else."""
        if not self.path.is_file():
            return ()
        try:
            with open_bytes(self.path) as stream:
                head = stream.read(_HEAD)
            text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="ignore")
            return tuple(name.strip().lower() for name in next(csv.reader(io.StringIO(text, newline=""))))
        except (OSError, EOFError, zlib.error, csv.Error, StopIteration):
            return ()


def open_bytes(path: Path) -> io.BufferedIOBase:
    """The file's bytes, unpacked when it is gzipped (told by its first bytes, not by its name)."""
    with path.open("rb") as stream:
        gzipped = stream.read(2) == _GZIP_MAGIC
    return gzip.open(path, "rb") if gzipped else path.open("rb")  # type: ignore[return-value]


def read_bytes(path: Path) -> bytes:
    """All bytes of a plain or gzipped file; InputError when it is unreadable, empty or cut short."""
    try:
        with open_bytes(path) as stream:
            content = stream.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged gzip file: it is cut short or altered.") from error
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    if not content.strip():
        raise InputError(f"{path} is empty.")
    return content


def read_delimited(path: Path, required: Iterable[str], lower: bool = True) -> dict[str, list[str]]:
    """A comma-separated file as column name (in lower case, unless told not to) -> texts, '' where empty.

    Takes plain or gzipped, LF or CRLF, with or without a byte-order mark. Nothing is guessed: every value
    stays text, and every line must have as many cells as the first.
    Raises InputError naming the file and the missing column, the line of another length, the wrong
    delimiter or the wrong encoding.
    """
    content = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} is not UTF-8 text (line {line}).") from error
    if b"\x00" in content:
        raise InputError(f"{path} is not a text file: it holds zero bytes.")
    header = csv.reader(io.StringIO(text, newline=""))
    names = [name.strip() if not lower else name.strip().lower() for name in next(header)]
    missing = [column for column in required if column not in map(str.lower, names)]
    if missing:
        for delimiter, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if delimiter in text.splitlines()[0]:
                raise InputError(f"{path} is separated by {word}; it must be separated by commas.")
        raise InputError(f"{path} has no column {missing[0]!r}.")
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled:
        raise InputError(f"{path} has the column {doubled[0]!r} more than once.")
    ragged: list[tuple[int | None, int]] = []

    def note_ragged(row: pa_csv.InvalidRow) -> str:
        ragged.append((row.number, row.actual_columns))
        return "error"

    quoted = b'"' in content
    if content.count(b'"') % 2:  # the parser would take the rest of the file for one cell
        raise InputError(f"{path} is not a sound comma-separated file: a quote is left open.")
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(content),
            read_options=pa_csv.ReadOptions(column_names=names, skip_rows=header.line_num, use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=quoted, invalid_row_handler=note_ragged),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        if ragged:  # the library's own message quotes the row; a message must not carry a patient's data
            line, cells = ragged[0]
            where = f"line {line}" if line else "one line"
            raise InputError(f"{path}: {where} has {cells} cells where the header has {len(names)}.") from error
        raise InputError(f"{path} is not a sound comma-separated file") from error
    return {name: table.column(name).to_pylist() for name in names}


class CodeReader:
    """Reads code texts of one source, each distinct text once; keeps count of what it can't read.

    rules: further arguments of `Ontology.parse` that hold for the whole source.
    """

    def __init__(self, report: ImportReport, ontology: Ontology | None = None, **rules: Any) -> None:
        self._ontology = ontology or Ontology.load()
        self._rules = rules
        self._report = report
        self._read: dict[tuple[str, str | None], Code | str] = {}

    def __call__(self, text: str, system: str | None = None) -> Code | None:
        """The code, or None after counting the entry as left out."""
        key = (text, system)
        if key not in self._read:
            try:
                self._read[key] = self._ontology.parse(text, system, **self._rules)
            except AmbiguousCodeError:
                self._read[key] = "code in both systems, and no system given"
            except UnknownCodeError:
                self._read[key] = "code not in the code book"
        outcome = self._read[key]
        if isinstance(outcome, Code):
            return outcome
        self._report.left_out[outcome] += 1
        self._report.unknown_codes[text] += 1
        return None


@dataclass(frozen=True)
class Reader:
    """One source format. detect: why the source is of it, or None. read: source, **options -> Cohort."""

    name: str
    detect: Callable[[Source], str | None]
    read: Callable[..., Cohort]

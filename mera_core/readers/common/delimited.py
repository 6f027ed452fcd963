"""Delimited text files, plain or gzipped, read block by block into text columns; every fault named by file and line.

Knows no format and no ICD code set. Nothing is guessed: every value stays text (leading zeros live), and every line must
have as many cells as the first. Byte-order mark, CRLF, quoted cells, line breaks within quotes and capitals in the header
are read as they are meant; text that is not UTF-8 is read as Latin-1, and the report says so.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from mera_core.common.errors import InputError
from mera_core.common.limits import current_limits
from mera_core.readers.common.base import BOM, ImportReport, Source, fault_named, open_bytes, too_long

_LINES_A_CELL = 4  # a quoted cell may run over lines
_BLOCK = 1 << 22  # bytes parsed at once, or more where lines may be longer
_WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
Keep = Callable[[dict[str, pa.DictionaryArray]], np.ndarray]


@dataclass
class Delimited:
    """The text columns of one file, '' where a cell is empty. rows: the file's rows that these are, None for all."""

    path: Path
    columns: dict[str, pa.Array]
    delimiter: str = ","
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> pa.Array:
        return self.columns[name]

    def get(self, name: str) -> pa.Array:
        """A column that may be absent: then empty in every row."""
        if name in self.columns:
            return self.columns[name]
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(self), np.int32)), pa.array([""]))

    def line(self, row: int) -> int:
        """The line of the file on which a row (0-based) begins; read again from the start, for messages."""
        row = row if self.rows is None else int(self.rows[row])
        return next((line for at, line, _ in _records(self.path, self.delimiter) if at == row), row + 2)

    def fault(self, row: int, column: str, what: str) -> InputError:
        """The error that names file, line and column."""
        return InputError(f"{self.path}: line {self.line(int(row))}, column {column!r}: {what}.")


def read_delimited(
    source: Source,
    required: Iterable[str],
    optional: Iterable[str] | None = (),
    report: ImportReport | None = None,
    delimiters: str = ",",
    keep: Keep | None = None,
) -> Delimited:
    """The named columns of a file, names in lower case; `optional=None` gives every column, names as they are written.

    keep: told the columns of each block, it says which rows are wanted, so that a huge table need not be held.
    Text columns come as arrow dictionaries, so that a value that is met a million times is held once.
    Raises InputError naming the file, and the line and column where there is one, for a missing column, a line of another
    length, the wrong delimiter, an open quote, zero bytes, a line longer than 1 MiB, or a damaged gzip.
    """
    required = [name.lower() for name in required]
    header = _header(source.path, required, delimiters)
    if optional is None:
        wanted = dict(zip(header.names, header.names, strict=True))
    else:
        known = {*required, *(name.lower() for name in optional)}
        wanted = {name: name.lower() for name in header.names if name.lower() in known}
    try:
        columns = _parsed(source, header, wanted, keep)
    except _NotUtf8:
        line, column = _first_not_utf8(source.path, header)
        if report is not None:
            report.remarks.append(
                f"{source.path.name} is not UTF-8 text (first at line {line}, column {column!r}); it was read as Latin-1"
            )
        columns = _parsed(source, header, wanted, keep, encoding="latin-1")
    return Delimited(source.path, columns, header.delimiter)


class _Watched(io.RawIOBase):
    """The unpacked bytes of a file, watched for what no table may hold.

    quotes: how many there were so far. What is wrong is kept in `fault`, because an error that passes through the parser
    comes out as another one.
    """

    def __init__(self, source: Source) -> None:
        self.quotes, self.fault = 0, None
        self._path, self._tell, self._size = source.path, source.progress, source.path.stat().st_size
        self._limits = current_limits()  # here, because the parser reads in a thread of its own
        self._stream = open_bytes(source.path)
        self._unpacked, self._line, self._in_line = 0, 1, 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def read(self, size: int = -1) -> bytes:
        try:
            with fault_named(self._path):
                chunk = self._stream.read(size)
            self._watch(chunk)
        except InputError as fault:
            self.fault = fault
            raise
        self._tell(self._path.name, getattr(self._stream, "fileobj", self._stream).tell(), self._size)
        return chunk

    def _watch(self, chunk: bytes) -> None:
        most = self._limits.line_bytes
        self._unpacked += len(chunk)
        self._limits.refuse_above("unpacked_bytes", self._unpacked, f"{self._path}, unpacked,")
        if (zero := chunk.find(b"\x00")) >= 0:
            line = self._line + chunk.count(b"\n", 0, zero)
            raise InputError(f"{self._path}: line {line}: it holds zero bytes, so it is not a text file.")
        ends = np.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")), len(chunk))
        lengths = np.diff(ends, prepend=-1 - self._in_line) - 1
        if lengths.max() > most:
            raise too_long(self._path, self._line + int(np.argmax(lengths > most)), most)
        self._line, self._in_line = self._line + len(ends) - 1, int(lengths[-1])
        self.quotes += chunk.count(b'"')


class _NotUtf8(Exception):
    """A cell that is asked for is not UTF-8."""


@dataclass(frozen=True)
class _Header:
    names: list[str]
    delimiter: str
    lines: int


def _quoting(delimiter: str) -> Literal[0, 3]:
    # Vocabulary files of OMOP are separated by tabs and never quoted: a quote there is a quote.
    return csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL


def _header(path: Path, required: list[str], delimiters: str) -> _Header:
    longest = current_limits().line_bytes
    with fault_named(path), open_bytes(path) as stream:
        content = stream.read(longest + len(BOM) + 1).removeprefix(BOM)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path} is UTF-16 text (line 1); save it as UTF-8.")
    if not content.strip():
        raise InputError(f"{path} is empty.")
    first = content.split(b"\n", 1)[0]
    if len(first) > longest:
        raise too_long(path, 1, longest)
    csv.field_size_limit(_LINES_A_CELL * longest)
    best: _Header | None = None
    for delimiter in delimiters:
        reader = csv.reader(io.StringIO(_decoded(content), newline=""), delimiter=delimiter)
        try:
            names = [name.strip() for name in next(reader)]
        except (csv.Error, StopIteration):
            continue
        if set(required) <= {name.lower() for name in names}:
            doubled = [name for name, times in Counter(map(str.lower, names)).items() if times > 1]
            if doubled:
                raise InputError(f"{path}: line 1 has the column {doubled[0]!r} more than once.")
            return _Header(names, delimiter, reader.line_num)
        if best is None or len(names) > len(best.names):
            best = _Header(names, delimiter, reader.line_num)
    for delimiter, word in _WORDS.items():
        cells = [name.strip().strip('"').lower() for name in first.decode("latin-1").strip("\r").split(delimiter)]
        if delimiter not in delimiters and len(cells) > 1 and set(required) & set(cells):
            asked = " or ".join(_WORDS[each] for each in delimiters)
            raise InputError(f"{path}: line 1 is separated by {word}; it must be separated by {asked}.")
    found = {name.lower() for name in best.names} if best else set()
    missing = next(name for name in required if name not in found)
    raise InputError(f"{path} has no column {missing!r} in its first line.")


def _decoded(content: bytes) -> str:
    """The first lines as text; a character that the last byte cuts short is of no matter."""
    whole = content[: content.rfind(b"\n") + 1] or content
    try:
        return whole.decode("utf-8")
    except UnicodeDecodeError:
        return whole.decode("latin-1")


def _parsed(
    source: Source, header: _Header, wanted: dict[str, str], keep: Keep | None, encoding: str = "utf8"
) -> dict[str, pa.Array]:
    path, limits, rows = source.path, current_limits(), 0
    quoted = _quoting(header.delimiter) != csv.QUOTE_NONE
    parts: dict[str, list[pa.Array]] = {name: [] for name in wanted}
    with _Watched(source) as stream:
        try:
            reader = pa_csv.open_csv(
                pa.PythonFile(stream, mode="r"),
                read_options=pa_csv.ReadOptions(
                    column_names=header.names,
                    skip_rows=header.lines,
                    block_size=max(_BLOCK, 2 * limits.line_bytes),
                    use_threads=False,
                    encoding=encoding,
                ),
                parse_options=pa_csv.ParseOptions(
                    delimiter=header.delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(header.names, pa.dictionary(pa.int32(), pa.string())),
                    strings_can_be_null=False,
                    include_columns=list(wanted),
                ),
            )
            for batch in reader:
                rows += len(batch)
                limits.refuse_above("rows", rows, str(path))
                if keep is not None:
                    batch = batch.filter(pa.array(keep({wanted[name]: batch.column(name) for name in wanted})))
                for name in wanted:
                    parts[name].append(batch.column(name))
        except (pa.ArrowException, OSError, StopIteration) as error:
            if stream.fault is not None:
                raise stream.fault from error
            if "UTF8" in str(error) and encoding == "utf8":
                raise _NotUtf8 from error
            if "Empty CSV" not in str(error):  # a header and nothing else is sound
                # The parser's own words quote the row, so they are not used.
                known = _fault(path, header)
                unsound = f"{path} is not a sound text table separated by {_WORDS[header.delimiter]}."
                raise known or InputError(unsound) from error
        if stream.fault is not None:
            raise stream.fault
        # An odd quote: the parser may have taken the rest of the file for one cell.
        if quoted and stream.quotes % 2 and (fault := _fault(path, header)):
            raise fault
    return {lower: _joined(parts.pop(name)) for name, lower in wanted.items()}


def words(values: Iterable[str]) -> pa.DictionaryArray:
    """Texts as an arrow dictionary."""
    return pa.array(list(values), pa.string()).dictionary_encode()


def _joined(parts: list[pa.Array]) -> pa.DictionaryArray:
    if not parts:
        return words([])
    whole = pa.chunked_array(parts).unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    # White space around a value is never part of it: MIMIC-IV's codes are padded to seven characters.
    texts = pc.utf8_trim_whitespace(whole.dictionary)
    if len(pc.unique(texts)) == len(texts):
        return pa.DictionaryArray.from_arrays(whole.indices, texts)
    again = texts.dictionary_encode()
    return pa.DictionaryArray.from_arrays(again.indices.take(whole.indices), again.dictionary)


def _records(path: Path, delimiter: str, strict: bool = False) -> Iterator[tuple[int, int, list[str]]]:
    """(row, first line, cells) of each record after the header, by Python's slower parser, to name the place of a fault.

    strict: raises InputError for a quote that never closes or closes within a cell.
    """
    csv.field_size_limit(_LINES_A_CELL * current_limits().line_bytes)
    with open_bytes(path) as stream:
        text = io.TextIOWrapper(stream, encoding="latin-1", newline="")
        reader = csv.reader(text, delimiter=delimiter, quoting=_quoting(delimiter), strict=strict)
        row, line = 0, 1
        try:
            next(reader, None)
            line = reader.line_num + 1
            for cells in reader:
                if cells:
                    yield row, line, cells
                    row += 1
                line = reader.line_num + 1
        except csv.Error as error:
            if strict and "new-line" not in str(error):  # a lone carriage return is another matter
                raise InputError(f"{path}: line {line}: a quote is left open.") from error


def _fault(path: Path, header: _Header) -> InputError | None:
    """The first open quote, or line that is too long or too short; None where there is neither."""
    try:
        for _, line, cells in _records(path, header.delimiter, strict=True):
            if len(cells) != len(header.names):
                return InputError(
                    f"{path}: line {line} has {len(cells)} cells where the header has {len(header.names)}."
                )
    except InputError as error:
        return error
    return None


def _first_not_utf8(path: Path, header: _Header) -> tuple[int, str]:
    for _, line, cells in _records(path, header.delimiter):
        for name, cell in zip(header.names, cells, strict=False):
            try:
                cell.encode("latin-1").decode("utf-8")
            except UnicodeDecodeError:
                return line, name
    return 1, header.names[0]

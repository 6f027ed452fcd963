"""The bytes of a text file on their way to a parser: unpacked, without a byte-order mark, watched for what no table may hold.

Knows nothing of columns. A gzip file is told by its first bytes, and may have several members.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from mera_core.common.errors import InputError
from mera_core.common.limits import current_limits
from mera_core.readers.common.base import BOM, GZIP_MAGIC, Source, too_long

_CHUNK = 1 << 20  # bytes read at once
_PACKED_CHUNK = 1 << 16  # the same of a gzip file, which may unpack to a thousand times as much


class TextBytes(io.RawIOBase):
    """A readable stream of one file's bytes; `latin` turns Latin-1 into UTF-8, `first_line` ends it with that.

    quotes: how many there were so far. What is wrong is kept in `fault`, because an error that passes through the parser
    comes out as another one.
    """

    def __init__(self, source: Source, latin: bool = False, first_line: bool = False) -> None:
        self.path, self.quotes, self.fault = source.path, 0, None
        self._tell, self._latin, self._first_line = source.progress, latin, first_line
        self._limits = current_limits()  # here, because the parser reads in a thread of its own
        self._left, self._given = b"", self.chunks()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._left) < size:
            chunk = next(self._given, None)
            if chunk is None:
                break
            self._left += chunk
        if size < 0:
            size = len(self._left)
        given, self._left = self._left[:size], self._left[size:]
        return given

    def chunks(self) -> Iterator[bytes]:
        """The unpacked bytes in pieces; raises InputError, and keeps it, at the first fault."""
        try:
            yield from self._watched()
        except InputError as fault:
            self.fault = fault
            raise
        except OSError as error:
            self.fault = InputError(f"{self.path} can't be read: {error.strerror or error}.")
            raise self.fault from error

    def _watched(self) -> Iterator[bytes]:
        line, in_line, given = 1, 0, 0
        unpacked = 0
        for number, chunk in enumerate(_unpacked(self.path, self._tell)):
            unpacked += len(chunk)
            self._limits.refuse_above("unpacked_bytes", unpacked, f"{self.path}, unpacked,")
            if number == 0:
                chunk = chunk.removeprefix(BOM)
            if self._first_line:
                yield chunk
                given += len(chunk)
                if given > self._limits.line_bytes or b"\n" in chunk:
                    return
                continue
            if b"\x00" in chunk:
                line += chunk.count(b"\n", 0, chunk.index(b"\x00"))
                raise InputError(f"{self.path}: line {line}: it holds zero bytes, so it is not a text file.")
            end = chunk.find(b"\n")
            in_line += len(chunk) if end < 0 else end
            most = self._limits.line_bytes
            if in_line <= most < len(chunk):  # a line that begins and ends within a chunk
                lengths = [len(each) for each in chunk.split(b"\n")]
                longest = next((at for at, length in enumerate(lengths[1:], start=1) if length > most), 0)
                in_line, line = max(in_line, lengths[longest] if longest else 0), line + longest
            if in_line > most:
                raise too_long(self.path, line, most)
            if end >= 0:
                in_line = len(chunk) - chunk.rfind(b"\n") - 1
                line += chunk.count(b"\n")
            self.quotes += chunk.count(b'"')
            yield chunk.decode("latin-1").encode("utf-8") if self._latin else chunk


def _unpacked(path: Path, tell: Callable[[str, int, int], None]) -> Iterator[bytes]:
    """Bytes of a plain or gzipped file (several gzip members in a row too); InputError for a damaged gzip."""
    total = path.stat().st_size
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        unpack = zlib.decompressobj(wbits=31) if packed else None
        while raw := file.read(_PACKED_CHUNK if packed else _CHUNK):
            tell(path.name, file.tell(), total)
            if unpack is None:
                yield raw
                continue
            try:
                while raw:
                    if unpack.eof:  # a further member, or the zeros that tapes are filled up with
                        raw = raw.lstrip(b"\0")
                        if not raw:
                            break
                        unpack = zlib.decompressobj(wbits=31)
                    if content := unpack.decompress(raw):
                        yield content
                    raw = unpack.unused_data
            except zlib.error as error:
                raise InputError(f"{path} is a damaged gzip file: it is cut short or altered.") from error
        if unpack is not None and not unpack.eof:
            raise InputError(f"{path} is a damaged gzip file: it is cut short or altered.")

"""How much is read at most of what others made, so that no file uses up the memory, the disk or the time without being named.

Knows no format and no screen.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from mera_core.common.errors import InputError

PREFIX = "MERA_LIMIT_"
SETTINGS = (
    "upload_bytes", "upload_unpacked_bytes", "upload_rows", "document_bytes", "line_bytes", "fhir_line_bytes",
    "fhir_document_bytes",
)  # fmt: skip
"""The limits that the environment changes, e.g. by MERA_LIMIT_UPLOAD_BYTES."""


@dataclass(frozen=True)
class Limits:
    """Each limit, in the unit its name says. Raises InputError for one that is not above zero, and for a contradiction."""

    upload_bytes: int = 50_000_000  # one file that is sent through the browser
    upload_files: int = 2_000  # in an archive
    upload_unpacked_bytes: int = 400_000_000  # sent at once, counted while it is unpacked, not taken from its header
    upload_rows: int = 5_000_000  # of one table
    unpacked_bytes: int = (
        1 << 40
    )  # one file of this machine: above any hospital's largest table, below a bomb's terabytes
    document_bytes: int = 4 << 30  # one file that is held in memory whole (JSON, JSON lines, gzipped parquet), unpacked
    rows: int = 2_000_000_000  # of one table of this machine
    line_bytes: int = 1 << 20  # of a table as text; the widest known here (eICU, DE-SynPUF) stays far below
    fhir_line_bytes: int = 32 << 20  # of NDJSON: a resource with documents embedded may be large
    fhir_document_bytes: int = 512 << 20  # a Bundle as JSON, unpacked; more is exported as NDJSON
    history_bytes: int = 16_000_000  # a HISTORY.json: far above 5,000 codes with their words
    visits: int = 1_000  # of a HISTORY.json: a daily contact for three years
    codes: int = 5_000  # of a HISTORY.json
    text_characters: int = 10_000  # one text of a HISTORY.json
    list_characters: int = 20_000  # a list of codes that is pasted; more is a file
    list_pieces: int = 500
    json_depth: int = 64  # lists and objects within each other
    audit_bytes: int = 5_000_000  # a file of judgements of the hierarchy audit
    audit_judgements: int = 50_000
    checkpoint_files: int = 500  # the weights of a large model come in some dozens
    checkpoint_json_bytes: int = 128_000_000  # the tokenizer of a large model has some 20 MB
    checkpoint_header_bytes: int = 16_000_000  # of a file of weights: the names of its tensors
    checkpoint_rows: int = 2_000_000  # of a tensor: all ICD codes and the largest backbone's words are below 400,000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise InputError(f"The limit {name} must be a whole number above zero, not {value!r}.")
        if self.upload_unpacked_bytes < self.upload_bytes:
            raise InputError(
                f"The limit upload_unpacked_bytes ({self.upload_unpacked_bytes:,}) is below upload_bytes "
                f"({self.upload_bytes:,}), so that a plain file could never be read."
            )

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Limits:
        """The defaults with what the environment overrides.

        Raises InputError for a value that is no whole number, and for a variable that names no setting: a limit that is
        misspelt would otherwise not hold.
        """
        values = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX):
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in SETTINGS:
                raise InputError(f"{variable} names no limit that can be changed; these are {', '.join(SETTINGS)}.")
            try:
                values[name] = int(text)
            except ValueError as error:
                raise InputError(f"{variable} must be a whole number, not {text!r}.") from error
        return cls(**values)

    def for_uploads(self) -> Limits:
        """The same, with what holds for files read from disk as tight as for what a browser sends."""
        return replace(
            self,
            unpacked_bytes=min(self.unpacked_bytes, self.upload_unpacked_bytes),
            document_bytes=min(self.document_bytes, self.upload_unpacked_bytes),
            fhir_document_bytes=min(self.fhir_document_bytes, self.upload_unpacked_bytes),
            rows=min(self.rows, self.upload_rows),
        )

    def refuse_above(self, name: str, size: int, what: str) -> None:
        """Raise InputError where `size` is above the limit `name`; `what` begins the sentence ('visits.csv', 'The list')."""
        largest = getattr(self, name)
        if size > largest:
            unit = name.rsplit("_", 1)[-1]
            raise InputError(
                f"{what} is above the limit {name}: at most {largest:,} {unit} are read{changed_by(name)}."
            )


def changed_by(name: str) -> str:
    """What a refusal ends with: the variable that changes the limit `name`, in brackets; "" where there is none."""
    return f" ({PREFIX}{name.upper()} changes it)" if name in SETTINGS else ""


_APPLIED: ContextVar[Limits | None] = ContextVar("limits", default=None)


def current_limits() -> Limits:
    """The limits that hold here: those of `applied`, else the environment's over the defaults."""
    return _APPLIED.get() or Limits.of(os.environ)


@contextmanager
def applied(limits: Limits) -> Iterator[Limits]:
    """Other limits for as long as the block runs, in this thread only."""
    token = _APPLIED.set(limits)
    try:
        yield limits
    finally:
        _APPLIED.reset(token)


def refuse_depth(value: Any, what: str, limits: Limits | None = None) -> None:
    """Raise InputError where decoded JSON holds lists and objects deeper within each other than the limit json_depth."""
    layer, depth, deepest = [value], 0, 0
    while layer := [each for each in layer if isinstance(each, (dict, list))]:
        depth += 1
        if depth == 2:  # what is flat, as a line of a table is, costs no look at the settings
            deepest = (limits or current_limits()).json_depth
        if depth >= 2 and depth > deepest:
            raise InputError(f"{what} is nested too deeply: at most {deepest} levels are read.")
        layer = [inner for each in layer for inner in (each.values() if isinstance(each, dict) else each)]


def gunzipped_size(content: bytes, most: int) -> int:
    """Bytes that a gzip file holds, counted until it is more than `most`; of a damaged file those before the damage."""
    size = 0
    with suppress(OSError, EOFError, zlib.error), gzip.open(io.BytesIO(content)) as stream:
        while size <= most and (piece := stream.read(1 << 16)):
            size += len(piece)
    return size

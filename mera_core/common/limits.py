"""How much is read at most of what others made: named settings, their defaults and the environment variables that change them.

Knows no format and no screen. A limit is there so that no file can use up the memory, the disk or the time without being
named: what passes one is refused with a sentence that says which limit it was and how to raise it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any

from mera_core.common.errors import InputError

PREFIX = "MERA_LIMIT_"
_PACKED = 1 << 12  # bytes unpacked at once while counting; they hold at most a thousand times as much


@dataclass(frozen=True)
class Limits:
    """Each limit, in the unit its name says; the variable MERA_LIMIT_<NAME> overrides it, e.g. MERA_LIMIT_UPLOAD_BYTES.

    Raises InputError for a limit that is no whole number above zero, and for two that contradict each other.
    """

    upload_bytes: int = 50_000_000
    """One file that is sent through the browser."""
    upload_files: int = 2_000
    """Files in an archive that is sent through the browser."""
    upload_unpacked_bytes: int = 400_000_000
    """What is sent at once, unpacked (ZIP or gzip), counted while it is unpacked and not taken from its header."""
    upload_rows: int = 5_000_000
    """Rows of one table that is sent through the browser."""
    unpacked_bytes: int = 1 << 40
    """One file read from disk by a command, unpacked: above any hospital's largest table, below a bomb's terabytes."""
    document_bytes: int = 4 << 30
    """One file that must be held in memory whole (JSON, JSON lines, gzipped parquet), unpacked."""
    rows: int = 2_000_000_000
    """Rows of one table read from disk by a command."""
    line_bytes: int = 1 << 20
    """One line of a table as text (delimited, JSON lines); the widest known here (eICU, DE-SynPUF) stays far below."""
    fhir_line_bytes: int = 32 << 20
    """One line of FHIR as NDJSON: a resource with documents embedded may be large."""
    fhir_document_bytes: int = 512 << 20
    """One FHIR document (a Bundle as JSON), unpacked; more is exported as NDJSON."""
    history_bytes: int = 16_000_000
    """A HISTORY.json: far above 5,000 codes with their words. A cohort belongs to `convert` and `score`."""
    visits: int = 1_000
    """Visits of one HISTORY.json: a daily contact for three years."""
    codes: int = 5_000
    """Codes of one HISTORY.json, all visits together."""
    text_characters: int = 10_000
    """One text of a HISTORY.json: an id, a code as typed, a word of the profile."""
    list_characters: int = 20_000
    """A list of codes that is pasted; more is a file."""
    list_pieces: int = 500
    """Pieces of a list that is pasted."""
    json_depth: int = 64
    """Lists and objects within each other in a JSON text."""
    audit_bytes: int = 5_000_000
    """A file of judgements of the hierarchy audit."""
    audit_judgements: int = 50_000
    """Judgements of such a file."""
    checkpoint_files: int = 500
    """Files of a checkpoint folder; the weights of a large model come in some dozens."""
    checkpoint_json_bytes: int = 128_000_000
    """One JSON file of a checkpoint; the tokenizer of a large model has some 20 MB."""
    checkpoint_header_bytes: int = 16_000_000
    """The header of one file of weights, which names its tensors."""
    checkpoint_rows: int = 2_000_000
    """Rows of a checkpoint's embedding table: all ICD codes and the largest backbone's words are below 400,000."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"The limit {each.name} must be a whole number above zero, not {value!r}.")
        if self.upload_unpacked_bytes < self.upload_bytes:
            raise InputError(
                f"The limit upload_unpacked_bytes ({self.upload_unpacked_bytes:,}) is below upload_bytes "
                f"({self.upload_bytes:,}), so that a plain file could never be read."
            )

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Limits:
        """The defaults with what the environment overrides.

        Raises InputError for a value that is no whole number, and for a variable that names no limit: a limit that is
        misspelt would otherwise not hold.
        """
        known = {each.name for each in fields(cls)}
        values = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX):
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in known:
                raise InputError(f"{variable} names no limit; known are {', '.join(sorted(known))}.")
            try:
                values[name] = int(text.replace("_", ""))
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
            raise InputError(
                f"{what} is above the limit {name}: at most {largest:,} {_unit(name)} are read ({changed_by(name)})."
            )


def changed_by(name: str) -> str:
    """What every refusal ends with: the variable that changes the limit `name`."""
    return f"{PREFIX}{name.upper()} changes it"


_APPLIED: ContextVar[Limits | None] = ContextVar("limits", default=None)


def in_force() -> Limits:
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
            deepest = (limits or in_force()).json_depth
        if depth >= 2 and depth > deepest:
            raise InputError(
                f"{what} is nested too deeply: at most {deepest} levels are read ({changed_by('json_depth')})."
            )
        layer = [inner for each in layer for inner in (each.values() if isinstance(each, dict) else each)]


def gunzipped_size(content: bytes, most: int) -> int:
    """Bytes that a gzip file holds, counted piece by piece until it is more than `most`.

    Of a damaged file what comes before the damage is counted; its reader names the damage.
    """
    size, unpack = 0, zlib.decompressobj(wbits=31)
    try:
        for begin in range(0, len(content), _PACKED):
            piece = content[begin : begin + _PACKED]
            while piece:
                if unpack.eof:  # a further member, or the zeros that tapes are filled up with
                    piece = piece.lstrip(b"\0")
                    if not piece:
                        break
                    unpack = zlib.decompressobj(wbits=31)
                size += len(unpack.decompress(piece))
                if size > most:
                    return size
                piece = unpack.unused_data
    except zlib.error:
        pass
    return size


def _unit(name: str) -> str:
    word = name.rsplit("_", 1)[-1]
    return "levels" if word == "depth" else word

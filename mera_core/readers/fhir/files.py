"""FHIR resources as decoded JSON, one at a time: of a Bundle, a folder of Bundles, NDJSON or a bulk-export folder.

Boundary: files and JSON; knows of FHIR only resourceType, entry and fullUrl. Sizes and depth are limited, so that no file can
use up the memory without being named.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mera_core.common.errors import InputError
from mera_core.common.limits import Limits, changed_by, current_limits, refuse_depth
from mera_core.readers.common.base import BOM, ImportReport, Source, fault_named, open_bytes, refuse_damaged

SUFFIXES = (".json", ".ndjson", ".jsonl", ".fhir")
READ = ("Patient", "Encounter", "Condition")
_HEAD = 1 << 16
_WANTED = tuple(f'"{name}"'.encode() for name in (*READ, "Bundle"))
_PROGRESS_EVERY = 20_000  # lines


@dataclass(frozen=True, slots=True)
class Found:
    """A resource; the name of its Bundle (None outside of one), its fullUrl, and where it stands, for messages."""

    resource: dict[str, Any]
    bundle: str | None
    url: str | None
    place: str


def candidates(source: Source) -> list[Path]:
    """The files whose names could be FHIR JSON; of a single file, that one."""
    if source.path.is_file():
        return [source.path]
    return _named(source, SUFFIXES)


def xml_files(source: Source) -> list[Path]:
    """The files that hold FHIR as XML, which is not read."""
    paths = [source.path] if source.path.is_file() else _named(source, (".xml",))
    return [path for path in paths if _begins(path, (b"<",), b"hl7.org/fhir")]


def _named(source: Source, endings: tuple[str, ...]) -> list[Path]:
    """The files of a folder and of its own folders (Synthea's fhir/, an export's Patient/) whose names end so."""
    below = sorted(path for path in source.path.iterdir() if path.is_dir() and not path.name.startswith("."))
    parts = [source, *(source.within(path) for path in below if os.access(path, os.R_OK | os.X_OK))]
    return [path for part in parts for name, path in sorted(part.files.items()) if name.endswith(endings)]


def looks_like_fhir(path: Path) -> bool:
    """Whether the beginning of a file is JSON that names a resourceType."""
    return _begins(path, (b"{", b"["), b'"resourceType"')


def _begins(path: Path, starts: tuple[bytes, ...], with_: bytes) -> bool:
    """Whether a file begins with one of the starts, and soon after names what is asked for."""
    try:
        with open_bytes(path) as stream:
            head = stream.read(_HEAD).removeprefix(BOM).lstrip()
    except (OSError, EOFError, zlib.error):
        return False
    return head.startswith(starts) and with_ in head


def resources(source: Source, report: ImportReport) -> Iterator[Found]:
    """Every Patient, Encounter and Condition, and whatever else stands in the same Bundles.

    Bulk-export files of other resources are set aside unread. Raises InputError naming the file and the line or the entry.
    """
    paths = candidates(source)
    xml = xml_files(source) if source.path.is_dir() else []
    if xml and not any(looks_like_fhir(path) for path in paths):
        raise InputError(f"{xml[0]} is XML; FHIR is read as JSON or NDJSON.")
    report.set_aside("FHIR files as XML, not read", len(xml))
    total, done = sum(path.stat().st_size for path in paths), 0
    for path in paths:
        if not looks_like_fhir(path) and source.path.is_dir():
            _refuse_meant(path, _called(path, source))
            report.set_aside("JSON files that hold no FHIR resources")
        elif _is_lines(path):
            yield from _of_lines(path, source, report, done, total)
        else:
            yield from _unfolded(_document(path), None, None, str(path))
        done += path.stat().st_size
        source.progress(path.name, done, total)


def _called(path: Path, source: Source) -> str:
    """What a file is called in its source, in small letters: its name, with that of the folder in the source's where it lies."""
    return str(path.relative_to(source.path) if source.path.is_dir() else path.name).lower()


def _is_lines(path: Path) -> bool:
    """Whether each line is a JSON document: so named, or the first line is one and there are more."""
    if path.name.lower().removesuffix(".gz").endswith((".ndjson", ".jsonl")):
        return True
    with fault_named(path), open_bytes(path) as stream:
        first = stream.readline(_HEAD).strip().removeprefix(BOM)
        if not first.endswith(b"}") or not first.startswith(b"{"):
            return False
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            return False
        return bool(stream.readline(_HEAD).strip())


def _of_lines(path: Path, source: Source, report: ImportReport, done: int, total: int) -> Iterator[Found]:
    limits, unpacked = current_limits(), 0
    with fault_named(path), open_bytes(path) as stream:
        number, size = 0, path.stat().st_size
        while True:
            try:
                line = stream.readline(limits.fhir_line_bytes + 1)
            except (EOFError, zlib.error, OSError) as error:
                raise InputError(f"{path} is damaged after line {number}: it is cut short or altered.") from error
            if not line:
                return
            number += 1
            unpacked += len(line)
            limits.refuse_above("unpacked_bytes", unpacked, f"{path}, unpacked,")
            limits.refuse_above("fhir_line_bytes", len(line), f"{path}: line {number}")
            line = line.strip().removeprefix(BOM)
            if not line:
                continue
            if number == 1:
                other = _resource_type(_decoded(line, f"{path}: line 1", limits))
                if other not in (*READ, "Bundle") and other.lower() in _called(path, source):
                    report.set_aside("files of other resources, not read")
                    return
            if _is_wanted(line):
                place = f"{path}: line {number}"
                yield from _unfolded(_decoded(line, place, limits), None, None, place)
            if number % _PROGRESS_EVERY == 0:
                source.progress(path.name, min(done + _position(stream), done + size), total)


def _unfolded(value: Any, bundle: str | None, url: str | None, place: str) -> Iterator[Found]:
    """The resource, or those of the Bundle, or of a list of either."""
    if isinstance(value, list):
        for number, each in enumerate(value, start=1):
            yield from _unfolded(each, f"{place}#{number}", None, f"{place}, item {number}")
        return
    if not isinstance(value, dict) or not isinstance(value.get("resourceType"), str):
        raise InputError(f"{place} is no FHIR resource: it names no resourceType.")
    if value["resourceType"] != "Bundle":
        yield Found(value, bundle, url, place)
        return
    entries = value.get("entry", [])
    if not isinstance(entries, list):
        raise InputError(f"{place}: the Bundle's entry must be a list.")
    for number, entry in enumerate(entries, start=1):
        where = f"{place}, entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{where} must be an object.")
        if "resource" not in entry:  # a deletion, or an answer of a server
            continue
        full_url = entry.get("fullUrl")
        yield from _unfolded(entry["resource"], place, full_url if isinstance(full_url, str) else None, where)


def _document(path: Path) -> Any:
    limits = current_limits()
    name = min("fhir_document_bytes", "document_bytes", key=lambda each: getattr(limits, each))
    largest = getattr(limits, name)
    with fault_named(path), open_bytes(path) as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise InputError(
            f"{path} holds more than {largest:,} bytes; export it as NDJSON, one resource a line{changed_by(name)}."
        )
    content = content.removeprefix(BOM).strip()
    if content[:1] == b"<":
        raise InputError(f"{path} is XML; FHIR is read as JSON or NDJSON.")
    return _decoded(content, str(path), limits)


def _refuse_meant(path: Path, called: str) -> None:
    """Raise InputError where a file that doesn't look like FHIR is damaged, or is called like what must be read."""
    if path.stat().st_size:
        refuse_damaged(Source(path), endless_lines=False)
    with fault_named(path), open_bytes(path) as stream:
        held = bool(stream.read(_HEAD).strip())
    if held and any(name.lower() in called for name in READ):
        raise InputError(f"{path}: line 1 is no FHIR resource as JSON, though the file is called like one.")


def _decoded(content: bytes, place: str, limits: Limits) -> Any:
    try:
        decoded = json.loads(content.decode("utf-8"))
        if b"\\ud" in content.lower():  # half of a surrogate pair is legal JSON and no text
            json.dumps(decoded, ensure_ascii=False).encode("utf-8")
        if content.count(b"{") + content.count(b"[") > limits.json_depth:  # else it can't be that deep
            refuse_depth(decoded, place, limits)
        return decoded
    except InputError:
        raise
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{place} is not UTF-8 text{f' (line {line})' if line > 1 else ''}.") from error
    except UnicodeError as error:
        raise InputError(f"{place} is not UTF-8 text.") from error
    except RecursionError as error:
        raise InputError(f"{place} is nested too deeply to be FHIR.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise InputError(f"{place} is not JSON: {error.msg.removesuffix(' at')} at {where}.") from error
    except ValueError as error:  # a whole number of more than 4,300 digits
        raise InputError(f"{place} is not JSON that can be read: it holds an endless number.") from error


def _is_wanted(line: bytes) -> bool:
    """Whether a line must be decoded: it may be what is read, or it is no whole resource."""
    whole = line.startswith(b"{") and line.endswith(b"}") and b'"resourceType"' in line
    return not whole or any(name in line for name in _WANTED)


def _resource_type(value: Any) -> str:
    name = value.get("resourceType") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def _position(stream: io.BufferedIOBase) -> int:
    packed = getattr(stream, "fileobj", None)  # of a gzip file, how much of it is unpacked
    return (packed or stream).tell()

"""Uploaded files -> patients, through the readers. No screen; nothing of an upload outlives the reading.

Readers work on files and folders: an upload is laid into a private temporary folder, read, and removed, whatever
happens. Names of the sender's are kept only as far as they can't lead out of that folder.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from mera_core.common.errors import InputError
from mera_core.common.limits import Limits, applied, current_limits, gunzipped_size
from mera_core.history.history_json import has_shifted_dates
from mera_core.history.records import Patient, parse_json, patient_from_json
from mera_core.icd.ontology import AmbiguousCodeError, Ontology
from mera_core.readers import Cohort, ImportReport, read

_GZIP = b"\x1f\x8b"
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)  # breaks a line, or turns its direction
_LONGEST_NAME = 100  # bytes; file systems take 255
_DAMAGE = (  # what zipfile raises over an archive that is not sound; a full disk is another matter
    zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, IndexError, OSError,
)  # fmt: skip


class Upload(Protocol):
    """A file as the browser sends it."""

    name: str

    def getvalue(self) -> bytes:
        """The content."""


def read_uploads(uploads: Sequence[Upload], format: str = "auto", **options: Any) -> Cohort:
    """The patients of one file, or of several that belong together (the tables of one data set, a ZIP of them).

    format: one of `readers.FORMATS`, or "auto" to recognise it. options: those of the format, as `readers.read` takes them.

    A single HISTORY.json is taken as it was typed, unread codes included; every other format is read, and its report
    names what was left out.
    Raises InputError naming the file, never a folder of this machine.
    """
    limits = current_limits().for_uploads()
    for each in uploads:
        limits.refuse_above("upload_bytes", len(each.getvalue()), f"The file {_own_name(each.name)}")
    if len(uploads) == 1 and format in ("auto", "table") and (patient := as_typed(uploads[0].getvalue())) is not None:
        return _alone(patient)
    with tempfile.TemporaryDirectory(prefix="mera-upload-") as folder, applied(limits):
        root = Path(folder)
        try:
            room = _Room(limits)
            written = [path for upload in uploads for path in _lay(upload, root, room)]
            if not written:
                raise InputError("The upload holds no file.")
            cohort = read(written[0] if len(written) == 1 else _innermost(root), format, **options)
            patients = cohort.patients  # read now: the files are about to go
        except InputError as error:
            error.args = (_without_folder(str(error), root),)
            raise error from None
        report = cohort.report
        report.remarks = [_without_folder(remark, root) for remark in report.remarks]
        report.why = _without_folder(report.why, root)
    return Cohort(patients, report)


def as_typed(content: bytes) -> Patient | None:
    """The history of a HISTORY.json; None where the content is no single JSON object with visits.

    Raises InputError for a history that breaks the contract.
    """
    try:
        decoded = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(decoded, dict) or not isinstance(decoded.get("visits"), list):
        return None
    return patient_from_json(parse_json(content, "the file"))


def _alone(patient: Patient) -> Cohort:
    """A history as it was typed, with a report of the codes that can't be read; they stay in it as text."""
    typed = [code for visit in patient.visits for code in visit.codes]
    report = ImportReport("table", "one history, taken as typed", 1, len(patient.visits), rows=len(typed))
    for code in typed:
        try:
            found = Ontology.load().diagnosis(code)
            report.codes += 1
            report.systems[found.code.system] += 1
            report.read_otherwise += Counter(filter(None, [found.how]))
        except AmbiguousCodeError:
            report.leave_out("two meanings: kept as typed, for you to choose")
        except InputError:
            report.leave_out("not a code of ICD-9-CM or ICD-10-CM: kept as typed and not used")
            report.unknown_codes[str(code)] += 1
    if has_shifted_dates(patient):
        report.remarks.append("dates: shifted, as the file says: the days between visits count, the years do not")
    return Cohort([patient], report)


@dataclass
class _Room:
    """What the files of one upload may still hold together, counted as they are unpacked."""

    limits: Limits
    unpacked: int = 0
    files: int = 0

    def take(self, content: bytes, name: str) -> None:
        """Count a file, and what it unpacks to; raises InputError where it is one too many or too large."""
        self.files += 1
        self.limits.refuse_above("upload_files", self.files, f"The upload with {_own_name(name)}")
        left = self.limits.upload_unpacked_bytes - self.unpacked
        self.unpacked += gunzipped_size(content, left) if content.startswith(_GZIP) else len(content)
        self.limits.refuse_above(
            "upload_unpacked_bytes", self.unpacked, f"The upload with {_own_name(name)}, unpacked,"
        )


def _lay(upload: Upload, root: Path, room: _Room) -> list[Path]:
    """Write an upload, or what its archive holds, under `root`; the files written."""
    content = upload.getvalue()
    if not content.startswith(b"PK\x03\x04"):
        room.take(content, upload.name)
        return [_write(root, upload.name, content)]
    return [_write(root, name, unpacked) for name, unpacked in _members(content, upload.name, room)]


def _members(content: bytes, name: str, room: _Room) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file of a ZIP archive; InputError where it is damaged or packed in an unusual way."""
    broken = InputError(f"{_own_name(name)} is a ZIP archive that can't be unpacked.")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                if member.filename and (member.is_dir() or member.filename.startswith("__MACOSX/")):
                    continue
                if not member.filename or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise broken
                yield member.filename, _unpacked(archive, member, room)
    except InputError:
        raise
    except _DAMAGE as error:
        raise broken from error


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, room: _Room) -> bytes:
    """A member's bytes, never more than it says it has: an archive may lie about its size."""
    said = f"The upload with {_own_name(member.filename)}, unpacked,"
    room.limits.refuse_above("upload_unpacked_bytes", room.unpacked + member.file_size, said)
    with archive.open(member) as stream:
        content = stream.read(member.file_size + 1)
    if len(content) > member.file_size:
        raise InputError(f"{_own_name(member.filename)} is larger than its archive says.")
    room.take(content, member.filename)
    return content


def _write(root: Path, name: str, content: bytes) -> Path:
    path = root.joinpath(*_parts(name))
    if path.exists():
        raise InputError(f"Two of the files are called {'/'.join(_parts(name))}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{'/'.join(_parts(name))} lies in a folder that has the name of another file.") from error
    path.write_bytes(content)
    return path


def _parts(name: str) -> list[str]:
    """A sent name as folders and a file, with nothing that leads out of a folder."""
    parts = PurePosixPath(_UNSEEN.sub("_", name.replace("\\", "/"))).parts
    kept = [part for part in parts if part not in ("/", "..", ".") and ":" not in part][-6:] or ["upload"]
    return [part if len(part.encode()) <= _LONGEST_NAME else part[:40] + "…" + part[-40:] for part in kept]


def _own_name(name: str) -> str:
    return _parts(name)[-1]


def _innermost(root: Path) -> Path:
    """The folder that a data set's tables lie in, where an archive wraps it in others."""
    inside = list(root.iterdir())
    return _innermost(inside[0]) if len(inside) == 1 and inside[0].is_dir() else root


def _without_folder(text: str, root: Path) -> str:
    return text.replace(f"{root}/", "").replace(str(root), "The upload")

"""Files and folders that appear whole or not at all, and the count of what was written.

Knows no format. The temporary name stands beside the target, so that the last step is a rename within one file system.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mera_core.common.errors import InputError
from mera_core.common.formatting import counted, records_counted


@dataclass
class Report:
    """What was written. files: how many; remarks: what a reader of the files must know."""

    format: str
    patients: int = 0
    visits: int = 0
    codes: int = 0
    files: int = 0
    remarks: list[str] = field(default_factory=list)
    path: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        out = str(self.path) if self.path else None
        counts = {"patients": self.patients, "visits": self.visits, "codes": self.codes, "files": self.files}
        return {"format": self.format, "out": out, **counts, "remarks": list(self.remarks)}

    def lines(self) -> list[str]:
        """The report in plain sentences, one a line."""
        files = counted(self.files, "file")
        counts = records_counted(self.patients, self.visits, self.codes)
        return [f"written: {self.path} ({self.format}, {files}): {counts}", *self.remarks]


def refuse_target(target: Path, source: Path, folder: bool = False) -> None:
    """Raise InputError where `target` can't be written: no folder to write to, a folder of its name, or the source itself."""
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent} to write {target.name} to.")
    if target.is_dir() and not folder:
        raise InputError(f"{target} is a folder, so no file can be written there.")
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target} is the source itself; write to another file.")


@contextmanager
def written_whole(target: Path, folder: bool) -> Iterator[Path]:
    """A temporary path to write to, which becomes `target` when the block ends, and vanishes when it fails.

    Raises InputError where the parent is missing, `target` is a folder that holds something (or a file where a folder is to
    be), or the disk refuses.
    """
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent} to write {target.name} to.")
    if target.is_dir() and (not folder or any(target.iterdir())):
        raise InputError(f"{target} is a folder that holds something already; name one that is new or empty.")
    if folder and target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; a folder of that name is to be written.")
    mark = secrets.token_hex(8)  # the name is known before the path is made, so that an end in between leaves nothing
    part = target.with_name(
        f".{target.name}.{mark}.part" if folder else f".part.{mark}.{target.name}"
    )  # writers go by the suffix
    try:
        if folder:
            part.mkdir(mode=0o700)
        else:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield part
        os.chmod(part, 0o755 if folder else 0o644)
        if folder and target.is_dir():
            target.rmdir()
        os.replace(part, target)
    except OSError as error:
        raise InputError(f"{target} can't be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):  # the fault that is told is the first one
            shutil.rmtree(part) if folder else part.unlink(missing_ok=True)

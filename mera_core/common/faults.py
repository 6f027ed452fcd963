"""What a machine can run out of or refuse, in a sentence for people. Knows errors, no formats and no screens.

Libraries raise these as errors of many kinds: Python's own, torch's `RuntimeError`, and what comes from Rust, which has the
number of the system's error in its words alone.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mera_core.common.errors import InputError

_MEMORY = re.compile(r"can't allocate memory|out of memory|cannot allocate memory|bad[_ ]alloc|malloc of size", re.I)
_NUMBER = re.compile(r"\(os error (\d+)\)")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}


def describe_system_error(error: BaseException) -> str | None:
    """A plain sentence for an error of the machine; None for one that is ours, or of what was read."""
    text = str(error)
    if is_out_of_memory(error):
        return "There is not enough memory for this: end other programs, or do less at once."
    number = error.errno if isinstance(error, OSError) else int((_NUMBER.search(text) or [0, 0])[1])
    name = getattr(error, "filename", None) or "A file"
    if number in _FULL:
        return f"{name}: the disk is full, and nothing half-written was put in place."
    if number in _CLOSED:
        return f"{name}: it may not be written to or read."
    if number in (errno.EMFILE, errno.ENFILE):
        return "Too many files are open at once on this machine."
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in main memory."""
    return isinstance(error, MemoryError) or bool(_MEMORY.search(str(error)))


@contextmanager
def told_if_unwritable(target: Path, partial: Path) -> Iterator[None]:
    """Turn what a disk refuses inside the block into InputError naming `target`, and take away the folder `partial`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)  # on a full disk there is room again
        words = describe_system_error(error) or (isinstance(error, OSError) and f"{error.strerror or error}.")
        if not words:
            raise
        raise InputError(f"{target} can't be written: {words[:1].lower() + words[1:]}") from error

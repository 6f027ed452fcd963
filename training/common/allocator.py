"""Whether the C library gives freed memory back to the system at once. Knows no model."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Numbers of glibc's settings (malloc.h), with the values below."""
GIVEN_BACK, KEPT = (128 * 1024, 65_536), (2**31 - 1, 0)


def keep_freed_memory(keep: bool = True) -> bool:
    """Have this process keep what it frees and use it again; `keep=False` sets glibc's own way. Returns whether it can.

    By glibc's own way every large tensor is mapped anew and unmapped when it goes, so that each step of a training on the
    CPU has the kernel clear the same gigabytes page by page. Only for glibc (Linux); elsewhere nothing is done.
    Source: mallopt(3).
    """
    try:
        mallopt, _ = ctypes.CDLL(None).mallopt, ctypes.CDLL(None).gnu_get_libc_version
    except (AttributeError, OSError, TypeError):  # another C library; TypeError: Windows has no such handle
        return False
    trim, mapped = KEPT if keep else GIVEN_BACK
    return bool(mallopt(M_TRIM_THRESHOLD, trim) and mallopt(M_MMAP_MAX, mapped))

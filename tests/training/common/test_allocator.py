"""Keeping freed memory: what the system sees of it, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from training.common.allocator import keep_freed_memory

FREED_AND_ASKED_AGAIN = """
import resource, sys
import torch
from training.common.allocator import keep_freed_memory

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

can = keep_freed_memory(sys.argv[1] == "keep")
taken = []
for _ in range(20):
    before = pages()
    torch.ones(24_000_000)  # 96 MB, 23,438 pages each time it is mapped anew
    taken.append(pages() - before)
print(sum(taken[10:]) if can else "")
"""


def pages_taken(how: str) -> int:
    command = [sys.executable, "-c", FREED_AND_ASKED_AGAIN, how]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return int(said) if said else pytest.skip("the C library here is not glibc")


def test_memory_that_is_kept_is_not_mapped_again():
    assert pages_taken("keep") < 1_000
    assert pages_taken("give back") > 200_000


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr("training.common.allocator.ctypes.CDLL", lambda _: object())
    assert keep_freed_memory() is False

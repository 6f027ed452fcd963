"""The shipped ICD tables in memory: columns, rows and subtrees, read on first use.

Boundary: the only reader of `mera_core/data`. Rows are integers and codes plain text here; `mera_core.icd.ontology`
gives them their names. The file shapes are described in `mera_core/data/PROVENANCE.md`.
"""

from __future__ import annotations

import gzip
import zlib
from functools import cache, cached_property
from pathlib import Path

from mera_core.common.errors import InputError

_DATA = Path(__file__).parent.parent / "data"
_DIGITS = bytes((byte - ord("0")) % 256 for byte in range(256))

LEVEL_NAMES = {
    "ICD9": ("chapter", "block", "category", "code"),
    "ICD10": ("chapter", "block", "category", "subcategory", "code"),
}


def _unpacked(name: str) -> bytes:
    """A shipped table; InputError where it is missing or damaged, for no reader could mend that."""
    try:
        if content := gzip.decompress((_DATA / name).read_bytes()):
            return content
        raise EOFError
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"The ICD table {name} is missing or damaged: install MERA again.") from error


def _columns(name: str, width: int) -> list[list[str]]:
    """The columns of a shipped table, header left out. Slicing one flat list is 5 times faster than csv."""
    cells = _unpacked(name).decode("utf-8").replace("\n", "\t").split("\t")
    cells.pop()
    return [cells[width + i :: width] for i in range(width)]


class Tree:
    """One system's nodes in book order: a subtree is the run of rows from a node to `end`."""

    def __init__(self, system: str) -> None:
        self.system = system
        packed = _unpacked(f"{system.lower()}.columns.gz")
        names, depths, status, self._definitions = (
            line.partition(b"\t")[2] for line in packed.rstrip(b"\n").split(b"\n")
        )
        self.names = names.decode("utf-8").split("\t")
        self.row = dict(zip(self.names, range(len(self.names)), strict=True))
        self.depth = depths.translate(_DIGITS)
        self.status = status.decode("utf-8")
        self.deepest = len(LEVEL_NAMES[system])

    @cached_property
    def definitions(self) -> list[str]:
        return self._definitions.decode("utf-8").split("\t")

    @cached_property
    def parent(self) -> list[int]:
        """For each row, the row above; -1 for a chapter."""
        parents, last = [], [-1] * 16
        for row, depth in enumerate(self.depth):
            last[depth] = row
            parents.append(last[depth - 1])
        return parents

    @cached_property
    def end(self) -> list[int]:
        """For each row, the first row after its subtree."""
        ends = list(range(1, len(self.names) + 1))
        for row in range(len(ends) - 1, -1, -1):
            above = self.parent[row]
            if above >= 0 and ends[row] > ends[above]:
                ends[above] = ends[row]
        return ends

    def children(self, row: int) -> list[int]:
        found, child = [], row + 1
        while child < self.end[row]:
            found.append(child)
            child = self.end[child]
        return found

    def level(self, row: int) -> int:
        return min(self.depth[row], self.deepest)

    def complete(self, row: int) -> bool:
        return self.status[row] != "h"

    def billable(self, row: int) -> bool:
        return self.status[row] in "bn"

    @cached_property
    def spans(self) -> dict[str, int]:
        """The range of categories that a chapter covers, for a chapter written as '390-459' or 'I00-I99'."""
        spans = {}
        for row, depth in enumerate(self.depth):
            if depth == 1:
                blocks = [self.names[child].split("-") for child in self.children(row)]
                spans[f"{blocks[0][0]}-{max(last for _, last in blocks)}"] = row
        return spans


@cache
def tree(system: str) -> Tree:
    return Tree(system)


@cache
def equivalents(source: str, target: str) -> tuple[dict[str, int], list[list[str]]]:
    """A map's columns (code, target, flags), sorted by code, and the first row of each code."""
    columns = _columns(f"{source.lower()}_to_{target.lower()}.tsv.gz", 3)
    rows = range(len(columns[0]))
    return dict(zip(reversed(columns[0]), reversed(rows), strict=True)), columns


@cache
def ccs_groups(system: str) -> dict[str, tuple[str, str]]:
    """Code -> number and name of its group."""
    groups: dict[str, tuple[str, str]] = {}
    for group, name, codes in zip(*_columns(f"ccs_{system.lower()}.tsv.gz", 3), strict=True):
        groups.update(dict.fromkeys(codes.split(" "), (group, name)))
    return groups

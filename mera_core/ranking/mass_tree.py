"""A Ranking summed over the ICD code set: the share of ranking mass of every chapter, block, category and code. Pure.

Boundary: knows rankings and the ICD code set; draws nothing. A share (a softmax over the label space; all sum to 1) is no
probability.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache

import pandas as pd

from mera_core.common.errors import InputError
from mera_core.icd.chapters import chapter_name, field_of
from mera_core.icd.ontology import SYSTEM_NAMES, Code, Ontology
from mera_core.ranking.ranking import Ranking

LEVELS = ("chapter", "block", "category", "code")
_SMALLEST_CHAPTER = 0.005  # share below which a chapter without a shown code joins "other chapters"
_PLURALS = {"block": "blocks", "category": "categories"}


@dataclass(frozen=True, slots=True)
class Mass:
    """A chapter, block, category or code, or what was folded together, with its share of ranking mass (0 to 1).

    code: None for a folded remainder. field: a key of `chapters.FIELDS`, or "other". codes: how many ranked
    codes it stands for. parent: `key` of the node above; "" at the top.
    """

    key: str
    label: str
    definition: str
    level: str
    share: float
    codes: int
    field: str
    parent: str = ""
    code: Code | None = None


@cache
def _path(code: Code) -> tuple[Code, ...]:
    """The nodes from the chapter down to a code, the code last."""
    return (*reversed(Ontology.load().ancestors(code)), code)


def mass_by(ranking: Ranking, ontology: Ontology, level: str, within: Code | None = None) -> list[Mass]:
    """Share of ranking mass of every chapter, block, category or code, largest first.

    level: one of LEVELS; a code that stands above a level counts as itself there. within: only codes under this node.
    Raises InputError for another level.
    """
    if level not in LEVELS:
        raise InputError(f"There is no level {level!r}: use {', '.join(LEVELS)}.")
    depth = len(LEVELS) if level == "code" else LEVELS.index(level)
    sums: dict[Code, list[float]] = {}
    for code, share in zip(ranking.codes, ranking.share.tolist(), strict=True):
        path = _path(code)
        if within is None or within in path:
            sums.setdefault(code if depth >= len(path) or level == "code" else path[depth], []).append(share)
    both = len({code.system for code in sums}) > 1
    masses = [_mass(code, ontology, level, math.fsum(shares), len(shares), both) for code, shares in sums.items()]
    return sorted(masses, key=lambda mass: (-mass.share, mass.key))


@dataclass
class _Branch:
    """A node while the tree is gathered: the ranked code that it is itself, and the branches under it."""

    code: Code
    own: Mass | None = None
    under: dict[Code, _Branch] = field(default_factory=dict)
    shown: bool = False

    def leaves(self) -> list[Mass]:
        own = [self.own] if self.own else []
        return own + [mass for branch in self.under.values() for mass in branch.leaves()]


def mass_tree(ranking: Ranking, ontology: Ontology, largest: int = 40) -> list[Mass]:
    """Chapters, blocks, categories and codes, parents first, folded so that a chart stays legible.

    The `largest` codes by share stand alone. Whatever holds none of them joins "other codes" (or blocks, categories) of
    the node above; small chapters without one join "other chapters". A node's share is the sum of its children's.
    """
    codes = mass_by(ranking, ontology, "code")
    chapters: dict[Code, _Branch] = {}
    for place, mass in enumerate(codes):
        level, branch = chapters, None
        for code in _path(mass.code):
            branch = level.setdefault(code, _Branch(code))
            branch.shown |= place < largest
            level = branch.under
        branch.own = mass
    both = len({chapter.system for chapter in chapters}) > 1
    nodes: list[Mass] = []
    small: list[Mass] = []
    for chapter in chapters.values():
        inside = _unfolded(chapter, ontology) if chapter.shown else []
        leaves = chapter.leaves()
        share = math.fsum(mass.share for mass in (_children(chapter.code, inside) if inside else leaves))
        top = _mass(chapter.code, ontology, "chapter", share, len(leaves), both)
        if chapter.shown or share >= _SMALLEST_CHAPTER:
            nodes += [top, *inside]
        else:
            small.append(top)
    return nodes + _folded(small, "chapters", "", "other")


def _unfolded(branch: _Branch, ontology: Ontology) -> list[Mass]:
    """The nodes under a branch that holds a shown code."""
    parent, nodes, aside = str(branch.code), [], []
    if branch.own and branch.under:  # ranked itself, and so are codes under it
        label = f"{branch.own.label} itself"
        nodes.append(replace(branch.own, key=f"{parent} itself", label=label, parent=parent))
    for child in branch.under.values():
        if not child.shown:
            aside.append(child)
        elif not child.under:
            nodes.append(replace(child.own, parent=parent))
        else:
            inside = _unfolded(child, ontology)
            share = math.fsum(mass.share for mass in _children(child.code, inside))
            kind = ontology.kind(child.code)  # headings of ICD-9-CM below the category are of the level of codes
            top = _mass(
                child.code, ontology, "subcategory" if kind == "code" else kind, share, len(child.leaves()), False
            )
            nodes += [replace(top, parent=parent), *inside]
    kinds = {_PLURALS.get(ontology.kind(child.code), "codes") if child.under else "codes" for child in aside}
    rest = [mass for child in aside for mass in child.leaves()]
    return nodes + _folded(rest, kinds.pop() if len(kinds) == 1 else "codes", parent, field_of(branch.code))


def _children(code: Code, nodes: list[Mass]) -> list[Mass]:
    return [mass for mass in nodes if mass.parent == str(code)]


def mass_frame(masses: Iterable[Mass]) -> pd.DataFrame:
    """The numbers of a chart as a table: system, code, definition, ranked codes, share (0 to 1)."""
    rows = [
        {
            "system": SYSTEM_NAMES[mass.code.system] if mass.code else "",
            "code": mass.code.code if mass.code else "",
            "definition": mass.definition,
            "ranked codes": mass.codes,
            "share": mass.share,
        }
        for mass in masses
    ]
    return pd.DataFrame(rows, columns=["system", "code", "definition", "ranked codes", "share"])


def _mass(code: Code, ontology: Ontology, level: str, share: float, count: int, both: bool) -> Mass:
    if level == "chapter":
        label = chapter_name(code) + (f" ({SYSTEM_NAMES[code.system]})" if both else "")
    else:
        label = code.code
    return Mass(str(code), label, ontology.definition(code), level, share, count, field_of(code), code=code)


def _folded(rest: list[Mass], kind: str, parent: str, field: str) -> list[Mass]:
    if not rest:
        return []
    codes = sum(mass.codes for mass in rest)
    label = f"other {kind}"
    definition = f"{codes} more codes, each with a small share" if codes > 1 else rest[0].definition
    share = math.fsum(mass.share for mass in rest)
    return [Mass(f"{parent} {label}".strip(), label, definition, "other", share, codes, field, parent)]

"""ICD-9-CM and ICD-10-CM as two trees: what a code means, where it stands, and how a written code is read.

Boundary: knows the shipped tables and nothing of patients, tokens or models. The tables are rebuilt by
`python -m training.tools.make_icd_tables`; `mera_core/data/PROVENANCE.md` says where they come from.

How `Ontology.parse` reads a string:
1. Characters are made plain (case, spaces, full-width forms, look-alike letters, dashes, dots), and a prefix
   such as `ICD9:` or `ICD-10-CM ` names the system.
2. Each system reads the string with its own dot rule (after 3 characters; after 4 in ICD-9 E codes). A dot
   that is written must stand there, so `E80.21` is ICD-10 only and `E802.1` is ICD-9 only.
3. A complete code wins over a heading (`E850` is ICD-10 E85.0, not the ICD-9 category). Two complete codes,
   or two headings, in two systems are ambiguous, and so said.
4. Only when nothing was found are O, I and L read as 0, 1 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

from mera_core.common.errors import InputError
from mera_core.icd import code_text
from mera_core.icd import tables as icd_tables
from mera_core.icd.tables import LEVEL_NAMES, Tree

SYSTEMS = ("ICD9", "ICD10")
SYSTEM_NAMES = {"ICD9": "ICD-9-CM", "ICD10": "ICD-10-CM"}
RELEASES = {
    "ICD9": "ICD-9-CM version 32 (FY2015)",
    "ICD10": "ICD-10-CM April 2026 (FY2026), with the codes of FY2024 retired since",
}
# Sources whose files strip the leading zeros of ICD-9 categories (FACTS: UCI Diabetes 130 writes 8 for 008).
_THREE_DIGIT_SOURCES = ("uci", "uci_diabetes130")


@dataclass(frozen=True, order=True, slots=True)
class Code:
    """A node of one code system, `Code("ICD9", "428.0")`; as text `ICD9:428.0`."""

    system: str
    code: str

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise InputError(f"There is no code system {self.system!r}: use ICD9 or ICD10.")

    def __hash__(self) -> int:
        return hash(
            self.code
        )  # a text keeps its hash, a tuple of two does not: codes are looked up wherever a history goes

    def __str__(self) -> str:
        return f"{self.system}:{self.code}"


@dataclass(frozen=True, slots=True)
class Node:
    """A chapter, block, category, subcategory or code, with its heading; `level` 1 is a chapter."""

    code: Code
    definition: str
    kind: str
    level: int
    billable: bool
    parent: Code | None


@dataclass(frozen=True, slots=True)
class Equivalent:
    """One row of a CMS general equivalence map; `target` is None where CMS says that nothing corresponds.

    `scenario` and `choice_list` are 0 for a single target; in a combination, one code of each choice list
    of a scenario is needed together.
    """

    target: Code | None
    approximate: bool
    no_map: bool
    combination: bool
    scenario: int
    choice_list: int


@dataclass(frozen=True, slots=True)
class CcsGroup:
    """A clinical classification of AHRQ: single-level CCS for ICD-9-CM, default CCSR for ICD-10-CM."""

    id: str
    name: str


class UnknownCodeError(InputError):
    """No node is written so; `nearest` is the closest one (or None)."""

    def __init__(self, text: str, nearest: Code | None, message: str) -> None:
        super().__init__(message)
        self.text = text
        self.nearest = nearest


class OtherSystemError(UnknownCodeError):
    """The system that was named has no node written so, and the other one has: `nearest` is that one."""


class AmbiguousCodeError(InputError):
    """Two systems have a node written so; `candidates` names both."""

    def __init__(self, text: str, candidates: tuple[Code, ...], message: str) -> None:
        super().__init__(message)
        self.text = text
        self.candidates = candidates


def _node(tree: Tree, row: int) -> Node:
    above = tree.parent[row]
    level = tree.level(row)
    return Node(
        code=Code(tree.system, tree.names[row]),
        definition=tree.definitions[row],
        kind=LEVEL_NAMES[tree.system][level - 1],
        level=level,
        billable=tree.billable(row),
        parent=Code(tree.system, tree.names[above]) if above >= 0 else None,
    )


@cache
def _undotted(system: str) -> frozenset[str]:
    """The nodes of a system that are written as codes are, without their dots."""
    undotted = ((name, name.replace(".", "")) for name in icd_tables.tree(system).names)
    return frozenset(text for name, text in undotted if code_text.with_dot(system, text) == name)


@cache
def _nodes(system: str) -> tuple[Node, ...]:
    tree = icd_tables.tree(system)
    return tuple(_node(tree, row) for row in range(len(tree.names)))


class Ontology:
    """Both code systems. Immutable and shared between threads; every lookup is by `Code`."""

    @staticmethod
    @lru_cache(maxsize=1)
    def load() -> Ontology:
        """The shipped ontology; tables are read on first use of each system."""
        return Ontology()

    def __contains__(self, code: object) -> bool:
        return isinstance(code, Code) and code.code in icd_tables.tree(code.system).row

    def _find(self, code: Code) -> tuple[Tree, int]:
        tree = icd_tables.tree(code.system)
        row = tree.row.get(code.code)
        if row is None:
            raise self._unknown(str(code), (code.system,), code.code)
        return tree, row

    def node(self, code: Code) -> Node:
        """Everything the tables say of one node. Raises UnknownCodeError for a code that isn't one."""
        tree, row = self._find(code)
        return _node(tree, row)

    def definition(self, code: Code) -> str:
        """The CMS title of a code; the book's heading of a chapter, block or category."""
        tree, row = self._find(code)
        return tree.definitions[row]

    def parent(self, code: Code) -> Code | None:
        """The node directly above; None for a chapter."""
        tree, row = self._find(code)
        above = tree.parent[row]
        return Code(code.system, tree.names[above]) if above >= 0 else None

    def children(self, code: Code) -> tuple[Code, ...]:
        """The nodes directly below, in book order."""
        tree, row = self._find(code)
        return tuple(Code(code.system, tree.names[child]) for child in tree.children(row))

    def descendants(self, code: Code) -> tuple[Code, ...]:
        """All nodes below, in book order."""
        tree, row = self._find(code)
        return tuple(Code(code.system, name) for name in tree.names[row + 1 : tree.end[row]])

    def ancestors(self, code: Code) -> tuple[Code, ...]:
        """The nodes above, nearest first, up to the chapter."""
        tree, row = self._find(code)
        above = []
        while (row := tree.parent[row]) >= 0:
            above.append(Code(code.system, tree.names[row]))
        return tuple(above)

    def ancestor_at(self, code: Code, level: int) -> Code | None:
        """The node at `level` (1 = chapter) on the way up; the code itself at its own level, None below it."""
        tree, row = self._find(code)
        if level < 1 or tree.level(row) < level:
            return None
        while tree.level(row) > level:
            row = tree.parent[row]
        return Code(code.system, tree.names[row])

    def chapter(self, code: Code) -> Code:
        """The chapter a node stands in (a chapter's own chapter is itself)."""
        chapter = self.ancestor_at(code, 1)
        assert chapter is not None
        return chapter

    def level(self, code: Code) -> int:
        """1 for a chapter, and so on down `level_names`; deeper nodes keep the last level."""
        tree, row = self._find(code)
        return tree.level(row)

    def kind(self, code: Code) -> str:
        """The name of the node's level."""
        return LEVEL_NAMES[code.system][self.level(code) - 1]

    def is_billable(self, code: Code) -> bool:
        """Whether the code is complete in `release(code.system)`; a retired code is not."""
        tree, row = self._find(code)
        return tree.billable(row)

    def is_retired(self, code: Code) -> bool:
        """Whether an earlier ICD-10-CM release (FY2016 to FY2024) had it as a complete code and this one hasn't."""
        tree, row = self._find(code)
        return tree.status[row] in "re"

    def level_names(self, system: str) -> tuple[str, ...]:
        """The levels from the chapter down: four in ICD-9-CM, five in ICD-10-CM."""
        return LEVEL_NAMES[_checked(system)]

    def nodes(self, system: str) -> tuple[Node, ...]:
        """Every node of a system in book order."""
        return _nodes(_checked(system))

    def billable(self, system: str) -> tuple[Code, ...]:
        """Every billable code of a system in book order."""
        tree = icd_tables.tree(_checked(system))
        return tuple(Code(system, name) for row, name in enumerate(tree.names) if tree.billable(row))

    def release(self, system: str) -> str:
        """The release of the tables, in words."""
        return RELEASES[_checked(system)]

    def maps_to(self, code: Code, system: str) -> tuple[Equivalent, ...]:
        """Every row of the CMS general equivalence map for a code; empty where the map doesn't list it.

        The maps were frozen in 2018: a target may be a code that later releases dropped (`target in ontology`).
        """
        if code.system == _checked(system):
            return (Equivalent(code, False, False, False, 0, 0),)
        first, (sources, targets, flags) = icd_tables.equivalents(code.system, system)
        row = first.get(code.code, len(sources))
        found = []
        while row < len(sources) and sources[row] == code.code:
            approximate, no_map, combination, scenario, choice_list = map(int, flags[row])
            target = None if no_map else Code(system, targets[row])
            found.append(Equivalent(target, bool(approximate), bool(no_map), bool(combination), scenario, choice_list))
            row += 1
        return tuple(found)

    def equivalents(self, code: Code, system: str) -> tuple[Code, ...]:
        """The codes of a system that each alone stand for `code` by the CMS maps, in their order; combinations are left out."""
        rows = self.maps_to(code, system)
        return tuple(
            row.target for row in rows if row.target is not None and not row.combination and row.target in self
        )

    def ccs(self, code: Code) -> CcsGroup | None:
        """The code's CCS group (ICD-9-CM) or default CCSR category (ICD-10-CM); None for headings."""
        group = icd_tables.ccs_groups(code.system).get(code.code)
        return CcsGroup(*group) if group else None

    def parse(
        self,
        text: str,
        system: str | None = None,
        source: str | None = None,
        icd9_three_digit: bool = False,
    ) -> Code:
        """The node that `text` means, by the rules at the top of this module.

        `icd9_three_digit` (or a `source` known to strip zeros) reads '8' as 008 and implies ICD-9-CM.
        Raises UnknownCodeError (with the nearest node) and AmbiguousCodeError (with both candidates).
        """
        if not isinstance(text, str):
            raise InputError(f"A code must be text, not {type(text).__name__} ({text!r}).")
        if system is not None:
            _checked(system)
        prefix, written = code_text.split_prefix(code_text.clean(text))
        if prefix and system and prefix != system:
            raise InputError(f"{_shown(text)} names {prefix} where a code of {system} is expected.")
        three_digit = icd9_three_digit or source in _THREE_DIGIT_SOURCES
        system = system or prefix or ("ICD9" if three_digit else None)
        if three_digit and system == "ICD9":
            written = code_text.pad_three_digits(written)
        systems = (system,) if system else SYSTEMS
        for wording in (written, *code_text.digits_for_letters(written)):
            readings = [code for each in systems if (code := self._reading(each, wording))]
            readings = [c for c in readings if icd_tables.tree(c.system).complete(self._find(c)[1])] or readings
            if len(readings) == 1:
                return readings[0]
            if readings:
                raise self._ambiguous(text, tuple(readings))
            if wording == written and system and (elsewhere := self._reading(_other(system), written)):
                # before a letter is taken for a digit: I50.9 as ICD-9-CM is no 150.9, which is another disease
                raise self._of_other_system(text, system, elsewhere)
        raise self._unknown(text, systems, written)

    def _reading(self, system: str, written: str) -> Code | None:
        tree = icd_tables.tree(system)
        name = code_text.identity(system, written)
        if name is None:
            return None
        if name in tree.row:
            return Code(system, name)
        if "-" in name and name in tree.spans:
            return Code(system, tree.names[tree.spans[name]])
        return None

    def _ambiguous(self, text: str, candidates: tuple[Code, ...]) -> AmbiguousCodeError:
        meanings = " or ".join(f"{code} ({self.definition(code)})" for code in candidates)
        return AmbiguousCodeError(
            text, candidates, f"{_shown(text)} is ambiguous: {meanings}; say which system is meant."
        )

    def _of_other_system(self, text: str, system: str, code: Code) -> OtherSystemError:
        return OtherSystemError(
            text,
            code,
            f"{_shown(text)} is not a code of {SYSTEM_NAMES[system]} but of {SYSTEM_NAMES[code.system]}: "
            f"{code} ({self.definition(code)}).",
        )

    def _unknown(self, text: str, systems: tuple[str, ...], written: str) -> UnknownCodeError:
        nearest = self._nearest(systems, written)
        books = " or ".join(SYSTEM_NAMES[system] for system in systems)
        hint = f"; the nearest is {nearest} ({self.definition(nearest)})" if nearest else ""
        return UnknownCodeError(text, nearest, f"{_shown(text)} is not a code of {books}{hint}.")

    def _nearest(self, systems: tuple[str, ...], written: str) -> Code | None:
        """The longest beginning that exists (a category or longer), else one that exists but for one edit."""
        undotted = "".join(character for character in written if character.isalnum())[:8]
        if not undotted.isascii():
            return None
        if undotted.isdigit() and len(undotted) < 3 and "ICD9" in systems:
            padded = Code("ICD9", undotted.zfill(3))
            if padded in self:
                return padded
        beginnings = [undotted[:length] for length in range(len(undotted), 2, -1)]
        written_so = {system: _undotted(system) for system in systems}
        for near in (lambda start: {start}), code_text.one_edit:
            for start in beginnings:
                spellings = near(start)
                found = {spelling for known in written_so.values() for spelling in known & spellings}
                if found:  # likeliest: same length, then same first character, then by alphabet
                    best = min(found, key=lambda each: (len(each) != len(start), each[:1] != start[:1], each))
                    system = next(system for system, known in written_so.items() if best in known)
                    return Code(system, code_text.with_dot(system, best))
        return None


def _checked(system: str) -> str:
    if system not in SYSTEMS:
        raise InputError(f"There is no code system {system!r}: use ICD9 or ICD10.")
    return system


def _other(system: str) -> str:
    return next(each for each in SYSTEMS if each != system)


def _shown(text: str) -> str:
    """A quoted piece of the user's text, short enough for one sentence."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else text[:39] + "…")

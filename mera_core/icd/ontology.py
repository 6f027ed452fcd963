"""ICD-9-CM and ICD-10-CM as two trees: what a code means, where it stands, and how a written code is read.

Boundary: knows the shipped tables and nothing of patients, tokens or models. The tables are rebuilt by
`python -m training.tools.make_icd_tables`; `mera_core/data/PROVENANCE.md` says where they come from.

How a written code is read is told in `mera_core.icd.written_codes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

from mera_core.common.errors import InputError
from mera_core.icd import code_text, written_codes
from mera_core.icd import tables as icd_tables
from mera_core.icd.tables import LEVEL_NAMES, Tree
from mera_core.icd.written_codes import AS_CATEGORY, AS_WRITTEN, REPAIRED, SYSTEMS

CATEGORY = 3  # level of the three-character categories in both systems
SYSTEM_NAMES = {"ICD9": "ICD-9-CM", "ICD10": "ICD-10-CM"}
RELEASES = {
    "ICD9": "ICD-9-CM version 32 (FY2015)",
    "ICD10": "ICD-10-CM April 2026 (FY2026), with the codes of FY2024 retired since",
}
# Sources whose files strip the leading zeros of ICD-9 categories (UCI Diabetes 130 writes 8 for 008).
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


@dataclass(frozen=True, slots=True)
class Reading:
    """What a written code means; `how` is AS_WRITTEN, REPAIRED or AS_CATEGORY."""

    code: Code
    how: str = AS_WRITTEN


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
def _nodes(system: str) -> tuple[Node, ...]:
    tree = icd_tables.tree(system)
    return tuple(_node(tree, row) for row in range(len(tree.names)))


class Ontology:
    """Both code systems. Immutable and shared between threads; every lookup is by `Code`.

    as_category: whether a code of a history that is in neither system is read as its nearest ancestor, if that is a category
    or below one.
    """

    def __init__(self, as_category: bool = True) -> None:
        self._as_category = as_category

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
        """The node that `text` means, at any level, by the rules of `written_codes` but the last.

        `icd9_three_digit` (or a `source` known to strip zeros) reads '8' as 008 and implies ICD-9-CM.
        Raises UnknownCodeError (with the nearest node) and AmbiguousCodeError (with both candidates).
        """
        return self._only(text, system, icd9_three_digit or source in _THREE_DIGIT_SOURCES, False).code

    def diagnosis(self, written: Code | str) -> Reading:
        """What a code of a history means: a category or what stands below one.

        Raises UnknownCodeError, for a chapter or block as well, and AmbiguousCodeError (with both candidates).
        """
        if isinstance(written, str):
            reading = self._only(written, None, False, self._as_category)
        elif written in self:
            reading = Reading(written)
        else:
            reading = self._only(written.code, written.system, False, self._as_category)
        if self.level(reading.code) < CATEGORY:
            what = f"{self.kind(reading.code)} {reading.code} ({self.definition(reading.code)})"
            raise UnknownCodeError(str(written), None, f"{_shown(str(written))} is the {what}, which is no diagnosis.")
        return reading

    def diagnoses(self, text: str, system: str | None = None, icd9_three_digit: bool = False) -> tuple[Reading, ...]:
        """What an entry of a record may mean: `diagnosis` without its errors, and much quicker where there is none.

        () where it is unknown, two where it is ambiguous; a chapter or block is given as such. Raises InputError where the
        text names another system.
        """
        return self._meanings(text, system, icd9_three_digit, self._as_category)[0]

    def told(self, written: Code | str, reading: Reading) -> str:
        """In a sentence, how a code was read otherwise than it was written; '' where it was not."""
        why = {REPAIRED: "with a digit for a letter", AS_CATEGORY: "which stands above it in the code set"}
        named = f"{reading.code} ({self.definition(reading.code)})"
        return f"{_shown(str(written))} is read as {named}, {why[reading.how]}." if reading.how else ""

    def _meanings(
        self, text: str, system: str | None, three_digit: bool, as_category: bool
    ) -> tuple[tuple[Reading, ...], str | None, str]:
        """The readings of a text; the system that it or its source names; the text made plain."""
        if not isinstance(text, str):
            raise InputError(f"A code must be text, not {type(text).__name__} ({text!r}).")
        if system is not None:
            _checked(system)
        prefix, written = code_text.split_prefix(code_text.clean(text))
        if prefix and system and prefix != system:
            raise InputError(f"{_shown(text)} names {prefix} where a code of {system} is expected.")
        system = system or prefix or ("ICD9" if three_digit else None)
        if three_digit and system == "ICD9":
            written = code_text.pad_three_digits(written)
        found, how = written_codes.meanings(written, system, as_category)
        return tuple(Reading(Code(*each), how) for each in found), system, written

    def _only(self, text: str, system: str | None, three_digit: bool, as_category: bool) -> Reading:
        found, system, written = self._meanings(text, system, three_digit, as_category)
        if len(found) == 1:
            return found[0]
        if found:
            raise self._ambiguous(text, tuple(reading.code for reading in found))
        if system and (elsewhere := written_codes.meanings(written, None)[0]):
            raise self._of_other_system(text, system, Code(*elsewhere[0]))
        raise self._unknown(text, (system,) if system else SYSTEMS, written)

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
        found = written_codes.nearest(written, systems)
        nearest = Code(*found) if found else None
        books = " or ".join(SYSTEM_NAMES[system] for system in systems)
        hint = f"; the nearest is {nearest} ({self.definition(nearest)})" if nearest else ""
        return UnknownCodeError(text, nearest, f"{_shown(text)} is not a code of {books}{hint}.")


def _checked(system: str) -> str:
    if system not in SYSTEMS:
        raise InputError(f"There is no code system {system!r}: use ICD9 or ICD10.")
    return system


def _shown(text: str) -> str:
    """A quoted piece of the user's text, short enough for one sentence."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else text[:39] + "…")

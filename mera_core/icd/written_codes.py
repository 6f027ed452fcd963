"""Which nodes of the two trees a written code may mean, and how it was read to mean them.

Boundary: plain text in, names of nodes out. `mera_core.icd.ontology` makes codes of them, and says what is wrong where there is
none or more than one.

How a text is read, once its characters are plain and a prefix has named its system:
1. Each system reads it with its own dot rule (after 3 characters; after 4 in ICD-9 E codes). A dot that is written must
   stand there, so `E80.21` is ICD-10 only and `E802.1` is ICD-9 only. A complete code wins over a heading (`E850` is
   ICD-10 E85.0, not the ICD-9 category). Two complete codes, or two headings, in two systems are ambiguous.
2. Else the same without the padding and marks that other editions write behind a code (`I10X`, `E11.-`, `H36.0*`).
3. Else with O, I and L read as 0, 1 and 1 after the first place: with another first place it would be another disease.
4. Else, where that is asked for, as its nearest ancestor at the category or below it: editions of the WHO and of nations
   divide a category otherwise. Where no system is named the dot must be written, so that no number becomes a diagnosis.
What one system is said to hold and only the other does is never read by the steps 3 and 4.
"""

from __future__ import annotations

import re
from functools import cache

from mera_core.icd import code_text
from mera_core.icd import tables as icd_tables

SYSTEMS = ("ICD9", "ICD10")
AS_WRITTEN, REPAIRED, AS_CATEGORY = "", "a letter read as the digit it resembles", "read as its category"
_DIVIDED = {  # a category with a subdivision behind it; of two codes written as one no part is taken
    "ICD9": re.compile(r"^(?:\d{3}|V\d\d|E\d{3})\.\d{1,2}$"),
    "ICD10": re.compile(r"^[A-Z]\d[0-9A-Z]\.[0-9X]*[A-Z]?$"),
}
Found = list[tuple[str, str]]
"""(system, name) of each node that a text may mean."""


def meanings(written: str, system: str | None, widen: bool = False) -> tuple[Found, str]:
    """The nodes that a cleaned text may mean in a system (in either, for None), and how it was read.

    None where it is unknown, two where it is ambiguous. widen: whether step 4 is taken.
    """
    systems = (system,) if system else SYSTEMS
    plain = code_text.unpadded(written)
    for wording in dict.fromkeys((written, plain)):
        if found := _exact(wording, systems):
            return found, AS_WRITTEN
    if system and _exact(plain, SYSTEMS):
        return [], AS_WRITTEN
    repaired = code_text.digits_for_letters(plain)
    if repaired != plain and (found := _exact(repaired, systems)):
        return found, REPAIRED
    if not widen or not (system or "." in plain):
        return [], AS_WRITTEN
    return [(each, name) for each in systems if (name := _ancestor(each, plain))], AS_CATEGORY


def nearest(written: str, systems: tuple[str, ...]) -> tuple[str, str] | None:
    """The longest beginning that exists (a category or longer), else one that exists but for one edit."""
    undotted = "".join(character for character in written if character.isalnum())[:8]
    if not undotted.isascii():
        return None
    if undotted.isdigit() and len(undotted) < 3 and "ICD9" in systems:
        padded = undotted.zfill(3)
        if padded in icd_tables.tree("ICD9").row:
            return "ICD9", padded
    beginnings = [undotted[:length] for length in range(len(undotted), 2, -1)]
    written_so = {system: _undotted(system) for system in systems}
    for near in (lambda start: {start}), code_text.one_edit:
        for start in beginnings:
            spellings = near(start)
            found = {spelling for known in written_so.values() for spelling in known & spellings}
            if found:  # likeliest: same length, then same first character, then by alphabet
                best = min(found, key=lambda each: (len(each) != len(start), each[:1] != start[:1], each))
                system = next(system for system, known in written_so.items() if best in known)
                return system, code_text.with_dot(system, best)
    return None


def _exact(written: str, systems: tuple[str, ...]) -> Found:
    found = [(system, name) for system in systems if (name := _node(system, written))]
    complete = [(system, name) for system, name in found if _is_complete(system, name)]
    return complete or found


def _is_complete(system: str, name: str) -> bool:
    tree = icd_tables.tree(system)
    return tree.complete(tree.row[name])


def _node(system: str, written: str) -> str | None:
    tree = icd_tables.tree(system)
    name = code_text.identity(system, written)
    if name in tree.row:
        return name
    return tree.names[tree.spans[name]] if name in tree.spans else None


def _ancestor(system: str, written: str) -> str | None:
    name = code_text.identity(system, written)
    if name is None or not _DIVIDED[system].match(name):
        return None
    undotted = name.replace(".", "")
    above = (code_text.with_dot(system, undotted[:length]) for length in range(len(undotted) - 1, 2, -1))
    return next((start for start in above if start in icd_tables.tree(system).row), None)


@cache
def _undotted(system: str) -> frozenset[str]:
    """The nodes of a system that are written as codes are, without their dots."""
    undotted = ((name, name.replace(".", "")) for name in icd_tables.tree(system).names)
    return frozenset(text for name, text in undotted if code_text.with_dot(system, text) == name)

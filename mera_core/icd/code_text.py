"""How a diagnosis code may be written, and what it could mean: text in, undotted readings out.

Boundary: characters only. Whether a reading exists is for `mera_core.icd.ontology`, which holds the trees.
"""

from __future__ import annotations

import re
import unicodedata

# Cyrillic and Greek capitals, and signs, drawn like a Latin letter that a code may hold.
_LOOK_ALIKE = str.maketrans(
    "АВЕКМНОРСТХУІЈЅԚԜԌΑΒΕΖΗΙΚΜΝΟΡΤΥΧ×✕",
    "ABEKMHOPCTXYIJSQWGABEZHIKMNOPTYXXX",
)
_DOTS = re.compile("[,·•‧∙⋅・｡。٫﹒]")
_PREFIX = re.compile(r"^ICD-?(9|10)(?:-?CM)?[:_/|-]*(?=[^:_/|-])")
_RANGE = re.compile(r"^([A-Z0-9]{3,4})-([A-Z0-9]{3,4})$")
# Letters that no ICD-10-CM code holds after its first place, with the digit they are typed for.
_TYPED_FOR = str.maketrans("OIL", "011")
_TYPED_FOR_LAST = str.maketrans("OI", "01")
_PADDING = re.compile("[-X†*!+]+$")


def clean(text: str) -> str:
    """Upper case, Latin letters, ASCII digits, one kind of dash and dot, no space: ' i５０．9' -> 'I50.9'."""
    characters = []
    for character in unicodedata.normalize("NFKC", text).upper():
        category = unicodedata.category(character)
        if category in ("Cf", "Cc", "Zs", "Zl", "Zp", "Mn"):
            continue
        if category == "Pd" or character == "−":
            character = "-"
        elif category == "Nd":
            character = str(unicodedata.digit(character))
        characters.append(character)
    cleaned = "".join(characters).translate(_LOOK_ALIKE)
    return _DOTS.sub(".", cleaned)


def split_prefix(cleaned: str) -> tuple[str | None, str]:
    """The system that a prefix names, and the rest: 'ICD10:I50.9' -> ('ICD10', 'I50.9')."""
    match = _PREFIX.match(cleaned)
    return (f"ICD{match[1]}", cleaned[match.end() :]) if match else (None, cleaned)


def with_dot(system: str, undotted: str) -> str:
    """The code as its book prints it: ('ICD9', 'E8021') -> 'E802.1', ('ICD10', 'E8021') -> 'E80.21'."""
    head = 4 if system == "ICD9" and undotted[:1] == "E" else 3
    return undotted if len(undotted) <= head else f"{undotted[:head]}.{undotted[head:]}"


def pad_three_digits(cleaned: str) -> str:
    """Restores leading zeros that a source stripped from an ICD-9 category: '8' -> '008', '38' -> '038'."""
    match = re.match(r"^(\d{1,2})(\.\d{0,2})?$", cleaned)
    return f"{int(match[1]):03}{match[2] or ''}" if match else cleaned


def identity(system: str, cleaned: str) -> str | None:
    """The dotted name that `cleaned` has in `system`, existing or not; None where its dot is out of place."""
    if not cleaned or len(cleaned) > 16:
        return None
    if "-" in cleaned:
        return cleaned if _RANGE.match(cleaned) else None
    if cleaned.startswith("CH"):
        return f"CH{int(cleaned[2:]):02}" if cleaned[2:].isascii() and cleaned[2:].isdigit() else None
    cleaned = cleaned.removesuffix(".")
    undotted = cleaned.replace(".", "", 1)
    if not undotted.isascii() or not undotted.isalnum():
        return None
    name = with_dot(system, undotted)
    return name if "." not in cleaned or name == cleaned else None


def digits_for_letters(cleaned: str) -> str:
    """The same text with O, I and L read as the digits they resemble, save in the first place.

    A last L stays too: other editions write it behind a code for the left side, and M17.11 is the right one.
    """
    return cleaned[:1] + cleaned[1:-1].translate(_TYPED_FOR) + cleaned[1:][-1:].translate(_TYPED_FOR_LAST)


def unpadded(cleaned: str) -> str:
    """Without what other editions write behind a code: X and dashes to fill it up, the marks of cause and manifestation."""
    return _PADDING.sub("", cleaned)


def one_edit(undotted: str) -> set[str]:
    """Every string one edit away."""
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    halves = [(undotted[:i], undotted[i:]) for i in range(len(undotted) + 1)]
    return {
        *(a + b[1:] for a, b in halves if b),
        *(a + b[1] + b[0] + b[2:] for a, b in halves if len(b) > 1),
        *(a + c + b[1:] for a, b in halves if b for c in letters),
        *(a + c + b for a, b in halves for c in letters),
    }

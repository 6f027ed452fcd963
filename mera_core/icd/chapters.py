"""How a chapter of the code sets looks everywhere: one short name and one colour for each medical field.

Boundary: knows chapters only; nothing of rankings, figures or pages. The circulatory chapters of ICD-9-CM and
ICD-10-CM are one field, and so on.
"""

from __future__ import annotations

from functools import cache

from mera_core.icd.ontology import Code, Ontology

# Field -> (name short enough for an axis, colour). Each colour has a contrast of at least 3:1 to a white and
# to a near-black page (WCAG 1.4.11), and black or white text on it at least 4.5:1. They were spread by
# farthest-point search over OKLab distance in normal, protan and deutan vision, the common fields first.
# Twenty-two hues can't all be told apart by everyone: a colour never stands without its chapter's name.
FIELDS: dict[str, tuple[str, str]] = {
    "infectious": ("Infections", "#24a848"),
    "neoplasms": ("Neoplasms", "#c04890"),
    "endocrine": ("Endocrine & metabolic", "#d8780c"),
    "blood": ("Blood", "#5490fc"),
    "mental": ("Mental", "#7854b4"),
    "nervous": ("Nervous system", "#9c78d8"),
    "eye": ("Eye", "#0084c0"),
    "ear": ("Ear", "#189c6c"),
    "circulatory": ("Circulatory", "#c03c18"),
    "respiratory": ("Respiratory", "#3c6cd8"),
    "digestive": ("Digestive", "#0c7800"),
    "genitourinary": ("Genitourinary", "#247878"),
    "pregnancy": ("Pregnancy & birth", "#cc78a8"),
    "skin": ("Skin", "#549cb4"),
    "musculoskeletal": ("Musculoskeletal", "#6c8454"),
    "congenital": ("Congenital", "#9c7830"),
    "perinatal": ("Perinatal", "#a860c0"),
    "symptoms": ("Symptoms & signs", "#a88484"),
    "injury": ("Injury & poisoning", "#846054"),
    "external": ("External causes", "#b4486c"),
    "factors": ("Health status & care", "#6078a8"),
    "special": ("Special purposes", "#b46c90"),
}
# The fields of CH01, CH02 ... of each book.
_ICD9_FIELDS = (
    "infectious", "neoplasms", "endocrine", "blood", "mental", "nervous", "circulatory", "respiratory",
    "digestive", "genitourinary", "pregnancy", "skin", "musculoskeletal", "congenital", "perinatal",
    "symptoms", "injury", "factors", "external",
)  # fmt: skip
_ICD10_FIELDS = (
    "infectious", "neoplasms", "blood", "endocrine", "mental", "nervous", "eye", "ear", "circulatory",
    "respiratory", "digestive", "skin", "musculoskeletal", "genitourinary", "pregnancy", "perinatal",
    "congenital", "symptoms", "injury", "external", "factors", "special",
)  # fmt: skip


@cache
def field_of(code: Code) -> str:
    """The medical field of the chapter a code stands in: a key of FIELDS."""
    chapter = Ontology.load().chapter(code)
    fields = _ICD9_FIELDS if chapter.system == "ICD9" else _ICD10_FIELDS
    return fields[int(chapter.code.removeprefix("CH")) - 1]


def chapter_colour(code: Code) -> str:
    """The colour, as #rrggbb, of the chapter a code stands in."""
    return FIELDS[field_of(code)][1]


def chapter_name(code: Code) -> str:
    """A short name of the chapter a code stands in, e.g. 'Circulatory'."""
    return FIELDS[field_of(code)][0]


def text_colour(colour: str) -> str:
    """'#000000' or '#ffffff', whichever reads better on `colour`."""
    return "#000000" if luminance(colour) > 0.1791 else "#ffffff"


def luminance(colour: str) -> float:
    """Relative luminance (0 to 1) of #rrggbb, as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

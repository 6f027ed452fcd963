"""The questions of stage 1, in words: code -> definition, definition -> code, code -> ancestor, code -> its equivalent in the
other code system. Phrasings only."""

from __future__ import annotations

from mera_core.icd.ontology import SYSTEM_NAMES, Code
from mera_core.model.vocabulary import Vocabulary

DEFINITION, CODE, EQUIVALENT = "definition", "code", "equivalent"
"""Kinds of question. The other kind is an ancestor, named by its level: "chapter", "block", "category", ..."""

# The last phrasing of each kind is held out: training sees its words but never this sentence, and recall under it is
# reported apart.
PHRASINGS: dict[str, tuple[str, ...]] = {
    DEFINITION: (
        "Define {}:",
        "{} means",
        "What is {}?",
        "Meaning of {}:",
        "Definition of {}:",
        "Define the code {}:",
        "The code {} means",
        "Meaning of the code {}:",
        "Definition of the code {}:",
    ),
    CODE: (
        "Code for {}:",
        "{} has the code",
        "Which code is {}?",
        "{}. Code:",
        "Which code means {}?",
        "Name the code for {}:",
        "What is the code for {}?",
        "Which is the code for {}?",
    ),
    EQUIVALENT: (
        "Equivalent of {}:",
        "{} is equivalent to",
        "Which code is equivalent to {}?",
        "{}. Equivalent:",
        "Name the equivalent of {}:",
        "Which code is the equivalent of {}?",
    ),
    "ancestor": (
        "{level} of {}:",
        "Which {level} holds {}?",
        "{} is in {level}",
        "{} belongs to {level}",
        "Name the {level} of {}:",
        "Which {level} is {} in?",
        "Name the {level} {} is in:",
    ),
}
SUBJECT = "{}"


def phrasings(kind: str) -> tuple[str, ...]:
    """Every phrasing of `kind`, the held-out one last."""
    if kind in (DEFINITION, CODE, EQUIVALENT):
        return PHRASINGS[kind]
    return tuple(phrase.replace("{level}", kind) for phrase in PHRASINGS["ancestor"])


def question_text(kind: str, subject: str, phrasing: int = 0) -> str:
    """The question as a reader sees it."""
    return phrasings(kind)[phrasing].replace(SUBJECT, subject)


def in_words(code: Code, definition: str) -> str:
    """A code as it is written where the vocabulary has no token for it: 'ICD-9-CM 427.31, Atrial fibrillation'."""
    return f"{SYSTEM_NAMES[code.system]} {code.code}, {definition}"


def question_ids(kind: str, subject: Code | str, vocabulary: Vocabulary, phrasing: int = 0) -> list[int]:
    """Token ids of a question, ready to be answered.

    Args:
        subject: the code asked about, written out (`in_words`) where it has no token; for kind `CODE` the definition.
    """
    before, after = phrasings(kind)[phrasing].split(SUBJECT)
    if isinstance(subject, Code):
        middle = [
            *vocabulary.words(before.rstrip()),
            vocabulary.ids[subject],
            *vocabulary.words(after.lstrip()),
        ]
    else:
        middle = vocabulary.words(before + subject + after)
    return [*vocabulary.prefix(), *middle]

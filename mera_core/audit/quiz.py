"""A quiz on the ICD code set: random codes, each with four definitions to choose from. Knows no model and no screen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Code, Ontology

QUESTIONS = 10
OPTIONS = 4


@dataclass(frozen=True, slots=True)
class Question:
    """What does `code` mean? options: definitions, one of them the book's; right: its place among them."""

    code: Code
    options: tuple[str, ...]
    right: int


def draw_quiz(ontology: Ontology, systems: Sequence[str], seed: int, count: int = QUESTIONS) -> list[Question]:
    """`count` billable codes drawn evenly from the books, each with `OPTIONS` definitions; the same for a seed.

    The wrong definitions are of the code's own block where it has enough of them, else of its chapter, else of the book,
    so that knowing the chapter does not give the answer away.
    Raises InputError where there is no book to draw from.
    """
    codes = [code for system in systems for code in ontology.billable(system)]
    if len(codes) < max(count, OPTIONS):
        raise InputError("There are no ICD codes to draw a quiz from.")
    draw = random.Random(seed)
    return [_question(code, codes, ontology, draw) for code in draw.sample(codes, count)]


def _question(code: Code, codes: Sequence[Code], ontology: Ontology, draw: random.Random) -> Question:
    truth = ontology.definition(code)
    wrong: list[str] = []
    for node in (*ontology.ancestors(code)[-2:], None):  # block, chapter, the whole book
        near = codes if node is None else [c for c in ontology.descendants(node) if ontology.is_billable(c)]
        near = [c for c in near if c.system == code.system]
        for other in draw.sample(near, min(len(near), 8 * OPTIONS)):
            definition = ontology.definition(other)
            if len(wrong) < OPTIONS - 1 and definition != truth and definition not in wrong:
                wrong.append(definition)
        if len(wrong) == OPTIONS - 1:
            break
    right = draw.randrange(OPTIONS)
    return Question(code, (*wrong[:right], truth, *wrong[right:]), right)

"""A pasted list of diagnoses, read piece by piece: what each piece became, nothing left out. No screen.

Pieces are parted by lines, semicolons, bars, tabs and commas, and by spaces where each word is written like a
code. Words after a code (or before the only code of a line) are taken as its description and reported as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mera_core.errors import InputError
from mera_core.ontology import AmbiguousCodeError, Code, Ontology

LONGEST_LIST = 20_000  # characters; more is a file, not a list
MOST_PIECES = 500
_LINES = re.compile(r"[\n\r;|\t]+")
_CODE_LIKE = re.compile(
    r"^(?:ICD-?(?:9|10)(?:-?CM)?[:_/-]*)?[A-Z]?\d[0-9A-Z]{1,3}(?:\.[0-9A-Z]{0,4}|[0-9A-Z]{0,3})$", re.I
)
_PREFIX = re.compile(r"\bICD[- ]?(9|10)(?:[- ]?CM)?\s*[:=]?\s+(?=[A-Z]?\d)", re.I)
_EDGES = " \u00a0,.:=–—-•*\"'“”„()[]{}<>"


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a pasted list.

    typed: as written. code: what it became; None where it could not be read. words: what was taken as the
    code's description. problem: why it could not be read, as a sentence; '' where it could.
    """

    typed: str
    code: Code | None = None
    words: str = ""
    problem: str = ""


def read_list(text: str, ontology: Ontology) -> list[Piece]:
    """Every piece of a pasted list in order. Raises InputError for a text too long to be a list."""
    if len(text) > LONGEST_LIST:
        raise InputError(f"The list has {len(text):,} characters, and at most {LONGEST_LIST:,} can be pasted at once.")
    pieces = [piece for line in _LINES.split(text) for piece in _line(line, ontology)]
    if len(pieces) > MOST_PIECES:
        raise InputError(f"The list has {len(pieces):,} pieces, and at most {MOST_PIECES:,} can be pasted at once.")
    return pieces


def _line(line: str, ontology: Ontology) -> Iterator[Piece]:
    """The pieces between two hard separators; a comma may also stand inside a description."""
    line = _PREFIX.sub(lambda match: f"ICD{match[1]}:", line)
    described: Piece | None = None  # the last code, while what follows may still be its description
    for part in line.split(","):
        part = part.strip(_EDGES)
        if not part:
            continue
        words = part.split()
        codes = [word for word in words if _code_like(word)]
        if described is not None and not codes:
            described = Piece(f"{described.typed}, {part}", described.code, f"{described.words}, {part}")
            continue
        if described is not None:
            yield described
            described = None
        if len(codes) == len(words):
            yield from (_read(word, "", ontology) for word in words)
        elif _code_like(words[0]):
            lead = next(place for place, word in enumerate(words) if not _code_like(word))
            yield from (_read(word, "", ontology) for word in words[: lead - 1])
            described = _read(words[lead - 1], " ".join(words[lead:]).strip(_EDGES), ontology)
            if described.code is None:
                yield described
                described = None
        elif len(codes) == 1 and _code_like(words[-1]):
            yield _read(words[-1], " ".join(words[:-1]).strip(_EDGES), ontology)
        else:
            yield _read(part, "", ontology)
    if described is not None:
        yield described


def _code_like(word: str) -> bool:
    return bool(_CODE_LIKE.match(word.strip(_EDGES)))


def _read(written: str, words: str, ontology: Ontology) -> Piece:
    written = written.strip(_EDGES)
    typed = f"{written} {words}".strip()
    try:
        return Piece(typed, ontology.parse(written), words)
    except AmbiguousCodeError as error:
        return Piece(written, None, words, str(error))
    except InputError as error:
        return Piece(typed, None, "", str(error))

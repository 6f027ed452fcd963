"""A pasted list of diagnoses, read piece by piece: what each piece became, nothing left out. No screen.

Pieces are separated by lines, semicolons, bars, tabs and commas, and by spaces where each word is written like a
code. Words after a code, or before the first one, are taken as its description and reported as such; beyond a comma
only where they say what the code means, so that no diagnosis written in words is lost in the one before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from mera_core.common.errors import InputError
from mera_core.common.limits import current_limits
from mera_core.icd.ontology import AmbiguousCodeError, Code, Ontology

_LINES = re.compile(r"[\n\r;|\t]+")
_CODE_LIKE = re.compile(
    r"^(?:ICD-?(?:9|10)(?:-?CM)?[:_/-]*)?[A-Z]?\d[0-9A-Z]{1,3}(?:\.[0-9A-Z]{0,4}|[0-9A-Z]{0,3})$", re.I
)
_PREFIX = re.compile(r"\bICD[- ]?(9|10)(?:[- ]?CM)?\s*[:=]?\s+(?=[A-Z]?\d)", re.I)
_YEAR = re.compile(r"(?:19|20)\d\d\b(?!\.)")  # among words it is rather that than a neoplasm
_UNDOTTED = re.compile(r"\d{4,5}\b(?!\.)")
_LONG_WORD = 4  # letters of a word that says something by itself: "no", "of", "with" of a description may differ
_LETTERS = re.compile(r"[^\W_]+")
_EDGES = " \u00a0,.:=/+&–—-•*†!\"'“”„()[]{}<>"


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a pasted list.

    typed: as written. code: what it became; None where it could not be read. words: what was taken as the
    code's description. problem: why it could not be read, as a sentence; '' where it could. doubt: what else it may
    have been, or how it was read otherwise than typed, although it was read.
    """

    typed: str
    code: Code | None = None
    words: str = ""
    problem: str = ""
    doubt: str = ""


def read_list(text: str, ontology: Ontology) -> list[Piece]:
    """Every piece of a pasted list in order. Raises InputError for a text too long to be a list."""
    longest, most = current_limits().list_characters, current_limits().list_pieces
    if len(text) > longest:
        raise InputError(f"The list has {len(text):,} characters, and at most {longest:,} can be pasted at once.")
    pieces = list(islice((piece for line in _LINES.split(text) for piece in _line(line, ontology)), most + 1))
    if len(pieces) > most:  # the rest is not looked at: each piece takes a millisecond
        raise InputError(f"The list has more than {most:,} pieces, and at most {most:,} can be pasted at once.")
    return _with_doubts(pieces)


def _with_doubts(pieces: list[Piece]) -> list[Piece]:
    """'2024' is a code without its dot, and more likely a year: said, unless the list writes other codes so, too."""
    undotted = [piece.code is not None and bool(_UNDOTTED.match(piece.typed)) for piece in pieces]
    years = [read and bool(_YEAR.match(piece.typed)) for read, piece in zip(undotted, pieces, strict=True)]
    if sum(undotted) > sum(years):
        return pieces
    return [
        replace(piece, doubt=f"{piece.typed.split()[0]} was read as {piece.code.code}. If it is a year, remove it.")
        if year
        else piece
        for year, piece in zip(years, pieces, strict=True)
    ]


def _line(line: str, ontology: Ontology) -> Iterator[Piece]:
    """The pieces between two hard separators; a comma may also stand inside a description."""
    line = _PREFIX.sub(lambda match: f"ICD{match[1]}:", line)
    last: Piece | None = None  # the code read last, while what follows may still be its description
    for part in line.split(","):
        part = part.strip(_EDGES)
        if not _LETTERS.search(part):
            continue
        words = [word for between in part.split() for word in _separated(between)]
        coded = any(_code_like(word) for word in words)
        if last is not None and not coded and _describes(words, last, ontology):
            said = f"{last.words}, {part}" if last.words else part
            last = replace(last, typed=f"{last.typed}, {part}", words=said)
            continue
        if last is not None:
            yield last
            last = None
        *done, last = _pieces(words, ontology)
        yield from done
        if last.code is None:
            yield last
            last = None
    if last is not None:
        yield last


def _pieces(words: list[str], ontology: Ontology) -> Iterator[Piece]:
    """The pieces between two commas: each code with the words up to the next one, the first also with those before it."""
    lead = next((place for place, word in enumerate(words) if not _code_like(word)), len(words))
    marks = [*range(lead), *(place for place in range(lead, len(words)) if _surely(words[place], ontology))]
    if not marks and _code_like(words[-1]) and not _YEAR.fullmatch(words[-1]) and sum(map(_code_like, words)) == 1:
        marks = [len(words) - 1]
    if not marks:
        yield _read(" ".join(words), "", ontology)
        return
    for place, end in zip(marks, [*marks[1:], len(words)], strict=True):
        before = words[:place] if place == marks[0] else []
        said = [" ".join(around).strip(_EDGES) for around in (before, words[place + 1 : end])]
        yield _read(words[place], " ".join(filter(None, said)), ontology)


def _surely(word: str, ontology: Ontology) -> bool:
    """Whether a word among others is meant as a code: "1999" and "B12" may well be words of a description."""
    word = word.strip(_EDGES)
    if not _code_like(word) or not ("." in word or word[0].isalpha()):
        return False
    try:
        ontology.parse(word)
    except AmbiguousCodeError:
        return True
    except InputError:
        return False
    return True


def _separated(word: str) -> list[str]:
    """'428.0/I10' -> both; anything else, such as '140/90', stays whole."""
    parts = [part for part in word.split("/") if part]
    whole = len(parts) < 2 or not all(_code_like(part) and ("." in part or part[0].isalpha()) for part in parts)
    return [word] if whole else parts


def _describes(words: list[str], piece: Piece, ontology: Ontology) -> bool:
    """Whether the words stand in the definition of a piece's code; where words came before, every long one of them."""
    if piece.code is None:
        return False
    known = set(_LETTERS.findall(ontology.definition(piece.code).casefold()))
    said = _LETTERS.findall(" ".join(words).casefold())
    long = [word for word in said if len(word) >= _LONG_WORD] if piece.words else said
    return known.issuperset(long or said)


def _code_like(word: str) -> bool:
    return bool(_CODE_LIKE.match(word.strip(_EDGES)))


def _read(written: str, words: str, ontology: Ontology) -> Piece:
    written = written.strip(_EDGES)
    typed = f"{written} {words}".strip()
    try:
        reading = ontology.diagnosis(written)
        return Piece(typed, reading.code, words, doubt=ontology.told(written, reading))
    except AmbiguousCodeError as error:
        return Piece(written, None, words, str(error))
    except InputError as error:
        return Piece(typed, None, "", str(error))

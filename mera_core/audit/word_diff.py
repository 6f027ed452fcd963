"""Two texts word by word: what both say, and what only one of them says. Knows nothing of codes or models."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring words with one fate. kind: 'same', or whose they are alone: 'first' | 'second'."""

    kind: Literal["same", "first", "second"]
    words: str


def word_diff(first: str, second: str) -> list[Run]:
    """The runs of words that turn `first` into `second`; where they differ, the first text's words come first.

    Case counts, because a definition is recalled to the letter; how many spaces part two words does not.

    >>> [(run.kind, run.words) for run in word_diff("Acute heart failure", "Acute renal failure")]
    [('same', 'Acute'), ('first', 'heart'), ('second', 'renal'), ('same', 'failure')]
    """
    left, right = first.split(), second.split()
    runs: list[Run] = []
    for kind, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if kind == "equal":
            runs.append(Run("same", " ".join(left[a:b])))
            continue
        if b > a:
            runs.append(Run("first", " ".join(left[a:b])))
        if d > c:
            runs.append(Run("second", " ".join(right[c:d])))
    return runs

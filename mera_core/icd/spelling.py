"""Words that are spelled nearly like one that was typed: a list of known words in, the likeliest few out.

Boundary: words and how often each is used; no code set, no search. Safe to call from many threads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import OSA

MOST = 6  # spellings of a word that are tried
_SHORTEST, _TWO_SLIPS = 4, 8  # letters of a word that may hold one slip, and two
_BEGINNINGS = range(_SHORTEST, 16)
_REMEMBERED = 4096


class _Bucket:
    """Words to compare with, each with the set of its letters as bits: one slip changes at most two of them."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted(words)
        self._letters = np.array([_letters(word) for word in self.words], np.uint32)

    def alike(self, letters: int, slips: int) -> list[str]:
        """The words whose letters differ by no more than so many slips can change."""
        places = np.flatnonzero(np.bitwise_count(self._letters ^ np.uint32(letters)) <= 2 * slips)
        return [self.words[place] for place in places]


class Spelling:
    """The known words by length, and their beginnings, so that only words of about the same length are compared."""

    def __init__(self, words: Mapping[str, int]) -> None:
        """words: each known word with how often it is used."""
        self._used = dict(words)
        self._sorted = sorted(words)
        by_length: dict[int, list[str]] = {}
        for word in self._sorted:
            by_length.setdefault(len(word), []).append(word)
        self._by_length = {length: _Bucket(words) for length, words in by_length.items()}
        self._beginnings = {
            length: _Bucket({word[:length] for word in self._sorted if len(word) >= length}) for length in _BEGINNINGS
        }
        self.near = lru_cache(_REMEMBERED)(self._near)  # a word is asked for again with each letter typed after it

    def _near(self, word: str, last: bool) -> tuple[str, ...]:
        """The word itself where it is known, else the few nearest that are; none where nothing is near.

        One slip is forgiven from 4 letters on and two from 8: a letter left out, added, changed, or two swapped.
        last: the word may be unfinished, and beginnings of known words count as words.
        """
        if word in self._used or (last and self.begins(word)):
            return (word,)
        allowed = 0 if len(word) < _SHORTEST else 1 if len(word) < _TWO_SLIPS else 2
        if not allowed:
            return ()
        buckets = [self._beginnings.get(len(word))] if last else []
        buckets += [self._by_length.get(len(word) + more) for more in range(-allowed, allowed + 1)]
        letters = _letters(word)
        choices = [each for bucket in buckets if bucket for each in bucket.alike(letters, allowed)]
        found = process.extract(word, choices, scorer=OSA.distance, score_cutoff=allowed, limit=None)
        fewest = min((slips for _, slips, _ in found), default=0)
        near = {term for term, slips, _ in found if slips == fewest}
        return tuple(sorted(near, key=lambda term: (term[0] != word[0], -self._used.get(term, 0), term))[:MOST])

    def begins(self, word: str) -> bool:
        """Whether a known word begins so."""
        place = bisect_left(self._sorted, word)
        return place < len(self._sorted) and self._sorted[place].startswith(word)


def _letters(word: str) -> int:
    """The letters of a word as bits; others than a to z share theirs."""
    bits = 0
    for letter in set(word):
        bits |= 1 << ord(letter) % 32
    return bits

"""Type-ahead over codes and definitions: a few typed characters in, the likeliest nodes out.

Boundary: reads the shipped ICD tables; knows nothing of patients or screens. Safe to call from many threads.

Order of results: the code typed, codes that begin so (shallow ones first), then definitions that hold the words
side by side or under their medical name ('heart attack'), then the words in any order, then beginnings of words;
only when none of these finds anything, words spelled nearly so, then all words but one. Within a step short
definitions come first, complete codes before headings, retired codes last.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice, product, takewhile

from mera_core.common.errors import InputError
from mera_core.icd import code_text
from mera_core.icd import tables as icd_tables
from mera_core.icd.ontology import SYSTEMS, Code
from mera_core.icd.spelling import Spelling
from mera_core.icd.synonyms import MEDICAL_NAMES

LONGEST_QUERY = 200
_WORD = re.compile(r"[^\W_]+")
_CODE = re.compile(r"^(?:[A-Z]|[A-Z]?\d[A-Z0-9]{0,7}|[A-Z]?\d[A-Z0-9]{1,3}\.[A-Z0-9]{0,4}|CH\d\d?)$")
_RANGE = re.compile(r"^[A-Z0-9]{3,4}-[A-Z0-9]{3,4}$")
_SMALL_WORDS = frozenset(
    ["a", "an", "and", "at", "by", "due", "for", "from", "in", "into", "of", "on", "or", "s", "the", "to"]
)
_EVERYDAY = [(plain, re.compile(rf"\b{plain}\b"), names) for plain, names in MEDICAL_NAMES.items()]
_FEW = 12  # words that begin alike
_MOST_MENDED = 8  # ways to spell a question that are looked up among the everyday names
_NO_PREFIX_END = chr(0x10FFFF)
# First letters of codes that say how or why rather than what: external causes, circumstances of care.
_SUPPLEMENTARY = {"ICD9": "EV", "ICD10": "VWXYZ"}

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Match:
    """One node found; spans are half-open character ranges to mark in `code.code` and in `definition`."""

    code: Code
    definition: str
    billable: bool
    code_spans: tuple[Span, ...] = ()
    definition_spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class _Hit:
    """A row of one index before it becomes a Match; less `cost` is better."""

    cost: float
    row: int
    index: _Index
    code_characters: int = 0
    beginnings: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[float, str, int]:
        return self.cost, self.index.system[3:].zfill(2), self.row


@dataclass(frozen=True, slots=True)
class _Step:
    """One full-text question: an FTS5 expression, and the beginnings of words it is about.

    `listed_at` is the place of a medical name in its list: that order then counts more than short titles. `either`: a
    title need not have all of the beginnings.
    """

    expression: str
    beginnings: tuple[str, ...]
    listed_at: int | None = None
    either: bool = False


def search(query: str, system: str | None = None, limit: int = 20, billable_only: bool = False) -> list[Match]:
    """Up to `limit` nodes for what was typed so far, best first; an empty list for an empty query.

    Raises InputError for an unknown system. The first call for a system builds its index (under a second).
    """
    if system is not None and system not in SYSTEMS:
        raise InputError(f"There is no code system {system!r}: use ICD9 or ICD10.")
    query = query[:LONGEST_QUERY]
    prefix, written = code_text.split_prefix(code_text.clean(query))
    if prefix and system and prefix != system:
        return []
    words = _words(re.sub(r"(?i)^\s*icd[-_ ]?(9|10)([-_ ]?cm)?\b", "", query) if prefix else query)
    indexes = [_index(each) for each in ((system or prefix,) if system or prefix else SYSTEMS)]
    found: dict[tuple[str, int], _Hit] = {}

    def full(ask: Callable[[_Index], Iterable[_Hit]]) -> bool:
        for hit in sorted((hit for index in indexes for hit in ask(index)), key=lambda hit: hit.rank):
            if len(found) < limit:
                found.setdefault((hit.index.system, hit.row), hit)
        return len(found) >= limit

    if not full(lambda index: index.by_code(written, limit, billable_only)) and words:
        for steps in _steps(words):
            if full(lambda index, steps=steps: index.by_words(steps, limit, billable_only)):
                break
        for fallback in (_nearly, _all_but_one):
            if not found:
                full(lambda index, f=fallback: index.by_words(f(index, words), limit, billable_only))
    return [_match(hit) for hit in found.values()]


def _match(hit: _Hit) -> Match:
    tree = hit.index.tree
    title = tree.definitions[hit.row]
    spans = []
    for word in _WORD.finditer(_plain(title)) if hit.beginnings else ():
        fitting = [len(start) for start in hit.beginnings if word[0].startswith(start)]
        if fitting:
            spans.append((word.start(), word.start() + max(fitting)))
    return Match(
        code=Code(tree.system, tree.names[hit.row]),
        definition=title,
        billable=tree.billable(hit.row),
        code_spans=((0, hit.code_characters),) if hit.code_characters else (),
        definition_spans=tuple(spans),
    )


def _plain(text: str) -> str:
    """Lower case without accents; every character keeps its place, so spans stay true."""
    if text.isascii():
        return text.lower()
    return "".join(unicodedata.normalize("NFKD", character)[0].lower()[:1] for character in text)


def _words(text: str) -> list[str]:
    words = _WORD.findall(_plain(unicodedata.normalize("NFKC", text)))[:12]
    meant = [word for word in words[:-1] if word not in _SMALL_WORDS] + words[-1:]
    return meant if len(meant) > 1 or len(words) == 1 else words


def _steps(words: list[str]) -> list[list[_Step]]:
    """The questions to ask in turn; those of one list are ranked together."""
    phrase = _Step(f'"{" ".join(words)}"*', tuple(words))
    near = [*_medical(words), phrase]
    steps = [near]
    if len(words) > 1:
        steps.append([_Step(_all(words[:-1], exact=True) + f' AND "{words[-1]}"*', tuple(words))])
    stems = [re.sub(r"(?<=[a-z]{4})(?:es|s)$", "", word) for word in words]
    if len(words) > 1 or stems != words:
        steps.append([_Step(_all(stems), tuple(stems))])
    return steps


def _medical(words: list[str]) -> Iterator[_Step]:
    """The same question with an everyday expression replaced by its medical name."""
    text = " ".join(words)
    for plain, written, names in _EVERYDAY:
        match = written.search(text)
        # 'heart att' is on its way to 'heart attack'; 'kidney' alone is not yet 'kidney stone'.
        unfinished = len(text) >= 5 and plain.startswith(text) and (" " in text or " " not in plain)
        if not match and not unfinished:
            continue
        rest = [] if unfinished else (text[: match.start()] + text[match.end() :]).split()
        for place, name in enumerate(names):
            wanted = [*(f'"{word}"*' for word in rest), *(f'"{word}"*' for word in name.split())]
            yield _Step(" AND ".join(wanted), (*rest, *name.split()), listed_at=place)


def _all(words: list[str], exact: bool = False) -> str:
    return " AND ".join(f'"{word}"' if exact or len(word) < 3 else f'"{word}"*' for word in words)


def _nearly(index: _Index, words: list[str]) -> list[_Step]:
    """Each word or one spelled nearly so, and what everyday names among them are called in medicine."""
    spellings = [index.spelling.near(word, place == len(words) - 1) for place, word in enumerate(words)]
    if not all(spellings):
        return []
    groups = ["(" + " OR ".join(index.begun(term) for term in terms) + ")" for terms in spellings]
    mended = islice(product(*spellings), _MOST_MENDED)
    everyday = [step for each in mended if list(each) != words for step in _medical(list(each))]
    return [*everyday, _Step(" AND ".join(groups), tuple(term for terms in spellings for term in terms), either=True)]


def _all_but_one(index: _Index, words: list[str]) -> list[_Step]:
    """Every way to leave one of the words out, spelled as nearly."""
    if not 2 <= len(words) <= 6:
        return []
    shorter = [words[:place] + words[place + 1 :] for place in range(len(words))]
    return [step for rest in shorter for step in (_nearly(index, rest))]


class _Index:
    """The index of one system: definitions in an FTS5 table whose row ids are already in order of likelihood.

    FTS5 answers in row id order without scoring, so a question stops after the first few rows it needs.
    """

    def __init__(self, system: str) -> None:
        self.system = system
        self.tree = icd_tables.tree(system)
        titles = self.tree.definitions
        costs = [self._cost(row) for row in range(len(titles))]
        self.order = sorted(range(len(titles)), key=lambda row: (costs[row], len(titles[row]), row))
        self.costs = costs
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE titles USING fts5(title, state, content='', columnsize=0,"
            " prefix='1 2 3', tokenize='unicode61 remove_diacritics 2')"
        )
        self._database.executemany(
            "INSERT INTO titles(rowid, title, state) VALUES (?, ?, ?)",
            (
                (place, titles[row], "billable" if self.tree.billable(row) else "")
                for place, row in enumerate(self.order)
            ),
        )
        self._database.execute("CREATE VIRTUAL TABLE vocabulary USING fts5vocab(titles, 'col')")
        terms = dict(self._database.execute("SELECT term, doc FROM vocabulary WHERE col = 'title'").fetchall())
        self._vocabulary = sorted(terms)
        everyday = {word: 0 for name in MEDICAL_NAMES for word in name.split()}
        self.spelling = Spelling(
            {word: titles for word, titles in (everyday | terms).items() if word.isalpha() and len(word) > 2}
        )

    def _cost(self, row: int) -> float:
        """Words in the title, and a handicap for what is seldom meant: headings, circumstances, retired codes."""
        status = self.tree.status[row]
        handicap = 1.0 if status == "h" else 3.0 if status in "re" else 0.0
        if self.tree.names[row][0] in _SUPPLEMENTARY[self.system]:
            handicap += 1.5
        return self.tree.definitions[row].count(" ") + 1 + handicap

    @cached_property
    def by_length(self) -> list[tuple[list[str], list[int]]]:
        """Undotted codes in order with their rows, one pair of lists for each length of code."""
        lengths: dict[int, list[tuple[str, int]]] = {}
        for row, name in enumerate(self.tree.names):
            if self.tree.depth[row] > 2:
                undotted = name.replace(".", "")
                lengths.setdefault(len(undotted), []).append((undotted, row))
        pairs = [sorted(lengths[length]) for length in sorted(lengths)]
        return [([code for code, _ in pair], [row for _, row in pair]) for pair in pairs]

    def by_code(self, written: str, limit: int, billable_only: bool) -> Iterator[_Hit]:
        """The node of that name, then codes that begin so; shorter codes cost less."""
        if _RANGE.match(written) or (written[:2] == "CH" and _CODE.match(written)):
            row = self.tree.row.get(code_text.identity(self.system, written) or "")
            row = self.tree.spans.get(written) if row is None else row
            if row is not None and not (billable_only and not self.tree.billable(row)):
                yield _Hit(0.0, row, self, code_characters=len(self.tree.names[row]))
            return
        if not _CODE.match(written):
            return
        undotted = written.replace(".", "")
        if "." in written and not code_text.with_dot(self.system, undotted + "0").startswith(written):
            return
        taken = 0
        for codes, rows in self.by_length:
            first = bisect_left(codes, undotted)
            last = bisect_left(codes, undotted + _NO_PREFIX_END)
            for row in rows[first:last]:
                if taken >= limit:
                    return
                if not billable_only or self.tree.billable(row):
                    taken += 1
                    name = self.tree.names[row]
                    marked = len(undotted) + ("." in name and name.index(".") < len(undotted))
                    yield _Hit(float(len(codes[first])), row, self, code_characters=marked)

    def by_words(self, steps: list[_Step], limit: int, billable_only: bool) -> Iterator[_Hit]:
        """Definitions that answer any of the steps, each with its cost."""
        seen: set[int] = set()
        for step in steps:
            if not step.either and not all(map(self._holds, step.beginnings)):
                continue  # most misspelt words: not worth a question
            expression = f"title : ({step.expression})" + (" AND state : billable" if billable_only else "")
            with self._lock:
                places = self._database.execute(
                    "SELECT rowid FROM titles WHERE titles MATCH ? ORDER BY rowid LIMIT ?",
                    (expression, 3 * limit + 20),
                ).fetchall()
            for (place,) in places:
                row = self.order[place]
                if row not in seen:
                    seen.add(row)
                    title = _plain(self.tree.definitions[row])
                    begins = 1.5 if title.startswith(step.beginnings[0]) else 0.0
                    cost = self.costs[row] - begins
                    if step.listed_at is not None:
                        cost = step.listed_at - 2.0 + 0.1 * cost
                    yield _Hit(cost, row, self, beginnings=step.beginnings)

    def begun(self, beginning: str) -> str:
        """The full-text expression for words that begin so: where they are few, each by name.

        FTS5 gathers all titles of a beginning before it answers, and goes through those of whole words only as far as needed.
        """
        first = bisect_left(self._vocabulary, beginning)
        words = list(takewhile(lambda word: word.startswith(beginning), self._vocabulary[first : first + _FEW + 1]))
        return f'"{beginning}"*' if len(words) > _FEW else " OR ".join(f'"{word}"' for word in words or [beginning])

    def _holds(self, beginning: str) -> bool:
        """Whether any title has a word that begins so."""
        place = bisect_left(self._vocabulary, beginning)
        return place < len(self._vocabulary) and self._vocabulary[place].startswith(beginning)


_building = threading.Lock()


@cache
def _built(system: str) -> _Index:
    return _Index(system)


def _index(system: str) -> _Index:
    with _building:
        return _built(system)

"""The printable page: what stands on it, and that it needs nothing beside it. That it is one page: tests/browser."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from mera_core.export.report import HISTORY_LINES, ROWS, ranking_report
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.ranking.ranking import NOTICE
from tests.export.test_export import BOOK, CODES, PERSON, SOURCE, ranking

VOID = {"meta", "col", "rect", "line", "br"}


class _Page(HTMLParser):
    """Text of a page, its tags with attributes, and whether every tag is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.words, self.tags, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(person: Patient = PERSON, **changes) -> _Page:
    made = _Page(ranking_report(replace(ranking(), **changes), person, SOURCE))
    assert made.open == []
    return made


def long_history(visits: int = 60) -> Patient:
    codes = [Code("ICD9", code) for code in ("428.0", "401.9", "250.00", "585.9", "427.31")]
    return Patient(tuple(Visit(tuple(codes)) for _ in range(visits)), "M", 81)


@pytest.mark.parametrize(
    "words",
    [
        NOTICE, SOURCE.checkpoint, "ICD-9-CM version 32 (FY2015)", "MERA 0123456789ab", "2026-11-23 22:30 UTC",
        "Next visit: 2 predicted", "The cut: 2 predicted, above this line", "'foo & <bar>' is not a code.",
        "female, 72 years, ethnicity @hispanic", BOOK.definition(CODES[0]),
    ],
)  # fmt: skip
def test_the_page_says_what_where_from_and_what_it_is_not_for(words):
    assert words in page().text


def test_the_list_stands_in_order_with_the_cut_in_its_place():
    rows = re.findall(r"<tr[^>]*>.*?</tr>", ranking_report(ranking(), PERSON, SOURCE))[1:]
    assert ["cut" if 'class="cut"' in row else re.search(r'title="[^"]*">([^<]+)<', row)[1] for row in rows] == [
        "428.0", "401.9", "cut", "250.00", "585.9", "486", "V45.81",
    ]  # fmt: skip
    scores = [int(re.search(r">(\d+)</td></tr>$", row)[1]) for row in rows if "cut" not in row]
    assert scores == [92, 82, 18, 8, 3, 1]  # the logistic of 2.5, 1.5, -1.5 ... above the cut at 0.5


def test_a_cut_beyond_the_list_is_said_in_words():
    scores = np.linspace(9, 1, 40)
    codes = tuple(code for code in BOOK.billable("ICD9")[:40])
    made = page(codes=codes, scores=scores, cut=0.0, share=np.full(40, 1 / 40), recurrent=np.zeros(40, bool))
    assert f"Next visit: 40 predicted, the first {ROWS} shown" in made.text
    assert "above this line" not in made.text


def test_both_charts_have_their_numbers_and_words():
    made = page()
    labels = [attributes["aria-label"] for attributes in made.of("svg")]
    assert labels[0].startswith("Share of ranking mass: Circulatory 9")
    assert labels[1] == "Number of codes: visit 1: 3, visit 2: 2, visit 3: 0"
    shares = [float(text.rstrip(" %")) for text in made.words if re.fullmatch(r"[\d.]+ %", text)]
    assert sum(shares) == pytest.approx(100, abs=1)
    widths = [float(rect["width"]) for rect in made.of("rect")]
    assert max(widths) == 170


def test_the_page_needs_nothing_beside_it():
    text = ranking_report(ranking(calibrated=True), PERSON, SOURCE)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in _Page(text).tags}
    assert not [word for word in ("http:", "https:", "url(", "foo & <bar>") if word in text]  # the last is escaped
    assert "Probability" in text and "90 %" in text


def test_a_code_with_two_meanings_says_so():
    made = page(Patient((Visit(("E8021",)),)))
    assert "not read: two meanings, ICD-9-CM E802.1 or ICD-10-CM E80.21" in made.text


def test_a_long_history_is_cut_and_counted():
    made = page(long_history())
    shown = [tag for tag in made.of("p") if tag.get("class") == "visit"]
    listed = len(made.of("li")) - 1  # one is the note
    assert len(shown) + listed <= HISTORY_LINES
    assert f"and {300 - listed} more codes of earlier visits" in made.text
    assert "Visit 60" in made.text
    assert "Visit 1 " not in made.text

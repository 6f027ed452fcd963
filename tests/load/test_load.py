"""A few sessions at once for a few seconds: nobody sees anybody else, every ranking is the right one, nothing fails."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mera_core.engine import Engine
from tests.load.__main__ import measure
from tests.load.visitors import WORD, Visitor, sentinels


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory and children are read from /proc")
def test_a_few_sessions_at_once_see_nothing_of_each_other():
    with ThreadPoolExecutor(1) as apart:  # the browser tests of the same process keep an event loop open in this thread
        found = apart.submit(measure, sessions=6, seconds=8, think=0.5).result()
    assert (found["leaks"], found["wrong"], found["errors"]) == (0, [], [])
    assert found["rankings_checked"] > 2 * 6
    assert found["messages"] > 1_000
    assert found["all_pages"]["p50_ms"] > 0
    assert found["memory_mb"]["one_session"] > 50


def test_the_watch_finds_another_visitors_word_and_another_ranking():
    """The test of the test: a session that is given what belongs to another one is found out."""
    first, second = sentinels(Engine.load(), 2)
    assert first.word != second.word
    assert set(first.codes) != set(second.codes)
    visitor = Visitor("", first, 1.0, 1)

    class Leaky:
        def __init__(self) -> None:
            self.received = [b"own " + first.word.encode(), b"other " + second.word.encode() + b"!"]

        def html(self, begins: str) -> str:
            return f'<td class="code"><span title="x">{second.whole[0]}</span>'

        def text(self) -> str:
            return second.word

    visitor._session = Leaky()
    visitor._watch()
    assert visitor.leaks == [second.number]
    visitor._check(("no such code",))
    assert len(visitor.wrong) == 2
    assert WORD.fullmatch(first.word.encode())

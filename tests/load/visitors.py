"""The people who use the app in a load test: each with a patient of their own, and an eye on what belongs to others.

Every patient carries a word that no other has. A session that ever receives another one's word, or a ranking that is not
that of its own patient, has found a leak. What is right is worked out beforehand by an engine in this process.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from tests.load.protocol import PageError, Session, chosen, pressed, typed

WORD = re.compile(rb"QXSENTINEL(\d{4})[A-Z]{6}")
_CODES = re.compile(r'<td class="code"><span[^>]*>([^<]+)</span>')
CODES_EACH = 4


@dataclass(frozen=True)
class Sentinel:
    """A patient that no one else has. word: stands in the history as a piece that nobody can read. whole: the codes of the
    right ranking, best first; without: the same where one of the codes is taken out of the history."""

    number: int
    word: str
    codes: tuple[Code, ...]
    whole: tuple[str, ...]
    without: dict[Code, tuple[str, ...]]

    @property
    def pasted(self) -> str:
        """The history as it is pasted."""
        return "; ".join([*(str(code) for code in self.codes), self.word])


def sentinels(engine: Engine, count: int, seed: int = 1) -> list[Sentinel]:
    """So many patients, no two of whom share their codes or their word."""
    draw = random.Random(seed)
    readable = sorted(engine.input_codes & set(engine.label_space))
    drawn: set[tuple[Code, ...]] = set()
    while len(drawn) < count:
        drawn.add(tuple(draw.sample(readable, CODES_EACH)))
    made = []
    for number, codes in enumerate(sorted(drawn)):
        histories = [codes, *(tuple(other for other in codes if other != code) for code in codes)]
        rankings = engine.rank_many([Patient((Visit(each),)) for each in histories])
        whole, *without = [tuple(code.code for code in ranking.codes) for ranking in rankings]
        word = f"QXSENTINEL{number:04d}{''.join(draw.choices(ascii_uppercase, k=6))}"
        made.append(Sentinel(number, word, codes, whole, dict(zip(codes, without, strict=True))))
    return made


class Visitor:
    """Opens the app, pastes a history, then looks, edits, asks why and comes back, with pauses to think.

    seconds: of each page, by what was done. leaks: other people's words that came here. wrong: rankings that were not this
    patient's.
    """

    def __init__(self, address: str, sentinel: Sentinel, think: float, seed: int) -> None:
        self._address, self._sentinel, self._think = address, sentinel, think
        self._draw = random.Random(seed)
        self.seconds: list[tuple[str, float]] = []
        self.errors: list[str] = []
        self.leaks: list[int] = []
        self.wrong: list[str] = []
        self.checked = self.messages = 0

    async def arrive(self) -> None:
        """Open the page Predict and put the history in."""
        self._session = await Session.open(self._address)
        await self._do("open", page="Predict")
        session = self._session
        (field_id,), (button_id,) = session.keyed("text_area", "paste_text"), session.keyed("button", "paste_button")
        await self._do("paste", typed(field_id, self._sentinel.pasted), pressed(button_id))
        self._check(self._sentinel.whole)

    async def use(self, until: float) -> None:
        """Go on until that moment of the loop's clock."""
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(self._draw.expovariate(1 / self._think))
            await self._draw.choice((self._edit, self._edit, self.ask_why, self.look_around))()

    async def leave(self) -> None:
        """Close the tab."""
        await self._session.close()

    async def _edit(self) -> None:
        """Take a code out, look, and take that back."""
        code = self._draw.choice(self._sentinel.codes)
        chips = [each for each in self._session.keyed("button", "chip_") if each.endswith(f"_{code}")]
        if not chips:
            self.wrong.append(f"the history lacks its own code {code}")
            return
        await self._do("take a code out", pressed(chips[0]))
        self._check(self._sentinel.without[code])
        undo = [each.id for each in self._session.of_kind("button") if each.label == "Undo"]
        await self._do("undo", pressed(undo[0]))
        self._check(self._sentinel.whole)

    async def ask_why(self) -> None:
        await self._do("ask why", *(chosen(each, "Why") for each in self._session.keyed("button_group", "panel")))
        if not any(True for _ in self._session.of_kind("plotly_chart")):
            self.wrong.append("no chart of why")
        self._check(self._sentinel.whole)

    async def look_around(self) -> None:
        await self._do("another page", page=self._draw.choice(("Recall", "Cohort", "Compare", "Model_Card")))
        await self._do("back to Predict", page="Predict")
        self._check(self._sentinel.whole)

    async def _do(self, what: str, *widgets, page: str | None = None) -> None:
        try:
            self.seconds.append((what, await self._session.run(*widgets, page=page)))
        except (PageError, TimeoutError, OSError) as error:
            self.errors.append(f"{what}: {type(error).__name__} {error}")
        finally:
            self._watch()

    def _watch(self) -> None:
        """Look through everything that came for words of other people, and forget it."""
        for raw in self._session.received:
            self.messages += 1
            self.leaks += [int(found) for found in WORD.findall(raw) if int(found) != self._sentinel.number]
        self._session.received.clear()

    def _check(self, right: Sequence[str]) -> None:
        """The list on the screen is this history's, and so is the history."""
        shown = _CODES.findall(self._session.html("mera-list"))
        self.checked += 1
        if not shown or shown != list(right[: len(shown)]):
            self.wrong.append(f"another ranking: {shown[:3]} in place of {list(right[:3])}")
        if self._sentinel.word not in self._session.text():
            self.wrong.append("the history is not this visitor's")

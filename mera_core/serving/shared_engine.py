"""One engine for many sessions: the same answers as `Engine`, with every forward pass on one worker in a fair line.

Knows no screen: who asks, and who is told that they have to wait, are functions it is given. Reading a history, putting it
into tokens and sorting a list are done by whoever asks; only the model's own work goes through the line, where histories of
several sessions share a forward pass. Nothing of a patient outlives the request it came with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from mera_core.engine import Engine
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code
from mera_core.model.batching import by_length
from mera_core.model.forward import beginnings, pays
from mera_core.model.recall import Recall
from mera_core.model.sequence import Encoded
from mera_core.serving.batch_queue import Line, Told

Result = TypeVar("Result")
Row = tuple[Patient, Encoded]
"""A history in the checkpoint's terms, and its tokens."""
Answer = tuple[np.ndarray, np.float32]
"""Scores [C] and end-of-visit score."""


def this_thread() -> str:
    """A session for each thread, where nobody says otherwise."""
    return str(threading.get_ident())


class SharedEngine(Engine):
    """A loaded engine that any number of sessions ask at once.

    line: may be shared by several engines, so that one model works at a time. who: names the session that asks; the line is
    fair between names. told: called in the thread that asks while it waits (see `waiting_line.Told`).
    All methods are those of `Engine` and raise `waiting_line.BusyError` besides. A method that comes to use the model by
    another way than these here must be put through the line, too: tests/serving/test_serving.py watches the model for it.
    """

    def __init__(
        self, engine: Engine, line: Line, who: Callable[[], str] = this_thread, told: Told | None = None
    ) -> None:
        vars(self).update(vars(engine))  # the same model, labels and calibration: nothing is loaded twice
        self._line, self._who, self._told = line, who, told

    def scores(self, read: Sequence[Row], batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
        """As `Engine.scores`; how many histories share a pass is the line's to decide, not `batch_size`'s."""
        tokens = [encoded.input_ids for _, encoded in read]
        if read and pays(tokens, beginnings(tokens)):
            rows = self._of_variants(read)
        else:
            rows = self._line.ask(self._who(), read, self._pass, [len(ids) for ids in tokens], self._told)
        scores = np.empty((len(rows), len(self.label_space)), np.float32)
        eov = np.empty(len(rows), np.float32)
        for place, (own, end) in enumerate(rows):
            scores[place], eov[place] = own, end
        return scores, eov

    def _of_variants(self, read: Sequence[Row]) -> list[Answer]:
        """Variants of one history share its beginning, so they stay together: pieces of them, each behind the first."""
        first, size = read[0], max(self._line.settings.units - 1, 1)
        pieces = [[first, *read[begin : begin + size]] for begin in range(1, len(read), size)]
        sizes = [sum(len(encoded.input_ids) for _, encoded in piece) for piece in pieces]
        found = self._line.ask(self._who(), pieces, self._each_piece, sizes, self._told)
        return [found[0][0], *(answer for piece in found for answer in piece[1:])]

    def _each_piece(self, pieces: list[list[Row]]) -> list[list[Answer]]:
        found = []
        for piece in pieces:
            scores, eov = super().scores(piece, batch_size=len(piece))
            found.append(list(zip(scores, eov, strict=True)))
        return found

    def _pass(self, read: list[Row]) -> list[Answer]:
        """Scores [C] and end-of-visit score of each history, on the worker; each array is one request's alone."""
        found: list[Any] = [None] * len(read)
        settings = self._line.settings
        for rows in by_length([len(encoded.input_ids) for _, encoded in read], settings.units, settings.size):
            scores, eov = super().scores([read[row] for row in rows], batch_size=len(rows))
            for place, row in enumerate(rows):
                found[row] = (scores[place].copy(), eov[place])  # a view would keep the others' scores alive
        return found

    def recall(
        self, code: str | Code | None = None, definition: str | None = None, system: str | None = None
    ) -> Recall:
        return self._alone(lambda: Engine.recall(self, code, definition, system))

    def recall_ancestors(self, code: str | Code, system: str | None = None) -> list[Recall]:
        return self._alone(lambda: Engine.recall_ancestors(self, code, system))

    def recall_equivalent(self, code: str | Code, system: str | None = None) -> Recall:
        return self._alone(lambda: Engine.recall_equivalent(self, code, system))

    def recall_definitions(self, codes: Sequence[Code]) -> list[str]:
        return self._alone(lambda: Engine.recall_definitions(self, codes))

    def _alone(self, call: Callable[[], Result]) -> Result:
        """A pass of its own for what can't share one."""
        return self._line.ask(self._who(), [call], lambda calls: [calls[0]()], told=self._told)[0]

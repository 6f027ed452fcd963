"""One engine for many sessions: the same answers as `Engine`, with the model's own work done in turns by one worker.

Reading a history, putting it into tokens and sorting a list are done by whoever asks. Knows no screen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from mera_core.engine import Engine
from mera_core.history.records import Patient
from mera_core.model.batching import by_length
from mera_core.model.forward import TOKENS, beginnings, pays
from mera_core.model.sequence import Encoded
from mera_core.serving.turn_queue import Told, TurnQueue

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _in_one_turn(
    method: Callable[Concatenate[Engine, Arguments], Result],
) -> Callable[Concatenate[SharedEngine, Arguments], Result]:
    @wraps(method)
    def call(self: SharedEngine, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return self._queue.ask([partial(method, self, *args, **kwargs)], self._told)[0]

    return call


class SharedEngine(Engine):
    """A loaded engine that any number of sessions ask at once.

    queue: may be shared by several engines, so that one model works at a time. told: see `turn_queue.Told`.
    All methods are those of `Engine` and raise `turn_queue.BusyError` besides. A method that comes to use the model by
    another way than these here must be put through the queue, too: tests/serving/test_serving.py watches the model for it.
    """

    def __init__(self, engine: Engine, queue: TurnQueue, told: Told | None = None) -> None:
        vars(self).update(vars(engine))  # the same model, labels and calibration: nothing is loaded twice
        self._queue, self._told = queue, told

    def scores(
        self, read: Sequence[tuple[Patient, Encoded]], batch_size: int = 64, tokens: int = TOKENS
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Engine.scores`, each forward pass a turn."""
        ids = [encoded.input_ids for _, encoded in read]
        if read and pays(ids, beginnings(ids)):  # variants of the first history, whose beginning each turn shares
            step = max(batch_size - 1, 1)
            turns = [[0, *range(n, min(n + step, len(read)))] for n in range(1, len(read), step)]
        else:
            turns = by_length([len(each) for each in ids], batch_size, tokens)
        whole = super().scores
        calls = [partial(whole, [read[row] for row in rows], batch_size, tokens) for rows in turns]
        scores, eov = np.empty((len(read), len(self.label_space)), np.float32), np.empty(len(read), np.float32)
        for rows, found in zip(turns, self._queue.ask(calls, self._told), strict=True):
            scores[rows], eov[rows] = found
        return scores, eov

    recall = _in_one_turn(Engine.recall)
    recall_ancestors = _in_one_turn(Engine.recall_ancestors)
    recall_equivalent = _in_one_turn(Engine.recall_equivalent)
    recall_definitions = _in_one_turn(Engine.recall_definitions)

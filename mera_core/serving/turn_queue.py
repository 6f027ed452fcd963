"""One worker for many sessions: a request is done in turns, and between two turns of one come those of all others.

Knows no model, no patient and no screen, and keeps nothing of a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import TypeVar

from mera_core.common.errors import InputError

LOOK = 0.5  # seconds between two looks at a turn that waits
QUIET = 1.0  # seconds before one who waits is told their place
Result = TypeVar("Result")
Told = Callable[[int], None]
"""Told the place in the queue (1: next), now and then; 0 once there is nothing more to say."""


class BusyError(InputError):
    """The queue is full, moves too slowly, or is closed; the sentence says which. Asking again later is right."""


class TurnQueue:
    """A worker thread, first come, first served.

    requests: most at once; one more is refused. timeout: seconds until a turn that was not begun is given up.
    """

    def __init__(self, requests: int = 200, timeout: float = 60.0) -> None:
        self.requests, self.timeout = requests, timeout
        self._worker = ThreadPoolExecutor(1, "mera-model")  # outlives whatever a call raises
        self._lock, self._here, self._began = Lock(), 0, 0.0
        self._turns: list[Future] = []

    def close(self) -> None:
        """Take no more turns; those that wait are done. The end of the process does the same."""
        self._worker.shutdown(wait=False)

    def ask(self, turns: Iterable[Callable[[], Result]], told: Told | None = None) -> list[Result]:
        """What each call returns, made by the worker one after the other.

        told: called while a turn waits; what it raises ends the request.

        Raises:
            BusyError: see its class. Otherwise what a call raises; RuntimeError for what is no Exception.
        """
        with self._lock:
            if self._here >= self.requests:
                raise BusyError(f"Busy: {self._here:,} requests are waiting already. Please try again in a minute.")
            self._here += 1
        try:
            return [self._turn(call, told) for call in turns]
        finally:
            with self._lock:
                self._here -= 1

    def _turn(self, call: Callable[[], Result], told: Told | None) -> Result:
        with self._lock:
            try:
                turn = self._worker.submit(self._timed, call)
            except RuntimeError:
                raise BusyError("The app is stopping; please come back in a minute.") from None
            self._turns.append(turn)
        began, said = time.monotonic(), False
        try:
            while not turn.done():
                with suppress(TimeoutError):
                    turn.exception(LOOK)
                waited, place = time.monotonic() - began, self._place(turn)
                if place and waited > self.timeout and turn.cancel():
                    raise BusyError(
                        f"The model is busy: this waited {waited:.0f} seconds and is number {place} in line, behind work that "
                        f"has taken {time.monotonic() - self._began:.0f} seconds so far. Please try again."
                    )
                if told is not None and place and waited >= QUIET:
                    said = True
                    told(place)
            error = turn.exception()
            if isinstance(error, Exception) or error is None:
                return turn.result()
            raise RuntimeError(f"The model's work ended with {type(error).__name__}.") from error  # a page bears these
        finally:
            turn.cancel()
            with self._lock:
                self._turns.remove(turn)
            if said:
                told(0)

    def _timed(self, call: Callable[[], Result]) -> Result:
        self._began = time.monotonic()
        return call()

    def _place(self, turn: Future) -> int:
        """1 for the next turn; 0 for one that was begun."""
        with self._lock:
            waiting = [each for each in self._turns if not each.running() and not each.done()]
        return waiting.index(turn) + 1 if turn in waiting else 0

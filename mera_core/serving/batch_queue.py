"""One worker for many who ask: a bounded line that takes work from each in turn and does what fits together at once.

Knows no model, no patient and no screen: units of work go in, results come out, and nothing of either is kept. Fairness is
by session: however much one asks for, every other one has its turn in the very next pass.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mera_core.common.errors import InputError

LOOK = 0.1  # seconds between two looks at a request that waits
QUIET = 1.0  # seconds before one who waits is told their place
Work = Callable[[list[Any]], Sequence[Any]]
Told = Callable[[int], None]
"""Told the place in the line (1: next), now and then; 0 once there is nothing more to say."""


class BusyError(InputError):
    """The line is full, moves too slowly, or is closing; the sentence says which. Asking again later is right."""


@dataclass(frozen=True)
class Settings:
    """How much waits, how much is done at once, and for how long one waits. Raises ValueError for what is not above zero."""

    waiting: int = 200
    """Requests in the line; one more is refused at once."""
    units: int = 64
    """Units of work in one pass."""
    size: int = 8_192
    """Sizes of the units of one pass, added up (for histories: tokens); a unit that is larger has a pass of its own."""
    turn: int = 8
    """Units that one session gives to a pass before the next session's turn."""
    patience: float = 60.0
    """Seconds in which nothing of a request is done, after which it is given up."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be above zero, not {value}.")


@dataclass(frozen=True)
class Counts:
    """What a line has done so far; numbers alone. shared: passes with units of several sessions. longest: seconds waited."""

    passes: int = 0
    shared: int = 0
    units: int = 0
    refused: int = 0
    given_up: int = 0
    withdrawn: int = 0
    failed: int = 0
    longest: float = 0.0


@dataclass(eq=False)
class _Request:
    session: str
    work: Work
    units: list[Any]
    sizes: Sequence[int]
    results: list[Any]
    began: float
    moved: float
    taken: int = 0
    done: int = 0
    error: BaseException | None = None
    over: threading.Event = field(default_factory=threading.Event)


class Line:
    """A worker thread and those who wait for it. Use it as a context, or `close` it; it closes when the process ends."""

    def __init__(self, settings: Settings = Settings()) -> None:
        self.settings = settings
        self._sessions: OrderedDict[str, deque[_Request]] = OrderedDict()  # in the order of their turns
        self._changed = threading.Condition()
        self._counts = Counts()
        self._open: set[_Request] = set()
        self._closing = False
        self._worker: threading.Thread | None = None

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        with self._changed:
            return self._counts

    @property
    def waiting(self) -> int:
        """Requests that are not finished."""
        with self._changed:
            return len(self._open)

    def ask(
        self, session: str, units: Sequence[Any], work: Work, sizes: Sequence[int] = (), told: Told | None = None
    ) -> list[Any]:
        """The result of each unit, in order; returns when the last is there.

        work: called on the worker with units of all requests that gave an equal `work`, and gives a result for each. Where it
        raises for several requests at once it is called again for each of them alone. sizes: of each unit, 1 by default. told:
        see `Told`; whatever it raises withdraws the request.

        Raises:
            BusyError: see its class. Otherwise what `work` raises for this request's own units.
        """
        units = list(units)
        if not units:
            return []
        if threading.current_thread() is self._worker:  # work that asks for more work would wait for itself
            return list(work(units))
        now = time.monotonic()
        request = _Request(session, work, units, sizes or [1] * len(units), [None] * len(units), now, now)
        self._enter(request)
        try:
            self._wait(request, told)
        finally:
            self._leave(request)
        if request.error is not None:
            raise request.error
        return request.results

    def close(self, grace: float = 5.0) -> None:
        """Take no more, finish what waits within `grace` seconds, refuse the rest, and end the worker."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            worker = self._worker
        atexit.unregister(self.close)
        if worker is None or worker is threading.current_thread():
            return
        worker.join(grace)
        with self._changed:
            for request in list(self._open):
                self._end(request, BusyError("The app is stopping; please come back in a minute."))
            self._changed.notify_all()

    # --- those who ask

    def _enter(self, request: _Request) -> None:
        with self._changed:
            if self._closing:
                raise BusyError("The app is stopping; please come back in a minute.")
            if len(self._open) >= self.settings.waiting:
                self._count(refused=1)
                raise BusyError(
                    f"Busy: {len(self._open):,} requests are waiting already. Please try again in a minute."
                )
            self._open.add(request)
            self._sessions.setdefault(request.session, deque()).append(request)
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name="mera-line", daemon=True)
                self._worker.start()
                atexit.register(self.close)
            self._changed.notify_all()

    def _wait(self, request: _Request, told: Told | None) -> None:
        said = False
        try:
            while not request.over.wait(LOOK):
                now, place = time.monotonic(), self._place(request)
                if now - request.moved > self.settings.patience:
                    with self._changed:
                        self._count(given_up=1)
                    where = f" as number {place} in line" if place else ""
                    raise BusyError(
                        f"The model is busy: this waited {self.settings.patience:.0f} seconds{where}. Please try again."
                    )
                if told is not None and place and now - request.began >= QUIET:
                    said = True
                    told(place)
        finally:
            if said:
                told(0)

    def _place(self, request: _Request) -> int:
        """How many sessions have their turn up to this one's; 0 while it is being worked on."""
        with self._changed:
            if request.done < request.taken or request.session not in self._sessions:
                return 0
            return list(self._sessions).index(request.session) + 1

    def _leave(self, request: _Request) -> None:
        with self._changed:
            if request in self._open:
                self._count(withdrawn=1)
                self._end(request, None)

    # --- the worker; all but `_run` and `_do` with the lock held

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (batch := self._take()):
                    if self._closing:
                        return
                    self._changed.wait()
            self._do(batch)
            del batch  # nothing of a patient stays here while the worker waits

    def _take(self) -> list[tuple[_Request, int]]:
        """The units of the next pass: some of each session in turn, as long as they fit and go together."""
        batch: list[tuple[_Request, int]] = []
        size, grew = 0, True
        while grew:
            grew = False
            for session in list(self._sessions):
                request = self._sessions[session][0]
                if batch and request.work != batch[0][0].work:
                    continue
                for _ in range(self.settings.turn):
                    own = request.sizes[request.taken]
                    if batch and (len(batch) == self.settings.units or size + own > self.settings.size):
                        return self._turned(batch)
                    batch.append((request, request.taken))
                    request.taken, size, grew = request.taken + 1, size + own, True
                    if request.taken == len(request.units):
                        self._unqueue(request)
                        break
        return self._turned(batch)

    def _turned(self, batch: list[tuple[_Request, int]]) -> list[tuple[_Request, int]]:
        """The same; whoever had a turn stands last now."""
        for session in dict.fromkeys(request.session for request, _ in batch):
            if session in self._sessions:
                self._sessions.move_to_end(session)
        return batch

    def _do(self, batch: list[tuple[_Request, int]]) -> None:
        parts: dict[_Request, list[int]] = {}
        for request, number in batch:
            parts.setdefault(request, []).append(number)
        with self._changed:
            several = len({request.session for request in parts}) > 1
            self._count(passes=1, shared=int(several), units=len(batch))
        try:
            results = _done(batch[0][0].work, [request.units[number] for request, number in batch])
        except Exception as error:  # whatever the work raises belongs to those who asked for it
            if len(parts) == 1:
                self._failed(batch[0][0], error)
                return
            for request, numbers in parts.items():  # one bad request must not fail the others
                try:
                    own = _done(request.work, [request.units[number] for number in numbers])
                except Exception as alone:
                    self._failed(request, alone)
                else:
                    self._give(request, numbers, own)
            return
        place = dict(zip(((request, number) for request, number in batch), results, strict=True))
        for request, numbers in parts.items():
            self._give(request, numbers, [place[request, number] for number in numbers])

    def _give(self, request: _Request, numbers: list[int], results: Sequence[Any]) -> None:
        with self._changed:
            if request not in self._open:
                return
            for number, result in zip(numbers, results, strict=True):
                request.results[number] = result
            request.done += len(numbers)
            request.moved = time.monotonic()
            if request.done == len(request.units):
                self._end(request, None)

    def _failed(self, request: _Request, error: Exception) -> None:
        with self._changed:
            if request in self._open:
                self._count(failed=1)
                self._end(request, error)

    def _end(self, request: _Request, error: BaseException | None) -> None:
        self._open.discard(request)
        self._unqueue(request)
        request.error = error
        longest = max(self._counts.longest, time.monotonic() - request.began)
        self._counts = replace(self._counts, longest=longest)
        request.over.set()

    def _unqueue(self, request: _Request) -> None:
        queue = self._sessions.get(request.session)
        if queue is not None and request in queue:
            queue.remove(request)
            if not queue:
                del self._sessions[request.session]

    def _count(self, **more: int) -> None:
        self._counts = replace(
            self._counts, **{name: getattr(self._counts, name) + value for name, value in more.items()}
        )


def _done(work: Work, units: list[Any]) -> Sequence[Any]:
    """The results of one pass. Raises RuntimeError where they are not one for each unit."""
    results = work(units)
    if len(results) != len(units):
        raise RuntimeError(f"{len(results)} results came back for {len(units)} units of work.")
    return results

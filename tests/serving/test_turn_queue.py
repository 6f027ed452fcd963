"""The queue that all sessions share: fair, bounded, patient for so long; it outlives every error and keeps nothing."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from mera_core.common.errors import InputError
from mera_core.serving import turn_queue
from mera_core.serving.turn_queue import BusyError, TurnQueue


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(turn_queue, "LOOK", 0.02)
    monkeypatch.setattr(turn_queue, "QUIET", 0.0)


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(50) as pool:
        yield pool


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


@contextmanager
def held_up(queue: TurnQueue, others: ThreadPoolExecutor) -> Iterator[Future]:
    """The worker at work for somebody until the block ends; the future of what they asked."""
    entered, go = threading.Event(), threading.Event()
    asked = others.submit(queue.ask, [lambda: (entered.set(), go.wait(20))[1]])
    assert entered.wait(10)
    try:
        yield asked
    finally:
        go.set()


def in_line(queue: TurnQueue, count: int) -> None:
    until(lambda: len(queue._turns) == count)


def test_a_session_with_very_much_to_do_lets_each_other_one_in_after_its_next_turn(others):
    done: list[str] = []
    with closing(TurnQueue()) as queue:
        with held_up(queue, others):
            large = others.submit(queue.ask, [lambda: done.append("large")] * 100)
            in_line(queue, 2)
            small = [others.submit(queue.ask, [lambda: done.append("small")] * 2) for _ in range(3)]
            in_line(queue, 5)
        for each in (large, *small):
            each.result(20)
    assert done[:4] == ["large", "small", "small", "small"]
    assert (done.count("large"), done.count("small")) == (100, 6)


def test_a_full_queue_says_so_at_once(others):
    with closing(TurnQueue(requests=2)) as queue, held_up(queue, others):
        others.submit(queue.ask, [int])
        in_line(queue, 2)
        with pytest.raises(BusyError, match=r"^Busy: 2 requests are waiting already\. Please try again in a minute\.$"):
            queue.ask([int])


def test_who_waits_is_told_their_place_and_then_that_it_is_over(others):
    first, second = [], []
    with closing(TurnQueue()) as queue:
        with held_up(queue, others):
            asked = []
            for said in (first, second):
                asked.append(others.submit(queue.ask, [int], said.append))
                in_line(queue, 1 + len(asked))
            until(lambda: bool(first and second))
        for each in asked:
            each.result(10)
    assert (first[0], second[0]) == (1, 2)
    assert (first[-1], second[-1]) == (0, 0)


def test_who_waits_too_long_is_told_what_for_and_is_not_worked_on(others):
    done: list[str] = []
    with closing(TurnQueue(timeout=0.3)) as queue:
        with held_up(queue, others) as first:
            said = r"^The model is busy: this waited 0 seconds and is number 1 in line, behind work that has taken 0 seconds"
            with pytest.raises(BusyError, match=said):
                queue.ask([lambda: done.append("too late")])
            assert not first.done()
        assert first.result(10) is not None
        queue.ask([int])
    assert done == []


def test_what_is_being_worked_on_does_not_time_out():
    with closing(TurnQueue(timeout=0.1)) as queue:
        assert queue.ask([lambda: time.sleep(0.5) or "done"]) == ["done"]
        assert queue.ask([lambda: time.sleep(0.06)] * 4) == [None] * 4  # nor a request of many turns


def test_whoever_leaves_is_taken_out_of_the_queue(others):
    """A page that is run again raises out of the function that it is told its place by, and no Exception."""
    done: list[str] = []

    class LeftError(BaseException):
        pass

    def leave(place: int) -> None:
        if place:
            raise LeftError

    with closing(TurnQueue()) as queue:
        with held_up(queue, others), pytest.raises(LeftError):
            queue.ask([lambda: done.append("gone")], leave)
        assert queue.ask([lambda: "here"]) == ["here"]
        until(lambda: not queue._turns)
    assert done == []


class PanicError(BaseException):
    """As of a library in Rust."""


@pytest.mark.parametrize(
    ("raised", "seen"),
    [(ValueError("no"), ValueError), (TimeoutError(), TimeoutError), (PanicError(), RuntimeError), (SystemExit(), RuntimeError)],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else "",
)  # fmt: skip
def test_whatever_a_call_raises_is_its_own_sessions_and_the_worker_goes_on(raised, seen, others):
    def broken():
        raise raised

    with closing(TurnQueue(timeout=2)) as queue:
        with held_up(queue, others):
            bad, good = others.submit(queue.ask, [broken]), others.submit(queue.ask, [lambda: "good"])
        with pytest.raises(seen):
            bad.result(10)
        assert good.result(10) == ["good"] and queue.ask([lambda: "next"]) == ["next"]


def test_a_closed_queue_does_what_waits_and_refuses_the_rest_with_a_sentence(others):
    queue = TurnQueue()
    with held_up(queue, others) as first:
        waits, more = others.submit(queue.ask, [lambda: "done"]), others.submit(queue.ask, [int, int])
        in_line(queue, 3)
        queue.close()
        with pytest.raises(BusyError, match="The app is stopping"):
            queue.ask([int])
    assert first.result(10) and waits.result(10) == ["done"]
    with pytest.raises(BusyError, match="The app is stopping"):
        more.result(10)
    assert issubclass(BusyError, InputError)  # pages show it as it stands


def test_nothing_of_a_request_is_kept():
    class Patient:
        pass

    with closing(TurnQueue()) as queue:
        patient = Patient()
        gone = weakref.ref(patient)
        found = queue.ask([lambda patient=patient: [patient]])
        del patient, found
        until(lambda: gc.collect() >= 0 and gone() is None)

"""The line that all sessions share: fair, bounded, patient for so long, and it keeps nothing."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from mera_core.serving.batch_queue import BusyError, Line, Settings


class Gate:
    """Work that waits until it is let through, and remembers what came in each pass."""

    def __init__(self) -> None:
        self.passes: list[list] = []
        self._opened = threading.Event()
        self.entered = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __call__(self, units: list) -> list:
        self.entered.set()
        assert self._opened.wait(10)
        self.passes.append(list(units))
        return [("done", unit) for unit in units]

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list]:
    """A call under way, and where its result or its error comes."""
    found: list = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


@pytest.fixture
def line():
    with Line(Settings(units=8, turn=2, size=100)) as made:
        yield made


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.open()


def blocked(line: Line, gate: Gate) -> tuple[threading.Thread, list]:
    """The worker held up by one unit of a session called 'first'."""
    begun = in_thread(lambda: line.ask("first", ["block"], gate))
    assert gate.entered.wait(10)
    return begun


def test_results_come_back_in_order_and_to_whoever_asked(line):
    def double(units: list[int]) -> list[int]:
        return [2 * unit for unit in units]

    asked = [in_thread(lambda base=base: line.ask(str(base), range(base, base + 30), double)) for base in range(20)]
    for base, (thread, found) in enumerate(asked):
        thread.join(10)
        assert found == [[2 * unit for unit in range(base, base + 30)]]
    counts = line.counts
    assert counts.units == 600
    assert counts.passes >= 600 / 8
    assert line.waiting == 0
    assert line.ask("nobody", [], double) == []


def test_several_sessions_share_a_pass(line, gate):
    first = blocked(line, gate)
    others = [in_thread(lambda n=n: line.ask(f"session {n}", [n], gate)) for n in range(5)]
    until(lambda: line.waiting == 6)
    gate.open()
    for thread, _ in (first, *others):
        thread.join(10)
    assert [len(units) for units in gate.passes] == [1, 5]
    assert (line.counts.passes, line.counts.shared) == (2, 1)


def test_a_session_with_very_much_to_do_does_not_starve_the_others(line, gate):
    first = blocked(line, gate)
    large = in_thread(lambda: line.ask("large", [("large", n) for n in range(400)], gate))
    until(lambda: line.waiting == 2)
    small = [in_thread(lambda n=n: line.ask(f"small {n}", [("small", n)], gate)) for n in range(3)]
    until(lambda: line.waiting == 5)
    gate.open()
    for thread, _ in (first, large, *small):
        thread.join(20)
    second = gate.passes[1]
    assert [kind for kind, _ in second].count("small") == 3  # all of them at once, after one turn of the large one
    assert second[:2] == [("large", 0), ("large", 1)]
    assert large[1][0] == [("done", ("large", n)) for n in range(400)]


def test_turns_go_round_where_not_all_fit_in_a_pass(gate):
    with Line(Settings(units=4, turn=2, size=100)) as line:
        threads = [blocked(line, gate)]
        for name in "abcd":
            threads.append(in_thread(lambda name=name: line.ask(name, [name] * 4, gate)))
            until(lambda: line.waiting == len(threads))
        gate.open()
        for thread, _ in threads:
            thread.join(10)
    assert ["".join(units) for units in gate.passes[1:]] == ["aabb", "ccdd", "aabb", "ccdd"]


def test_a_pass_stays_below_its_size_and_what_is_larger_passes_alone(gate):
    with Line(Settings(units=50, turn=50, size=100)) as line:
        threads = [blocked(line, gate)]
        threads.append(in_thread(lambda: line.ask("a", [60, 30, 20, 500, 10], gate, sizes=[60, 30, 20, 500, 10])))
        until(lambda: line.waiting == 2)
        gate.open()
        for thread, _ in threads:
            thread.join(10)
    assert gate.passes[1:] == [[60, 30], [20], [500], [10]]


def test_work_of_another_kind_waits_for_its_own_pass(line, gate):
    other, threads = Gate(), [blocked(line, gate)]
    other.open()
    threads.append(in_thread(lambda: line.ask("a", ["a"], gate)))
    until(lambda: line.waiting == 2)
    threads.append(in_thread(lambda: line.ask("b", ["b"], other)))
    until(lambda: line.waiting == 3)
    threads.append(in_thread(lambda: line.ask("c", ["c"], gate)))
    until(lambda: line.waiting == 4)
    gate.open()
    for thread, _ in threads:
        thread.join(10)
    assert gate.passes[1:] == [["a", "c"]]
    assert other.passes == [["b"]]


def test_one_bad_request_fails_alone(line, gate):
    def picky(units: list[int]) -> list[int]:
        if 13 in units:
            raise ValueError("no 13, please")
        return units

    first = blocked(line, gate)
    good = in_thread(lambda: line.ask("good", [1, 2], picky))
    bad = in_thread(lambda: line.ask("bad", [13], picky))
    until(lambda: line.waiting == 3)
    gate.open()
    for thread, _ in (first, good, bad):
        thread.join(10)
    assert good[1] == [[1, 2]]
    assert isinstance(bad[1][0], ValueError)
    assert line.counts.failed == 1
    assert line.ask("good", [3], picky) == [3]  # and the line goes on


def test_results_that_do_not_fit_are_an_error_and_not_another_ones_answer(line):
    with pytest.raises(RuntimeError, match="1 results came back for 2 units"):
        line.ask("a", [1, 2], lambda units: units[:1])


def test_a_full_line_says_so_at_once(gate):
    with Line(Settings(waiting=2)) as line:
        threads = [blocked(line, gate), in_thread(lambda: line.ask("a", [1], gate))]
        until(lambda: line.waiting == 2)
        with pytest.raises(BusyError, match=r"^Busy: 2 requests are waiting already\. Please try again in a minute\.$"):
            line.ask("b", [1], gate)
        gate.open()
        for thread, _ in threads:
            thread.join(10)
        assert line.counts.refused == 1


def test_who_waits_is_told_their_place_and_then_that_it_is_over(line, gate, monkeypatch):
    monkeypatch.setattr("mera_core.serving.batch_queue.QUIET", 0.0)
    places: dict[str, list[int]] = {"a": [], "b": []}
    threads = [blocked(line, gate)]
    for name, said in places.items():
        threads.append(in_thread(lambda name=name, said=said: line.ask(name, [name], gate, told=said.append)))
        until(lambda: line.waiting == len(threads))
    until(lambda: all(places.values()))
    gate.open()
    for thread, _ in threads:
        thread.join(10)
    assert set(places["a"]) == {1, 0}
    assert set(places["b"]) == {2, 0}
    assert places["a"][-1] == places["b"][-1] == 0


def test_short_waits_are_not_talked_about(line):
    said: list[int] = []
    assert line.ask("a", [1], lambda units: units, told=said.append) == [1]
    assert said == []


def test_patience_ends_with_a_plain_sentence(gate):
    with Line(Settings(patience=0.3)) as line:
        first = blocked(line, gate)
        with pytest.raises(BusyError, match=r"busy: this waited 0 seconds as number 1 in line\. Please try again\."):
            line.ask("a", [1], gate)
        assert line.counts.given_up >= 1  # nothing is done of the one that holds the worker up either
        gate.open()
        first[0].join(10)
        until(lambda: line.waiting == 0)
    assert [1] not in gate.passes, "what was given up is not worked on"


def test_patience_counts_from_the_last_that_was_done():
    def slow(units: list[int]) -> list[int]:
        time.sleep(0.1)
        return units

    with Line(Settings(units=1, patience=0.5)) as line:
        assert line.ask("a", range(8), slow) == list(range(8))  # 0.8 seconds in all


def test_whoever_leaves_is_taken_out_of_the_line(line, gate, monkeypatch):
    """A page that is run again raises out of the function that it is told its place by."""
    monkeypatch.setattr("mera_core.serving.batch_queue.QUIET", 0.0)

    class LeftError(BaseException):
        pass

    def leave(place: int) -> None:
        if place:
            raise LeftError

    first = blocked(line, gate)
    with pytest.raises(LeftError):
        line.ask("a", ["gone"], gate, told=leave)
    assert (line.waiting, line.counts.withdrawn) == (1, 1)
    gate.open()
    first[0].join(10)
    assert line.ask("b", ["here"], gate) == [("done", "here")]
    assert ["gone"] not in gate.passes


def test_closing_finishes_what_waits_and_takes_no_more(gate):
    line = Line()
    threads = [blocked(line, gate), in_thread(lambda: line.ask("a", ["a"], gate))]
    until(lambda: line.waiting == 2)
    closing, _ = in_thread(line.close)
    until(lambda: line._closing)
    with pytest.raises(BusyError, match="The app is stopping"):
        line.ask("b", ["b"], gate)
    gate.open()
    for thread, _ in threads:
        thread.join(10)
    closing.join(10)
    assert threads[1][1] == [[("done", "a")]]
    assert not line._worker.is_alive()


def test_closing_does_not_wait_for_ever(gate):
    line = Line()
    first = blocked(line, gate)
    other = in_thread(lambda: line.ask("a", ["a"], gate))
    until(lambda: line.waiting == 2)
    line.close(grace=0.1)
    for thread, found in (first, other):
        thread.join(10)
        assert isinstance(found[0], BusyError)
    gate.open()
    line._worker.join(10)
    assert gate.passes == [["block"]]


def test_work_may_ask_for_more_work_of_the_same_line(line):
    def outer(units: list[int]) -> list[int]:
        return [line.ask("a", [unit], lambda inner: [each + 1 for each in inner])[0] for unit in units]

    assert line.ask("a", [1, 2], outer) == [2, 3]


def test_nothing_of_a_request_is_kept():
    class Patient:
        pass

    with Line() as line:
        patient = Patient()
        gone = weakref.ref(patient)
        found = line.ask("a", [patient], lambda units: [[unit] for unit in units])
        del patient, found
        time.sleep(0.05)
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize("name", ["waiting", "units", "size", "turn", "patience"])
def test_settings_are_above_zero(name):
    with pytest.raises(ValueError, match=name):
        Settings(**{name: 0})

"""Runs the load: starts the app, lets the visitors in, and says how long pages took, what went wrong and what memory did."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mera_core.engine import Engine
from tests.browser.app_server import running_app
from tests.load.visitors import Visitor, sentinels

LOOK = 2.0  # seconds between two looks at the server's memory
PATIENT_SECONDS = 130  # what a session that was left is kept for by Streamlit, and a little more


def main() -> int:
    """Print the figures as JSON; the status is 1 where anything leaked, was wrong, or failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.load")
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--think", type=float, default=8.0, help="seconds that a visitor looks at a page, on average")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--afterwards", type=float, default=PATIENT_SECONDS, help="seconds to watch the memory after all left"
    )
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # unwinds, so that the app is ended as well
    found = measure(asked.sessions, asked.minutes * 60, asked.think, asked.seed, asked.afterwards)
    print(json.dumps(found, indent=1))
    return int(bool(found["leaks"] or found["wrong"] or found["errors"]))


def measure(sessions: int, seconds: float, think: float, seed: int = 1, afterwards: float = 0.0) -> dict:
    """So many sessions for so long: latencies by action, errors, leaks, and the server's memory in MB along the way."""
    people = sentinels(Engine.load(), sessions + 1, seed)
    before = children_of(os.getpid())
    with running_app() as app:
        (server,) = children_of(os.getpid()) - before
        address = getattr(app, "address", app)
        visitors = [Visitor(address, person, think, seed + person.number) for person in people]
        found = asyncio.run(_visits(visitors, seconds, server, afterwards))
    seen = [visitor.seen for visitor in visitors]
    timed = [(what, took) for each in seen for what, took in each.seconds]
    kinds = dict.fromkeys(what for what, _ in timed)
    return {
        "sessions": sessions,
        "seconds": seconds,
        "think_seconds": think,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "pages": len(timed),
        "pages_a_second": round(sum(each["pages"] for each in found["phases"]) / seconds, 2),
        "messages": sum(each.messages for each in seen),
        "rankings_checked": sum(each.checked for each in seen),
        "all_pages": spread([took for _, took in timed]),
        "by_action": {kind: spread([took for what, took in timed if what == kind]) for kind in kinds},
        "errors": [error for each in seen for error in each.errors],
        "leaks": sum(len(each.leaks) for each in seen),
        "wrong": [wrong for each in seen for wrong in each.wrong],
        **{name: value for name, value in found.items() if name != "phases"},
    }


async def _visits(visitors: Sequence[Visitor], seconds: float, server: int, afterwards: float) -> dict:
    """The first visitor alone warms the app up; then all arrive, use it, fall silent and leave."""
    memory: list[tuple[float, float]] = []
    began = time.monotonic()

    async def watch() -> None:
        while True:
            memory.append((time.monotonic() - began, resident(server)))
            await asyncio.sleep(LOOK)

    watching = asyncio.create_task(watch())
    first, others = visitors[0], visitors[1:]
    await first.arrive()
    await first._ask_why()
    await first._look_around()
    await asyncio.sleep(LOOK)
    warm, few = resident(server), (0, 0.0)
    for count, visitor in enumerate(others, start=1):  # one after the other, as people come
        await visitor.arrive()
        if count == max(len(others) // 5, 1):  # by now it holds all that is made once, for whoever comes first
            await asyncio.sleep(LOOK)
            few = count, resident(server)
        if count % 10 == 0 or count == len(others):
            _tell(f"{count} sessions are there after {time.monotonic() - began:.0f} s, {resident(server):.0f} MB")
    await asyncio.sleep(LOOK)
    idle = resident(server)
    pages_before = sum(len(each.seen.seconds) for each in visitors)
    started = time.monotonic() - began
    until = asyncio.get_running_loop().time() + seconds
    await asyncio.gather(*(visitor.use(until) for visitor in others))
    _tell("all have had their time")
    ended = time.monotonic() - began
    pages = sum(len(each.seen.seconds) for each in visitors) - pages_before
    in_use = [mb for at, mb in memory if started <= at <= ended]
    quarter = max(len(in_use) // 4, 1)
    await asyncio.gather(*(visitor.leave() for visitor in visitors))
    await asyncio.sleep(afterwards)
    left = resident(server)
    watching.cancel()
    return {
        "phases": [{"pages": pages}],
        "memory_mb": {
            "one_session": warm,
            "all_sessions_idle": idle,
            "a_fifth_of_the_sessions_idle": few[1],
            "an_idle_session": round((idle - few[1]) / max(len(others) - few[0], 1), 2),
            "in_use_first_quarter": _mean(in_use[:quarter]),
            "in_use_last_quarter": _mean(in_use[-quarter:]),
            "most": max(mb for _, mb in memory),
            "after_all_left": left,
            "seconds_after_all_left": afterwards,
        },
    }


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and longest, in milliseconds, and how many."""
    if not seconds:
        return {"count": 0}
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(1000 * ordered[math.ceil(share * len(ordered)) - 1], 1)

    return {"count": len(ordered), "p50_ms": at(0.5), "p95_ms": at(0.95), "longest_ms": at(1.0)}


def resident(process: int) -> float:
    """Resident memory of a process in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024, 1)


def children_of(process: int) -> set[int]:
    """Process ids of the direct children."""
    found: set[int] = set()
    for task in Path(f"/proc/{process}/task").iterdir():
        found.update(map(int, (task / "children").read_text().split()))
    return found


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 1) if values else 0.0


if __name__ == "__main__":
    sys.exit(main())

"""Runs the load: starts the app, lets the visitors in, and says how long pages took, what went wrong and what memory did."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

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
    parser.add_argument("--afterwards", type=float, default=PATIENT_SECONDS, help="seconds to wait after all left")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # unwinds, so that the app is ended as well
    found = measure(asked.sessions, asked.minutes * 60, asked.think, asked.seed, asked.afterwards)
    print(json.dumps(found, indent=1))
    return int(bool(found["leaks"] or found["wrong"] or found["errors"]))


def measure(sessions: int, seconds: float, think: float, seed: int = 1, afterwards: float = 0.0) -> dict:
    """So many sessions for so long: latencies by action, errors, leaks, and the server's memory in MB along the way."""
    people = sentinels(Engine.load(), sessions + 1, seed)
    with running_app() as app:
        visitors = [Visitor(app.address, person, think, seed + person.number) for person in people]
        memory = asyncio.run(_visits(visitors, seconds, app.process, afterwards))
    timed = [each for one in visitors for each in one.seconds]
    return {
        "sessions": sessions,
        "seconds": seconds,
        "think_seconds": think,
        "cores": os.cpu_count(),
        "pages": len(timed),
        "messages": sum(each.messages for each in visitors),
        "rankings_checked": sum(each.checked for each in visitors),
        "all_pages": spread([took for _, took in timed]),
        "by_action": {kind: spread([took for what, took in timed if what == kind]) for kind, _ in dict(timed).items()},
        "errors": [error for each in visitors for error in each.errors],
        "leaks": sum(len(each.leaks) for each in visitors),
        "wrong": [wrong for each in visitors for wrong in each.wrong],
        "memory_mb": memory,
    }


async def _visits(visitors: Sequence[Visitor], seconds: float, server: int, afterwards: float) -> dict[str, float]:
    """The first visitor alone warms the app up; then all arrive, use it and leave. The server's memory by the way."""
    first, others = visitors[0], visitors[1:]
    await first.arrive()
    await first.ask_why()
    await first.look_around()
    await asyncio.sleep(LOOK)
    memory, in_use = {"one_session": resident(server)}, []
    for visitor in others:  # one after the other, as people come
        await visitor.arrive()
    await asyncio.sleep(LOOK)
    memory["all_sessions_idle"] = resident(server)
    until = asyncio.get_running_loop().time() + seconds
    using = asyncio.gather(*(visitor.use(until) for visitor in others))
    while not using.done():
        in_use.append(resident(server))
        await asyncio.sleep(LOOK)
    await using
    quarter = -(-len(in_use) // 4)
    memory["in_use_first_quarter"] = round(float(np.mean(in_use[:quarter])), 1)
    memory["in_use_last_quarter"] = round(float(np.mean(in_use[-quarter:])), 1)
    await asyncio.gather(*(visitor.leave() for visitor in visitors))
    await asyncio.sleep(afterwards)
    return memory | {"after_all_left": resident(server), "seconds_after_all_left": afterwards}


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and longest, in milliseconds, and how many."""
    p50, p95, longest = np.percentile(seconds, (50, 95, 100)).round(4) * 1000
    return {"count": len(seconds), "p50_ms": p50, "p95_ms": p95, "longest_ms": longest}


def resident(process: int) -> float:
    """Resident memory of a process in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024, 1)


if __name__ == "__main__":
    sys.exit(main())

"""How far a long command is, told on a stream: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_QUIET = 3.0  # seconds before the first line, and between lines, where there is no terminal


@contextmanager
def shown(stream: TextIO) -> Iterator[Callable[[str, int, int], None]]:
    """A function (what, done, total) to call as work goes on; it costs next to nothing to call often."""
    if not stream.isatty():
        yield _lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def bar(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield bar


def _lines(stream: TextIO) -> Callable[[str, int, int], None]:
    last = time.monotonic()

    def line(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _QUIET:
            last = now
            print(f"{what}: {done / max(total, 1):.0%}", file=stream, flush=True)

    return line

"""Who scores the parts: this process, or several of this machine. Parts in, scored parts out, in whatever order they end.

Each worker has an engine of its own, so that nothing is shared between them; a worker writes no file.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.scoring.predict import Part, Scored, Scorer, Settings

AHEAD = 2  # parts a worker that stand ready, so that none waits for the next one
Load = Callable[[int], Part]


@dataclass(frozen=True)
class Spec:
    """What a worker needs to make itself ready. name: of the checkpoint, as `Engine.name`; another one is refused."""

    checkpoint: Path | None
    name: str
    settings: Settings

    def scorer(self) -> Scorer:
        """An engine, loaded here. Raises InputError where the folder holds another checkpoint than the run began with."""
        engine = Engine.load(self.checkpoint, self.settings.quantize)
        if engine.name != self.name:
            raise InputError(f"A worker found the checkpoint {engine.name}, and the run is of {self.name}.")
        gc.freeze()  # code sets and libraries stay: looking through them for garbage took a tenth of the time
        return Scorer(engine, self.settings)


def here(spec: Spec, numbers: Sequence[int], load: Load) -> Iterator[Scored]:
    """One after the other, in this process."""
    with torch_threads(spec.settings.threads):
        scorer = spec.scorer()
        for number in numbers:
            yield scorer.score(load(number))


def processes(spec: Spec, numbers: Sequence[int], load: Load, workers: int) -> Iterator[Scored]:
    """By so many processes of this machine. Raises InputError where one of them dies."""
    left = iter(numbers)
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(spec, os.getpid())
    )
    try:
        running: set[Future[Scored]] = set()
        while True:
            while len(running) < AHEAD * workers and (number := next(left, None)) is not None:
                running.add(pool.submit(_score, load(number)))
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "A worker process died, perhaps for want of memory; start again with fewer --workers to go on."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """So many threads of torch for as long as the block runs: sums are rounded differently by another number."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_worker: Scorer | InputError


def _begin(spec: Spec, parent: int) -> None:
    """Load the engine. What the user can mend is kept and told with the first part: a pool can't pass it on from here."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends its workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(spec.settings.threads)
    try:
        _worker = spec.scorer()
    except InputError as error:
        _worker = error


def _score(part: Part) -> Scored:
    if isinstance(_worker, InputError):
        raise _worker
    return _worker.score(part)


def _end_with(parent: int) -> None:
    """A parent that is killed leaves its workers waiting for ever, unless they look."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)

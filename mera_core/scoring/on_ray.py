"""The same parts scored by Ray Data, on this machine or a cluster. Ray is optional: requirements-ray.txt.

Patients travel through Ray's object store, the checkpoint must lie at the same path on every node, and no worker writes a
file: the parts come back to the process that began, so that what is resumable and written once stays so.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from mera_core.common.errors import InputError
from mera_core.scoring.predict import Scored
from mera_core.scoring.workers import Load, Spec, torch_threads

AT_ONCE = 1_024  # parts handed to Ray at once: bounds what waits in its object store


def on_ray(
    spec: Spec, numbers: Sequence[int], load: Load, workers: int, address: str | None = None
) -> Iterator[Scored]:
    """By so many actors of Ray Data, in the order they end.

    address: of a running cluster ("auto" finds the one on this machine); None starts Ray here for as long as this takes.
    Raises InputError where Ray is not installed or can't be reached, or a worker finds another checkpoint.
    """
    ray = load_ray()
    began = not ray.is_initialized()
    try:
        if began:
            _start(ray, workers * spec.settings.threads, address)
        yield from _scored(ray, spec, numbers, load, workers)
    finally:
        if began and ray.is_initialized():
            ray.shutdown()


def _scored(ray: Any, spec: Spec, numbers: Sequence[int], load: Load, workers: int) -> Iterator[Scored]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    for begin in range(0, len(numbers), AT_ONCE):
        some = numbers[begin : begin + AT_ONCE]
        rows = [{"part": pickle.dumps(load(number))} for number in some]
        parts = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Worker,
            fn_constructor_args=(spec,),
            num_cpus=spec.settings.threads,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
        )
        try:
            for row in parts.iter_rows():
                scored = pickle.loads(row["scored"])
                if isinstance(scored, InputError):
                    raise scored
                yield scored
        except ray.exceptions.RayError as error:
            raise InputError(f"Ray stopped: {str(error).strip().splitlines()[-1]}") from error


class _Worker:
    """What runs in an actor; an error that the user can mend comes back as a result."""

    def __init__(self, spec: Spec) -> None:
        self.threads = spec.settings.threads
        try:
            self.scorer = spec.scorer()
        except InputError as error:
            self.scorer = error

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        if isinstance(self.scorer, InputError):
            return {"scored": pickle.dumps(self.scorer)}
        with torch_threads(self.threads):
            return {"scored": pickle.dumps(self.scorer.score(pickle.loads(row["part"])))}


def load_ray() -> Any:
    """Ray itself, told to report nothing to anyone. Raises InputError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray is imported: nothing is reported to anyone
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError("Ray is not installed; pip install -r requirements-ray.txt, or use --engine local.") from error
    return ray


def _start(ray: Any, cpus: int, address: str | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address is not None:
            ray.init(address=address, **quiet)
        else:  # 127.0.0.1: nothing listens to other hosts
            ray.init(num_cpus=cpus, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    except Exception as error:  # ray raises errors of many kinds, all of which mean that it can't be had
        raise InputError(f"Ray can't be started or reached: {str(error).strip().splitlines()[0]}") from error

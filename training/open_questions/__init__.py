"""METHOD.md's open questions 1 to 4, each answered by an experiment that gives JSON; `report` draws and words it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mera_core.common.errors import InputError
from training.ablate.run import kept_checkpoint
from training.ablate.table import Table
from training.evaluate.table import without_nan

BRANCH_ROWS = ("MERA", "level 0 alone", *(f"no level {level}" for level in range(5)))
"""Rows of the ablation table that question 1 compares; their checkpoints are kept. It is asked for each level dropped."""


def answer(
    number: int,
    data: str,
    format: str,
    checkpoint: Path,
    sources: Sequence[str],
    config: Path,
    runs: Path,
    seeds: Sequence[int] = (),
) -> dict[str, Any]:
    """The answer to one question, JSON-ready.

    Args:
        sources: NAME=FORMAT:PATH of each source to travel to. seeds: of the table's if empty (question 2 takes the first).

    Raises:
        InputError: a source that is not written so.
    """
    table = Table.load(config)
    seeds = tuple(seeds) or table.seeds
    if number == 1:
        from training.open_questions import branches

        folders = {
            name: [kept_checkpoint(table, name, seed, data, format, runs) for seed in seeds] for name in BRANCH_ROWS
        }
        return without_nan(branches.run(folders, data, format))
    if number == 2:
        from training.open_questions import growth

        return without_nan(growth.run(table, data, format, runs, seeds[0]))
    if number == 3:
        from training.open_questions import order

        return without_nan(order.run(table, data, format, runs, seeds))
    from training.open_questions import travel

    home = travel.Source("home", data, format, home=True)
    return without_nan(travel.run(checkpoint, [home, *map(_source, sources)]))


def _source(text: str):
    from training.open_questions.travel import Source

    name, equals, rest = text.partition("=")
    format, colon, path = rest.partition(":")
    if not (equals and colon and name and format and path):
        raise InputError(f'A source is NAME=FORMAT:PATH, not "{text}".')
    return Source(name, path, format)

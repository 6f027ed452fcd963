"""The method's open questions 1 to 4, each answered by an experiment that gives JSON; `report` draws and words it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.ablate.run import Runs
from training.ablate.table import Table

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
    from training.open_questions import branches, growth, order, travel

    models = Runs(Table.load(config), data, format, runs)
    seeds = tuple(seeds) or models.table.seeds
    if number == 1:
        return branches.run(
            {name: [models.checkpoint(name, seed) for seed in seeds] for name in BRANCH_ROWS}, data, format
        )
    if number == 2:
        return growth.run(models, seeds[0])
    if number == 3:
        return order.run(models, seeds)
    home = travel.Source("home", data, format, home=True)
    return travel.run(checkpoint, [home, *map(travel.Source.parse, sources)])

"""Figures of a benchmark: paired runs -> a row with median, spread and ratio. Knows no section."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

Row = dict[str, Any]
Timed = Callable[[], float]
Pairs = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Setting:
    """What a user may choose for all sections; a section takes what concerns it."""

    quick: bool = False
    """Small sizes and few runs: shows that a section works, gives no evidence."""
    checkpoint: Path = Path("sample_data/mera-mini")
    """Checkpoint that is loaded, served or asked."""
    data: str | None = None
    """Patient records, for sections that train or score on real ones."""
    format: str = "auto"
    """Their format."""

    def times(self, full: int, quick: int = 1) -> int:
        """How often to run a pair."""
        return quick if self.quick else full


def seconds(call: Callable[..., object], *given: Any) -> float:
    """Wall-clock seconds that a call takes."""
    began = time.perf_counter()
    call(*given)
    return time.perf_counter() - began


def mean_seconds(call: Callable[[Any], object], given: Iterable[Any]) -> float:
    """Mean seconds that a call takes over what it is given, one by one."""
    return mean(seconds(call, one) for one in given)


def paired(ours: Timed, theirs: Timed, runs: int, warm: int = 0) -> Pairs:
    """`runs` figures of each of two, taken in turn and in alternating order, after `warm` pairs that don't count.

    What slows the machine for a while then slows both, and the ratio of a pair stays. (`torch.utils.benchmark` times one
    statement after the other.)
    """
    taken: Pairs = [], []
    for number in range(warm + runs):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            taken[side].append((ours, theirs)[side]())
    return taken[0][warm:], taken[1][warm:]


def rates(count: float, took: Pairs) -> Pairs:
    """So many things in each run's seconds -> things a second."""
    return [count / one for one in took[0]], [count / one for one in took[1]]


def row(
    what: str,
    unit: str,
    against: str | None,
    values: Sequence[float],
    theirs: Sequence[float] = (),
    /,
    **more: str | float | bool,
) -> Row:
    """One figure: median, lowest and highest of the runs; beside `against` its median and the median of the pairs' ratios."""
    figure: Row = {"what": what, "value": short(median(values)), "unit": unit, "runs": len(values)}
    figure |= {"lowest": short(min(values)), "highest": short(max(values))}
    if against is not None:
        figure |= {"against": against, "against_value": short(median(theirs))}
        figure["ratio"] = short(median(one / other for one, other in zip(values, theirs, strict=True)))
    return figure | more


def short(value: float) -> float:
    """Four significant digits: a benchmark knows no more."""
    return float(f"{value:.4g}")


def line(figure: Row) -> str:
    """A figure in words; what could not be measured says so in its name."""
    if figure["value"] is None:
        return figure["what"]
    words = f"{figure['what']}: {figure['value']:g} {figure['unit']} ({figure['lowest']:g} to {figure['highest']:g})"
    if beside := figure.get("against"):
        words += f"; {beside}: {figure['against_value']:g} {figure['unit']}, ratio {figure['ratio']:.2f}"
    return words

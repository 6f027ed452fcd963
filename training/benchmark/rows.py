"""Figures of a benchmark: paired runs -> a row with median, spread and ratio. Knows no section."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = dict[str, Any]
Timed = Callable[[], float]
Pairs = tuple[list[float], list[float]]
_KNOWN = ("what", "value", "unit", "runs", "lowest", "highest", "against", "against_value", "ratio")


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


def show(result: dict[str, Any], console: Console | None = None) -> None:
    """Print a section's title and machine, then its rows: what, median, range, runs, the alternative's median, ratio."""
    made, console = result["machine"], console or Console()
    memory = f", {made['memory_gb']:g} GB" if made["memory_gb"] else ""
    gpu, cores = made["gpu"] or "no GPU", f"{made['cores']} core{'s' * (made['cores'] != 1)}"
    console.print(Text(result["title"] + " [small sizes: no evidence]" * result["quick"], style="bold"))
    console.print(Text(f"{cores}{memory}, {gpu}, Python {made['versions']['python']}"))
    table = Table("", "median", "range", "runs", "beside", "ratio", box=box.SIMPLE_HEAD)
    for one in result["rows"]:
        beside, further = one.get("against"), [f"{key}: {_plain(one[key])}" for key in one if key not in _KNOWN]
        told = [
            one["what"],
            *([f"  beside {beside}"] if beside else []),
            *(["  " + ", ".join(further)] if further else []),
        ]
        cells = ["\n".join(told)]
        if one["value"] is not None:  # what could not be measured says so in its name
            cells += [f"{one['value']:g} {one['unit']}", f"{one['lowest']:g} to {one['highest']:g}", str(one["runs"])]
        if beside:
            cells += [f"{one['against_value']:g} {one['unit']}", f"{one['ratio']:.2f}"]
        table.add_row(*map(Text, cells))
    console.print(table)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {True: "yes", False: "no"}.get(value, str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"

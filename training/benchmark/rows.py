"""Figures of a benchmark: paired runs -> a row with median, spread and ratio. Knows no section."""

from __future__ import annotations

import math
import re
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

from mera_core.common.errors import InputError

Row = dict[str, Any]
Timed = Callable[[], float]
_REQUIRED = ("what", "value", "unit", "runs", "lowest", "highest")
_KNOWN = (*_REQUIRED, "against", "against_value", "ratio")
_PATH = re.compile(r"(^|[\s'\"=(])(/[\w.-]+){2,}|[A-Za-z]:\\|\w+://")


@dataclass(frozen=True)
class Setting:
    """What a user may choose for all sections; a section takes what concerns it."""

    quick: bool = False
    """Small sizes and few runs: shows that a section works, gives no evidence."""
    runs: int | None = None
    """Runs of each pair; the section's own number by default."""
    checkpoint: Path = Path("sample_data/mera-mini")
    """Checkpoint that is loaded, served or asked."""
    data: str | None = None
    """Patient records, for sections that train or score on real ones."""
    format: str = "auto"
    """Their format."""

    def __post_init__(self) -> None:
        if self.runs is not None and self.runs < 1:
            raise InputError(f"There must be at least one run, not {self.runs}.")

    def times(self, full: int, quick: int = 1) -> int:
        """How often to run a pair: as the user said, else so often."""
        return self.runs or (quick if self.quick else full)


def seconds(call: Callable[..., object], *given: Any) -> float:
    """Wall-clock seconds that a call takes."""
    began = time.perf_counter()
    call(*given)
    return time.perf_counter() - began


def mean_seconds(call: Callable[[Any], object], given: Iterable[Any]) -> float:
    """Mean seconds that a call takes over what it is given, one by one."""
    return mean(seconds(call, one) for one in given)


def paired(ours: Timed, theirs: Timed, runs: int, warm: int = 0) -> tuple[list[float], list[float]]:
    """`runs` figures of each of two, taken in turn and in alternating order, after `warm` pairs that don't count.

    What slows the machine for a while then slows both, and the ratio of a pair stays. (`torch.utils.benchmark` times one
    statement after the other.)
    """
    taken: tuple[list[float], list[float]] = [], []
    for number in range(warm + runs):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            taken[side].append((ours, theirs)[side]())
    return taken[0][warm:], taken[1][warm:]


def row(
    what: str,
    values: Sequence[float],
    unit: str,
    against: str | None = None,
    theirs: Sequence[float] = (),
    **more: str | float | bool,
) -> Row:
    """One figure: median, lowest and highest of the runs; beside `against` its median and the median of the pairs' ratios.

    Raises InputError where there are no runs, or not one of the alternative's for each.
    """
    if not values or (against is not None and len(theirs) != len(values)):
        raise InputError(f"{what}: {len(values)} runs beside {len(theirs)} of the alternative make no figure.")
    figure: Row = {"what": what, "value": short(median(values)), "unit": unit, "runs": len(values)}
    figure |= {"lowest": short(min(values)), "highest": short(max(values))}
    if against is not None:
        figure |= {"against": against, "against_value": short(median(theirs))}
        if min(theirs) > 0:
            figure["ratio"] = short(median(one / other for one, other in zip(values, theirs, strict=True)))
    return figure | more


def checked(figure: Row, section: str) -> Row:
    """The row, if it may be published: complete, finite, plain, and without a path or an address in it."""
    if missing := [key for key in _REQUIRED if key not in figure]:
        raise InputError(f"A row of the benchmark section {section} lacks {', '.join(missing)}.")
    for key, value in figure.items():
        plain = value is None or isinstance(value, str | bool | int | float)
        if not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(f"{section}, {figure['what']}: {key} is no plain, finite value.")
        if isinstance(value, str) and _PATH.search(value):
            raise InputError(f"{section}, {figure['what']}: {key} names a path or an address, which is not published.")
    return figure


def short(value: float) -> float:
    """Four significant digits: a benchmark knows no more."""
    return float(f"{value:.4g}")


def show(result: dict[str, Any], console: Console | None = None) -> None:
    """Print a section's title and machine, then its rows: what, median, range, runs, the alternative's median, ratio."""
    made, console = result["machine"], console or Console()
    memory = f", {made['memory_gb']:g} GB" if made["memory_gb"] else ""
    console.print(Text(result["title"] + " [small sizes: no evidence]" * result["quick"], style="bold"))
    gpu, cores = made["gpu"] or "no GPU", f"{made['cores']} core{'s' * (made['cores'] != 1)}"
    console.print(Text(f"{cores}{memory}, {gpu}, Python {made['versions']['python']}"))
    table = Table("", "median", "range", "runs", "beside", "ratio", box=box.SIMPLE_HEAD)
    for one in result["rows"]:
        beside, further = one.get("against"), {key: value for key, value in one.items() if key not in _KNOWN}
        told = [one["what"], *([f"  beside {beside}"] if beside else [])]
        told += ["  " + ", ".join(f"{key}: {_plain(value)}" for key, value in further.items())] if further else []
        if one["value"] is None:  # what could not be measured says so in its name
            table.add_row(Text("\n".join(told)))
            continue
        figures = [f"{one['value']:g} {one['unit']}", f"{one['lowest']:g} to {one['highest']:g}", str(one["runs"])]
        figures += [
            f"{one['against_value']:g} {one['unit']}" if beside else "",
            f"{one['ratio']:.2f}" if "ratio" in one else "",
        ]
        table.add_row(*map(Text, ["\n".join(told), *figures]))
    console.print(table)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {True: "yes", False: "no"}.get(value, str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"

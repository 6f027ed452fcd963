"""Figures of a benchmark: paired runs -> a row with median, spread and ratio. Knows no section."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from mera_core.common.errors import InputError

Row = dict[str, Any]
_REQUIRED = ("what", "value", "unit", "runs", "lowest", "highest")
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


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def paired(
    ours: Callable[[], float], theirs: Callable[[], float], runs: int, warm: int = 0
) -> tuple[list[float], list[float]]:
    """`runs` figures of each of two, taken in turn and in alternating order, after `warm` pairs that don't count.

    What slows the machine for a while then slows both, and the ratio of a pair stays.
    """
    pairs = []
    for number in range(warm + runs):
        if number % 2:
            second = theirs()
            pairs.append((ours(), second))
        else:
            first = ours()
            pairs.append((first, theirs()))
    kept = pairs[warm:]
    return [ours for ours, _ in kept], [theirs for _, theirs in kept]


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
    figure: Row = {"what": what, "value": _short(median(values)), "unit": unit, "runs": len(values)}
    figure |= {"lowest": _short(min(values)), "highest": _short(max(values))}
    if against is not None:
        figure |= {"against": against, "against_value": _short(median(theirs))}
        ratios = [one / other for one, other in zip(values, theirs, strict=True) if other > 0]
        figure |= {"ratio": _short(median(ratios))} if len(ratios) == len(values) else {}
    return figure | more


def checked(figure: Row, section: str) -> Row:
    """The row, if it may be published: complete, finite, plain, and without a path or an address in it."""
    missing = [key for key in _REQUIRED if key not in figure]
    if missing:
        raise InputError(f"A row of the benchmark section {section} lacks {', '.join(missing)}.")
    for key, value in figure.items():
        plain = value is None or isinstance(value, str | bool | int | float)
        if not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(f"{section}, {figure['what']}: {key} is no plain, finite value.")
        if isinstance(value, str) and _PATH.search(value):
            raise InputError(f"{section}, {figure['what']}: {key} names a path or an address, which is not published.")
    return figure


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` per cent of the runs stay at or below."""
    return _short(sorted(values)[math.ceil(share / 100 * len(values)) - 1])


def _short(value: float) -> float:
    """Four significant digits: a benchmark knows no more."""
    return float(f"{value:.4g}")

"""How well each chapter of the ICD code set is recalled, as a Plotly figure and its table. Pure.

Boundary: reads the figures that a checkpoint's manifest carries; measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from mera_core.common.errors import InputError
from mera_core.figures.style import field_colour, share_bars, shortened
from mera_core.icd.chapters import chapter_name, field_of
from mera_core.icd.ontology import SYSTEM_NAMES, Code, Ontology

DIRECTIONS = {"code_to_definition": "code → definition", "definition_to_code": "definition → code"}


@dataclass(frozen=True, slots=True)
class ChapterMemory:
    """How many of a chapter's codes are recalled to the letter. exact: direction (a key of DIRECTIONS) -> share, 0 to 1."""

    chapter: Code
    codes: int
    exact: Mapping[str, float]


def chapter_memory(manifest: Mapping[str, Any]) -> list[ChapterMemory]:
    """What a checkpoint's manifest says of each chapter, in book order; empty where memory was not measured.

    Raises InputError where its figures can't be read.
    """
    rows = manifest.get("metrics", {}).get("recall", {}).get("chapters", [])
    try:
        return [
            ChapterMemory(
                Code(*row["chapter"].split(":", 1)),
                int(row["codes"]),
                {direction: float(row[direction]) for direction in DIRECTIONS},
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"The checkpoint's figures on memory can't be read: {error}.") from error


def memory_bars(memory: Sequence[ChapterMemory], direction: str) -> go.Figure:
    """A bar a chapter: the share of its codes that is recalled to the letter, in percent, worst first."""
    rows = sorted(memory, key=lambda row: (row.exact[direction], row.chapter))
    both = len({row.chapter.system for row in rows}) > 1
    return share_bars(
        [row.exact[direction] for row in rows],
        [str(row.chapter) for row in rows],
        [chapter_name(row.chapter) + (f" ({SYSTEM_NAMES[row.chapter.system]})" if both else "") for row in rows],
        f"Recalled to the letter, {DIRECTIONS[direction]}",
        colours=[field_colour(field_of(row.chapter)) for row in rows],
        text=[f"{100 * row.exact[direction]:.1f} %" for row in rows],
        customdata=[[recalled(row, direction), row.codes] for row in rows],
        hover="%{customdata[0]} of %{customdata[1]} codes",
    )


def memory_frame(memory: Sequence[ChapterMemory], ontology: Ontology) -> pd.DataFrame:
    """The figures as a table: chapter, codes, and the share recalled in each direction."""
    return pd.DataFrame(
        [
            {
                "chapter": f"{SYSTEM_NAMES[row.chapter.system]} {shortened(ontology.definition(row.chapter), 70)}",
                "codes": f"{row.codes:,}",
                **{words: f"{100 * row.exact[direction]:.1f} %" for direction, words in DIRECTIONS.items()},
            }
            for row in memory
        ]
    )


def describe_memory(memory: Sequence[ChapterMemory], direction: str) -> str:
    """Overall share, best and worst chapter, in words."""
    total, done = sum(row.codes for row in memory), sum(recalled(row, direction) for row in memory)
    ordered = sorted(memory, key=lambda row: (row.exact[direction], row.chapter))
    worst, best = ordered[0], ordered[-1]
    return (
        f"{share(done, total)} of {total:,} codes are recalled to the letter ({DIRECTIONS[direction]}); best in "
        f"{chapter_name(best.chapter)} ({100 * best.exact[direction]:.1f} %), least in "
        f"{chapter_name(worst.chapter)} ({100 * worst.exact[direction]:.1f} %)."
    )


def recalled(row: ChapterMemory, direction: str) -> int:
    """How many codes of the chapter are recalled."""
    return round(row.codes * row.exact[direction])


def share(part: int, whole: int) -> str:
    """'85.1 %'."""
    return f"{100 * part / whole:.1f} %" if whole else "–"

"""What matters and what differs, as Plotly figures: leave-one-out effects on the timeline, two rankings mirrored. Pure.

Boundary: knows effects, pairs and the ICD codes; no screen, no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from mera_core.common.formatting import percent, signed
from mera_core.explain import Effect
from mera_core.figures.style import OTHER_COLOUR, escaped, field_colour, horizontal, layout, named, shortened, wrapped
from mera_core.icd.chapters import FIELDS, field_of
from mera_core.icd.ontology import SYSTEM_NAMES, Code, Ontology
from mera_core.icd.readings import reading

MOST_BARS = 30


def largest_effects(effects: Sequence[Effect], most: int = MOST_BARS) -> list[Effect]:
    """The `most` strongest effects, in the order of the history."""
    strongest = sorted(range(len(effects)), key=lambda i: (-abs(effects[i].added or 0.0), i))[:most]
    return [effects[i] for i in sorted(strongest)]


def effect_bars(effects: Sequence[Effect], rank: int, diagnosis: Code, ontology: Ontology) -> go.Figure:
    """Signed effects on the timeline, oldest visit on top: a bar to the right speaks for the diagnosis.

    A visit as a whole is a grey bar over the bars of its codes, which have the colours of their chapters. rank: of the
    diagnosis with the whole history.
    """
    shown = largest_effects(effects)
    values = [effect.added or 0.0 for effect in shown]
    colours = [_colour(effect, ontology) for effect in shown]
    bars = horizontal(
        values,
        [f"{effect.visit}/{'' if effect.place is None else effect.place}" for effect in shown],
        colours,
        "%{customdata[0]}<br>%{customdata[1]}",
        marker={"color": colours, "opacity": [0.55 if effect.whole_visit else 1.0 for effect in shown]},
        text=[_added(effect) for effect in shown],
        customdata=[[wrapped(_name(effect, ontology)), _without(effect, rank)] for effect in shown],
    )
    reach = 1.6 * max(map(abs, values), default=0.0) or 1.0
    title = f"Points of score that each entry adds to {diagnosis.code}"
    return _both_ways([bars], title, reach, ("speaks against", "speaks for"), [_tick(each, ontology) for each in shown])


def _both_ways(bars: list[go.Bar], title: str, reach: float, sides: tuple[str, str], names: list[str]) -> go.Figure:
    """Bars that run left and right of a line, from -reach to reach; sides: what either means."""
    line = {"zeroline": True, "zerolinecolor": OTHER_COLOUR, "zerolinewidth": 2, "showgrid": False}
    ticks = {"tickvals": [-reach / 2, reach / 2], "ticktext": list(sides), "side": "top", "fixedrange": True}
    look = {
        "barmode": "relative",
        "bargap": 0.28,
        "xaxis": {"range": [-reach, reach], **line, **ticks},
        "yaxis": named(bars[0].y, names),
    }
    return go.Figure(bars, layout(title, 95 + 27 * max(len(names), 3), top=70) | look)


def effect_frame(effects: Sequence[Effect], rank: int, ontology: Ontology) -> pd.DataFrame:
    """The effects as a table: visit, entry, points of score, rank without it."""
    rows = [
        {
            "visit": effect.visit + 1,
            "entry": _name(effect, ontology),
            "adds to the score": _added(effect),
            "without it": _without(effect, rank),
        }
        for effect in effects
    ]
    return pd.DataFrame(rows, columns=["visit", "entry", "adds to the score", "without it"])


def describe_effects(effects: Sequence[Effect], ontology: Ontology) -> str:
    """Which codes speak most for and against the diagnosis, in words, for captions and screen readers."""
    codes = [effect for effect in effects if not effect.whole_visit and effect.added is not None]
    ordered = sorted(codes, key=lambda effect: -effect.added)
    most_for = [effect for effect in ordered if round(effect.added, 1) > 0][:2]
    against = [effect for effect in reversed(ordered) if round(effect.added, 1) < 0][:2]
    said = [
        f"{words} speak{'s' if len(found) == 1 else ''} {side}"
        for side, found in (("for it", most_for), ("against it", against))
        if (words := " and ".join(_entry(effect) for effect in found))
    ]
    return f"{'; '.join(said)}." if said else "No single code of the history moves this score by a tenth of a point."


def mirrored_masses(rows: Sequence[tuple[str, float, float]], names: tuple[str, str], largest: int = 12) -> go.Figure:
    """Shares of ranking mass of the medical fields: the first ranking's bars run left, the second's right.

    rows: from `compare.field_masses`. names: of the two rankings, written over their sides.
    """
    shown = list(rows[:largest])
    fields = [row[0] for row in shown]
    bars = [
        horizontal(
            [sign * 100 * row[side] for row in shown],
            fields,
            [field_colour(field) for field in fields],
            "%{customdata[0]}<br>%{customdata[1]} in %{customdata[2]}",
            name=escaped(names[side - 1]),
            text=[percent(float(row[side])) for row in shown],
            customdata=[[FIELDS[row[0]][0], percent(float(row[side])), escaped(names[side - 1])] for row in shown],
        )
        for side, sign in ((1, -1), (2, 1))
    ]
    reach = 160 * max((max(row[1:]) for row in shown), default=0.0) or 1.0
    sides = escaped(f"← {names[0]}"), escaped(f"{names[1]} →")
    return _both_ways(bars, "Share of ranking mass by chapter", reach, sides, [FIELDS[field][0] for field in fields])


def masses_frame(rows: Sequence[tuple[str, float, float]], names: tuple[str, str]) -> pd.DataFrame:
    """The mirrored shares as a table, with the difference in percentage points."""
    return pd.DataFrame(
        [
            {
                "chapter": FIELDS[field][0],
                names[0]: percent(first),
                names[1]: percent(second),
                "difference": f"{signed(100 * (second - first))} points",
            }
            for field, first, second in rows
        ]
    )


def describe_masses(rows: Sequence[tuple[str, float, float]], names: tuple[str, str]) -> str:
    """The chapters whose share differs most, in words."""
    moved = sorted(rows, key=lambda row: -abs(row[2] - row[1]))[:2]
    said = [
        f"{FIELDS[field][0]} ({percent(first)} in {names[0]}, {percent(second)} in {names[1]})"
        for field, first, second in moved
        if round(1000 * (second - first))
    ]
    return f"The shares differ most in {' and '.join(said)}." if said else "The shares of all chapters are the same."


def _name(effect: Effect, ontology: Ontology) -> str:
    if effect.whole_visit:
        return f"Visit {effect.visit + 1} as a whole"
    code = _read(effect, ontology)
    return f"{SYSTEM_NAMES[code.system]} {code.code} {ontology.definition(code)}" if code else str(effect.code)


def _added(effect: Effect) -> str:
    return "–" if effect.added is None else signed(effect.added)


def _entry(effect: Effect) -> str:
    code = effect.code.code if isinstance(effect.code, Code) else effect.code
    return f"{code} of visit {effect.visit + 1} ({signed(effect.added or 0.0)})"


def _without(effect: Effect, rank: int) -> str:
    if effect.rank_without is None:
        return "can't be left out: nothing to rank would remain"
    if effect.rank_without == rank:
        return f"still rank {rank}"
    return f"rank {rank} becomes {effect.rank_without}"


def _tick(effect: Effect, ontology: Ontology) -> str:
    if effect.whole_visit:
        return f"<b>Visit {effect.visit + 1}, whole</b>"
    code = _read(effect, ontology)
    if code:
        return escaped(f"{code.code}  {shortened(ontology.definition(code), 22)}")
    return escaped(shortened(str(effect.code), 28))


def _colour(effect: Effect, ontology: Ontology) -> str:
    code = _read(effect, ontology)
    return field_colour(field_of(code)) if code else OTHER_COLOUR


def _read(effect: Effect, ontology: Ontology) -> Code | None:
    """The code of an entry as the ICD tables have it; None for a whole visit and for text that it can't read."""
    return None if effect.whole_visit else reading(effect.code, ontology)

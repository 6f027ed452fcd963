"""A Ranking as Plotly figures: where over the ICD codes the ranking mass lies. Pure functions.

Boundary: knows rankings and the ICD codes; no screen and no model. Every figure shows the share of ranking mass
(a softmax over the label space; it sums to 1), which is no probability. A chapter has the same colour in all of
them (`mera_core.icd.chapters`).
"""

from __future__ import annotations

import math
import textwrap

import plotly.graph_objects as go

from mera_core.common.formatting import percent
from mera_core.figures.style import LEGIBLE, escaped, field_colour, layout, note_below, share_bars, shortened, wrapped
from mera_core.icd.chapters import text_colour
from mera_core.icd.ontology import Code, Ontology
from mera_core.ranking.mass_tree import Mass, mass_by, mass_frame, mass_tree
from mera_core.ranking.ranking import Ranking

__all__ = ["describe", "mass_bars", "mass_by", "mass_frame", "mass_tree", "mass_treemap", "percent"]

_HOVER = "%{customdata[0]}<br>%{customdata[1]} of the ranking mass"
_TRIFLE = 1e-9
_LEVELS_AT_ONCE = 3  # a click opens the next


def mass_treemap(ranking: Ranking, ontology: Ontology, largest: int = 40) -> go.Figure:
    """Treemap chapter -> block -> category -> code: a tile's area is its share of ranking mass, a click opens it."""
    nodes = mass_tree(ranking, ontology, largest)
    colours = [field_colour(node.field) for node in nodes]
    legible = {"color": [text_colour(colour) for colour in colours]}
    trace = go.Treemap(
        ids=[node.key for node in nodes],
        labels=[_header(node) for node in nodes],
        parents=[node.parent for node in nodes],
        values=_values(nodes),
        branchvalues="total",
        maxdepth=_LEVELS_AT_ONCE,
        sort=True,
        marker={"colors": colours, "line": {"width": 1}},
        textfont=legible,
        insidetextfont=legible,
        customdata=[[wrapped(node.definition), percent(node.share), escaped(node.label)] for node in nodes],
        hovertemplate=f"<b>%{{customdata[2]}}</b><br>{_HOVER}<extra></extra>",
        tiling={"pad": 2, "squarifyratio": 1.3},
        marker_pad={"t": 20, "l": 3, "r": 3, "b": 3},
        pathbar={"visible": True, "thickness": 22},
        texttemplate="%{text}",
        text=[_tile(node) for node in nodes],
    )
    return go.Figure(trace, layout("Share of ranking mass over the ICD", 460) | {"uniformtext": LEGIBLE})


def mass_bars(
    ranking: Ranking, ontology: Ontology, level: str = "chapter", within: Code | None = None, largest: int = 12
) -> go.Figure:
    """Bars of the `largest` chapters, blocks, categories or codes by share of ranking mass, in percent."""
    masses = mass_by(ranking, ontology, level, within)
    rest = masses[largest:]
    bars = masses[:largest]
    place = f" within {ontology.definition(within)}" if within is not None else ""
    figure = share_bars(
        [mass.share for mass in bars],
        [mass.key for mass in bars],
        [_axis_label(mass) for mass in bars],
        f"Share of ranking mass by {level}{shortened(place, 50)}",
        colours=[field_colour(mass.field) for mass in bars],
        text=[percent(mass.share) for mass in bars],
        customdata=[[wrapped(mass.definition), percent(mass.share)] for mass in bars],
        hover=_HOVER,
    )
    if rest:
        note_below(figure, f"and {len(rest)} more with {percent(math.fsum(mass.share for mass in rest))} together")
    return figure


def describe(ranking: Ranking, ontology: Ontology) -> str:
    """One sentence that says what the chapter charts show, for captions and screen readers."""
    chapters = mass_by(ranking, ontology, "chapter")[:3]
    named = ", ".join(f"{mass.label} ({percent(mass.share)})" for mass in chapters)
    return f"Most of the ranking mass lies in {named}."


def _values(nodes: list[Mass]) -> list[float]:
    """Shares, those of parents a trifle larger: Plotly draws nothing where children outgrow a parent by a rounding."""
    held: dict[str, float] = {}
    values = []
    for node in reversed(nodes):  # children stand after their parents
        value = max(node.share, held[node.key] + _TRIFLE) if node.key in held else node.share
        held[node.parent] = held.get(node.parent, 0.0) + value
        values.append(value)
    return values[::-1]


def _header(node: Mass) -> str:
    """One line: what Plotly writes over a tile that holds others, and in the path bar."""
    name = shortened(node.definition, 40) if node.level == "block" else node.label
    return escaped(f"{name} {percent(node.share)}")


def _tile(node: Mass) -> str:
    """Up to four lines, for a tile that holds no others."""
    if node.level != "code":
        return _header(node)
    lines = textwrap.wrap(node.definition, 20, max_lines=3, placeholder=" …")
    return "<br>".join([f"<b>{escaped(node.label)}</b> {percent(node.share)}", *map(escaped, lines)])


def _axis_label(mass: Mass) -> str:
    return mass.label if mass.level == "chapter" else f"{mass.label}  {shortened(mass.definition, 26)}"

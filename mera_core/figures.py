"""A Ranking as Plotly figures: where in the code book the ranking mass lies. Pure functions.

Boundary: knows rankings and the code book; no screen and no model. Every figure shows the share of ranking mass
(a softmax over the label space; it sums to 1), which is no probability. A chapter has the same colour in all of
them (`mera_core.chapters`).
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import pandas as pd
import plotly.graph_objects as go

from mera_core.chapters import FIELDS, chapter_name, field_of, text_colour
from mera_core.errors import InputError
from mera_core.ontology import SYSTEM_NAMES, Code, Ontology
from mera_core.ranking import Ranking

LEVELS = ("chapter", "block", "code")
PLOTLY_CONFIG = {"showSendToCloud": False, "displaylogo": False, "displayModeBar": False, "responsive": True}
OTHER_COLOUR = "#7f7f7f"
_HOVER = "%{customdata[0]}<br>%{customdata[1]} of the ranking mass<extra></extra>"

_SMALLEST_CHAPTER = 0.005  # share below which a chapter without a shown code joins "other chapters"


@dataclass(frozen=True, slots=True)
class Mass:
    """A chapter, block or code, or what was folded together, with its share of ranking mass (0 to 1).

    code: None for a folded remainder. field: a key of `chapters.FIELDS`, or "other". codes: how many ranked
    codes it stands for. parent: `key` of the node above; "" at the top.
    """

    key: str
    label: str
    definition: str
    level: str
    share: float
    codes: int
    field: str
    parent: str = ""
    code: Code | None = None


@cache
def _path(code: Code) -> tuple[Code, Code | None]:
    """The chapter of a code, and its block unless the code is itself a block or a chapter."""
    ontology = Ontology.load()
    block = ontology.ancestor_at(code, 2)
    return ontology.chapter(code), None if block == code else block


def mass_by(ranking: Ranking, ontology: Ontology, level: str, within: Code | None = None) -> list[Mass]:
    """Share of ranking mass of every chapter, block or code, largest first.

    level: one of LEVELS. within: only codes of this chapter or block.
    Raises InputError for another level.
    """
    if level not in LEVELS:
        raise InputError(f"There is no level {level!r}: use {', '.join(LEVELS)}.")
    sums: dict[Code, list[float]] = {}
    for code, share in zip(ranking.codes, ranking.share.tolist(), strict=True):
        chapter, block = _path(code)
        if within is not None and within not in (chapter, block):
            continue
        group = {"chapter": chapter, "block": block or code, "code": code}[level]
        sums.setdefault(group, []).append(share)
    both = len({code.system for code in sums}) > 1
    masses = [_mass(code, ontology, level, math.fsum(shares), len(shares), both) for code, shares in sums.items()]
    return sorted(masses, key=lambda mass: (-mass.share, mass.key))


def mass_tree(ranking: Ranking, ontology: Ontology, largest: int = 40) -> list[Mass]:
    """Chapters, their blocks and their codes, parents first, folded so that a chart stays legible.

    The `largest` codes by share stand alone. The others join "other codes" of their block; blocks without a
    shown code join "other blocks" of their chapter; small chapters without one join "other chapters".
    A node's share is the sum of its children's.
    """
    codes = mass_by(ranking, ontology, "code")
    shown = {mass.code for mass in codes[:largest]}
    chapters: dict[Code, dict[Code | None, list[Mass]]] = {}
    for mass in codes:
        chapter, block = _path(mass.code)
        chapters.setdefault(chapter, {}).setdefault(block, []).append(mass)
    both = len({chapter.system for chapter in chapters}) > 1
    nodes: list[Mass] = []
    small: list[Mass] = []
    for chapter, blocks in chapters.items():
        inside: list[Mass] = []
        aside: list[Mass] = []
        for block, members in blocks.items():
            if block is None:
                inside += [_under(mass, str(chapter)) for mass in members if mass.code in shown]
                aside += [mass for mass in members if mass.code not in shown]
            elif not any(mass.code in shown for mass in members):
                aside += members
            else:
                kept = [_under(mass, str(block)) for mass in members if mass.code in shown]
                rest = [mass for mass in members if mass.code not in shown]
                kept += _folded(rest, "codes", str(block), kept[0].field)
                top = _mass(block, ontology, "block", _sum(kept), len(members), False)
                inside += [_under(top, str(chapter)), *kept]
        if inside:
            inside += _folded(aside, "blocks" if None not in blocks else "codes", str(chapter), inside[0].field)
        direct = [mass for mass in inside if mass.parent == str(chapter)]
        count = sum(len(members) for members in blocks.values())
        share = _sum(direct) if inside else math.fsum(mass.share for mass in aside)
        top = _mass(chapter, ontology, "chapter", share, count, both)
        if inside or share >= _SMALLEST_CHAPTER:
            nodes += [top, *inside]
        else:
            small.append(top)
    return nodes + _folded(small, "chapters", "", "other")


def mass_treemap(ranking: Ranking, ontology: Ontology, largest: int = 40) -> go.Figure:
    """Treemap chapter -> block -> code: a tile's area is its share of ranking mass, a click opens it."""
    nodes = mass_tree(ranking, ontology, largest)
    trace = go.Treemap(
        **_tree_arguments(nodes),
        tiling={"pad": 2, "squarifyratio": 1.3},
        marker_pad={"t": 20, "l": 3, "r": 3, "b": 3},
        pathbar={"visible": True, "thickness": 22},
        texttemplate="%{text}",
        text=[_tile(node) for node in nodes],
    )
    figure = go.Figure(trace)
    figure.update_layout(
        **_layout("Share of ranking mass: chapters, blocks, codes", 460),
        uniformtext={"minsize": 9, "mode": "hide"},
    )
    return figure


def mass_sunburst(ranking: Ranking, ontology: Ontology, largest: int = 30) -> go.Figure:
    """Rings from chapters (inner) to blocks to codes (outer); an arc's angle is its share of ranking mass."""
    nodes = mass_tree(ranking, ontology, largest)
    trace = go.Sunburst(**_tree_arguments(nodes), text=[_escaped(node.label) for node in nodes], texttemplate="%{text}")
    figure = go.Figure(trace)
    figure.update_layout(
        **_layout("Share of ranking mass: chapters, blocks, codes", 460),
        uniformtext={"minsize": 9, "mode": "hide"},
    )
    return figure


def mass_bars(
    ranking: Ranking,
    ontology: Ontology,
    level: str = "chapter",
    within: Code | None = None,
    largest: int = 12,
) -> go.Figure:
    """Bars of the `largest` chapters, blocks or codes by share of ranking mass, in percent."""
    masses = mass_by(ranking, ontology, level, within)
    rest = masses[largest:]
    bars = masses[:largest]
    figure = go.Figure(
        go.Bar(
            x=[100 * mass.share for mass in bars],
            y=[mass.key for mass in bars],
            orientation="h",
            marker={"color": [_colour(mass) for mass in bars]},
            text=[percent(mass.share) for mass in bars],
            textposition="outside",
            cliponaxis=False,
            customdata=[[_wrapped(mass.definition), percent(mass.share)] for mass in bars],
            hovertemplate=_HOVER,
        )
    )
    if rest:
        share = math.fsum(mass.share for mass in rest)
        figure.add_annotation(
            text=f"and {len(rest)} more with {percent(share)} together",
            xref="paper", yref="paper", x=1, y=0, yshift=-26, xanchor="right", showarrow=False,
        )  # fmt: skip
    place = f" within {ontology.definition(within)}" if within is not None else ""
    longest = max((mass.share for mass in bars), default=0.0)
    figure.update_layout(
        **_layout(f"Share of ranking mass by {level}{_shortened(place, 50)}", 90 + 28 * max(len(bars), 3)),
        bargap=0.25,
        showlegend=False,
        xaxis={"visible": False, "range": [0, 118 * longest or 1], "fixedrange": True},
        yaxis={
            "autorange": "reversed",
            "automargin": True,
            "fixedrange": True,
            "tickmode": "array",
            "tickvals": [mass.key for mass in bars],
            "ticktext": [_escaped(_axis_label(mass)) for mass in bars],
        },
    )
    figure.update_layout(margin_b=34)
    return figure


def mass_frame(masses: Iterable[Mass]) -> pd.DataFrame:
    """The numbers of a chart as a table: system, code, definition, ranked codes, share (0 to 1)."""
    rows = [
        {
            "system": SYSTEM_NAMES[mass.code.system] if mass.code else "",
            "code": mass.code.code if mass.code else "",
            "definition": mass.definition,
            "ranked codes": mass.codes,
            "share": mass.share,
        }
        for mass in masses
    ]
    return pd.DataFrame(rows, columns=["system", "code", "definition", "ranked codes", "share"])


def percent(share: float) -> str:
    """A share in words: '12 %', '3.4 %', 'below 0.1 %'."""
    if share < 0.001:
        return "below 0.1 %" if share > 0 else "0 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def describe(ranking: Ranking, ontology: Ontology) -> str:
    """One sentence that says what the chapter charts show, for captions and screen readers."""
    chapters = mass_by(ranking, ontology, "chapter")[:3]
    named = ", ".join(f"{mass.label} ({percent(mass.share)})" for mass in chapters)
    return f"Most of the ranking mass lies in {named}."


def _mass(code: Code, ontology: Ontology, level: str, share: float, count: int, both: bool) -> Mass:
    if level == "chapter":
        label = chapter_name(code) + (f" ({SYSTEM_NAMES[code.system]})" if both else "")
    else:
        label = code.code
    return Mass(str(code), label, ontology.definition(code), level, share, count, field_of(code), code=code)


def _under(mass: Mass, parent: str) -> Mass:
    return Mass(
        mass.key,
        mass.label,
        mass.definition,
        mass.level,
        mass.share,
        mass.codes,
        mass.field,
        parent,
        mass.code,
    )


def _folded(rest: list[Mass], kind: str, parent: str, field: str) -> list[Mass]:
    if not rest:
        return []
    codes = sum(mass.codes for mass in rest)
    label = f"other {kind}"
    definition = f"{codes} more codes, each with a small share" if codes > 1 else rest[0].definition
    share = math.fsum(mass.share for mass in rest)
    return [Mass(f"{parent} {label}".strip(), label, definition, "other", share, codes, field, parent)]


def _sum(children: list[Mass]) -> float:
    return math.fsum(mass.share for mass in children)


def _colour(mass: Mass) -> str:
    return FIELDS[mass.field][1] if mass.field in FIELDS else OTHER_COLOUR


def _tree_arguments(nodes: list[Mass]) -> dict:
    colours = [_colour(node) for node in nodes]
    # Plotly refuses a parent that is smaller than its children by as little as a rounding error.
    slack = {"chapter": 2e-9, "block": 1e-9}
    return {
        "ids": [node.key for node in nodes],
        "labels": [_header(node) for node in nodes],
        "parents": [node.parent for node in nodes],
        "values": [node.share + slack.get(node.level, 0.0) for node in nodes],
        "branchvalues": "total",
        "sort": True,
        "marker": {"colors": colours, "line": {"width": 1}},
        "textfont": {"color": [text_colour(colour) for colour in colours]},
        "insidetextfont": {"color": [text_colour(colour) for colour in colours]},
        "customdata": [[_wrapped(node.definition), percent(node.share), _escaped(node.label)] for node in nodes],
        "hovertemplate": f"<b>%{{customdata[2]}}</b><br>{_HOVER}",
    }


def _header(node: Mass) -> str:
    """One line: what Plotly writes over a tile that holds others, and in the path bar."""
    name = _shortened(node.definition, 40) if node.level == "block" else node.label
    return _escaped(f"{name} {percent(node.share)}")


def _tile(node: Mass) -> str:
    """Up to four lines, for a tile that holds no others."""
    if node.level != "code":
        return _header(node)
    lines = textwrap.wrap(node.definition, 20, max_lines=3, placeholder=" …")
    return "<br>".join([f"<b>{_escaped(node.label)}</b> {percent(node.share)}", *map(_escaped, lines)])


def _axis_label(mass: Mass) -> str:
    return mass.label if mass.level == "chapter" else f"{mass.label}  {_shortened(mass.definition, 26)}"


def _escaped(text: str) -> str:
    """Text that Plotly shows as it stands: it reads tags and entities."""
    return html.escape(text, quote=False)


def _wrapped(text: str) -> str:
    return "<br>".join(_escaped(line) for line in textwrap.wrap(text, 48))


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip(" ,") + "…"


def _layout(title: str, height: int) -> dict:
    return {
        "title": {"text": _escaped(title), "font": {"size": 15}, "x": 0, "xanchor": "left"},
        "height": height,
        "margin": {"l": 0, "r": 0, "t": 40, "b": 4},
    }

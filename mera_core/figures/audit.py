"""How far readers agree with the tree, as a Plotly figure and its table. Pure; knows verdicts and the ICD codes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from mera_core.audit.groups import Agreement
from mera_core.common.formatting import counted
from mera_core.figures.style import OTHER_COLOUR, field_colour, horizontal, listed
from mera_core.icd.chapters import chapter_name, field_of
from mera_core.icd.ontology import SYSTEM_NAMES, SYSTEMS, Code, Ontology


def agreement_bars(rows: Sequence[Agreement], ontology: Ontology) -> go.Figure:
    """A bar a level and chapter: the share of verdicts that agree with the tree, in percent, with the counts beside it."""
    shown = [row for row in rows if row.chapter is not None]
    bars = horizontal(
        [100 * row.agree / row.judgements for row in shown],
        [f"{row.level} {row.chapter}" for row in shown],
        [_colour(row.chapter, ontology) for row in shown],
        "%{text} agree, %{customdata[0]} disagree, %{customdata[1]} unsure",
        text=[f"{row.agree} of {row.judgements}" for row in shown],
        customdata=[[row.disagree, row.unsure] for row in shown],
    )
    names = (f"{_level(row, rows, ontology)}, {_name(row.chapter, ontology)}" for row in shown)
    return listed(bars, names, "Verdicts that agree with the tree, by level and chapter", 120)


def agreement_frame(rows: Sequence[Agreement], ontology: Ontology) -> pd.DataFrame:
    """The agreement as a table, all levels first."""
    return pd.DataFrame(
        [
            {
                "level": "all" if row.level is None else _level(row, rows, ontology),
                "chapter": "all" if row.chapter is None else _name(row.chapter, ontology),
                "verdicts": row.judgements,
                "agree": _part(row.agree, row.judgements),
                "disagree": _part(row.disagree, row.judgements),
                "unsure": _part(row.unsure, row.judgements),
                "intruder found": _part(row.found, row.judgements),
                "readers": row.readers,
                "kappa": "–" if row.kappa is None else f"{row.kappa:.2f} ({counted(row.shared, 'group')})",
            }
            for row in rows
        ]
    )


def describe_agreement(rows: Sequence[Agreement]) -> str:
    """The first row in words, for captions and screen readers."""
    whole = rows[0]
    words = (
        f"Of {counted(whole.judgements, 'verdict')} on the tree, {whole.agree} agree, {whole.disagree} disagree and "
        f"{whole.unsure} are unsure; the intruder was found {counted(whole.found, 'time')}."
    )
    if whole.kappa is not None:
        kind = "Cohen's" if whole.readers == 2 else "Fleiss'"
        words += (
            f" {whole.readers} readers agree with {kind} kappa {whole.kappa:.2f} on {counted(whole.shared, 'group')}."
        )
    return words


def _part(count: int, whole: int) -> str:
    return f"{count} ({100 * count / whole:.0f} %)"


def _level(row: Agreement, rows: Sequence[Agreement], ontology: Ontology) -> str:
    """A level by its name, as "block"; "subcategory / code" where the chapters judged are of both code systems."""
    named = (
        [row.chapter] if row.chapter else [each.chapter for each in rows if each.level == row.level and each.chapter]
    )
    systems = sorted({chapter.system for text in named if (chapter := _chapter(text, ontology)) is not None})
    books = [ontology.level_names(system) for system in systems]
    known = dict.fromkeys(book[min(row.level, len(book)) - 1] for book in books)
    return " / ".join(known) or f"level {row.level}"


def _chapter(text: str, ontology: Ontology) -> Code | None:
    """The chapter that a judgement names; None where a file names one that does not exist."""
    system, _, name = text.partition(":")
    code = Code(system, name) if system in SYSTEMS else None
    return code if code is not None and code in ontology and ontology.level(code) == 1 else None


def _name(text: str, ontology: Ontology) -> str:
    chapter = _chapter(text, ontology)
    return "unknown chapter" if chapter is None else f"{chapter_name(chapter)} ({SYSTEM_NAMES[chapter.system]})"


def _colour(text: str, ontology: Ontology) -> str:
    chapter = _chapter(text, ontology)
    return OTHER_COLOUR if chapter is None else field_colour(field_of(chapter))

"""A ranking as one printable page: an HTML file that needs nothing beside it, with its charts drawn as SVG.

Boundary: values in, HTML text out; no screen, no model, no script and no address in the page. A browser prints it (or
saves it as PDF) on one sheet of A4: what does not fit is counted, and stands in the JSON export.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mera_core.common.formatting import counted, percent
from mera_core.export.tables import Provenance
from mera_core.figures.style import OTHER_COLOUR, field_colour
from mera_core.history.records import Patient, Visit
from mera_core.icd.chapters import chapter_colour, chapter_name, field_of
from mera_core.icd.ontology import SYSTEM_NAMES, Code, Ontology
from mera_core.icd.readings import named, reading, readings
from mera_core.ranking.listing import strengths
from mera_core.ranking.mass_tree import Mass, mass_by
from mera_core.ranking.ranking import Ranking

ROWS = 18  # of the ranked list
HISTORY_LINES = 30  # one a code and one a visit, newest visits first
CHAPTERS = 8
NOTES = 3
_SEXES = {"F": "female", "M": "male", "U": "sex not stated"}
_STYLE = """
@page { size: A4; margin: 11mm 12mm; }
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 4mm; max-width: 190mm; background: #fff; color: #111;
  font: 8.6pt/1.3 "Source Sans Pro", "Segoe UI", Helvetica, Arial, sans-serif; }
@media print { body { padding: 0; } }
h1 { font-size: 14pt; margin: 0; } h2 { font-size: 10pt; margin: 0 0 1mm; }
.notice { margin: 1.5mm 0; padding: 1mm 2mm; border: 1.5pt solid #111; font-weight: 700; }
.from { margin: 0; color: #444; font-size: 7.4pt; }
.columns { display: grid; grid-template-columns: 1fr 1.25fr; gap: 6mm; margin-top: 3mm; }
.columns > *, .charts > * { min-width: 0; }
.charts { display: grid; grid-template-columns: 1.25fr 1fr; gap: 6mm; margin-top: 3mm; }
p, ul { margin: 0 0 1mm; } ul { padding: 0; list-style: none; }
li, td { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.visit { font-weight: 600; margin-top: 0.6mm; }
.code { display: inline-block; min-width: 14mm; padding-left: 1.2mm; border-left: 2.4pt solid; font-weight: 600; }
table { width: 100%; border-collapse: collapse; table-layout: fixed; }
caption { text-align: left; } th { text-align: left; font-size: 7.4pt; }
td, th { padding: 0.25mm 1mm; border-bottom: 0.4pt solid #ccc; }
td.number, th.number { text-align: right; }
tr.cut td { border-bottom: 1.4pt dashed #111; font-weight: 600; white-space: normal; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit; fill: #111; }
footer { margin-top: 2mm; color: #444; font-size: 7.4pt; }
"""


def ranking_report(ranking: Ranking, patient: Patient, provenance: Provenance) -> str:
    """The page: notice, provenance, history, ranked list with its cut, and two charts. UTF-8 HTML text."""
    ontology = ranking.ontology
    chapters = mass_by(ranking, ontology, "chapter")
    releases = "; ".join(provenance.code_release.values())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>MERA: ranked diagnoses of the next visit</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        "<h1>Ranked diagnoses of the next visit</h1>\n"
        f'<p class="notice">{escape(provenance.notice)}</p>\n'
        f'<p class="from">Model {escape(provenance.checkpoint)} · {escape(releases)} · {escape(provenance.software)} · '
        f"made {provenance.time:%Y-%m-%d %H:%M} UTC</p>\n"
        f'<div class="columns">\n<section>{_history(patient, ontology)}</section>\n'
        f"<section>{_list(ranking)}</section>\n</div>\n"
        f'<div class="charts">\n<section>{_chapters_chart(chapters)}</section>\n'
        f"<section>{_timeline_chart(patient.visits, ontology)}</section>\n</div>\n"
        f"{_notes(ranking)}"
        f"<footer>Score: 0 to 100, the cut-off is at 50; it orders the list and is no probability. Share of ranking mass: how "
        f"the model spreads its weight over the {len(ranking.codes):,} codes that it ranks.</footer>\n</body>\n</html>\n"
    )


def _history(patient: Patient, ontology: Ontology) -> str:
    """The newest visits with their codes; earlier ones, where the page has no room, as a count."""
    who = [_SEXES[patient.sex], *([f"{patient.age:.0f} years"] if patient.age is not None else [])]
    who += [f"{key} {value}" for key, value in patient.details.items()]
    blocks: list[str] = []
    room, left_out = HISTORY_LINES, 0
    for number in reversed(range(len(patient.visits))):
        visit = patient.visits[number]
        if room < 2:
            left_out += len(visit.codes)
            continue
        shown = visit.codes[: room - 1]
        left_out += len(visit.codes) - len(shown)
        room -= 1 + len(shown)
        facts = [f"Visit {number + 1}"]
        facts += [f"{visit.time:%Y-%m-%d}"] if visit.time is not None else []
        lines = "".join(f"<li>{_code_words(code, ontology)}</li>" for code in shown)
        blocks.insert(0, f'<p class="visit">{" · ".join(facts)}</p><ul>{lines}</ul>')
    more = f"<p>and {counted(left_out, 'more code')} of earlier visits, in the JSON export</p>" if left_out else ""
    return f"<h2>History</h2><p>{escape(', '.join(who))}</p>{more}{''.join(blocks)}"


def _code_words(code: Code | str, ontology: Ontology) -> str:
    found, _ = readings(code, ontology)
    if len(found) == 1:
        return f"{_code_mark(found[0])} {escape(ontology.definition(found[0]))}"
    why = f"not read: two meanings, {named(found)}" if found else "not read"
    return f'<span class="code" style="border-color:{OTHER_COLOUR}">{escape(str(code))}</span> {escape(why)}'


def _code_mark(code: Code) -> str:
    title = f"{SYSTEM_NAMES[code.system]}, {chapter_name(code)}"
    return f'<span class="code" style="border-color:{chapter_colour(code)}" title="{escape(title)}">{code.code}</span>'


def _list(ranking: Ranking) -> str:
    """The best codes, with the cut as a line where it falls among them, and said in words in any case."""
    calibrated = ranking.probability is not None
    shown = min(ROWS, len(ranking.codes))
    strength = strengths(ranking)
    rows = []
    for place in range(shown):
        code = ranking.codes[place]
        value = percent(float(ranking.probability[place])) if calibrated else f"{strength[place]:.0f}"
        mark = "recurrent" if ranking.recurrent[place] else "new"
        rows.append(
            f'<tr><td class="number">{place + 1}</td><td>{_code_mark(code)} {escape(ranking.ontology.definition(code))}'
            f'</td><td>{mark}</td><td class="number">{value}</td></tr>'
        )
    if ranking.predicted <= shown:
        line = f"The cut: {ranking.predicted} predicted, above this line"
        rows.insert(ranking.predicted, f'<tr class="cut"><td colspan="4">{line}</td></tr>')
    count = f"{ranking.predicted} predicted" + ("" if ranking.predicted <= shown else f", the first {shown} shown")
    head = f'<th class="number">{"Probability" if calibrated else "Score"}</th>'
    return (
        f"<h2>Next visit: {count}</h2><table><colgroup><col style='width:7mm'><col><col style='width:15mm'>"
        f"<col style='width:15mm'></colgroup><thead><tr><th class='number'>#</th><th>Diagnosis</th><th></th>{head}"
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _chapters_chart(masses: Sequence[Mass]) -> str:
    """Bars of the largest chapters by share of ranking mass, each with its name and number."""
    bars = masses[:CHAPTERS]
    longest = max((mass.share for mass in bars), default=0.0) or 1.0
    height = 15 * len(bars)
    parts = []
    for row, mass in enumerate(bars):
        top, width, colour = 15 * row, 170 * mass.share / longest, field_colour(mass.field)
        parts.append(
            f'<text x="118" y="{top + 10.5}" text-anchor="end" font-size="10">{escape(mass.label)}</text>'
            f'<rect x="123" y="{top + 1.5}" width="{width:.2f}" height="11" fill="{colour}"/>'
            f'<text x="{127 + width:.2f}" y="{top + 10.5}" font-size="10">{percent(mass.share)}</text>'
        )
    words = ", ".join(f"{mass.label} {percent(mass.share)}" for mass in bars)
    return (
        "<h2>Share of ranking mass by chapter</h2>"
        f'<svg viewBox="0 0 340 {max(height, 1)}" role="img" aria-label="Share of ranking mass: {escape(words)}">'
        f"{''.join(parts)}</svg>"
    )


def _timeline_chart(visits: Sequence[Visit], ontology: Ontology) -> str:
    """A column a visit, oldest left, a block a code in its chapter's colour; the newest columns where there are many."""
    shown = list(enumerate(visits, start=1))[-24:]
    tallest = max((len(visit.codes) for _, visit in shown), default=1) or 1
    block = min(10.0, 100 / tallest)
    step = 270 / max(len(shown), 8)
    parts = []
    for column, (number, visit) in enumerate(shown):
        left = 4 + column * step
        for row, code in enumerate(visit.codes):
            known = reading(code, ontology)
            colour = field_colour(field_of(known)) if known else "none"
            outline = "" if known else f' stroke="{OTHER_COLOUR}" stroke-dasharray="2 1"'
            parts.append(
                f'<rect x="{left:.1f}" y="{104 - (row + 1) * block:.1f}" width="{step - 2:.1f}" '
                f'height="{max(block - 1, 0.5):.1f}" fill="{colour}"{outline}/>'
            )
        if len(shown) <= 12 or not column % 3:
            middle = left + (step - 2) / 2
            parts.append(f'<text x="{middle:.1f}" y="115" text-anchor="middle" font-size="9">{number}</text>')
    words = ", ".join(f"visit {number}: {len(visit.codes)}" for number, visit in shown)
    return (
        "<h2>Codes of each visit, coloured by chapter</h2>"
        f'<svg viewBox="0 0 280 120" role="img" aria-label="Number of codes: {escape(words)}">'
        f'{"".join(parts)}<line x1="2" x2="278" y1="104.5" y2="104.5" stroke="#111"/></svg>'
    )


def _notes(ranking: Ranking) -> str:
    """How the history was read, where not as typed."""
    if not ranking.notes:
        return ""
    lines = "".join(f"<li>{escape(note.message)}</li>" for note in ranking.notes[:NOTES])
    more = len(ranking.notes) - NOTES
    rest = f"<li>and {more:,} more, in the JSON export</li>" if more > 0 else ""
    return f"<section><h2>How the model read the history</h2><ul>{lines}{rest}</ul></section>\n"

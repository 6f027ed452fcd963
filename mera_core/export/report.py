"""A ranking as one printable page: an HTML file that needs nothing beside it, with its charts drawn as SVG.

Boundary: values in, HTML text out; no screen, no model, no script and no address in the page. A browser prints it (or
saves it as PDF) on one sheet of A4: what does not fit is counted, and stands in the JSON export.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mera_core.common.formatting import counted, percent
from mera_core.export.tables import Provenance
from mera_core.figures.style import OTHER_COLOUR, field_colour
from mera_core.history.records import Patient
from mera_core.icd.chapters import chapter_colour, chapter_name
from mera_core.icd.ontology import SYSTEM_NAMES, Code, Ontology
from mera_core.icd.readings import named, reading, readings
from mera_core.ranking.listing import strengths
from mera_core.ranking.mass_tree import mass_by
from mera_core.ranking.ranking import Ranking

ROWS = 18  # of the ranked list
HISTORY_LINES = 30  # one a code and one a visit, newest visits first
CHAPTERS = 8
COLUMNS = 24  # visits of the timeline, the newest
NOTES = 3
_SEXES = {"F": "female", "M": "male", "U": "sex not stated"}


def ranking_report(ranking: Ranking, patient: Patient, provenance: Provenance) -> str:
    """The page: notice, provenance, history, ranked list with its cut, and two charts. UTF-8 HTML text."""
    ontology = ranking.ontology
    page = Environment(loader=PackageLoader("mera_core.export", "."), autoescape=True, undefined=StrictUndefined)
    page.filters |= {"percent": percent, "colour": field_colour}
    who = [_SEXES[patient.sex], *([f"{patient.age:.0f} years"] if patient.age is not None else [])]
    who += [f"{key} {value}" for key, value in patient.details.items()]
    visits, left_out = _newest_visits(patient, ontology)
    columns = [
        (number, [known and chapter_colour(known) for code in visit.codes for known in [reading(code, ontology)]])
        for number, visit in [*enumerate(patient.visits, start=1)][-COLUMNS:]
    ]
    return page.get_template("report.html.jinja").render(
        source=provenance,
        ranking=ranking,
        who=", ".join(who),
        visits=visits,
        left_out=counted(left_out, "more code") if left_out else "",
        rows=_rows(ranking),
        masses=mass_by(ranking, ontology, "chapter")[:CHAPTERS],
        columns=columns,
        tallest=max((len(colours) for _, colours in columns), default=0) or 1,
        other=OTHER_COLOUR,
        most_notes=NOTES,
    )


def _newest_visits(patient: Patient, ontology: Ontology) -> tuple[list[dict[str, Any]], int]:
    """As many of the newest visits with their codes as there is room for, oldest first; how many codes are left out."""
    visits: list[dict[str, Any]] = []
    room, left_out = HISTORY_LINES, 0
    for number, visit in reversed([*enumerate(patient.visits, start=1)]):
        shown = visit.codes[: room - 1] if room >= 2 else ()
        left_out += len(visit.codes) - len(shown)
        if room >= 2:
            room -= 1 + len(shown)
            title = f"Visit {number}" + (f" · {visit.time:%Y-%m-%d}" if visit.time is not None else "")
            visits.insert(0, {"title": title, "codes": [_as_typed(code, ontology) for code in shown]})
    return visits, left_out


def _as_typed(code: Code | str, ontology: Ontology) -> dict[str, str]:
    found, _ = readings(code, ontology)
    if len(found) == 1:
        return _code(found[0], ontology)
    why = f"not read: two meanings, {named(found)}" if found else "not read"
    return {"colour": OTHER_COLOUR, "text": str(code), "title": "", "words": why}


def _code(code: Code, ontology: Ontology) -> dict[str, str]:
    title = f"{SYSTEM_NAMES[code.system]}, {chapter_name(code)}"
    return {"colour": chapter_colour(code), "title": title, "text": code.code, "words": ontology.definition(code)}


def _rows(ranking: Ranking) -> list[dict[str, Any]]:
    """The first ROWS codes of the list: the code, whether it is new, and its probability or else its score."""
    strength = strengths(ranking)
    return [
        {
            "code": _code(code, ranking.ontology),
            "mark": "recurrent" if ranking.recurrent[place] else "new",
            "value": f"{strength[place]:.0f}"
            if ranking.probability is None
            else percent(float(ranking.probability[place])),
        }
        for place, code in enumerate(ranking.codes[:ROWS])
    ]

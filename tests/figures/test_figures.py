"""The numbers behind the charts, on a ranking small enough to check by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mera_core.common.errors import InputError
from mera_core.figures import ranking as figures
from mera_core.icd import chapters
from mera_core.icd.ontology import SYSTEMS, Code, Ontology
from mera_core.ranking.ranking import Ranking
from tests import rankings

# Shares add up to 1. 428, 427 and 410 are circulatory (blocks 420-429 and 410-414), 250 and 276 endocrine
# (249-259, 270-279), 585 genitourinary (580-589), V45 a code of circumstances.
SHARES = {"428": 0.35, "250": 0.20, "427": 0.15, "585": 0.12, "410": 0.10, "276": 0.05, "V45": 0.03}
WHITE, NEAR_BLACK = "#ffffff", "#171614"  # the app's page in its light and its dark theme


def ranking_of(shares: dict[str | Code, float]) -> Ranking:
    """Codes with shares that add up to 1."""
    return rankings.ranking_of({code: math.log(share or 1e-300) for code, share in shares.items()})


@pytest.fixture(scope="module")
def ranking() -> Ranking:
    return ranking_of(SHARES)


def test_chapter_sums(ranking, ontology):
    masses = figures.mass_by(ranking, ontology, "chapter")
    found = [(mass.label, round(mass.share, 9), mass.codes) for mass in masses]
    assert found == [
        ("Circulatory", 0.60, 3),
        ("Endocrine & metabolic", 0.25, 2),
        ("Genitourinary", 0.12, 1),
        ("Health status & care", 0.03, 1),
    ]


def test_block_sums_and_one_chapter_only(ranking, ontology):
    blocks = {mass.label: round(mass.share, 9) for mass in figures.mass_by(ranking, ontology, "block")}
    assert blocks["420-429"] == 0.50
    assert blocks["410-414"] == 0.10
    assert math.isclose(sum(blocks.values()), 1.0)
    within = figures.mass_by(ranking, ontology, "code", within=Code("ICD9", "CH07"))
    assert [mass.label for mass in within] == ["428", "427", "410"]
    with pytest.raises(InputError, match="no level 'organ'"):
        figures.mass_by(ranking, ontology, "organ")


def test_bars_hold_percentages_in_falling_order(ranking, ontology):
    bar = figures.mass_bars(ranking, ontology, "chapter").data[0]
    assert np.allclose(bar.x, [60, 25, 12, 3])
    assert list(bar.text) == ["60 %", "25 %", "12 %", "3.0 %"]
    circulatory = chapters.FIELDS["circulatory"][1]
    assert bar.marker.color[0] == circulatory


def test_bars_fold_the_rest_into_a_sentence(ranking, ontology):
    figure = figures.mass_bars(ranking, ontology, "code", largest=4)
    assert len(figure.data[0].x) == 4
    assert figure.layout.annotations[0].text == "and 3 more with 18 % together"
    assert "Share of ranking mass" in figure.layout.title.text


def test_the_map_adds_up_at_every_level(ranking, ontology):
    trace = figures.mass_treemap(ranking, ontology).data[0]
    value = dict(zip(trace.ids, trace.values, strict=True))
    assert math.isclose(value["ICD9:428"], 0.35, abs_tol=1e-6)
    assert math.isclose(value["ICD9:420-429"], 0.50, abs_tol=1e-6)
    assert math.isclose(value["ICD9:CH07"], 0.60, abs_tol=1e-6)
    assert math.isclose(sum(value[i] for i, p in zip(trace.ids, trace.parents, strict=True) if not p), 1, abs_tol=1e-6)
    for parent in set(trace.parents) - {""}:
        children = sum(value[i] for i, p in zip(trace.ids, trace.parents, strict=True) if p == parent)
        assert children <= value[parent], "Plotly draws nothing where children outgrow their parent"
        assert math.isclose(children, value[parent], abs_tol=1e-6)
    assert len(set(trace.ids)) == len(trace.ids)


def test_tree_folds_small_codes_of_a_block_and_small_blocks_of_a_chapter(ranking, ontology):
    nodes = {node.key: node for node in figures.mass_tree(ranking, ontology, largest=2)}
    assert {node.label for node in nodes.values() if node.level == "code"} == {"428", "250"}
    others = nodes["ICD9:420-429 other codes"]
    assert (others.parent, round(others.share, 9), others.codes) == ("ICD9:420-429", 0.15, 1)
    blocks = nodes["ICD9:CH07 other blocks"]
    assert (blocks.parent, round(blocks.share, 9)) == ("ICD9:CH07", 0.10)
    assert round(nodes["ICD9:CH10"].share, 9) == 0.12
    top = [node.share for node in nodes.values() if not node.parent]
    assert math.isclose(sum(top), 1.0)


def test_tiny_chapters_join_others(ontology):
    shares = {"428": 0.994, "585": 0.003, "V45": 0.003}
    nodes = figures.mass_tree(ranking_of(shares), ontology, largest=1)
    other = nodes[-1]
    assert (other.label, other.level, other.parent, other.codes) == ("other chapters", "other", "", 2)
    assert math.isclose(other.share, 0.006)


def test_the_whole_code_set_stays_legible(ontology):
    codes = ontology.billable("ICD9")
    share = np.random.default_rng(0).dirichlet(np.full(len(codes), 0.05))
    nodes = figures.mass_tree(ranking_of(dict(zip(codes, share.tolist(), strict=True))), ontology, largest=40)
    assert sum(node.level == "code" for node in nodes) == 40
    assert len(nodes) < 300
    assert sum(node.codes for node in nodes if not node.parent) == 14_567
    assert math.isclose(sum(node.share for node in nodes if not node.parent), 1.0, abs_tol=1e-9)


def test_both_books_are_told_apart(ontology):
    shares = {Code("ICD9", "428"): 0.6, Code("ICD10", "I50"): 0.4}
    masses = figures.mass_by(ranking_of(shares), ontology, "chapter")
    assert [mass.label for mass in masses] == ["Circulatory (ICD-9-CM)", "Circulatory (ICD-10-CM)"]
    assert masses[0].field == masses[1].field == "circulatory"


def test_definitions_are_shown_as_they_stand():
    class Awkward(Ontology):
        def definition(self, code: Code) -> str:
            return "weight <500 g & less"

    book = Awkward()
    ranking = replace(ranking_of(SHARES), ontology=book)
    for figure in (figures.mass_treemap(ranking, book), figures.mass_bars(ranking, book, "code")):
        assert figure.data[0].customdata[0][0] == "weight &lt;500 g &amp; less"


def test_text_twin_and_sentence(ranking, ontology):
    frame = figures.mass_frame(figures.mass_by(ranking, ontology, "code"))
    assert list(frame["code"]) == ["428", "250", "427", "585", "410", "276", "V45"]
    assert math.isclose(frame["share"].sum(), 1.0)
    assert figures.describe(ranking, ontology) == (
        "Most of the ranking mass lies in Circulatory (60 %), Endocrine & metabolic (25 %), Genitourinary (12 %)."
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_two_chapters_of_a_book_share_a_field(system, ontology):
    chapters_of = [node for node in ontology.nodes(system) if node.level == 1]
    fields = {chapters.field_of(node.code): node.definition.lower() for node in chapters_of}
    assert len(fields) == len(chapters_of) == {"ICD9": 19, "ICD10": 22}[system]
    assert all(field in fields[field] for field in ("circulatory", "respiratory", "digestive", "genitourinary"))


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((chapters.luminance(one), chapters.luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("field", chapters.FIELDS)
def test_colours_stand_out_on_both_themes_and_carry_text(field):
    colour = chapters.FIELDS[field][1]
    assert _contrast(colour, WHITE) >= 3
    assert _contrast(colour, NEAR_BLACK) >= 3
    assert _contrast(colour, chapters.text_colour(colour)) >= 4.5

"""The numbers behind the why chart, the mirrored bars and the tables of differences."""

from __future__ import annotations

from mera_core.explain import Effect
from mera_core.figures.effects import (
    describe_effects,
    describe_masses,
    effect_bars,
    effect_frame,
    largest_effects,
    masses_frame,
    mirrored_masses,
)
from mera_core.figures.style import OTHER_COLOUR
from mera_core.icd import chapters
from mera_core.icd.ontology import Code
from mera_core.ranking.compare import field_masses
from tests.rankings import ranking_of

HEART, SUGAR = Code("ICD9", "428"), Code("ICD9", "250")
EFFECTS = [
    Effect(0, None, "", 12.0, 9),
    Effect(0, 0, HEART, 10.04, 8),
    Effect(1, None, "", -3.0, 3),
    Effect(1, 0, SUGAR, -3.26, 2),
    Effect(1, 1, "foo", 0.0, 3),
]
NAMES = ("History A", "History B")


def test_signed_bars_on_the_timeline(ontology):
    figure = effect_bars(EFFECTS, 3, Code("ICD9", "585"), ontology)
    bar = figure.data[0]
    assert list(bar.x) == [12.0, 10.04, -3.0, -3.26, 0.0]
    assert list(bar.y) == ["0/", "0/0", "1/", "1/0", "1/1"]
    assert list(bar.text) == ["+12.0", "+10.0", "−3.0", "−3.3", "0"]
    circulatory, endocrine = chapters.FIELDS["circulatory"][1], chapters.FIELDS["endocrine"][1]
    assert list(bar.marker.color) == [OTHER_COLOUR, circulatory, OTHER_COLOUR, endocrine, OTHER_COLOUR]
    assert [row[1] for row in bar.customdata][:3] == ["rank 3 becomes 9", "rank 3 becomes 8", "still rank 3"]
    low, high = figure.layout.xaxis.range
    assert low == -high
    assert high > 12
    assert figure.layout.yaxis.ticktext[0] == "<b>Visit 1, whole</b>"
    assert figure.layout.yaxis.ticktext[1].startswith("428  Heart failure")


def test_only_the_strongest_are_drawn_in_the_order_of_the_history(ontology):
    effects = [Effect(0, place, HEART, float(place % 7), 1) for place in range(50)]
    shown = largest_effects(effects, 7)
    assert [effect.place for effect in shown] == [6, 13, 20, 27, 34, 41, 48]
    assert len(effect_bars(effects, 1, HEART, ontology).data[0].x) == 30
    assert len(effect_frame(effects, 1, ontology)) == 50


def test_what_cannot_be_left_out_is_said(ontology):
    effects = [Effect(0, None, "", None, None), Effect(0, 0, HEART, None, None)]
    frame = effect_frame(effects, 1, ontology)
    assert list(frame["adds to the score"]) == ["–", "–"]
    assert set(frame["without it"]) == {"can't be left out: nothing to rank would remain"}
    assert list(effect_bars(effects, 1, HEART, ontology).data[0].x) == [0, 0]
    assert describe_effects(effects, ontology).startswith("No single code")


def test_the_table_and_the_words_hold_the_numbers_of_the_chart(ontology):
    frame = effect_frame(EFFECTS, 3, ontology)
    assert list(frame["visit"]) == [1, 1, 2, 2, 2]
    assert list(frame["adds to the score"]) == ["+12.0", "+10.0", "−3.0", "−3.3", "0"]
    assert (frame["entry"][1], frame["entry"][4]) == ("ICD-9-CM 428 Heart failure", "foo")
    said = describe_effects(EFFECTS, ontology)
    assert "428 of visit 1 (+10.0)" in said and "250 of visit 2 (−3.3)" in said


def test_chapters_mirrored():
    rows = field_masses(ranking_of({"428": 0.0, "250": 0.0}), ranking_of({"428": 0.0}))
    figure = mirrored_masses(rows, NAMES)
    left, right = figure.data
    assert list(left.x) == [-50, -50]
    assert list(right.x) == [100, 0]
    assert list(left.y) == list(right.y) == ["circulatory", "endocrine"]
    assert list(left.marker.color) == [chapters.FIELDS[field][1] for field in ("circulatory", "endocrine")]
    assert list(right.text) == ["100 %", "0 %"]
    assert figure.layout.xaxis.range == (-160, 160)
    frame = masses_frame(rows, NAMES)
    assert list(frame["History B"]) == ["100 %", "0 %"]
    assert list(frame["difference"]) == ["+50.0 points", "−50.0 points"]
    assert "Circulatory (50 % in History A, 100 % in History B)" in describe_masses(rows, NAMES)
    same = field_masses(*[ranking_of({"428": 0.0, "250": 1.0})] * 2)
    assert describe_masses(same, NAMES) == "The shares of all chapters are the same."


def test_names_are_shown_as_they_stand():
    rows = field_masses(ranking_of({"428": 0.0}), ranking_of({"428": 0.0}))
    assert mirrored_masses(rows, ("<b>x</b>", "B")).data[0].name == "&lt;b&gt;x&lt;/b&gt;"

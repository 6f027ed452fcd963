"""How well each chapter is remembered, from what a manifest says."""

from __future__ import annotations

import pytest

from mera_core.common.errors import InputError
from mera_core.figures.memory import chapter_memory, describe_memory, memory_bars, memory_frame

ROWS = [
    {"chapter": "ICD9:CH07", "name": "x", "codes": 200, "code_to_definition": 0.75, "definition_to_code": 1.0},
    {"chapter": "ICD9:CH03", "name": "y", "codes": 100, "code_to_definition": 0.9, "definition_to_code": 0.5},
]
MANIFEST = {"metrics": {"recall": {"chapters": ROWS}}}


def test_bars_are_percentages_with_the_worst_on_top():
    bar = memory_bars(chapter_memory(MANIFEST), "definition_to_code").data[0]
    assert list(bar.x) == [50.0, 100.0]
    assert list(bar.y) == ["ICD9:CH03", "ICD9:CH07"]
    assert list(bar.text) == ["50.0 %", "100.0 %"]


def test_words_and_table(ontology):
    memory = chapter_memory(MANIFEST)
    said = describe_memory(memory, "code_to_definition")
    assert "80.0 % of 300 codes" in said and "metabolic (90.0 %), least in Circulatory (75.0 %)" in said
    frame = memory_frame(memory, ontology)
    assert list(frame["code → definition"]) == ["75.0 %", "90.0 %"]
    assert frame["chapter"][0] == "ICD-9-CM Diseases Of The Circulatory System"


def test_a_manifest_without_such_figures_and_one_with_broken_ones():
    assert chapter_memory({}) == []
    assert chapter_memory({"metrics": {"recall": {}}}) == []
    for row in ({"chapter": "CH07"}, {**ROWS[0], "codes": "many"}, {**ROWS[0], "chapter": "ICD8:CH07"}, "x"):
        with pytest.raises(InputError, match="figures on memory can't be read"):
            chapter_memory({"metrics": {"recall": {"chapters": [row]}}})

"""The second bundled checkpoint, which has memorized ICD-10-CM and the equivalence maps and ranks nothing."""

from __future__ import annotations

import pytest

from mera_core import Engine
from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code, Ontology
from pages.shared.app import checkpoints
from training.memorize.recall_eval import codes_exact, definitions_exact

FOLDER = checkpoints.BUNDLED_FOLDER / "mera-icd10"
README = FOLDER.parents[1] / "README.md"
BOOK = Ontology.load()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(FOLDER)


def test_it_is_offered_behind_the_first():
    assert list(checkpoints.models())[:2] == ["mera-mini", "mera-icd10"]


def test_its_card_states_what_it_remembers_of_the_whole_book(engine):
    recall = engine.manifest["metrics"]["recall"]
    assert recall["codes"] == len(BOOK.billable("ICD10")) == 74_719
    shares = (("code_to_definition", "words"), ("definition_to_code", "codes"), ("equivalents", "right"))
    figures = [recall[kind][share] for kind, share in shares]
    assert min(figures) >= 0.99
    for page in (FOLDER / "README.md", README):
        text = page.read_text(encoding="utf-8")
        assert all(f"{100 * figure:.2f} %" in text for figure in figures), f"{page} tells other figures"


def test_its_figures_are_what_a_sample_of_the_book_gives(engine):
    """In both directions, by the weights as they are bundled."""
    recall, sample = engine.manifest["metrics"]["recall"], BOOK.billable("ICD10")[::374]
    words, _ = definitions_exact(engine.model, sample, BOOK, 0, with_undivided=False)
    back, _ = codes_exact(engine.model, sample, BOOK, 0)
    assert sum(words) / len(sample) == pytest.approx(recall["code_to_definition"]["words"], abs=0.015)
    assert sum(back) / len(sample) == pytest.approx(recall["definition_to_code"]["codes"], abs=0.01)


def test_it_names_the_equivalents_of_icd_9_codes(engine):
    asked = BOOK.billable("ICD9")[::1_000]
    answers = [engine.recall_equivalent(code) for code in asked if BOOK.equivalents(code, "ICD10")]
    assert sum(bool(answer.exact) for answer in answers) >= 0.9 * len(answers) > 8
    assert engine.recall_equivalent("428.0").answer == "I50.9"


def test_it_says_that_it_ranks_nothing(engine):
    history = Patient((Visit((Code("ICD10", "I10"),)), Visit((Code("ICD10", "I50.9"),))))
    with pytest.raises(InputError, match="rank"):
        engine.rank(history)

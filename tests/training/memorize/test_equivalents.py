"""The equivalence maps in stage 1: which questions are asked, that they are learned, measured and answered; and a checkpoint
that memorized only, published."""

from __future__ import annotations

import random

import pytest

import mera_core.__main__ as cli
from mera_core.checkpoint.folder import load_checkpoint, read_manifest
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.icd.ontology import Code, Ontology
from mera_core.model.prompts import EQUIVALENT, in_words, phrasings
from mera_core.model.recall import recall_equivalents
from pages.shared.app.checkpoints import CHECKPOINT_VARIABLE
from tests.pages.apps import open_page
from training.common.config import MemorizeConfig
from training.memorize import recall_eval as memory
from training.memorize import run as memorize
from training.memorize.questions import QuestionSampler, equivalents
from training.memorize.run import tokenizer_texts
from training.release import publish

BOOK = Ontology.load()
FAILURE, OLD_FAILURE = Code("ICD10", "I50.9"), Code("ICD9", "428.0")
FEW = tuple(
    Code("ICD10", code) for code in ("I50.9", "I10", "E11.9", "I48.91", "N17.9", "N18.9", "J18.9", "E78.5", "I25.2")
)
NODES = sorted({node for code in FEW for node in (code, *BOOK.ancestors(code))})


def shrink(patch: pytest.MonkeyPatch) -> None:
    """ICD-10-CM of nine codes and what stands above them."""
    nodes, billable, own = Ontology.nodes, Ontology.billable, set(NODES)
    patch.setattr(Ontology, "nodes", lambda self, system: tuple(n for n in nodes(self, system) if n.code in own))
    patch.setattr(Ontology, "billable", lambda self, system: FEW if system == "ICD10" else billable(self, system))


@pytest.fixture
def small_book(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stage-1 run that was asked for equivalents, long enough to know them."""
    config = MemorizeConfig(
        systems=("ICD10",), word_pieces=400, hidden_size=64, intermediate_size=128, layers=2, heads=2, epochs=120,
        batch_size=32, equivalents_share=1.0, hierarchy_share=0.3, sampled_negatives=16, save_every=0, learning_rate=0.004,
    )  # fmt: skip
    out = tmp_path_factory.mktemp("maps") / "icd10-small"
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        memorize.run(config, out)
    return out


def test_a_code_of_the_other_book_is_asked_for_what_the_maps_give_it_alone() -> None:
    asked = {question.code: question.answer for question in equivalents(BOOK, [FAILURE, Code("ICD10", "I10")])}
    assert asked[OLD_FAILURE] == FAILURE and asked[Code("ICD9", "401.9")] == Code("ICD10", "I10")
    assert all(answer in BOOK.equivalents(code, "ICD10") for code, answer in asked.items())
    assert equivalents(BOOK, [OLD_FAILURE])[0].code.system == "ICD10"
    assert BOOK.equivalents(OLD_FAILURE, "ICD9") == (OLD_FAILURE,)


def test_a_combination_is_no_equivalent() -> None:
    combined = [
        code
        for code in BOOK.billable("ICD9")
        if (rows := BOOK.maps_to(code, "ICD10")) and all(row.combination for row in rows)
    ]
    assert combined and all(BOOK.equivalents(code, "ICD10") == () for code in combined)


def test_without_the_setting_nothing_changes(small_book) -> None:
    """Runs from before the setting keep their settings, questions and tokenizers."""
    assert "equivalents_share" not in MemorizeConfig().to_dict()
    assert MemorizeConfig(equivalents_share=0.5).to_dict()["equivalents_share"] == 0.5
    book = {code: BOOK.definition(code) for code in NODES}
    assert not any("quivalent" in text for text in tokenizer_texts(book, ("ICD10",), BOOK))


def test_a_code_without_a_token_is_written_and_the_held_out_sentence_is_never_drawn(folder, small_book) -> None:
    model, _ = load_checkpoint(folder)
    sampler = QuestionSampler(model.vocabulary, BOOK, NODES, with_equivalents=True)
    question = next(question for question in sampler.equivalents if question.code == OLD_FAILURE)
    asked = {tuple(sampler.encode(question, random.Random(seed))[0]) for seed in range(99)}
    texts = {model.vocabulary.text(ids) for ids in asked}
    sentences = {
        phrase.replace("{}", in_words(OLD_FAILURE, BOOK.definition(OLD_FAILURE)))
        for phrase in phrasings(EQUIVALENT)[:-1]
    }
    assert texts == sentences
    assert sampler.encode(question, random.Random(1))[1] == [model.vocabulary.ids[FAILURE]]
    drawn = sampler.one_pass(random.Random(1), 0.0, 0.0, 0.5)
    assert sum(each.kind == EQUIVALENT for each in drawn) == len(sampler.equivalents) // 2


def test_the_maps_are_learned_measured_and_asked(folder, small_book) -> None:
    manifest = read_manifest(folder)
    assert manifest.knows_equivalents and manifest.systems == ("ICD10",)
    engine = Engine.load(folder)
    found = memory.measure(engine.model, engine.ontology, ("ICD10",), maps=True)
    assert found["equivalents"]["codes"] >= 12 and found["equivalents"]["right"] > 0.9
    assert "equivalents" in found["held_out_phrasing"]
    answer = engine.recall_equivalent("428.0", "ICD9")
    assert (answer.answer, answer.truth, answer.exact) == ("I50.9", "I50.9", True)
    asked = "Equivalent of ICD-9-CM 428.0, Congestive heart failure, unspecified:"
    assert answer.question == asked and len(answer.alternatives) == 5
    (best,) = recall_equivalents(engine.model, [in_words(OLD_FAILURE, BOOK.definition(OLD_FAILURE))], top=1)
    assert best[0][0] == FAILURE
    with pytest.raises(InputError, match="ask for its definition"):
        engine.recall_equivalent("I50.9", "ICD10")


def test_the_command_and_the_page_answer_for_a_code_of_the_other_book(folder, small_book, monkeypatch, capsys) -> None:
    assert cli.main(["recall", "428.0", "--system", "ICD9", "--checkpoint", str(folder), "--json"]) == 0
    assert '"answer": "I50.9"' in capsys.readouterr().out
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(folder))
    app = open_page("3_Recall.py", asked_code=OLD_FAILURE)
    assert not app.error and not app.exception
    assert "Which ICD-10-CM code stands for ICD-9-CM 428.0?" in [each.value for each in app.subheader]
    assert [each.value for each in app.success] == ["Right: the CMS equivalence maps give this code."]
    app = open_page("3_Recall.py", asked_code=FAILURE)
    assert "What does ICD-10-CM I50.9 mean?" in [each.value for each in app.subheader]


def test_a_checkpoint_without_the_maps_says_so(tiny_checkpoint) -> None:
    with pytest.raises(InputError, match="did not memorize the equivalence maps"):
        Engine.load(tiny_checkpoint).recall_equivalent("I50.9", "ICD10")


def test_a_run_that_memorized_only_is_published(folder, small_book, tmp_path, monkeypatch) -> None:
    out = tmp_path / "published"
    manifest = publish.run(folder, out)
    assert [path.name for path in tmp_path.iterdir()] == ["published"]
    recall = read_manifest(out).metrics["recall"]
    assert recall == manifest.metrics["recall"] and set(manifest.metrics) == {"recall"}
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card == publish.card(manifest) and "ranks nothing" in card
    for share in (recall["code_to_definition"]["words"], recall["equivalents"]["right"]):
        assert f"{100 * share:.2f} %" in card
    assert (out / "model.safetensors").stat().st_size < 0.6 * (folder / "model.safetensors").stat().st_size
    assert Engine.load(out).recall_equivalent(OLD_FAILURE).exact
    with pytest.raises(InputError, match="more than the 0 MB of a bundled checkpoint"):
        monkeypatch.setattr(publish, "LARGEST_WEIGHTS", 1)
        publish.run(folder, tmp_path / "large")


def test_a_run_that_ranks_needs_the_records_it_was_trained_on(tiny_checkpoint, tmp_path) -> None:
    with pytest.raises(InputError, match=r"name the records that it was trained on \(--data\)"):
        publish.run(tiny_checkpoint, tmp_path / "out")

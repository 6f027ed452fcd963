"""Stage 1's questions, batches and loss by hand; and that a pass or two of training teaches a few codes."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from mera_core.icd.ontology import Code, Ontology
from mera_core.model.prompts import CODE, DEFINITION, phrasings, question_ids
from tests.tiny import CODES, icd9, tiny_model, tiny_vocabulary
from training.common.config import MemorizeConfig
from training.memorize.loss import memorize_loss
from training.memorize.questions import IGNORE, Question, QuestionBatches, QuestionSampler, questions
from training.memorize.run import build

BOOK = Ontology.load()
NODES = sorted({node for code in CODES for node in (code, *BOOK.ancestors(code))})


def sampler(**kwargs) -> QuestionSampler:
    return QuestionSampler(tiny_vocabulary(NODES), BOOK, NODES, **kwargs)


def test_a_shared_definition_leads_back_to_billable_codes_only() -> None:
    heading, code = icd9("078.8", "078.89")
    assert BOOK.definition(heading) != BOOK.definition(code)
    alike = (node for node in BOOK.nodes("ICD9") if node.billable and BOOK.definition(node.parent) == node.definition)
    child = next(alike)
    _, backwards, _ = questions(BOOK, [child.parent, child.code, heading])
    assert [question.answer for question in backwards] == [child.code, heading]


def test_every_node_is_asked_for_its_definition_and_for_each_level_above_it() -> None:
    definitions, _, hierarchy = questions(BOOK, NODES)
    assert [question.code for question in definitions] == NODES
    asked = {question.kind: question.answer.code for question in hierarchy[Code("ICD9", "428.0")]}
    assert asked == {"chapter": "CH07", "block": "420-429", "category": "428"}
    assert Code("ICD9", "CH07") not in hierarchy  # a chapter has nothing above it


def test_a_pass_asks_every_definition_and_shares_of_the_rest() -> None:
    kinds = Counter(question.kind for question in sampler().one_pass(random.Random(0), 0.5, 2.0))
    backwards = len(questions(BOOK, NODES)[1])
    below = len(questions(BOOK, NODES)[2])
    assert kinds[DEFINITION] == len(NODES) and kinds[CODE] == backwards // 2
    assert sum(n for kind, n in kinds.items() if kind not in (DEFINITION, CODE)) == 2 * below


def test_the_held_out_phrasing_is_never_drawn() -> None:
    source, rng = sampler(), random.Random(0)
    for kind in (DEFINITION, CODE, "chapter"):
        answer = None if kind == DEFINITION else Code("ICD9", "428.0" if kind == CODE else "CH07")
        question = Question(kind, Code("ICD9", "428.0"), answer)
        drawn = {tuple(source.encode(question, rng)[0]) for _ in range(400)}
        subject = BOOK.definition(question.code) if kind == CODE else question.code
        ways = [tuple(question_ids(kind, subject, source.vocabulary, n)) for n in range(len(phrasings(kind)))]
        assert drawn == set(ways[:-1]) and ways[-1] not in drawn


def test_answers_a_definition_ends_with_eos_and_a_code_is_one_token() -> None:
    source, rng = sampler(), random.Random(0)
    code, chapter = Code("ICD9", "486"), Code("ICD9", "CH08")
    vocabulary = source.vocabulary
    _, answer = source.encode(Question(DEFINITION, code), rng)
    assert answer == [*vocabulary.words("Pneumonia, organism unspecified"), vocabulary.eos]
    assert source.encode(Question(CODE, code, code), rng)[1] == [vocabulary.ids[code]]
    assert source.encode(Question("chapter", code, chapter), rng)[1] == [vocabulary.ids[chapter]]


def test_labels_stand_where_the_answer_follows_and_nowhere_else() -> None:
    source = sampler()
    drawn = source.one_pass(random.Random(0), 1.0, 1.0)[:11]
    encoded = [source.encode(question, rng) for rng in [random.Random(7)] for question in drawn]
    parts = source.batch(drawn, random.Random(7))["questions"]
    assert sum(len(part["input_ids"]) for part in parts) == 11
    rows = {}
    for part in parts:
        for ids, labels in zip(part["input_ids"].tolist(), part["labels"].tolist(), strict=True):
            places = [i for i, label in enumerate(labels) if label != IGNORE]
            answer = [labels[i] for i in places]
            rows[tuple(ids[: places[0] + 1])] = answer
            assert places == list(range(places[0], places[0] + len(answer)))
            assert ids[places[0] + 1 : places[-1] + 1] == answer[:-1]  # the answer so far is input
            assert set(ids[places[-1] + 1 :]) <= {source.vocabulary.pad}
    assert rows == {tuple(asked): answer for asked, answer in encoded}


def test_step_i_is_a_matter_of_the_seed_and_i_alone() -> None:
    def data(seed: int = 1) -> QuestionBatches:
        return QuestionBatches(sampler(), MemorizeConfig(seed=seed, epochs=1.5, batch_size=16))

    one, other = data(), data()
    for i in (3, 0):
        for a, b in zip(one[i]["questions"], other[i]["questions"], strict=True):
            assert torch.equal(a["input_ids"], b["input_ids"]) and torch.equal(a["labels"], b["labels"])
    different = data(2)[0]["questions"][0]["input_ids"]
    assert different.shape != one[0]["questions"][0]["input_ids"].shape or not torch.equal(
        different, one[0]["questions"][0]["input_ids"]
    )
    size = len(sampler().one_pass(random.Random(0), 1.0, 1.0))
    assert len(one) == -(-size // 16) + -(-(size // 2) // 16)


def test_the_loss_is_the_mean_over_word_answers_plus_the_mean_over_code_answers() -> None:
    source = sampler()
    model = tiny_model((), source.vocabulary)
    vocabulary, rng = source.vocabulary, random.Random(1)
    drawn = source.one_pass(rng, 1.0, 1.0)[:24]
    batch, wide = (source.batch(drawn, random.Random(3), undivided) for undivided in (0, 500))
    parts = batch["questions"]
    words, codes = [], []
    asked = {int(i) for part in parts for i in part["input_ids"].flatten() if i > vocabulary.n_words}
    near = {c + step for c in asked for step in (-2, -1, 0, 1, 2)}
    rivals = [*range(vocabulary.n_words + 1), *(c for c in near if vocabulary.n_words < c < len(vocabulary))]
    with torch.inference_mode():
        for part in parts:
            for ids, labels in zip(part["input_ids"], part["labels"], strict=True):
                logits = model.backbone(ids[None]).logits[0, :, : len(vocabulary)]
                for place in (labels != IGNORE).nonzero().flatten().tolist():
                    target = int(labels[place])
                    loss = F.cross_entropy(logits[place][None], labels[place][None])
                    if target < vocabulary.n_words:
                        # words compete with words, EOV, the codes asked about in the batch and their neighbours
                        words.append(F.cross_entropy(logits[place][rivals][None], torch.tensor([rivals.index(target)])))
                    else:
                        codes.append(loss)
        expected = torch.stack(words).mean() + torch.stack(codes).mean()
        assert float(memorize_loss(model, batch)) == pytest.approx(float(expected), abs=1e-4)
        with_codes = float(memorize_loss(model, wide))
    assert with_codes > float(expected)  # further candidates can only take probability away


def test_rows_without_a_token_get_no_gradient_from_the_output_side() -> None:
    source = sampler()
    model = tiny_model((), source.vocabulary, tied=False)
    memorize_loss(model, source.batch(source.one_pass(random.Random(1), 1, 1)[:8], random.Random(3))).backward()
    gradient = model.backbone.get_output_embeddings().weight.grad
    assert gradient[len(source.vocabulary) :].abs().sum() == 0
    assert gradient[: source.vocabulary.n_words].abs().sum() > 0


def test_the_model_before_training_has_a_token_for_every_node_and_rows_as_configured() -> None:
    small = {"word_pieces": 400, "hidden_size": 32, "intermediate_size": 32, "layers": 1, "heads": 1}
    model, codes = build(MemorizeConfig(**small), BOOK)
    assert len(codes) == len(BOOK.nodes("ICD9")) == len(model.vocabulary.ids)
    weight = model.backbone.get_input_embeddings().weight
    assert weight.shape[0] % 64 == 0 and weight.shape[0] - len(model.vocabulary) < 64
    assert model.backbone.get_output_embeddings().weight is weight
    words = weight[: model.vocabulary.n_words].norm(dim=1).mean()
    rows = weight[list(model.vocabulary.ids.values())[:200]].norm(dim=1)
    assert rows.detach().numpy() == pytest.approx(float(words.detach()), rel=1e-4)

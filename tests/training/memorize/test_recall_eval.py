"""The measured share of the ICD code set is what real greedy decoding would give, on a model that knows half of it."""

from __future__ import annotations

import random

import pytest
import torch

from mera_core.icd.ontology import Code, Ontology
from mera_core.model.network import MeraModel
from mera_core.model.recall import recall_ancestors, recall_codes, recall_definitions
from tests.tiny import tiny_model, tiny_vocabulary
from training.memorize import recall_eval
from training.memorize.loss import memorize_loss
from training.memorize.questions import QuestionSampler
from training.memorize.recall_eval import codes_exact, definitions_exact, measure

BOOK = Ontology.load()
TWINS = [
    code for code in BOOK.billable("ICD9") if BOOK.definition(code).startswith("Suicide and self-inflicted injury by")
]


def shared(codes: list[Code]) -> list[Code]:
    """Those whose definition another of them has too."""
    texts = [BOOK.definition(code) for code in codes]
    return [code for code, text in zip(codes, texts, strict=True) if texts.count(text) > 1]


@pytest.fixture(scope="module")
def half_taught() -> tuple[MeraModel, list[Code]]:
    """A model that learned the first half of thirty codes in one phrasing, and was never asked the others."""
    pairs = sorted(shared(TWINS))[:4]
    single = [code for code in BOOK.billable("ICD9")[100:900:25] if len(BOOK.definition(code)) < 60][:26]
    codes = [*pairs[:2], *single, *pairs[2:]]
    vocabulary = tiny_vocabulary(sorted({node for code in codes for node in (code, *BOOK.ancestors(code))}))
    model = tiny_model((), vocabulary).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.2 if parameter.ndim == 2 else 1)
    source = QuestionSampler(vocabulary, BOOK, list(vocabulary.ids))
    source.used_phrasings = 1
    taught = set(codes[: len(codes) // 2]) | set(pairs)
    asked = [q for q in (*source.definitions, *source.backwards) if q.code in taught]
    asked += [q for code in taught for q in source.hierarchy[code]]
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=1e-2), random.Random(0)
    torch.manual_seed(0)
    for _ in range(90):
        loss = memorize_loss(model, source.batch(asked, rng, 64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), codes


def test_one_pass_decides_what_greedy_decoding_gives(half_taught) -> None:
    model, codes = half_taught
    decoded = [
        answer == BOOK.definition(code) for code, answer in zip(codes, recall_definitions(model, codes), strict=True)
    ]
    words, undivided = definitions_exact(model, codes, BOOK, 0, batch_size=7)
    assert words == decoded
    assert 8 <= sum(words) < len(codes) - 5, "both kinds of answer are needed to tell"
    assert all(word for word, any_token in zip(words, undivided, strict=True) if any_token)


def test_a_definitions_code_is_the_first_that_recall_gives(half_taught) -> None:
    model, codes = half_taught
    best = [answer[0][0] for answer in recall_codes(model, [BOOK.definition(code) for code in codes])]
    right = [BOOK.definition(one) == BOOK.definition(code) for one, code in zip(best, codes, strict=True)]
    over_codes, undivided = codes_exact(model, codes, BOOK, 0, batch_size=7)
    assert over_codes == right
    assert 8 <= sum(over_codes) < len(codes) - 5
    assert all(among for among, anywhere in zip(over_codes, undivided, strict=True) if anywhere)


def test_another_code_of_the_same_definition_is_right(half_taught) -> None:
    model, codes = half_taught
    twins = shared(codes)
    assert len(twins) == 4
    best = [answer[0][0] for answer in recall_codes(model, [BOOK.definition(code) for code in twins])]
    assert sum(one != code for one, code in zip(best, twins, strict=True)) == 2  # one answer for both of a pair
    assert codes_exact(model, twins, BOOK, 0)[0] == [True] * 4


def test_the_undivided_vocabulary_is_the_stricter_question(half_taught) -> None:
    model, codes = half_taught
    weight = model.backbone.get_output_embeddings().weight
    eov, before = model.vocabulary.eov, weight[model.vocabulary.eov].clone()
    words, _ = definitions_exact(model, codes, BOOK, 0)
    with torch.no_grad():
        weight[eov] = weight[: model.vocabulary.n_words].max(0).values * 500
        try:
            again, undivided = definitions_exact(model, codes, BOOK, 0)
        finally:
            weight[eov] = before
    assert again == words and sum(undivided) < sum(words)


def test_the_measure_holds_the_shares_by_chapter_and_level(half_taught, monkeypatch) -> None:
    model, codes = half_taught
    monkeypatch.setattr(Ontology, "billable", lambda self, system: tuple(codes))
    result = measure(model, BOOK, ("ICD9",))
    words, _ = definitions_exact(model, codes, BOOK, 0)
    back, _ = codes_exact(model, codes, BOOK, 0)
    assert result["codes"] == len(codes)
    assert result["code_to_definition"]["words"] == sum(words) / len(codes)
    assert result["definition_to_code"]["codes"] == sum(back) / len(codes)
    counted = {row["chapter"]: row["codes"] for row in result["chapters"]}
    assert sum(counted.values()) == len(codes) and counted["ICD9:CH19"] == 4
    right = sum(row["codes"] * row["code_to_definition"] for row in result["chapters"])
    assert right == pytest.approx(sum(words))
    wrong = [str(code) for code, a, b in zip(codes, words, back, strict=True) if not (a and b)]
    assert result["not_exact"] == wrong
    named = [recall_ancestors(model, [code], "chapter", top=1)[0][0][0] == BOOK.chapter(code) for code in codes]
    assert result["hierarchy"]["chapter"] == sum(named) / len(codes) > 0.3
    assert set(result["hierarchy"]) == {"chapter", "block", "category"}
    assert 0 <= result["held_out_phrasing"]["code_to_definition"] < result["code_to_definition"]["words"]


def test_however_many_codes_there_are_few_logits_are_held_at_a_time(half_taught, monkeypatch) -> None:
    model, codes = half_taught
    before = definitions_exact(model, codes, BOOK, 0), codes_exact(model, codes, BOOK, 0)
    most = 5 * len(model.vocabulary)
    held, logits = [], MeraModel.logits

    def noted(self, states, tokens):
        found = logits(self, states, tokens)
        held.append(found.numel())
        return found

    monkeypatch.setattr(MeraModel, "logits", noted)
    monkeypatch.setattr(recall_eval, "LOGITS_AT_ONCE", most)
    assert (definitions_exact(model, codes, BOOK, 0), codes_exact(model, codes, BOOK, 0)) == before
    assert len(held) > 20 and 0.8 * most < max(held) <= most

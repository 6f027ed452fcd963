"""The model's memory: shares over the whole code list, greedy words, and answers that do not depend on company."""

from __future__ import annotations

import pytest
import torch

from mera_core.icd.ontology import Code
from mera_core.model import recall
from mera_core.model.prompts import CODE, DEFINITION, PHRASINGS, phrasings, question_ids
from mera_core.model.recall import last_states, recall_codes, recall_definitions
from tests.tiny import CODES, tiny_model


def test_last_states_keep_the_order_of_the_questions() -> None:
    model = tiny_model()
    sequences = [[1, *range(3, 3 + n)] for n in (5, 1, 9, 3, 7)]
    with torch.inference_mode():
        together = last_states(model, sequences, batch_size=2)
        for state, sequence in zip(together, sequences, strict=True):
            alone = model.hidden(torch.tensor([sequence]))[0, -1]
            assert torch.allclose(state, alone, atol=1e-5)


def test_shares_are_a_softmax_over_every_code_and_no_word() -> None:
    model = tiny_model()
    (answer,) = recall_codes(model, ["Pneumonia"], top=99)
    assert sorted(code for code, _ in answer) == sorted(CODES)
    shares = [share for _, share in answer]
    assert sum(shares) == pytest.approx(1, abs=1e-5) and shares == sorted(shares, reverse=True)
    with torch.inference_mode():
        state = model.hidden(torch.tensor([question_ids(CODE, "Pneumonia", model.vocabulary)]))[0, -1]
        logits = model.backbone.get_output_embeddings().weight @ state
    ids = [model.vocabulary.ids[code] for code, _ in answer]
    assert torch.allclose(torch.tensor(shares), logits[ids].softmax(0), atol=1e-5)


def test_a_definition_is_decoded_greedily_over_words_alone(monkeypatch) -> None:
    monkeypatch.setattr(recall, "LONGEST_ANSWER", 20)
    model = tiny_model()
    vocabulary = model.vocabulary
    # code rows and EOV that would win every argmax, were they let in
    with torch.no_grad():
        model.backbone.get_output_embeddings().weight[vocabulary.n_words : len(vocabulary)] *= 30
    answers = recall_definitions(model, CODES[:2])
    for code, answer in zip(CODES[:2], answers, strict=True):
        ids, given = question_ids(DEFINITION, code, vocabulary), []
        for _ in range(20):  # without a cache, one step at a time
            with torch.inference_mode():
                state = model.hidden(torch.tensor([[*ids, *given]]))[0, -1]
                logits = model.backbone.get_output_embeddings().weight[: vocabulary.n_words] @ state
            token = int(logits.argmax())
            if token == vocabulary.eos:
                break
            given.append(token)
        assert answer == vocabulary.text(given)
        assert "ICD9_" not in answer


def test_answers_do_not_depend_on_what_else_is_asked(monkeypatch) -> None:
    monkeypatch.setattr(recall, "LONGEST_ANSWER", 20)
    model = tiny_model(seed=3)
    together = recall_definitions(model, CODES[:4])
    assert together == [recall_definitions(model, [code])[0] for code in CODES[:4]]
    assert len(set(together)) > 1
    asked = ["Pneumonia", "Heart failure, unspecified and something long"]
    codes = recall_codes(model, asked, top=3)
    alone = [recall_codes(model, [text], top=3)[0] for text in asked]
    assert [[code for code, _ in row] for row in codes] == [[code for code, _ in row] for row in alone]


def test_every_phrasing_names_its_subject_once() -> None:
    for kind, phrases in PHRASINGS.items():
        assert len(set(phrases)) == len(phrases) > 2
        assert all(phrase.count("{}") == 1 for phrase in phrases), kind
    assert all("{level}" in phrase for phrase in PHRASINGS["ancestor"])
    assert all("block" in phrase and "{level}" not in phrase for phrase in phrasings("block"))


def test_a_question_about_a_code_holds_its_token_among_words() -> None:
    model = tiny_model()
    vocabulary, code = model.vocabulary, Code("ICD9", "428.0")
    expected = [vocabulary.bos, *vocabulary.words("Define"), vocabulary.ids[code], *vocabulary.words(":")]
    assert question_ids(DEFINITION, code, vocabulary) == expected
    by_words = question_ids(CODE, "Pneumonia", vocabulary)
    assert by_words == [vocabulary.bos, *vocabulary.words("Code for Pneumonia:")]

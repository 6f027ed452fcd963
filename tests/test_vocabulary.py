"""One token a code, EOV between words and codes, and text that comes back as it was."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mera_core.errors import InputError
from mera_core.ontology import Code
from mera_core.vocabulary import END_OF_VISIT, Vocabulary, code_of, token_of
from tests.tiny import CODES, _tokenizer, tiny_vocabulary


def test_a_code_is_one_token_that_leads_back_to_it() -> None:
    vocabulary = tiny_vocabulary()
    assert len(vocabulary.ids) == len(CODES) == 10
    for code in CODES:
        assert vocabulary.words(token_of(code)) == [vocabulary.ids[code]]
        assert vocabulary.code_at[vocabulary.ids[code]] == code
        assert code_of(token_of(code)) == code


def test_the_same_text_of_two_systems_is_two_tokens() -> None:
    pair = (Code("ICD9", "E80.21"), Code("ICD10", "E80.21"))
    vocabulary = tiny_vocabulary(pair)
    assert vocabulary.ids[pair[0]] != vocabulary.ids[pair[1]]
    assert [token_of(code) for code in pair] == ["ICD9_E80.21", "ICD10_E80.21"]


@pytest.mark.parametrize("word", ["heart", "ICD9", "ICD11_428.0", "_428.0", END_OF_VISIT])
def test_a_word_stands_for_no_code(word: str) -> None:
    assert code_of(word) is None


def test_words_then_eov_then_codes() -> None:
    vocabulary = tiny_vocabulary()
    assert vocabulary.eov == vocabulary.n_words == len(_tokenizer())
    assert list(vocabulary.ids.values()) == list(range(vocabulary.eov + 1, vocabulary.eov + 11))
    assert len(vocabulary) == vocabulary.eov + 11
    assert CODES[0] in vocabulary and Code("ICD9", "999.9") not in vocabulary


def test_codes_keep_the_order_in_which_they_were_added() -> None:
    backwards = tuple(reversed(CODES))
    assert tuple(tiny_vocabulary(backwards).ids) == backwards


def test_skipping_special_tokens_drops_no_code() -> None:
    vocabulary = tiny_vocabulary()
    text = vocabulary.tokenizer.decode([vocabulary.ids[CODES[0]], vocabulary.eov], skip_special_tokens=True)
    assert token_of(CODES[0]) in text and END_OF_VISIT in text


def test_a_tokenizer_without_eov_is_refused() -> None:
    with pytest.raises(InputError, match="has no <end_of_visit> token"):
        Vocabulary(_tokenizer())


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40))
@example("naïve 漢字 🙂 “quoted”")
@example("two  blanks and a\u00a0hard one")
@example("a literal ▁ stays? No: it is the tokenizer's own blank".replace("▁", "_"))
def test_text_in_any_script_comes_back_unchanged(text: str) -> None:
    if "▁" in text or token_like(text):
        return  # the tokenizer's own sign for a blank, and the code tokens themselves
    vocabulary = tiny_vocabulary_once()
    ids = vocabulary.words(text)
    assert all(id_ < vocabulary.n_words for id_ in ids)
    assert vocabulary.text(ids) == text.strip()


def token_like(text: str) -> bool:
    return any(sign in text for sign in ("ICD", "<", ">"))


_ONCE: list[Vocabulary] = []


def tiny_vocabulary_once() -> Vocabulary:
    if not _ONCE:
        _ONCE.append(tiny_vocabulary())
    return _ONCE[0]


def test_every_sequence_starts_with_bos_where_the_backbone_has_one() -> None:
    vocabulary = tiny_vocabulary()
    assert vocabulary.prefix() == [vocabulary.tokenizer.bos_token_id]
    vocabulary.bos = None
    assert vocabulary.prefix() == []


def test_words_are_the_same_from_eight_threads_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    vocabulary = tiny_vocabulary()
    texts = [f"Patient: female, age {n}0s, chronic pneumonia {n}" for n in range(200)]
    alone = [vocabulary.words(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(vocabulary.words, texts)) == alone

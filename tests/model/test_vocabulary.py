"""One token a code, EOV between words and codes, and text that comes back as it was."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast

from mera_core.checkpoint.folder import load_vocabulary
from mera_core.common.errors import InputError
from mera_core.engine import BUNDLED
from mera_core.icd.ontology import Code
from mera_core.model.vocabulary import END_OF_VISIT, Vocabulary, code_of, token_of
from tests.tiny import CODES, _tokenizer, tiny_vocabulary


def test_a_code_is_one_token_that_leads_back_to_it() -> None:
    vocabulary = tiny_vocabulary()
    assert len(vocabulary.ids) == len(CODES) == 10
    for code in CODES:
        assert vocabulary.tokenizer.encode(token_of(code), add_special_tokens=False) == [vocabulary.ids[code]]
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
@example("ICD9_428.0 <end_of_visit> </s> <s><unk> <0x41>")
def test_text_in_any_script_comes_back_unchanged(text: str) -> None:
    if "▁" in text:
        return  # the tokenizer's own sign for a blank
    vocabulary = tiny_vocabulary_once()
    ids = vocabulary.words(text)
    assert all(id_ < vocabulary.n_words for id_ in ids)
    assert not set(ids) & set(vocabulary.tokenizer.all_special_ids)
    assert vocabulary.text(ids) == text.strip()


@pytest.mark.parametrize("kind", ["sentencepiece", "padded", "bytes"])
def test_text_that_spells_a_token_is_words_in_every_kind_of_tokenizer(kind: str) -> None:
    from tests.training.families import tokenizer_of

    vocabulary = Vocabulary.extend(copy.deepcopy(tokenizer_of(kind)), CODES)
    spelled = [*map(token_of, CODES), END_OF_VISIT, *vocabulary.tokenizer.all_special_tokens]
    text = f"a {' '.join(spelled)} b"
    ids = vocabulary.words(text)
    assert max(ids) < vocabulary.n_words and not set(ids) & set(vocabulary.tokenizer.all_special_ids)
    assert vocabulary.text(ids) == text


def test_plain_words_are_what_the_whole_tokenizer_makes_of_them(ontology) -> None:
    vocabulary = load_vocabulary(BUNDLED)
    for node in ontology.nodes("ICD9"):
        whole = vocabulary.tokenizer.backend_tokenizer.encode(node.definition, add_special_tokens=False)
        assert vocabulary.words(node.definition) == whole.ids


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


# --- from a checkpoint folder


def same_tokenizer(folder: Path, texts: list[str]) -> None:
    """`load_vocabulary` gives what `from_pretrained` gives: settings, special tokens, and the tokens of `texts` and back."""
    ours, theirs = load_vocabulary(folder).tokenizer, PreTrainedTokenizerFast.from_pretrained(folder)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert len(ours) == len(theirs) and ours.get_added_vocab() == theirs.get_added_vocab()
    assert ours.special_tokens_map == theirs.special_tokens_map and ours.all_special_ids == theirs.all_special_ids
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "padding_side", "model_max_length"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.clean_up_tokenization_spaces == theirs.clean_up_tokenization_spaces
    for text in texts:
        ids = theirs(text).input_ids
        assert ours(text).input_ids == ids
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    every = list(range(len(theirs)))
    assert ours.convert_ids_to_tokens(every) == theirs.convert_ids_to_tokens(every)


def test_the_bundled_tokenizer_loads_as_transformers_loads_it_for_every_code_and_definition(ontology) -> None:
    nodes = ontology.nodes("ICD9")
    texts = [f"{token_of(node.code)} means {node.definition}" for node in nodes]
    same_tokenizer(BUNDLED, [*texts, "Patient: female, naïve 漢字 🙂 </s> <s> x"])


@pytest.mark.parametrize("kind", ["sentencepiece", "padded", "bytes"])
def test_any_tokenizer_loads_as_transformers_loads_it(kind: str, tmp_path: Path) -> None:
    from tests.training.families import tokenizer_of

    tokenizer = copy.deepcopy(tokenizer_of(kind))
    tokenizer.add_special_tokens({"extra_special_tokens": ["<extra_id_0>", AddedToken("<extra_id_1>", lstrip=True)]})
    vocabulary = Vocabulary.extend(tokenizer, CODES)
    assert len(vocabulary) == len(tokenizer) and vocabulary.n_words == vocabulary.eov
    vocabulary.tokenizer.save_pretrained(tmp_path)
    same_tokenizer(tmp_path, ["Heart failure, 428.0", "a <extra_id_0> b  <extra_id_1>ICD9_428.0 naïve 漢字 🙂"])
    assert load_vocabulary(tmp_path).ids == vocabulary.ids


def test_unused_ids_among_the_words_do_not_hide_the_last_codes() -> None:
    backend = Tokenizer(models.WordLevel({"</s>": 0, "heart": 1, "failure": 7}, unk_token="</s>"))
    vocabulary = Vocabulary.extend(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>"), CODES)
    assert len(vocabulary) == max(vocabulary.code_at) + 1

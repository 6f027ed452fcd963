"""Untrained models of the real code, 32 wide, over a handful of codes: built in a second, random but fixed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mera_core.checkpoint.folder import Manifest
from mera_core.engine import Engine
from mera_core.icd.ontology import Code, Ontology
from mera_core.model.network import MeraModel
from mera_core.model.sequence import SequenceConfig
from mera_core.model.vocabulary import Vocabulary
from training.common.backbone import padded_rows, word_tokenizer


def icd9(*codes: str) -> tuple[Code, ...]:
    return tuple(Code("ICD9", code) for code in codes)


CODES = tuple(sorted(icd9("428.0", "427.31", "401.9", "250.00", "584.9", "585.9", "486", "491.21", "272.4", "V45.81")))


@lru_cache(maxsize=1)
def _tokenizer():
    book = Ontology.load()
    words = [book.definition(node.code) for node in book.nodes("ICD9")[:300]]
    profile = "Patient: female, male, ethnicity unknown. age 70s Diagnosis codes for the visit: Define Code for"
    return word_tokenizer([*words, *[profile] * 20], 400)


def tiny_vocabulary(codes: Sequence[Code] = CODES) -> Vocabulary:
    """Words of 300 definitions, EOV, and a token for each of `codes`."""
    return Vocabulary.extend(copy.deepcopy(_tokenizer()), codes)


def tiny_model(
    labels: Sequence[Code] = CODES,
    vocabulary: Vocabulary | None = None,
    hidden_size: int = 32,
    tied: bool = True,
    copy: bool = True,
    seed: int = 0,
) -> MeraModel:
    """A LLaMA of one layer with random weights of unit size, a few padding rows, and a score head that is not all zero."""
    vocabulary = vocabulary or tiny_vocabulary()
    torch.manual_seed(seed)
    backbone = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=padded_rows(vocabulary.rows),
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=tied,
            initializer_range=0.3,
            bos_token_id=vocabulary.bos,
            eos_token_id=vocabulary.eos,
            pad_token_id=vocabulary.pad,
        )
    )
    model = MeraModel(backbone, vocabulary, labels, copy)
    if model.head is not None:
        with torch.no_grad():
            for parameter in model.head.parameters():
                parameter.normal_()
    return model.eval()


def tiny_manifest(labels: Sequence[Code] = CODES, **values) -> Manifest:
    """The manifest of a `tiny_model` that reads what it ranks."""
    defaults = {
        "name": "tiny",
        "stage": "rank" if labels else "memorize",
        "systems": ("ICD9",),
        "icd_release": {"ICD9": "ICD-9-CM version 32 (FY2015)"},
        "sequence": SequenceConfig(max_tokens=256),
        "label_space": tuple(labels),
        "label_level": "a handful of codes",
        "input_codes": tuple(labels),
    }
    return Manifest(**(defaults | values))


def tiny_engine(model: MeraModel | None = None, **values) -> Engine:
    """An engine over `tiny_model`, without a folder."""
    model = model or tiny_model()
    return Engine(model, tiny_manifest(model.labels, copy=model.head.copy, **values), Ontology.load())

"""Backbones of the real architectures, tiny and random, each saved as a folder with a tokenizer of its own kind."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)

from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code, Ontology
from mera_core.model.network import MeraModel
from tests.conftest import COURSES
from training.common.backbone import word_tokenizer
from training.memorize.loss import memorize_loss
from training.memorize.questions import QuestionSampler

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}
T5_SIZES = {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
# name: (model type, tokenizer, settings); what is tied and what is not, as in the published models
FAMILIES = {
    "llama": ("llama", "sentencepiece", SIZES | {"tie_word_embeddings": False}),
    "mistral": ("mistral", "sentencepiece", SIZES | {"tie_word_embeddings": False, "sliding_window": 64}),
    "qwen2": ("qwen2", "bytes", SIZES | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", "bytes", SIZES | {"tie_word_embeddings": False}),
    "gemma": ("gemma", "sentencepiece", SIZES | {"tie_word_embeddings": True}),
    "gemma2": ("gemma2", "sentencepiece", SIZES | {"query_pre_attn_scalar": 16, "final_logit_softcapping": 5.0}),
    "t5": ("t5", "padded", T5_SIZES | {"tie_word_embeddings": True}),
    "flan-t5": ("t5", "padded", T5_SIZES | {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}),
}


PATIENTS = [
    Patient([Visit(["428.0", "427.31", "401.9"], age=70), Visit(["428.0", "584.9"], age=71)], sex="F", age=71),
    Patient([Visit(["491.21"], age=60)], sex="M", age=60),
]


@lru_cache(maxsize=1)
def small_book() -> dict[Code, str]:
    """The codes of the invented patients and all that stands above them, with their definitions: a hundred nodes."""
    ontology = Ontology.load()
    leaves = [Code("ICD9", code) for course in COURSES for visit in course for code in visit]
    leaves += [Code("ICD9", code) for code in ("599.0", "276.1", "V45.81")]
    nodes = sorted({node for leaf in leaves for node in (leaf, *ontology.ancestors(leaf))})
    return {node: ontology.definition(node) for node in nodes}


def texts() -> list[str]:
    """What a tokenizer is fitted on."""
    profile = "Patient: female, male. age 70s Diagnosis codes for the visit: Define the code for, which is, means"
    return [*small_book().values(), *[profile] * 20]


@lru_cache(maxsize=3)
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """sentencepiece: unigram pieces and BOS; padded: the same with a padding token, no BOS; bytes: byte-level BPE, no BOS."""
    if kind == "bytes":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        backend.train_from_iterator(
            texts(),
            trainers.BpeTrainer(vocab_size=500, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet),
        )
        return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    tokenizer = word_tokenizer(texts(), 400)
    if kind == "padded":
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer, unk_token="<unk>", pad_token="<unk>", eos_token="</s>"
        )
    return tokenizer


def write_backbone(folder: Path, family: str, seed: int = 0) -> Path:
    """A folder as a publisher of models makes it: random weights, configuration, tokenizer."""
    kind, tokenizer_kind, settings = FAMILIES[family]
    tokenizer = tokenizer_of(tokenizer_kind)
    rows = len(tokenizer) + 9  # more rows than tokens, as many published models have
    config = AutoConfig.for_model(kind, vocab_size=rows, eos_token_id=tokenizer.eos_token_id, **settings)
    config.bos_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
    torch.manual_seed(seed)
    model = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_config(config)
    if family == "flan-t5":  # two tables, though transformers ties every new T5
        model.lm_head.weight = torch.nn.Parameter(torch.randn(rows, 64) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loss_of(model: MeraModel, count: int = 64, undivided: int = 32) -> torch.Tensor:
    """The stage-1 loss of so many questions, always the same."""
    sampler = QuestionSampler(
        model.vocabulary, Ontology.load(), list(model.vocabulary.ids), decoder_start=model.decoder_start
    )
    drawn = sampler.one_pass(random.Random(1), 1, 1)[:count]
    return memorize_loss(model, sampler.batch(drawn, random.Random(2), undivided))


def fixed_loss(model: MeraModel) -> float:
    """`loss_of` as a number."""
    with torch.inference_mode():
        return float(loss_of(model))

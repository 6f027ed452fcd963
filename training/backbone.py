"""Where a run's language model comes from: a Hugging Face folder or name, or a small LLaMA built from scratch."""

from __future__ import annotations

import io
from collections.abc import Iterable

import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from training.config import MemorizeConfig

PAD_ROWS_TO = 64


def word_tokenizer(texts: Iterable[str], pieces: int) -> PreTrainedTokenizerFast:
    """A SentencePiece (unigram) tokenizer fitted on `texts`, as a fast tokenizer that gives back any text unchanged."""
    model = io.BytesIO()
    texts = list(texts)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=pieces,
        hard_vocab_limit=False,
        model_type="unigram",
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    scored = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=processor.unk_id(), byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def small_llama(config: MemorizeConfig, n_rows: int, tokenizer) -> LlamaForCausalLM:
    """A LLaMA-architecture model with tied embeddings, random weights, `n_rows` embedding rows."""
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=n_rows,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.max_tokens,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    )


def padded_rows(n_tokens: int) -> int:
    """Embedding rows for `n_tokens`: the next multiple of 64. The rows beyond have no token and are never scored."""
    return -(-n_tokens // PAD_ROWS_TO) * PAD_ROWS_TO


def load_backbone(name: str):
    """A pretrained causal model and its tokenizer, from a local folder or by Hugging Face name; never remote code."""
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=False, use_safetensors=True)
    return model, tokenizer

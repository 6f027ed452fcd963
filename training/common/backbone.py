"""Where a run's language model comes from: a Hugging Face folder or name, or a small LLaMA built from scratch.

Whatever it is, it comes with its tokenizer, with room for the codes, and with logits that `MeraModel` can compute.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from mera_core.common.errors import InputError
from mera_core.model.network import MeraModel
from mera_core.model.precision import nf4
from training.common.config import MemorizeConfig

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


def weight_dtype(precision: str) -> torch.dtype:
    """The number format of the backbone's weights in a run with that setting."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def architecture(name: str) -> PreTrainedConfig:
    """The configuration of a model in a local folder, or of that Hugging Face name among what was downloaded before."""
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"There is no language model {name}: it is neither a folder with a model nor the name of one that was "
            f"downloaded ({str(error).splitlines()[0]})."
        ) from error


def load_backbone(name: str, dtype: torch.dtype = torch.float32, quantize: bool = False) -> tuple[Any, Any]:
    """A pretrained language model (see `load_weights`) and its tokenizer, to which codes can be added."""
    model = load_weights(name, dtype, quantize)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"The tokenizer of {name} can't be loaded: {str(error).splitlines()[0]}.") from error
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise InputError(f"The tokenizer of {name} has no fast form or no end-of-sequence token, which training needs.")
    return model, tokenizer


def load_weights(name: str, dtype: torch.dtype | str = torch.float32, quantize: bool = False) -> Any:
    """A pretrained language model, from a local folder or by Hugging Face name; safetensors only, never remote code.

    Args:
        dtype: precision of the weights, and of the arithmetic with quantized ones; "auto" is that of the files.
        quantize: keep the matrices of the body in 4 bits (NF4), frozen.

    Raises:
        InputError: there is no such model, or it lacks weights.
    """
    kind = AutoModelForSeq2SeqLM if architecture(name).is_encoder_decoder else AutoModelForCausalLM
    options: dict[str, Any] = {"quantization_config": nf4(dtype)} if quantize else {}
    if torch.cuda.is_available():
        options["device_map"] = {"": torch.cuda.current_device()}
    transformers_logging.disable_progress_bar()
    try:
        model, found = kind.from_pretrained(
            name, dtype=dtype, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError) as error:
        raise InputError(f"The language model {name} can't be loaded: {str(error).splitlines()[0]}.") from error
    if found["missing_keys"]:  # they would be drawn at random
        raise InputError(f"The language model {name} lacks the weights {sorted(found['missing_keys'])[0]}.")
    _note_ties(model)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # on a CPU bitsandbytes packs weights at the first look in eval mode into a form that has no gradient
            module.support_avx512bf16_for_cpu = False
    return model


def _note_ties(model) -> None:
    """Let the model say that its output table is tied only where it is.

    Flan-T5's configuration says that its two tables are one, which transformers and peft would make true.
    """
    table = model.get_output_embeddings().weight
    if table is not model.get_input_embeddings().weight:
        apart = {name for name, p in model.named_parameters(remove_duplicate=False) if p is table}
        model._tied_weights_keys = {k: v for k, v in (model._tied_weights_keys or {}).items() if k not in apart}


def add_rows(backbone, rows: int) -> None:
    """Enlarge the embedding tables to `rows` where they are smaller; see `set_rows`."""
    if backbone.get_input_embeddings().weight.shape[0] < rows:
        set_rows(backbone, rows)


def set_rows(backbone, rows: int) -> None:
    """Make the embedding tables `rows` long; new rows are random at the word rows' own scale.

    `start_code_rows` puts better ones in their place.
    """
    tables = [backbone.get_input_embeddings().weight, backbone.get_output_embeddings().weight]
    before, scales = len(tables[0]), [float(table.detach().float().std()) for table in tables]
    backbone.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        for module, scale in (
            (backbone.get_output_embeddings(), scales[1]),
            (backbone.get_input_embeddings(), scales[0]),
        ):
            module.weight[before:].normal_(0, scale)


@torch.inference_mode()
def check_logits(model: MeraModel) -> None:
    """Refuse an architecture whose logits are not what `MeraModel.logits` makes of its states (a scale that it applies).

    Three tokens are enough to see it: the comparison is with the architecture's own forward pass.
    """
    ids = torch.arange(3, 6, device=model.device)[None]
    if model.encoder_decoder:
        start = torch.full((1, 1), model.decoder_start, device=model.device)
        expected = model.backbone(input_ids=ids, decoder_input_ids=start).logits[0, -1]
    else:
        expected = model.backbone(input_ids=ids).logits[0, -1]
    found = model.logits(model.hidden(ids)[0, -1], slice(None))
    if not torch.allclose(found.float(), expected.float(), rtol=0.05, atol=0.02 * float(expected.abs().max())):
        raise InputError(
            f"{type(model.backbone).__name__} changes its logits in a way that is not known here, so it can't be trained."
        )

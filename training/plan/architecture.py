"""An architecture without its weights: how many numbers it has, and what autograd keeps of a forward pass. Trains nothing.

Models are built on tensors that have a shape and no storage, so that 7 billion parameters take no memory.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig, PreTrainedConfig

from mera_core.common.errors import InputError
from training.common.backbone import architecture
from training.common.config import MemorizeConfig

KNOWN = Path(__file__).parent.parent / "configs" / "architectures.yaml"


@dataclass(frozen=True)
class Architecture:
    """A model's configuration; two of one name are the same. words: embedding rows before codes are added."""

    name: str
    config: PreTrainedConfig = field(compare=False)

    @property
    def words(self) -> int:
        return self.config.get_text_config().vocab_size

    @property
    def two_tables(self) -> bool:
        """Whether the output table is another one than the input's, as Flan-T5's is though its class ties it."""
        config = self.config.get_text_config()
        return not config.tie_word_embeddings or getattr(config, "scale_decoder_outputs", True) is False

    @classmethod
    def find(cls, name: str) -> Architecture:
        """A model in a folder, one that was downloaded before, or one of `configs/architectures.yaml`.

        Raises InputError where the name is none of these.
        """
        known = yaml.safe_load(KNOWN.read_text(encoding="utf-8"))
        if not Path(name).is_dir() and name in known:
            values = dict(known[name])
            return cls(name, AutoConfig.for_model(values.pop("model_type"), **values))
        try:
            return cls(name, architecture(name))
        except InputError as error:
            raise InputError(f"{error} Shapes are also known of {', '.join(known)}.") from error

    @classmethod
    def small(cls, config: MemorizeConfig) -> Architecture:
        """The small LLaMA that is trained from scratch."""
        sizes = (config.hidden_size, config.intermediate_size, config.layers, config.heads)
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        more: dict = {"vocab_size": config.word_pieces, "max_position_embeddings": config.max_tokens}
        llama = LlamaConfig(**more | dict(zip(names, sizes, strict=True)), tie_word_embeddings=True)
        return cls(f"scratch {' '.join(map(str, sizes))} {config.word_pieces}", llama)

    def build(self, layers: int | None = None, dtype: torch.dtype = torch.float32) -> Any:
        """The model, with fewer layers where that is asked for. Call it under `FakeTensorMode` or on the meta device."""
        config = copy.deepcopy(self.config)
        if layers is not None:
            text = config.get_text_config()
            text.num_hidden_layers = layers
            if config.is_encoder_decoder:
                config.num_decoder_layers = layers
            if getattr(text, "layer_types", None):
                text.layer_types = text.layer_types[:layers]
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        return kind.from_config(config, dtype=dtype)


@dataclass(frozen=True)
class Shape:
    """Counted sizes of a backbone. words: embedding rows as published; rows: with those for codes, and padding.

    body: numbers outside the tables. matrices: those in its matrices, which 4 bits and adapters are about. ends: inputs and
    outputs of all matrices together. width, tables: of an embedding row, and how many tables hold one.
    """

    architecture: Architecture
    words: int
    rows: int
    body: int
    matrices: int
    ends: int
    width: int
    tables: int

    @property
    def base_parameters(self) -> int:
        """Numbers of the model as published."""
        return self.body + self.tables * self.words * self.width

    @property
    def parameters(self) -> int:
        """Numbers with the rows for codes."""
        return self.body + self.table_numbers

    @property
    def table_numbers(self) -> int:
        """Numbers in the embedding and output tables."""
        return self.tables * self.rows * self.width

    @property
    def new_numbers(self) -> int:
        """Numbers in the rows for codes."""
        return self.tables * (self.rows - self.words) * self.width

    def adapter_numbers(self, rank: int) -> int:
        """Numbers in adapters of `rank` beside each of the body's matrices."""
        return rank * self.ends


@lru_cache(maxsize=16)
def shape_of(found: Architecture, rows: int, words: int) -> Shape:
    """Count an architecture's numbers, with its tables made `rows` long."""
    with torch.device("meta"):
        model = found.build()
    table, out = model.get_input_embeddings(), model.get_output_embeddings()
    apart = {id(table.weight), id(out.weight)}
    body = sum(p.numel() for p in model.parameters() if id(p) not in apart)
    matrices = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not out]
    numbers, ends = sum(m.weight.numel() for m in matrices), sum(m.in_features + m.out_features for m in matrices)
    return Shape(found, words, rows, body, numbers, ends, table.weight.shape[1], 2 if found.two_tables else 1)


@lru_cache(maxsize=256)
def kept_bytes(
    found: Architecture, precision: str, adapter_rank: int, dropout: bool, checkpointing: bool, rows: int, tokens: int
) -> float:
    """Bytes that autograd keeps of a forward pass over [rows, tokens], from the body's input to its last states.

    Counted for one and for two layers; further ones are as the second. With `checkpointing` every layer keeps its input,
    and one layer at a time keeps everything. An encoder-decoder's decoder reads one token. Keys and values that several
    heads share are counted for each head: a real pass may keep up to a fifth less.
    """
    one, two = (_kept(found, layers, precision, adapter_rank, dropout, rows, tokens) for layers in (1, 2))
    a_layer, ends = two - one, max(2 * one - two, 0)
    number = 4 if precision == "float32" else 2
    layers = found.config.get_text_config().num_hidden_layers
    if not checkpointing:
        return ends + layers * a_layer
    return ends + layers * rows * tokens * found.config.get_text_config().hidden_size * number + a_layer


def _kept(
    found: Architecture, layers: int, precision: str, adapter_rank: int, dropout: bool, rows: int, tokens: int
) -> int:
    kept: dict[int, tuple[int, torch.Tensor]] = {}
    with FakeTensorMode():
        model = found.build(layers, torch.bfloat16 if precision == "bfloat16" else torch.float32).train()
        if adapter_rank:
            _put_adapters(model, adapter_rank, dropout)
        weights = {p.untyped_storage()._cdata for p in model.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = (storage.nbytes(), tensor)  # the tensor too, so that no storage takes its place
            return tensor

        size = (rows, tokens, found.config.get_text_config().hidden_size)
        inputs = torch.empty(*size, dtype=next(model.parameters()).dtype, requires_grad=True)
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed", cache_enabled=False)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
            if found.config.is_encoder_decoder:
                read = model.get_encoder()(inputs_embeds=inputs).last_hidden_state
                start = torch.zeros(rows, 1, dtype=torch.long)
                model.get_decoder()(input_ids=start, encoder_hidden_states=read, use_cache=False)
            else:
                model.base_model(inputs_embeds=inputs, use_cache=False)
    return sum(size for size, _ in kept.values())


def _put_adapters(model: Any, rank: int, dropout: bool) -> None:
    """Freeze the model and put an adapter, in float32, beside each matrix of the body, as peft computes it. In place.

    (peft itself can't be put on tensors without storage.)
    """

    def adapted(matrix: Any, inputs: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        dropped = matrix.drop(inputs[0].to(matrix.down.weight.dtype))
        return (out + matrix.up(matrix.down(dropped)) * 2.0).to(out.dtype)

    model.requires_grad_(False)
    for matrix in [m for m in model.modules() if isinstance(m, nn.Linear) and m is not model.get_output_embeddings()]:
        matrix.drop = nn.Dropout(0.05) if dropout else nn.Identity()
        matrix.down = nn.Linear(matrix.in_features, rank, bias=False)
        matrix.up = nn.Linear(rank, matrix.out_features, bias=False)
        matrix.register_forward_hook(adapted)

"""An architecture without its weights: how many numbers it has, and what autograd keeps of a forward pass. Trains nothing.

Models are built on tensors that have a shape and no storage, so that 7 billion parameters take no memory.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

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
    """A model's configuration, by name. words: embedding rows before codes are added."""

    name: str
    config: PreTrainedConfig

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other) -> bool:
        return isinstance(other, Architecture) and other.config.to_json_string() == self.config.to_json_string()

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
        return cls(
            f"scratch {config.hidden_size} {config.intermediate_size} {config.layers} {config.heads}",
            LlamaConfig(
                vocab_size=config.word_pieces,
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.max_tokens,
                tie_word_embeddings=True,
            ),
        )

    def build(self, layers: int | None = None, dtype: torch.dtype = torch.float32) -> nn.Module:
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

    matrices: numbers in the body's matrices, which 4 bits and adapters are about. ends: (inputs, outputs) of each.
    """

    architecture: Architecture
    words: int
    rows: int
    base_parameters: int
    parameters: int
    matrices: int
    ends: tuple[tuple[int, int], ...]
    width: int
    tables: int

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
        return sum(rank * (one + other) for one, other in self.ends)


@lru_cache(maxsize=16)
def shape_of(found: Architecture, rows: int, words: int) -> Shape:
    """Count an architecture's numbers, with its tables made `rows` long."""
    with torch.device("meta"):
        model = found.build()
    table, out = model.get_input_embeddings(), model.get_output_embeddings()
    tables = 2 if found.two_tables else 1
    apart = {id(table.weight), id(out.weight)}
    body = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values() if id(p) not in apart)
    matrices = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not out]
    width = table.weight.shape[1]
    return Shape(
        architecture=found,
        words=words,
        rows=rows,
        base_parameters=body + tables * found.words * width,
        parameters=body + tables * rows * width,
        matrices=sum(m.weight.numel() for m in matrices),
        ends=tuple((m.in_features, m.out_features) for m in matrices),
        width=width,
        tables=tables,
    )


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

        inputs = torch.empty(
            rows, tokens, found.config.get_text_config().hidden_size, dtype=next(model.parameters()).dtype
        )
        inputs.requires_grad_()
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed", cache_enabled=False)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
            if found.config.is_encoder_decoder:
                read = model.get_encoder()(inputs_embeds=inputs).last_hidden_state
                start = torch.zeros(rows, 1, dtype=torch.long)
                model.get_decoder()(input_ids=start, encoder_hidden_states=read, use_cache=False)
            else:
                model.base_model(inputs_embeds=inputs, use_cache=False)
    return sum(size for size, _ in kept.values())


class _Adapted(nn.Module):
    """A frozen matrix with an adapter, as peft computes it. (peft itself can't be put on tensors without storage.)"""

    def __init__(self, matrix: nn.Linear, rank: int, dropout: bool):
        super().__init__()
        self.matrix, self.dropout = matrix, nn.Dropout(0.05) if dropout else nn.Identity()
        self.down = nn.Linear(matrix.in_features, rank, bias=False)
        self.up = nn.Linear(rank, matrix.out_features, bias=False)

    @property
    def weight(self) -> torch.Tensor:
        return self.matrix.weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out = self.matrix(inputs)
        return (out + self.up(self.down(self.dropout(inputs.to(self.down.weight.dtype)))) * 2.0).to(out.dtype)


def _put_adapters(model: nn.Module, rank: int, dropout: bool) -> None:
    """Freeze the model and put an adapter, in float32, beside each matrix of the body. In place."""
    model.requires_grad_(False)
    out = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not out:
            model.set_submodule(name, _Adapted(module, rank, dropout))

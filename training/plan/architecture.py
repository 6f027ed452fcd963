"""An architecture without its weights: how many numbers it has. Trains nothing.

Models are built on tensors that have a shape and no storage, so that 7 billion parameters take no memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
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

    def build(self) -> Any:
        """The model. Call it on the meta device."""
        kind = AutoModelForSeq2SeqLM if self.config.is_encoder_decoder else AutoModelForCausalLM
        return kind.from_config(self.config)


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

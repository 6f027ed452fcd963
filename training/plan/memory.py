"""The memory that a run takes on a GPU, by part, and what to change where it is too much. Knows sizes, loads no weights.

What is assumed stands beside each number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology
from training.common.config import MemorizeConfig, RankConfig, RunConfig
from training.memorize.questions import code_set, equivalents, questions
from training.plan.architecture import Shape, kept_bytes

GB = 1e9
LETTERS_A_TOKEN = 3.0
"""Letters of a definition that one token takes, at least; tokenizers of 32,000 pieces need about 3.5 for such words."""
QUESTION_TOKENS = 8
"""Tokens of a question without its subject."""
BYTES_A_SCORE = 20
"""Bytes held at once for each (target, label): scores, their terms and gradients in the ranking losses, in float32."""
BYTES_A_LOGIT = 12
"""Bytes held at once for each (answer token, candidate) of stage 1: logit, log-softmax and gradient, in float32."""
CUDA_GB = 1.0
"""What CUDA, its libraries and gaps between blocks take besides."""


@dataclass(frozen=True)
class CohortSize:
    """Patients as a plan needs them. labels: codes of the label space; None: every billable code of the systems."""

    labels: int | None = None
    patients: int = 6000
    visits: float = 2.66
    codes: float = 13.06

    def __post_init__(self):
        for name in ("labels", "patients", "visits", "codes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value}; it must be above 0.")


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, by part. paged: optimizer state that may lie in the computer's memory instead; not in the total."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    paged: float = 0.0

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + CUDA_GB * GB


@dataclass(frozen=True)
class Questions:
    """What stage 1 asks of some code systems: nodes, letters of a definition on average, and questions of each kind."""

    nodes: int
    letters: float
    definitions: int
    backwards: int
    """Of codes that are asked for by their definition: all but headings with another node's."""
    hierarchy: int

    @classmethod
    @lru_cache(maxsize=4)
    def of(cls, systems: tuple[str, ...]) -> Questions:
        """Counted on the ontology."""
        book = code_set(Ontology.load(), systems)
        asked = questions(Ontology.load(), list(book))
        return cls(len(book), sum(map(len, book.values())) / len(book), *map(len, asked))


@lru_cache(maxsize=4)
def _equivalents(systems: tuple[str, ...]) -> int:
    return len(equivalents(Ontology.load(), code_set(Ontology.load(), systems)))


def trained_parameters(config: RunConfig, shape: Shape) -> int:
    """How many numbers change: all, or adapters of every matrix and the added rows of each table."""
    if config.tuning == "full":
        return shape.parameters
    return shape.adapter_numbers(config.lora_rank) + shape.new_numbers


def _asked(config: MemorizeConfig) -> tuple[float, float]:
    """Questions of one epoch that hold a definition, and those that don't; what is asked of missed rows alone is not known."""
    counts = Questions.of(config.systems)
    mapped = config.equivalents_share * _equivalents(config.systems) if config.equivalents_share else 0
    more = config.backwards_share * counts.backwards + mapped
    return (
        (more, 0)
        if config.train_missed_rows_only
        else (counts.definitions + more, config.hierarchy_share * counts.hierarchy)
    )


def questions_a_pass(config: MemorizeConfig) -> int:
    """Questions of one epoch."""
    return int(sum(_asked(config)))


def question_tokens(config: MemorizeConfig) -> float:
    """Tokens of a question with its answer, on average over an epoch: a definition is in all but those up the tree."""
    long, short = _asked(config)
    return QUESTION_TOKENS + long / (long + short) * (definition_tokens(config) - QUESTION_TOKENS)


def definition_tokens(config: MemorizeConfig) -> float:
    """Tokens of a question that holds a definition, or has it for its answer, on average."""
    return QUESTION_TOKENS + Questions.of(config.systems).letters / LETTERS_A_TOKEN


def memory_of(config: MemorizeConfig | RankConfig, first: MemorizeConfig, shape: Shape, cohort: CohortSize) -> Memory:
    """Bytes on one GPU when a step of the longest histories is at its peak."""
    number = 2 if config.precision == "bfloat16" else 4
    trained, full = trained_parameters(config, shape), config.tuning == "full"
    weights = float(shape.parameters * number)
    if config.tuning == "qlora":
        weights -= shape.matrices * (number - 0.5 - 4 / 64)  # 4 bits and a float32 scale for each block of 64
    if config.precision == "mixed":
        weights += 2.0 * shape.matrices  # the copies in bfloat16 that autocast keeps for the step
    gradients = float(trained * (number if full else 4))
    if not full:  # adapters and rows in float32; rows once more as they were, and tables with the rows put in place
        weights += 4.0 * trained + number * shape.new_numbers + number * shape.table_numbers
        gradients += number * shape.table_numbers
    state = _state_bytes(config, shape, trained, number if full else 4)
    paged = config.optimizer.startswith("paged")
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=0.0 if paged else state,
        activations=_activations(config, first, shape),
        logits=_logits(config, first, shape, cohort),
        paged=state if paged else 0.0,
    )


def _state_bytes(config: RunConfig, shape: Shape, trained: int, number: int) -> float:
    average = trained * 4 if getattr(config, "ema_decay", 0) else 0  # in float32 whatever the weights are
    if config.optimizer.endswith("8bit"):
        return trained * 2 * (1 + 4 / 256) + average
    if config.optimizer == "muon":
        return (2 * trained - shape.matrices) * number + average
    return 2.0 * trained * (4 if config.optimizer == "paged_adamw" else number) + average


def _activations(config: MemorizeConfig | RankConfig, first: MemorizeConfig, shape: Shape) -> float:
    adapter_rank = 0 if config.tuning == "full" else config.lora_rank
    settings = (adapter_rank, config.lora_dropout > 0, config.gradient_checkpointing)

    def kept(rows: int, tokens: float) -> float:
        return kept_bytes(shape.architecture, config.precision, *settings, rows, int(tokens)) if rows else 0.0

    if isinstance(config, MemorizeConfig):
        return kept(config.batch_size, question_tokens(config))
    return kept(config.batch_size, config.max_tokens) + kept(_rehearsed(config), question_tokens(first))


def _rehearsed(config: RankConfig) -> int:
    """Questions of stage 1 in one forward pass."""
    return -(-config.rehearsal // config.accumulate)


def _logits(config: MemorizeConfig | RankConfig, first: MemorizeConfig, shape: Shape, cohort: CohortSize) -> float:
    """Of the label space (stage 2) and of stage 1's questions: words against words and some codes, codes against all."""
    asked, number = (first, _rehearsed(config)) if isinstance(config, RankConfig) else (config, config.batch_size)
    counts = Questions.of(asked.systems)
    share = counts.definitions / questions_a_pass(asked)  # of the questions, those answered in words
    candidates = shape.words + asked.sampled_negatives + 5 * number
    in_words = number * share * counts.letters / LETTERS_A_TOKEN * candidates
    answers = in_words + number * (1 - share) * shape.rows
    if isinstance(config, MemorizeConfig):
        return BYTES_A_LOGIT * answers
    targets = config.batch_size * (1 if config.prefix_samples else max(cohort.visits - 1, 1))
    at_once = min(targets, config.target_chunk_size or targets)
    labels = cohort.labels or sum(len(Ontology.load().billable(system)) for system in asked.systems)
    return BYTES_A_LOGIT * answers + BYTES_A_SCORE * at_once * labels


def lighter(config: MemorizeConfig | RankConfig) -> list[tuple[str, MemorizeConfig | RankConfig]]:
    """Changes that save memory, each with those before it, in the order in which one would try them."""
    found: list[tuple[str, MemorizeConfig | RankConfig]] = []

    def change(name: str, **values: Any) -> None:
        found.append((name, replace(found[-1][1] if found else config, **values)))

    if not config.gradient_checkpointing:
        change("gradient checkpointing", gradient_checkpointing=True)
    if config.tuning == "full":
        if not config.optimizer.startswith("paged"):
            change("a paged 8-bit optimizer", optimizer="paged_adamw_8bit")
        if isinstance(config, MemorizeConfig) and not config.backbone:
            return found
        more = {"common_direction": 0.0} if isinstance(config, MemorizeConfig) else {}
        change("LoRA", tuning="lora", precision="bfloat16", optimizer="adamw", **more)
    if config.tuning != "qlora":
        change("QLoRA", tuning="qlora", precision="bfloat16")
    size, steps = config.batch_size, config.accumulate
    while size > 1:
        size, steps = size // 2, steps * 2
        change(f"QLoRA with batch_size {size} and accumulate {steps}", batch_size=size, accumulate=steps)
    return found


def advice(
    config: MemorizeConfig | RankConfig, first: MemorizeConfig, shape: Shape, cohort: CohortSize, gpu_gb: float | None
) -> str:
    """What to change so that the run fits the GPU; empty where it fits or the GPU is not known."""
    if gpu_gb is None or memory_of(config, first, shape, cohort).total <= gpu_gb * GB:
        return ""
    for name, changed in lighter(config):
        total = memory_of(changed, first, shape, cohort).total
        if total <= gpu_gb * GB:
            return f"try {name} ({total / GB:.0f} GB)"
    return "nothing that is a setting here makes it fit: take a smaller backbone, or shards (docs/distributed.md)"

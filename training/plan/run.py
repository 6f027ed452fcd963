"""What a run will need (memory by part, checkpoint, steps, tokens, hours), from configurations alone: no weights, no data.

Sizes are counted on the architecture itself, built without storage; activations are what autograd would keep of one and of
two layers of it, for the rest of the layers by rule of three. What is assumed stands beside each number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml

from mera_core.common.errors import InputError
from training.common.backbone import padded_rows
from training.common.config import MemorizeConfig, RankConfig, RunConfig
from training.plan.architecture import Architecture, Shape, shape_of
from training.plan.memory import (
    CUDA_GB,
    GB,
    QUESTION_TOKENS,
    CohortSize,
    Memory,
    Questions,
    advice,
    definition_tokens,
    memory_of,
    question_tokens,
    questions_a_pass,
    trained_parameters,
)

PROFILE_TOKENS, VISIT_TOKENS = 12, 12
"""Tokens of a profile sentence, and of the words before a visit's codes."""
PARTS = ("weights", "gradients", "optimizer", "activations", "logits")
"""What a GPU's memory goes to, as it is told."""


@dataclass(frozen=True)
class Machine:
    """What a run may use. gpu_gb: memory of one GPU, None where unknown. tokens_per_second: of one GPU."""

    gpu_gb: float | None = None
    gpus: int = 1
    tokens_per_second: float | None = None

    @classmethod
    def of(cls, gpu_gb: float | None, gpus: int, tokens_per_second: float | None) -> Machine:
        """As told; the memory of this machine's first GPU where nothing is told."""
        if gpu_gb is None and torch.cuda.is_available():
            gpu_gb = torch.cuda.get_device_properties(0).total_memory / GB
        for name, value in (("gpu-memory", gpu_gb), ("tokens-per-second", tokens_per_second)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value:g}; it must be above 0.")
        return cls(gpu_gb, gpus, tokens_per_second)


@dataclass(frozen=True)
class Plan:
    """One run's needs. parameters: of the backbone with its added rows. trained: parameters that change, or could.

    epochs_on_missed: over codes whose number only the run will show, so that steps and what follows from them lack these.
    fits: the smallest change of settings that fits the GPU; "" where nothing need be changed or nothing is known of it.
    """

    config: str
    stage: str
    backbone: str
    tuning: str
    parameters: int
    base_parameters: int
    added_rows: int
    trained: int
    epochs_on_missed: int
    checkpoint_bytes: float
    memory: Memory
    steps: int
    tokens: int
    flops: float
    hours: float | None
    machine: Machine
    fits: str

    def to_json(self) -> dict[str, Any]:
        """Every number, memory with its total."""
        values = asdict(self)
        values["memory"]["total"] = self.memory.total
        return values


def make(path: Path, cohort: CohortSize, machine: Machine, before: MemorizeConfig | None = None) -> Plan:
    """The plan of a run.

    Args:
        before: the stage-1 configuration that a rank configuration, or one with `init_from`, goes on from.

    Raises:
        InputError: the file is no configuration, or it is not known which backbone it is about.
    """
    config = read(path)
    first = config if isinstance(config, MemorizeConfig) else before
    if first is None:
        raise InputError(f"{path} is a configuration of stage 2: name that of its stage 1 before it, by --config too.")
    if first.init_from and before is None:
        raise InputError(f"{path} goes on from a stage 1: name the configuration of that before it, by --config too.")
    shape, missed = backbone_shape(before if first.init_from else first), getattr(config, "epochs_on_missed", 0)
    steps, tokens = work(config, first, cohort)
    if not steps and not missed:
        raise InputError(f"{path} makes no step: its passes are fewer than one batch.")
    rate = machine.tokens_per_second
    # backward is worth two forward passes (one where weights are frozen), computing activations again one
    passes = 1 + (2 if config.tuning == "full" else 1) + config.gradient_checkpointing
    return Plan(
        config=path.name,
        stage="memorize" if first is config else "rank",
        backbone=first.backbone or f"small LLaMA {'gone on from' if first.init_from else 'from scratch'}",
        tuning=config.tuning,
        parameters=shape.parameters,
        base_parameters=shape.base_parameters,
        added_rows=shape.rows - shape.words,
        trained=trained_parameters(config, shape),
        epochs_on_missed=missed,
        checkpoint_bytes=checkpoint_bytes(config, shape),
        memory=memory_of(config, first, shape, cohort),
        steps=steps,
        tokens=tokens,
        flops=2.0 * shape.matrices * tokens * passes,
        hours=None if rate is None else tokens / (rate * machine.gpus) / 3600,
        machine=machine,
        fits=advice(config, first, shape, cohort, machine.gpu_gb),
    )


def make_all(paths: Sequence[Path], cohort: CohortSize, machine: Machine) -> list[Plan]:
    """Plans in order; a rank configuration goes on from the memorize configuration before it."""
    plans, before = [], None
    for path in paths:
        plans.append(make(path, cohort, machine, before))
        config = read(path)
        if isinstance(config, MemorizeConfig) and not config.init_from:
            before = config
    return plans


def read(path: Path) -> MemorizeConfig | RankConfig:
    """A run's configuration, of whichever stage its settings belong to."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except yaml.YAMLError:
        values = {}  # which `load` tells in its own words
    stage_2 = {field.name for field in fields(RankConfig)} - {field.name for field in fields(MemorizeConfig)}
    named = set(values) if isinstance(values, dict) else set()
    return (RankConfig if named & stage_2 else MemorizeConfig).load(path)


def backbone_shape(config: MemorizeConfig) -> Shape:
    """Counted sizes of a run's backbone with rows for every node of its systems."""
    found = Architecture.find(config.backbone) if config.backbone else Architecture.small(config)
    rows = padded_rows(found.words + 1 + Questions.of(config.systems).nodes)
    return shape_of(found, max(rows, found.words), found.words)


def checkpoint_bytes(config: RunConfig, shape: Shape) -> float:
    """Bytes of what the run writes: a whole model (stage 2 in 16 bits), or adapters and rows in float32."""
    if config.tuning != "full":
        return 4.0 * trained_parameters(config, shape)
    half = isinstance(config, RankConfig) or config.precision == "bfloat16"
    return shape.parameters * (2.0 if half else 4.0)


def work(config: MemorizeConfig | RankConfig, first: MemorizeConfig, cohort: CohortSize) -> tuple[int, int]:
    """Steps and tokens of a run."""
    a_step = config.batch_size * config.accumulate
    if isinstance(config, MemorizeConfig):
        asked = questions_a_pass(config)
        steps, tokens = int(config.epochs * asked / a_step), config.epochs * asked * question_tokens(config)
        if config.encoded_epochs:  # each code's definition is read, and asked for, and so is what is above the code
            codes = config.encoded_epochs * Questions.of(config.systems).backwards
            a_code = 2 * definition_tokens(config) + config.hierarchy_share * QUESTION_TOKENS
            steps, tokens = steps + int(codes / a_step), tokens + codes * a_code
        return steps, int(tokens)
    history = PROFILE_TOKENS + cohort.visits * (VISIT_TOKENS + cohort.codes)
    samples, length = float(cohort.patients), min(history, config.max_tokens)
    if config.prefix_samples:
        samples *= max(cohort.visits - 1, 0)
        length = min(PROFILE_TOKENS + cohort.visits / 2 * (VISIT_TOKENS + cohort.codes), config.max_tokens)
    steps = int(config.epochs * samples / a_step)
    rehearsed = steps * config.rehearsal * question_tokens(first)
    return steps, int(config.epochs * samples * length + rehearsed)


def in_words(plan: Plan) -> str:
    """A plan as a person reads it."""
    gb = {name: value / GB for name, value in asdict(plan.memory).items()} | {"total": plan.memory.total / GB}
    parts = ", ".join(f"{name} {gb[name]:.1f}" for name in PARTS)
    lines = [
        f"{plan.config}: stage {'1, memorize' if plan.stage == 'memorize' else '2, rank'}",
        f"  backbone      {plan.backbone}, {plan.base_parameters / 1e9:.2f} B parameters; with {plan.added_rows:,} rows "
        f"for codes {plan.parameters / 1e9:.2f} B",
        f"  trained       {plan.trained / 1e6:,.1f} M parameters ({plan.tuning})",
        f"  checkpoint    {plan.checkpoint_bytes / GB:.2f} GB",
        f"  memory        {gb['total']:.1f} GB on each GPU: {parts}, CUDA {CUDA_GB:.0f}",
    ]
    if plan.memory.paged:
        lines.append(f"                and {gb['paged']:.1f} GB of optimizer state, on the GPU or beside it (paged)")
    work = f"{plan.steps:,} steps, {plan.tokens / 1e6:,.1f} M tokens, {plan.flops / 1e15:,.1f} PFLOP"
    lines.append(f"  work          {work}")
    if plan.epochs_on_missed:
        told = "passes over the codes not known then, which can't be counted before"
        lines.append(f"                and {plan.epochs_on_missed} {told}")
    if plan.hours is not None:
        rate, gpus = plan.machine.tokens_per_second, plan.machine.gpus
        each = f"{gpus} GPU{'s' * (gpus > 1)}"
        lines.append(f"  time          {plan.hours:.1f} h at {rate:,.0f} tokens/s on each of {each}")
    if plan.machine.gpu_gb is not None:
        need = f"this needs {gb['total']:.0f} GB; you have {plan.machine.gpu_gb:.0f}"
        lines.append(f"  verdict       {need}: {plan.fits or 'it fits'}")
    return "\n".join(lines)


def table(plans: Sequence[Plan]) -> str:
    """Plans as a Markdown table, a row each, for docs/train_on_gpu.md."""
    names = ("configuration", "trained", *PARTS, "**one GPU**", "paged", "checkpoint", "steps", "tokens", "PFLOP")
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for plan in plans:
        memory = plan.memory
        cells = [f"`{plan.config}`", f"{plan.trained / 1e6:,.0f} M"]
        cells += [f"{getattr(memory, name) / GB:.1f}" for name in PARTS]
        cells += [f"**{memory.total / GB:.0f} GB**", f"{memory.paged / GB:.1f}" if memory.paged else ""]
        cells += [f"{plan.checkpoint_bytes / GB:.1f} GB", f"{plan.steps:,}", f"{plan.tokens / 1e6:.1f} M"]
        lines.append(f"| {' | '.join(cells)} | {plan.flops / 1e15:,.0f} |")
    return "\n".join(lines)

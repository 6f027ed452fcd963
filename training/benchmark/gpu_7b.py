"""Shapes of 7 billion parameters on one GPU, random weights: memory in 4 bits, latency, throughput, training with MFU.

Random weights cost what trained ones cost. Built matrix by matrix, so that the 16-bit model never stands in memory beside
the 4-bit one. Where there is no GPU each row says so and nothing is run. One row a measurement, the cheapest first, and
none is begun that would not be through in `MINUTES`: what is measured is in the file when somebody stops the machine.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import bitsandbytes as bnb
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from training.benchmark.agreement import in_common, rank_correlation
from training.benchmark.rows import Row, Setting, row, seconds

TITLE = "On one GPU: shapes of 7 billion parameters, random weights"
NO_GPU = "not run: no GPU"
NO_TIME = "not run: the time was used up"
NO_ROOM = "not run: it does not fit this GPU's memory"
MINUTES = 9.0
"""So that all of it fits in a command of ten minutes."""
BUILDING = 45.0
"""Seconds within which a model is built and warm, with room to spare."""
PATIENTS = 32
"""Histories of a batch, in serving and in training."""
TOKENS = 200
"""Tokens of a patient's history."""
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12, "3090": 71e12}
"""Dense bfloat16 operations a second, from the makers' data sheets."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaMA-architecture model with code rows."""

    hidden: int = 4096
    intermediate: int = 11008
    layers: int = 32
    heads: int = 32
    rows: int = 32_000 + 17_728
    """The tokenizer's own and one a node of ICD-9-CM."""
    codes: int = 17_728
    """Rows that are a code's or a heading's, the last ones."""
    labels: int = 14_567

    def config(self) -> LlamaConfig:
        """As transformers wants it; LLaMA-2 has untied tables."""
        return LlamaConfig(
            vocab_size=self.rows,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=4096,
            tie_word_embeddings=False,
        )


LLAMA_7B = Shape()
SMALL = Shape(hidden=64, intermediate=128, layers=2, heads=2, rows=2_000, codes=600, labels=500)
"""For `--quick`, and for tests without a GPU."""


def random_backbone(shape: Shape, device: str, four_bit: bool, dtype: torch.dtype = torch.bfloat16) -> LlamaForCausalLM:
    """A LLaMA of random weights; with `four_bit` the body's matrices are NF4 with arithmetic in `dtype`."""
    with torch.device("meta"):
        model = LlamaForCausalLM(shape.config()).to(dtype)  # type: ignore[arg-type]
    body = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]
    for name in body:
        parent, _, child = name.rpartition(".")
        old = model.get_submodule(name)
        weight = torch.randn(old.out_features, old.in_features, dtype=dtype, device=device) * 0.02
        if four_bit:
            new: nn.Module = bnb.nn.Linear4bit(
                old.in_features, old.out_features, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta"
            )
            new.weight = bnb.nn.Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4").to(device)
        else:
            new = nn.Linear(old.in_features, old.out_features, bias=False, device="meta")
            new.weight = nn.Parameter(weight)
        setattr(model.get_submodule(parent), child, new)
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            parent, _, child = name.rpartition(".")
            made = torch.randn(parameter.shape, dtype=dtype, device=device) * 0.02 if parameter.ndim == 2 else None
            if made is None:
                made = torch.ones(parameter.shape, dtype=dtype, device=device)  # norms
            setattr(model.get_submodule(parent), child, nn.Parameter(made))
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=model.config).to(device)
    return model


def peak_of(name: str) -> float | None:
    """Dense bfloat16 operations a second of a GPU by its name; None for one that is not in the table."""
    return next((peak for known, peak in PEAKS.items() if known in name), None)


def operations_a_token(shape: Shape, frozen_body: bool, context: int = TOKENS) -> float:
    """Floating-point operations to train on one token: 6 a weight of the body, 4 where it is frozen; and the attention's.

    Rows are looked up, not multiplied; scores of a few targets are left out. Source: Kaplan et al. 2020, appendix.
    """
    body = shape.layers * (4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate)
    attention = shape.layers * 2 * context * shape.hidden  # forward, causal: half of every pair
    return (4 if frozen_body else 6) * body + 3 * attention


@torch.inference_mode()
def scored(model: LlamaForCausalLM, shape: Shape, batch: int, seed: int | None = None) -> torch.Tensor:
    """Order of the label space for `batch` random histories, drawn by `seed`: what `rank` asks of the network."""
    device = model.lm_head.weight.device
    draw = None if seed is None else torch.Generator(device).manual_seed(seed)
    ids = torch.randint(shape.rows, (batch, TOKENS), device=device, generator=draw)
    state = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
    return (state @ model.lm_head.weight[-shape.labels :].T).float().argsort(-1, descending=True).cpu()


class Clock:
    """How much of the section's time is left."""

    def __init__(self, minutes: float = MINUTES):
        self.end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        """Seconds until nothing more is begun."""
        return self.end - time.monotonic()


SERVED = (
    "weights of 7B shapes{} with 15k added codes",
    "one patient of 200 tokens, 7B shapes{}",
    "patients of 200 tokens in batches of 32, 7B shapes{}",
)
AGREEMENT = "the same 7B shapes in NF4 and in bfloat16: lists of 32 patients"
TRAINED = {"qlora": "QLoRA training, 7B shapes in NF4", "full": "full-parameter training, 7B shapes in bfloat16"}


@dataclass
class Found:
    """What the two precisions gave, for 16 bits to stand beside 4: runs of each figure in NF4, and lists by precision."""

    nf4: dict[str, list[float]] = field(default_factory=dict)
    orders: dict[str, torch.Tensor] = field(default_factory=dict)


def measure(setting: Setting, clock: Clock | None = None) -> Iterator[Row]:
    """Memory, latency and throughput in 4 and in 16 bits, how far their lists agree, and training with MFU."""
    shape, clock, found = SMALL if setting.quick else LLAMA_7B, clock or Clock(), Found()
    for kind in ("NF4", "bfloat16"):
        yield from _serving(setting, shape, kind, clock, found)
    if len(found.orders) == 2:
        ours, theirs = (found.orders[kind].numpy() for kind in ("NF4", "bfloat16"))
        told: dict = {"rank_correlation": rank_correlation(ours, theirs), "patients": len(ours), "labels": shape.labels}
        yield row(AGREEMENT, [in_common(ours, theirs)], "of the first 20 in common", **told)
    else:
        yield not_run(AGREEMENT, _why_not(clock) or NO_ROOM)
    for kind, what in TRAINED.items():
        yield _training(setting, shape, kind, what, clock)


def _serving(setting: Setting, shape: Shape, kind: str, clock: Clock, found: Found) -> Iterator[Row]:
    """Three rows of one precision; leaves in `found` what others stand beside."""
    memory, one, many = (what.format(f" in {kind}") for what in SERVED)
    if why := _why_not(clock):
        yield from (not_run(what, why) for what in (memory, one, many))
        return
    _clear()
    before, runs = torch.cuda.memory_allocated(), setting.times(10, 2)
    torch.manual_seed(1)  # the same weights in both precisions
    try:
        model = random_backbone(shape, "cuda", kind == "NF4").eval()
    except torch.OutOfMemoryError:
        yield from (not_run(what, NO_ROOM) for what in (memory, one, many))
        return
    gib = [(torch.cuda.memory_allocated() - before) / 2**30]
    limit: dict = {"limit_gib": 5} if kind == "NF4" else {}
    yield _beside(found, kind, row(memory, gib, "GiB", **limit), gib)
    took = timed(lambda: scored(model, shape, 1), runs, clock)
    yield _beside(found, kind, row(one, took, "s"), took)
    a_second = [PATIENTS / each for each in timed(lambda: scored(model, shape, PATIENTS), runs, clock)]
    yield _beside(found, kind, row(many, a_second, "patients/s"), a_second)
    found.orders[kind] = scored(model, shape, PATIENTS, seed=2)


def _beside(found: Found, kind: str, made: Row, values: list[float]) -> Row:
    """The row of one precision; that of 16 bits with the same figure in NF4 beside it, over as many runs as both have."""
    unit = made["unit"]
    if kind == "NF4":
        found.nf4[unit] = values
    elif theirs := found.nf4.get(unit):
        pairs = min(len(values), len(theirs))
        return row(made["what"], values[:pairs], unit, against="in NF4", theirs=theirs[:pairs])
    return made


def _training(setting: Setting, shape: Shape, kind: str, what: str, clock: Clock) -> Row:
    """Tokens a second and model-FLOPs utilisation of training steps."""
    if why := _why_not(clock):
        return not_run(what, why)
    _clear()
    torch.cuda.reset_peak_memory_stats()
    try:
        took = _trained(shape, kind == "qlora", setting.times(8, 2), clock)
    except torch.OutOfMemoryError:
        return not_run(what, NO_ROOM)
    tokens = [PATIENTS * TOKENS / one for one in took]
    peak, operations = peak_of(torch.cuda.get_device_name()), operations_a_token(shape, kind == "qlora")
    used: dict = {} if peak is None else {"mfu": round(sorted(tokens)[len(tokens) // 2] * operations / peak, 4)}
    memory = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return row(what, tokens, "tokens/s", batch=PATIENTS, tokens_a_patient=TOKENS, peak_memory_gib=memory, **used)


def _trained(shape: Shape, qlora: bool, runs: int, clock: Clock) -> list[float]:
    """Seconds of each step; gradients are checkpointed, AdamW's state is 8-bit and paged."""
    model = random_backbone(shape, "cuda", four_bit=qlora)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    if qlora:
        put_adapters(model, shape)
    model.train()
    optimizer = bnb.optim.PagedAdamW8bit([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    return timed(lambda: training_step(model, shape, PATIENTS, optimizer), runs, clock)


def put_adapters(model: LlamaForCausalLM, shape: Shape) -> None:
    """Adapters beside each matrix of the body, and rows that train in place of the codes', as a QLoRA run has them. In place."""
    rows = list(range(shape.rows - shape.codes, shape.rows))
    tables = {"model.embed_tokens": rows, "lm_head": rows}
    settings = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", trainable_token_indices=tables)
    inject_adapter_in_model(settings, model)
    model.enable_input_require_grads()


def training_step(model: LlamaForCausalLM, shape: Shape, batch: int, optimizer: torch.optim.Optimizer) -> None:
    """Forward, backward and optimizer over random histories, each asked at three places over the label space."""
    table = model.get_output_embeddings().weight
    ids = torch.randint(shape.rows, (batch, TOKENS), device=table.device)
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state
    states = states[:, [TOKENS // 3, 2 * TOKENS // 3, TOKENS - 1]]
    logits = (states.flatten(0, 1) @ table[-shape.labels :].T.to(states.dtype)).float()
    target = torch.randint(shape.labels, (len(logits),), device=table.device)
    nn.functional.cross_entropy(logits, target).backward()
    optimizer.step()
    optimizer.zero_grad()


def timed(call: Callable[[], object], runs: int, clock: Clock | None = None) -> list[float]:
    """Seconds of each run, after two that don't count, until the GPU is through; one at least, fewer where time is short."""

    def through() -> None:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    through(), through()
    took = [seconds(through)]
    while len(took) < runs and (clock is None or clock.left() > max(took)):
        took.append(seconds(through))
    return took


def _why_not(clock: Clock) -> str:
    """Why nothing can be measured now; empty where it can."""
    if not torch.cuda.is_available():
        return NO_GPU
    return "" if clock.left() > BUILDING else NO_TIME


def not_run(what: str, why: str = NO_GPU) -> Row:
    """A row that says that a figure was not measured, and why."""
    return {"what": f"{what}: {why}", "value": None, "unit": "", "runs": 0, "lowest": None, "highest": None}


def _clear() -> None:
    gc.collect()
    torch.cuda.empty_cache()

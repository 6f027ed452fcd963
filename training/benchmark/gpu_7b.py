"""Shapes of 7 billion parameters on one GPU, random weights: memory in 4 bits, latency, throughput, training with MFU.

Random weights cost what trained ones cost. Built matrix by matrix, so that the 16-bit model never stands in memory beside
the 4-bit one. Where there is no GPU each row says so and nothing is run.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from training.benchmark.rows import Row, Setting, row, seconds

NO_GPU = "not run: no GPU"
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
SMALL = Shape(hidden=64, intermediate=128, layers=2, heads=2, rows=2_000, labels=500)
"""For `--quick`, and for tests without a GPU."""


def random_backbone(shape: Shape, device: str, four_bit: bool, dtype: torch.dtype = torch.bfloat16) -> LlamaForCausalLM:
    """A LLaMA of random weights; with `four_bit` the body's matrices are NF4 with arithmetic in `dtype`."""
    with torch.device("meta"):
        model = LlamaForCausalLM(shape.config()).to(dtype)
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


def serving_rows(setting: Setting) -> Iterator[Row]:
    """Memory of 7B in NF4, latency of one patient of 200 tokens, patients a second in batches; NF4 beside bfloat16."""
    shape = SMALL if setting.quick else LLAMA_7B
    wanted = (
        "weights of 7B shapes in NF4 with 15k added codes",
        f"one patient of {TOKENS} tokens, 7B shapes in NF4",
        f"patients of {TOKENS} tokens in batches of 32, 7B shapes in NF4",
    )
    if not torch.cuda.is_available():
        yield from map(not_run, wanted)
        return
    runs = setting.times(10, 2)
    found: dict[bool, dict[str, list[float]]] = {}
    for four_bit in (True, False):
        _clear()
        before = torch.cuda.memory_allocated()
        model = random_backbone(shape, "cuda", four_bit).eval()
        found[four_bit] = {"memory": [(torch.cuda.memory_allocated() - before) / 2**30]}
        for name, batch in (("one", 1), ("many", 32)):
            found[four_bit][name] = timed(lambda b=batch, m=model: scored(m, shape, b), runs)
        del model
    _clear()
    nf4, half = found[True], found[False]
    yield row(wanted[0], nf4["memory"], "GiB", against="in bfloat16", theirs=half["memory"], limit_gib=5)
    yield row(wanted[1], nf4["one"], "s", against="in bfloat16", theirs=half["one"])
    a_second = [[32 / one for one in kind["many"]] for kind in (nf4, half)]
    yield row(wanted[2], a_second[0], "patients/s", against="in bfloat16", theirs=a_second[1])


@torch.inference_mode()
def scored(model: LlamaForCausalLM, shape: Shape, batch: int) -> torch.Tensor:
    """Scores over the label space for `batch` random histories, and their order: what `rank` asks of the network."""
    device = model.lm_head.weight.device
    ids = torch.randint(shape.rows, (batch, TOKENS), device=device)
    state = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
    return (state @ model.lm_head.weight[-shape.labels :].T).float().argsort(-1, descending=True).cpu()


def training_rows(setting: Setting) -> Iterator[Row]:
    """Tokens a second and model-FLOPs utilisation of full and QLoRA training steps on 7B shapes."""
    shape = SMALL if setting.quick else LLAMA_7B
    wanted = {"full": "full-parameter training, 7B shapes in bfloat16", "qlora": "QLoRA training, 7B shapes in NF4"}
    if not torch.cuda.is_available():
        yield from map(not_run, wanted.values())
        return
    peak = peak_of(torch.cuda.get_device_name())
    for kind, what in wanted.items():
        _clear()
        torch.cuda.reset_peak_memory_stats()
        try:
            batch, took = _trained(shape, kind == "qlora", setting.times(8, 2))
        except torch.OutOfMemoryError:
            yield not_run(what, "not run: it does not fit this GPU's memory")
            continue
        tokens = [batch * TOKENS / one for one in took]
        operations = operations_a_token(shape, kind == "qlora")
        used = {} if peak is None else {"mfu": round(sorted(tokens)[len(tokens) // 2] * operations / peak, 4)}
        memory = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        yield row(what, tokens, "tokens/s", batch=batch, tokens_a_patient=TOKENS, peak_memory_gib=memory, **used)


def _trained(shape: Shape, qlora: bool, runs: int) -> tuple[int, list[float]]:
    """Patients a step and seconds of each step; gradients are checkpointed, AdamW's state is 8-bit and paged."""
    model = random_backbone(shape, "cuda", four_bit=qlora)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    if qlora:
        model.enable_input_require_grads()
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=targets))
    model.train()
    optimizer = bnb.optim.PagedAdamW8bit([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    return 32, timed(lambda: training_step(model, shape, 32, optimizer), runs)


def training_step(model: Any, shape: Shape, batch: int, optimizer: torch.optim.Optimizer) -> None:
    """Forward, backward and optimizer over random histories, each asked at three places over the label space."""
    table = model.get_output_embeddings().weight
    base = model.get_base_model().model if hasattr(model, "get_base_model") else model.model
    ids = torch.randint(shape.rows, (batch, TOKENS), device=table.device)
    states = base(input_ids=ids, use_cache=False).last_hidden_state[:, [TOKENS // 3, 2 * TOKENS // 3, TOKENS - 1]]
    logits = (states.flatten(0, 1) @ table[-shape.labels :].T).float()
    target = torch.randint(shape.labels, (len(logits),), device=table.device)
    nn.functional.cross_entropy(logits, target).backward()
    optimizer.step()
    optimizer.zero_grad()


def timed(call: Callable[[], object], runs: int) -> list[float]:
    """Seconds of each run, after two that don't count, until the GPU is through."""

    def through() -> None:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    through(), through()
    return [seconds(through) for _ in range(runs)]


def not_run(what: str, why: str = NO_GPU) -> Row:
    """A row that says that a figure was not measured, and why."""
    return {"what": f"{what}: {why}", "value": None, "unit": "", "runs": 0, "lowest": None, "highest": None}


def _clear() -> None:
    gc.collect()
    torch.cuda.empty_cache()

"""Shapes of 7 billion parameters on one GPU, random weights: memory in 4 bits, latency, throughput, training with MFU.

Random weights cost what trained ones cost. Without a GPU each row says so and nothing is run. One row a measurement, the
cheapest first, and none is begun that would not be through in `MINUTES`: what is measured is in the file when somebody
stops the machine.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from statistics import median

import bitsandbytes as bnb
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from training.benchmark.precisions import in_common, rank_correlation
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
CODES, LABELS = 17_728, 14_567
"""Rows that are a node's of ICD-9-CM, the last ones; and the billable codes among them."""
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12, "3090": 71e12}
"""Dense bfloat16 operations a second, from the makers' data sheets."""
LLAMA_7B = LlamaConfig(vocab_size=32_000 + CODES, max_position_embeddings=4096, tie_word_embeddings=False)
SMALL = LlamaConfig(
    vocab_size=20_000, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2
)
"""For `--quick`, and for tests without a GPU."""
SERVED = (
    "weights of 7B shapes{} with 15k added codes",
    "one patient of 200 tokens, 7B shapes{}",
    "patients of 200 tokens in batches of 32, 7B shapes{}",
)
AGREEMENT = "the same 7B shapes in NF4 and in bfloat16: lists of 32 patients"
TRAINED = {"qlora": "QLoRA training, 7B shapes in NF4", "full": "full-parameter training, 7B shapes in bfloat16"}


def random_backbone(
    config: LlamaConfig, device: str, four_bit: bool, dtype: torch.dtype = torch.bfloat16
) -> LlamaForCausalLM:
    """A LLaMA of random weights; with `four_bit` the body's matrices are NF4 with arithmetic in `dtype`.

    Built matrix by matrix, so that the 16-bit model never stands in memory beside the 4-bit one.
    """
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)  # type: ignore[arg-type]
    for name, parameter in list(model.named_parameters()):
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        drawn = torch.ones(parameter.shape, dtype=dtype, device=device)  # norms
        if parameter.ndim == 2:
            drawn = torch.randn(parameter.shape, dtype=dtype, device=device) * 0.02
        if four_bit and isinstance(module, nn.Linear) and module is not model.lm_head:
            size = (module.in_features, module.out_features)
            matrix = bnb.nn.Linear4bit(*size, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta")
            matrix.weight = bnb.nn.Params4bit(drawn.cpu(), requires_grad=False, quant_type="nf4").to(device)
            model.set_submodule(owner, matrix)
        else:
            setattr(module, last, nn.Parameter(drawn))
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    return model


def operations_a_token(config: LlamaConfig, frozen_body: bool, context: int = TOKENS) -> float:
    """Floating-point operations to train on one token: 6 a weight of the body, 4 where it is frozen; and the attention's.

    Rows are looked up, not multiplied; scores of a few targets are left out. Source: Kaplan et al. 2020, appendix.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    body = layers * (4 * width**2 + 3 * width * config.intermediate_size)
    return (4 if frozen_body else 6) * body + 3 * layers * 2 * context * width  # causal: half of every pair


@torch.inference_mode()
def scored(model: LlamaForCausalLM, batch: int, seed: int | None = None) -> torch.Tensor:
    """Order of the label space for `batch` random histories, drawn by `seed`: what `rank` asks of the network."""
    table = model.lm_head.weight
    draw = None if seed is None else torch.Generator(table.device).manual_seed(seed)
    ids = torch.randint(len(table), (batch, TOKENS), device=table.device, generator=draw)
    state = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
    return (state @ table[-LABELS:].T).float().argsort(-1, descending=True).cpu()


def measure(setting: Setting, minutes: float = MINUTES) -> Iterator[Row]:
    """Memory, latency and throughput in 4 and in 16 bits, how far their lists agree, and training with MFU."""
    config, end = SMALL if setting.quick else LLAMA_7B, time.monotonic() + 60 * minutes
    found: dict[str, list[float]] = {}  # unit -> the runs in NF4, for 16 bits to stand beside
    lists: list[torch.Tensor] = []
    for kind in ("NF4", "bfloat16"):
        yield from _serving(setting, config, kind, end, found, lists)
    if len(lists) == 2:
        ours, theirs = (each.numpy() for each in lists)
        told = {"rank_correlation": rank_correlation(ours, theirs), "patients": len(ours), "labels": LABELS}
        yield row(AGREEMENT, "of the first 20 in common", None, [in_common(ours, theirs)], **told)
    else:
        yield not_run(AGREEMENT, _why_not(end) or NO_ROOM)
    for kind, what in TRAINED.items():
        yield _training(setting, config, kind == "qlora", what, end)


def _serving(
    setting: Setting, config: LlamaConfig, kind: str, end: float, found: dict[str, list[float]], lists: list
) -> Iterator[Row]:
    """Three rows of one precision; leaves in `found` and `lists` what others stand beside."""
    names, why, runs = [what.format(f" in {kind}") for what in SERVED], _why_not(end), setting.times(10, 2)
    if not why:
        _clear()
        before = torch.cuda.memory_allocated()
        torch.manual_seed(1)  # the same weights in both precisions
        try:
            model = random_backbone(config, "cuda", kind == "NF4").eval()
        except torch.OutOfMemoryError:
            why = NO_ROOM
    if why:
        yield from (not_run(what, why) for what in names)
        return
    measures: dict[str, Callable[[], list[float]]] = {
        "GiB": lambda: [(torch.cuda.memory_allocated() - before) / 2**30],
        "s": lambda: timed(lambda: scored(model, 1), runs, end),
        "patients/s": lambda: [PATIENTS / one for one in timed(lambda: scored(model, PATIENTS), runs, end)],
    }
    for what, (unit, measured) in zip(names, measures.items(), strict=True):
        values, theirs = measured(), found.get(unit)
        if theirs:
            pairs = min(len(values), len(theirs))
            yield row(what, unit, "in NF4", values[:pairs], theirs[:pairs])
        else:
            found |= {unit: values} if kind == "NF4" else {}
            yield row(what, unit, None, values, **({"limit_gib": 5} if (kind, unit) == ("NF4", "GiB") else {}))
    lists.append(scored(model, PATIENTS, seed=2))


def _training(setting: Setting, config: LlamaConfig, qlora: bool, what: str, end: float) -> Row:
    """Tokens a second and model-FLOPs utilisation of training steps, with checkpointed gradients and a paged 8-bit AdamW."""
    if why := _why_not(end):
        return not_run(what, why)
    _clear()
    torch.cuda.reset_peak_memory_stats()
    try:
        model = random_backbone(config, "cuda", qlora)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if qlora:
            put_adapters(model)
        model.train()
        optimizer = bnb.optim.PagedAdamW8bit([p for p in model.parameters() if p.requires_grad], lr=1e-5)
        took = timed(lambda: training_step(model, PATIENTS, optimizer), setting.times(8, 2), end)
    except torch.OutOfMemoryError:
        return not_run(what, NO_ROOM)
    tokens, memory = [PATIENTS * TOKENS / one for one in took], round(torch.cuda.max_memory_allocated() / 2**30, 2)
    peak = next((peak for name, peak in PEAKS.items() if name in torch.cuda.get_device_name()), None)
    used = {} if peak is None else {"mfu": round(median(tokens) * operations_a_token(config, qlora) / peak, 4)}
    return row(what, "tokens/s", None, tokens, batch=PATIENTS, tokens_a_patient=TOKENS, peak_memory_gib=memory, **used)


def put_adapters(model: LlamaForCausalLM) -> None:
    """Adapters beside each matrix of the body, and rows that train in place of the codes', as a QLoRA run has them. In place."""
    rows = list(range(model.config.vocab_size - CODES, model.config.vocab_size))
    tables = {"model.embed_tokens": rows, "lm_head": rows}
    settings = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", trainable_token_indices=tables)
    inject_adapter_in_model(settings, model)
    model.enable_input_require_grads()


def training_step(model: LlamaForCausalLM, batch: int, optimizer: torch.optim.Optimizer) -> None:
    """Forward, backward and optimizer over random histories, each asked at three places over the label space."""
    table = model.get_output_embeddings().weight
    ids = torch.randint(model.config.vocab_size, (batch, TOKENS), device=table.device)
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state
    states = states[:, [TOKENS // 3, 2 * TOKENS // 3, TOKENS - 1]]
    logits = (states.flatten(0, 1) @ table[-LABELS:].T.to(states.dtype)).float()
    nn.functional.cross_entropy(logits, torch.randint(LABELS, (len(logits),), device=table.device)).backward()
    optimizer.step()
    optimizer.zero_grad()


def timed(call: Callable[[], object], runs: int, end: float = float("inf")) -> list[float]:
    """Seconds of each run, after two that don't count, until the GPU is through; one at least, none begun after `end`."""

    def through() -> None:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    through(), through()
    took = [seconds(through)]
    while len(took) < runs and time.monotonic() + max(took) < end:
        took.append(seconds(through))
    return took


def _why_not(end: float) -> str:
    """Why nothing can be measured now; empty where it can."""
    if not torch.cuda.is_available():
        return NO_GPU
    return "" if time.monotonic() + BUILDING < end else NO_TIME


def not_run(what: str, why: str = NO_GPU) -> Row:
    """A row that says that a figure was not measured, and why."""
    return {"what": f"{what}: {why}", "value": None, "unit": "", "runs": 0, "lowest": None, "highest": None}


def _clear() -> None:
    gc.collect()
    torch.cuda.empty_cache()

"""What a run trains, in which precision and with which optimizer, as its configuration says; and how its model is kept.

The stages ask here, so that full tuning, LoRA and QLoRA are one setting of theirs. Computes no loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mera_core.checkpoint.folder import Manifest, load_checkpoint, load_vocabulary, read_manifest, save_checkpoint
from mera_core.checkpoint.verify import ADAPTERS, check_files
from mera_core.common.errors import InputError
from mera_core.model.network import MeraModel
from training.common.backbone import load_weights, weight_dtype
from training.common.config import RunConfig
from training.common.optimizer import make_optimizer

Loss = Callable[[MeraModel, dict], Tensor]


def holds_adapters(folder: Path) -> bool:
    """Whether a checkpoint folder holds adapters in place of a whole model."""
    return (folder / ADAPTERS).is_file()


def load_start(folder: Path, config: RunConfig) -> tuple[MeraModel, Manifest]:
    """The model that a stage goes on from, in the run's precision: whole, with new adapters, or with those it has.

    Raises:
        InputError: the folder is no checkpoint, or holds other adapters than `config.tuning` asks for.
    """
    if holds_adapters(folder):
        from training.common import adapters  # with peft, which only those who train adapters wait for

        told = read_manifest(folder).method.get("adapters") or {}
        wanted = adapters.kept_settings(config)
        # adapters of an earlier version don't tell all of their settings
        if any(told.get(name, value) != value for name, value in wanted.items()):
            settings = ", ".join(f"{name} {told[name]}" for name in wanted if name in told)
            raise InputError(
                f"{folder} holds adapters ({settings}): go on with the same settings, or make a whole model of it first: "
                f"python -m training merge {folder} --out DIR."
            )
        return adapters.load(folder)
    if config.tuning == "full" and config.precision != "bfloat16" and not torch.cuda.is_available():
        return load_checkpoint(folder)
    manifest = read_manifest(folder)
    check_files(folder, manifest.files)
    backbone = load_weights(str(folder), weight_dtype(config.precision), quantize=config.tuning == "qlora")
    model = MeraModel(backbone, load_vocabulary(folder), manifest.label_space, manifest.copy)
    if config.tuning != "full":
        from training.common import adapters

        adapters.add_adapters(model, config)
        method = manifest.method | {"adapters": adapters.of_base(config, str(folder))}
        manifest = replace(manifest, method=method)
    return model, manifest


def prepare(model: MeraModel, config: RunConfig) -> None:
    """Set up the backbone to keep few activations, where the configuration asks for it. In place."""
    if config.gradient_checkpointing:
        model.backbone.activation_checkpointing_enable({"use_reentrant": False})
        model.backbone.train()


def in_precision(loss: Loss, config: RunConfig) -> Loss:
    """The loss with the run's arithmetic: in bfloat16 where weights are float32 and precision is mixed."""
    if config.precision != "mixed":
        return loss

    def mixed(model: MeraModel, batch: dict) -> Tensor:
        with torch.autocast(model.device.type, torch.bfloat16):
            return loss(model, batch)

    return mixed


def optimizer_of(
    model: MeraModel, config: RunConfig, head: list[nn.Parameter] | None = None, head_rate: float = 0.0
) -> torch.optim.Optimizer:
    """The run's optimizer over what it trains; arguments as `make_optimizer` has them.

    Raises InputError where bitsandbytes' paged state is asked for without a GPU.
    """
    if config.tuning == "full":
        optimizer = make_optimizer(model, config, model.backbone, head, head_rate)
    else:
        optimizer = _adapter_optimizer(model, config, head or [], head_rate)
    return _low_memory(optimizer, config) if config.optimizer not in ("adamw", "muon") else optimizer


def _adapter_optimizer(
    model: MeraModel, config: RunConfig, head: list[nn.Parameter], head_rate: float
) -> torch.optim.Optimizer:
    """AdamW over adapters, code rows (at their own rate) and score head; decay pulls adapters to nothing, rows nowhere."""
    tables = (model.backbone.get_input_embeddings(), model.backbone.get_output_embeddings())
    rows = list(dict.fromkeys(p for table in tables for p in table.parameters() if p.requires_grad))
    apart = {id(p) for p in (*rows, *head)}
    groups: list[dict] = [
        {"params": [p for p in model.parameters() if p.requires_grad and id(p) not in apart]},
        {"params": rows, "lr": config.row_learning_rate or config.learning_rate, "weight_decay": 0.0},
        {"params": head, "lr": head_rate, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)


def _low_memory(optimizer: torch.optim.Optimizer, config: RunConfig) -> torch.optim.Optimizer:
    from bitsandbytes import optim

    if config.optimizer.startswith("paged") and not torch.cuda.is_available():
        raise InputError(f"The optimizer {config.optimizer} moves its state between GPU and computer: there is no GPU.")
    kinds = {"adamw_8bit": optim.AdamW8bit, "paged_adamw": optim.PagedAdamW, "paged_adamw_8bit": optim.PagedAdamW8bit}
    groups = [{name: group[name] for name in ("params", "lr", "weight_decay")} for group in optimizer.param_groups]
    return kinds[config.optimizer](groups, lr=config.learning_rate, weight_decay=config.weight_decay)


def save(model: MeraModel, manifest: Manifest, folder: Path, config: RunConfig, dtype: torch.dtype) -> Manifest:
    """Write what the run made: adapters, or the whole model in `dtype` (in bfloat16 where it was trained in that)."""
    if config.tuning != "full":
        from training.common import adapters

        return adapters.save(model, manifest, folder)
    return save_checkpoint(model, manifest, folder, torch.bfloat16 if config.precision == "bfloat16" else dtype)

"""What a run trains, in which precision and with which optimizer, as its configuration says; and how its model is kept.

The stages ask here, so that full tuning, LoRA and QLoRA are one setting of theirs. Computes no loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mera_core.checkpoint.folder import Manifest, load_checkpoint, load_vocabulary, read_manifest, save_checkpoint
from mera_core.checkpoint.verify import ADAPTERS, check_files
from mera_core.common.errors import InputError
from mera_core.model.network import MeraModel
from training.common.backbone import load_weights, weight_dtype
from training.common.config import RunConfig

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


def save(model: MeraModel, manifest: Manifest, folder: Path, config: RunConfig, dtype: torch.dtype) -> Manifest:
    """Write what the run made: adapters, or the whole model in `dtype` (in bfloat16 where it was trained in that)."""
    if config.tuning != "full":
        from training.common import adapters

        return adapters.save(model, manifest, folder)
    return save_checkpoint(model, manifest, folder, torch.bfloat16 if config.precision == "bfloat16" else dtype)

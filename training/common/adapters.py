"""LoRA and QLoRA through peft: adapters and code rows that train on a frozen base, their folder, their way into the base.

A folder of adapters is a checkpoint that leaves out what its base holds: adapters and code rows (peft's own files),
tokenizer, score head and `mera.json`. Training starts from it and goes on with it; the engine serves what `merge` makes of
it. Knows no loss and no patients.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils.other import TrainableTokensWrapper
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils import cached_file

from mera_core.checkpoint.folder import Manifest, load_vocabulary, read_manifest, whole_folder, write_manifest
from mera_core.checkpoint.verify import check_files, sha256
from mera_core.common.errors import InputError
from mera_core.model.network import HEAD_FILE, MeraModel
from training.common.backbone import add_rows, load_weights, padded_rows, weight_dtype
from training.common.config import RunConfig

WEIGHTS = "adapter_model.safetensors"
KEPT = ("tuning", "precision", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
"""Settings that adapters keep from stage to stage."""
PREFIX = "base_model.model."
"""What peft's own files put before each name, so that other tools read the folder too."""


def add_adapters(model: MeraModel, config: RunConfig) -> None:
    """Freeze the backbone; put an adapter beside each of its matrices, and rows that train in place of the codes'. In place.

    Adapters are float32 and begin as nothing, so the model computes what it did before.
    """
    backbone = model.backbone
    rows = list(range(model.vocabulary.eov, len(model.vocabulary)))
    tables = (backbone.get_input_embeddings(), backbone.get_output_embeddings())
    names = {name: rows for name, module in backbone.named_modules() if module in tables}
    if tables[0].weight is tables[1].weight:  # peft follows the tie
        names.pop(next(name for name, module in backbone.named_modules() if module is tables[1]))
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets) or "all-linear",
        trainable_token_indices=names,
        task_type="SEQ_2_SEQ_LM" if model.encoder_decoder else "CAUSAL_LM",
    )
    try:
        _inject(model, settings)
    except ValueError as error:
        raise InputError(f"No adapters can be put on this backbone: {str(error).splitlines()[0]}") from error


def _inject(model: MeraModel, settings: LoraConfig) -> None:
    inject_adapter_in_model(settings, model.backbone)
    for parameter in model.backbone.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def of_base(config: RunConfig, base: str) -> dict[str, Any]:
    """What a manifest says of the base that a run's adapters belong to."""
    return {"base": base, **kept_settings(config), "files": base_files(base)}


def kept_settings(config: RunConfig) -> dict[str, Any]:
    """A run's settings that its adapters keep, as a manifest has them."""
    values = {name: getattr(config, name) for name in KEPT}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def base_files(base: str) -> dict[str, str]:
    """SHA-256 of the configuration and weight files of a model folder, or of a downloaded model by name."""
    folder = Path(base)
    if not folder.is_dir():
        try:
            folder = Path(cached_file(base, "config.json", local_files_only=True)).parent
        except OSError as error:
            raise InputError(f"There is no base model {base}: neither a folder nor one that was downloaded.") from error
    return {
        p.name: sha256(p) for p in sorted(folder.glob("*")) if p.name == "config.json" or p.suffix == ".safetensors"
    }


def save(model: MeraModel, manifest: Manifest, folder: Path) -> Manifest:
    """Write a folder of adapters under a temporary name, then put it in place of `folder`.

    Args:
        manifest: its `method["adapters"]` must be what `of_base` says.

    Raises:
        InputError: `folder` can't be written, or holds something else than a checkpoint.
    """
    with whole_folder(folder) as partial:
        backbone = model.backbone
        weights = get_peft_model_state_dict(backbone, save_embedding_layers=False)
        save_file(
            {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, partial / WEIGHTS
        )
        settings = backbone.peft_config["default"]
        settings.base_model_name_or_path = manifest.method["adapters"]["base"]
        settings.save_pretrained(partial)
        backbone.config.save_pretrained(partial)
        model.vocabulary.tokenizer.save_pretrained(partial)
        model.save_head(partial)
        return write_manifest(manifest, partial)


def load(folder: Path, base: str | None = None) -> tuple[MeraModel, Manifest]:
    """A base with the adapters of `folder`, both as they were in training, ready to train on or to be merged.

    Args:
        base: where the base is now, if it was moved.

    Raises:
        InputError: a file of the folder was altered, or the base is not there or not the one that was trained on.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest.files)
    told = manifest.method.get("adapters") or {}
    if not told:
        raise InputError(f"{folder} holds a whole model and no adapters.")
    base = base or told["base"]
    if base_files(base) != told["files"]:
        raise InputError(f"The base model {base} is not the one that the adapters in {folder} were trained on.")
    dtype = weight_dtype(told["precision"])
    vocabulary = load_vocabulary(folder)
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    backbone = load_weights(base, dtype, quantize=told["tuning"] == "qlora")
    add_rows(backbone, padded_rows(len(vocabulary)))
    model = MeraModel(backbone, vocabulary, manifest.label_space, manifest.copy)
    _inject(model, LoraConfig.from_pretrained(str(folder)))
    result: Any = set_peft_model_state_dict(model.backbone, weights)
    if result.unexpected_keys:
        raise InputError(f"The adapters in {folder} do not fit the base model {base}: {result.unexpected_keys[0]}.")
    if manifest.label_space:
        if not (folder / HEAD_FILE).is_file():
            raise InputError(f"The checkpoint {folder} lacks the file {HEAD_FILE}.")
        model.load_head(folder)
    return model.to(model.device).eval(), manifest


@torch.no_grad()
def merge(model: MeraModel) -> None:
    """Put adapters and code rows into the base, in place: afterwards the backbone is plain and whole.

    A base in 4 bits is first written out as what its 4 bits stand for, because that is what the adapters learned to
    correct; so the merged model computes what was trained. Serving it in 4 bits rounds it anew.
    """
    backbone = model.backbone
    if getattr(backbone, "is_quantized", False):
        backbone.dequantize()
        backbone.is_quantized = False
        backbone.config.__dict__.pop("quantization_config", None)
    for name, module in list(backbone.named_modules(remove_duplicate=False)):
        if isinstance(module, LoraLayer):
            matrix = module.get_base_layer()
            whole = matrix.weight.float() + module.get_delta_weight("default").float()  # type: ignore[attr-defined]
            matrix.weight = nn.Parameter(whole.to(matrix.weight.dtype))
            backbone.set_submodule(name, matrix)
        elif isinstance(module, TrainableTokensWrapper):
            table = module.token_adapter.get_base_layer()
            if not module.token_adapter.merged:
                module.token_adapter.merge()
            backbone.set_submodule(name, table)
    del backbone.peft_config
    backbone.requires_grad_(True)


def without_adapters(manifest: Manifest, name: str) -> Manifest:
    """The manifest of the whole model that adapters were merged into; what was measured before is not claimed of it."""
    method = {key: value for key, value in manifest.method.items() if key != "adapters"}
    told = manifest.method["adapters"]
    return replace(
        manifest, name=name, method=method | {"merged": {"base": Path(told["base"]).name, "tuning": told["tuning"]}}
    )

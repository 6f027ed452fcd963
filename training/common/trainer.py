"""The transformers Trainer as both stages use it: parts of batches as items, our loss, any number of devices, and
checkpoints that survive a kill. Knows no codes and no patients."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from mera_core.common.errors import InputError
from training.common.allocator import keep_freed_memory
from training.common.config import RunConfig

WEIGHTS = "training_weights.safetensors"
COMPLETE = "complete"
STEPS = "steps"
SETTINGS = "settings.json"
MAY_CHANGE = ("log_every", "save_every", "validate_every", "batch_size", "accumulate")
"""Settings with which a broken run may go on as it likes; the patients of a step must stay as many as they were."""


def processes() -> int:
    """How many processes train together; the launcher says so (`accelerate launch`, `torchrun`)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process is the one that fits the cut-off and writes the checkpoint."""
    return int(os.environ.get("RANK", "0")) == 0


def is_sharded() -> bool:
    """Whether the launcher asks for weights that are divided among the processes (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")


def leave_processes() -> None:
    """Say goodbye to the processes that trained together: one that just ends may abort, its connections still at work."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def take_device() -> None:
    """Turn to the GPU that the launcher gave this process, so that its weights are loaded there and not all on the first."""
    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def parts_a_step(config: RunConfig) -> int:
    """Forward passes that one step of the optimizer is made of: processes x accumulated passes."""
    return processes() * config.accumulate


class LossModule(nn.Module):
    """A model whose forward is its loss: DDP and FSDP act on what goes through `forward`, and on nothing else."""

    def __init__(self, model: nn.Module, loss: Callable):
        super().__init__()
        self.model, self._loss = model, loss
        backbone = getattr(model, "backbone", None)
        self._no_split_modules = getattr(backbone, "_no_split_modules", None)  # FSDP's units: one layer each

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """The loss of one part of a step's batch."""
        return self._loss(self.model, batch)


class StageTrainer(Trainer):
    """A Trainer whose dataset items are parts of a step's batch (item = step x parts + part) and whose model is a loss.

    Gradients are averaged over processes and accumulated passes, so a loss that is divided by the step's weight *per
    part* is the mean over the targets of the whole step (see `histories.HistoryBatches.collate`).
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, data_collator=lambda items: items[0], **kwargs)
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Any:
        loss = model(inputs)
        return (loss, {}) if return_outputs else loss

    def _save(self, output_dir=None, state_dict=None):
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_unshared(self.model.model), folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            weights = load_file(Path(resume_from_checkpoint) / WEIGHTS)
            (model or self.model).model.load_state_dict(weights, strict=False)

    def _save_checkpoint(self, model, trial):
        """The Trainer's checkpoint, marked complete last, so that a run killed while writing resumes from the one before."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes its random state, and its shard under FSDP
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            for file in folder.rglob("*"):
                if file.is_file():
                    with file.open("rb") as handle:
                        os.fsync(handle.fileno())
            (folder / COMPLETE).touch()


def _unshared(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training can change of the state dict, each storage once.

    Frozen weights (a backbone under adapters) stay as the run's start has them. safetensors refuses tied tensors, and
    loading ties them again.
    """
    frozen = {name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    seen, kept = set(), {}
    for name, tensor in model.state_dict().items():
        weight = name.partition(".weight.")[0] + ".weight"  # 4-bit weights keep their scales under their own name
        if name not in frozen and weight not in frozen and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            kept[name] = tensor.detach().contiguous().cpu()
    return kept


def last_complete(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that was written to its end."""
    steps = [p for p in folder.glob("checkpoint-*") if (p / COMPLETE).exists()]
    return max(steps, key=lambda p: int(p.name.rpartition("-")[2]), default=None)


def run_trainer(
    model: nn.Module,
    data: Dataset,
    config: RunConfig,
    out: Path,
    loss: Callable,
    optimizer: torch.optim.Optimizer,
    callbacks: Sequence[TrainerCallback] = (),
    keep_steps: bool = False,
) -> StageTrainer:
    """Train `model` on `data` with `optimizer`'s rates as the peaks of a cosine schedule, on every device it was launched on.

    Logs to TensorBoard under `logs/` beside `out`; keeps the last two checkpoints under `out/steps` and resumes from the
    last complete one. Afterwards the first process holds the trained weights, whole, in `model`; with FSDP the other
    processes' copies are empty (meta tensors).

    Args:
        data: item i is part `i % parts` of step `i // parts`, with `parts_a_step(config)` parts a step.
        loss: (model, item) -> the loss of that part; its mean over a step's parts is what is minimised.
        keep_steps: leave `out/steps` for the caller to remove, so that a run killed after training, before its result
            is written, need not train again.

    Raises:
        InputError: `out/steps` was made with other settings, or a setting can't be had with FSDP.
    """
    steps_folder = out / STEPS
    if is_sharded():
        refuse_with_shards(config)
    if not torch.cuda.is_available():
        keep_freed_memory()
    total = len(data) // parts_a_step(config)  # type: ignore[arg-type]
    if not total:
        raise InputError(f"These settings make no step: passes is {config.epochs:g}, which is less than one batch.")
    resume = _resume_from(steps_folder, config)
    if resume and is_first_process():
        print(f"Going on from step {resume.name.rpartition('-')[2]} of {total} in {out}.")
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(out.parent / "logs" / out.name)  # outlives the steps in `out`
    prepare_backbone(model, config)
    trained = _copy_to_shard(model, optimizer) if is_sharded() else model
    trainer = StageTrainer(
        model=LossModule(trained, loss),
        args=_arguments(config, steps_folder, total),
        train_dataset=data,
        callbacks=list(callbacks),
        optimizers=(optimizer, None),
    )
    for callback in callbacks:
        callback.trainer = trainer  # type: ignore[attr-defined]
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if is_sharded():
        whole = get_model_state_dict(trainer.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if is_first_process():
            model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in whole.items()}, strict=False)
            model.to(trainer.args.device)  # where what follows, the fit of the cut-off, is quick
    trainer.accelerator.wait_for_everyone()
    if not keep_steps and is_first_process():
        shutil.rmtree(steps_folder, ignore_errors=True)
    return trainer


def prepare_backbone(model: nn.Module, config: RunConfig) -> None:
    """Choose the kind of attention and compile the backbone, where the configuration asks for it."""
    backbone = getattr(model, "backbone", None)
    if config.attention:
        try:
            backbone.set_attn_implementation(config.attention)
        except (ImportError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f'The setting attention is "{config.attention}", which can\'t be had here: {reason}'
            ) from error
    if config.compile:
        backbone.base_model.compile(dynamic=True)  # in place: names of weights stay


def _arguments(config: RunConfig, steps_folder: Path, total: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(steps_folder),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=config.accumulate,
        max_steps=total,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=int(total * config.warmup_share),
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        logging_steps=config.log_every,
        save_strategy="steps" if config.save_every else "no",
        save_steps=config.save_every or total,
        save_total_limit=2,
        report_to=["tensorboard"],
        seed=config.seed,
        data_seed=config.seed,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        average_tokens_across_devices=False,
        train_sampling_strategy="sequential",
    )


def _resume_from(steps_folder: Path, config: RunConfig) -> Path | None:
    """The checkpoint to go on from; notes the run's settings beside the checkpoints, and refuses those of another run."""
    settings = {name: value for name, value in config.to_dict().items() if name not in MAY_CHANGE}
    settings["sequences a step"] = config.batch_size * parts_a_step(config)
    settings = json.loads(json.dumps(settings))  # as it will be read: a tuple is a list
    path = steps_folder / SETTINGS
    resume = last_complete(steps_folder) if steps_folder.exists() else None
    if resume and path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
        if changed:
            raise InputError(
                f"{steps_folder} holds a run with other settings ({', '.join(changed)}): go on with the settings it had, "
                "or delete that folder to start anew."
            )
    elif is_first_process() and config.save_every:
        steps_folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        partial.replace(path)
    return resume


def refuse_with_shards(config: RunConfig) -> None:
    """Raise InputError for a setting that can't be had where weights are divided among processes."""
    if config.optimizer == "muon":
        raise InputError("Muon works on whole matrices, which FSDP divides: set optimizer to adamw.")
    if config.optimizer != "adamw":
        raise InputError(
            f"The optimizer {config.optimizer} keeps its state beside whole weights, which FSDP divides: set optimizer to "
            "adamw."
        )
    if config.tuning == "qlora":
        raise InputError("Weights in 4 bits can't be divided among devices: with FSDP set tuning to lora or full.")
    for name, off in {
        "ema_decay": "0",
        "validate_every": "0",
        "encoded_epochs": "0",
        "train_missed_rows_only": "false",
    }.items():
        if getattr(config, name, None):
            raise InputError(
                f"The setting {name} needs whole weights on each device, which FSDP divides: set it to {off}."
            )


def _copy_to_shard(model: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
    """A copy of the model for FSDP to take apart, with the optimizer turned to it; `model` stays whole for the result.

    Only the first process needs the result, so the others let go of their weights, which the copy takes over: they hold
    the model once and not twice.
    """
    model.to("cpu")  # the GPU is for the shards
    taken_over = [] if is_first_process() else [*model.parameters(), *model.buffers()]
    trained = copy.deepcopy(model, {id(tensor): tensor for tensor in taken_over})
    new = dict(zip(map(id, model.parameters()), trained.parameters(), strict=True))
    for group in optimizer.param_groups:
        group["params"] = [new[id(parameter)] for parameter in group["params"]]
    if not is_first_process():
        model.to("meta")
    return trained

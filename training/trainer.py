"""The transformers Trainer as both stages use it: whole batches as items, our loss, checkpoints that survive a kill."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from training.config import RunConfig

WEIGHTS = "training_weights.safetensors"
COMPLETE = "complete"


class StageTrainer(Trainer):
    """A Trainer whose dataset items are whole batches and whose loss is a function of (model, batch)."""

    def __init__(self, *args, loss: Callable, **kwargs):
        super().__init__(*args, data_collator=lambda items: items[0], **kwargs)
        self._loss = loss
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = self._loss(model, inputs)
        return (loss, {}) if return_outputs else loss

    def _save(self, output_dir=None, state_dict=None):
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_unshared(self.model), folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        weights = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        (model or self.model).load_state_dict(weights, strict=False)

    def _save_checkpoint(self, model, trial):
        """The Trainer's checkpoint, marked complete last, so that a run killed while writing resumes from the one before."""
        super()._save_checkpoint(model, trial)
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        for file in folder.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        (folder / COMPLETE).touch()


def _unshared(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict with each storage once: safetensors refuses tied tensors, and loading ties them again."""
    seen, kept = set(), {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
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
) -> StageTrainer:
    """Train `model` on `data` (item i = batch of step i) with `optimizer`'s rates as the peaks of a cosine schedule.

    Logs to TensorBoard under `logs/` beside `out`; keeps the last two checkpoints under `out/steps` and resumes from the
    last complete one.
    """
    steps_folder = out / "steps"
    total = len(data) // config.accumulate
    arguments = TrainingArguments(
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
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(out.parent / "logs" / out.name)  # outlives the steps in `out`
    trainer = StageTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        loss=loss,
        callbacks=list(callbacks),
        optimizers=(optimizer, None),
    )
    for callback in callbacks:
        callback.trainer = trainer
    resume = last_complete(steps_folder) if steps_folder.exists() else None
    if resume:
        print(f"Going on from step {resume.name.rpartition('-')[2]} of {total} in {out}.")
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if steps_folder.exists():
        shutil.rmtree(steps_folder)
    return trainer

"""Stage 2: teach the model that has memorized the ICD codes to rank the next visit's codes, then fit its cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset
from transformers import TrainerCallback

from mera_core.checkpoint.folder import Manifest, make_room
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap
from mera_core.history.records import Patient
from mera_core.model.losses import Hierarchy, distillation_loss, hierarchical_contrastive, threshold_loss, without
from mera_core.model.network import MeraModel
from training.common import tuning
from training.common.config import RankConfig
from training.common.optimizer import make_optimizer
from training.common.split import histories_and_truth
from training.common.trainer import is_first_process, run_trainer, take_device
from training.memorize.loss import answer_loss
from training.rank.setup import Setup, cut, level_in_words, load_start, prepare, set_attention_dropout

__all__ = ["level_in_words", "load_start", "set_attention_dropout"]


def rank_loss(model: MeraModel, batch: dict[str, Any], hierarchy: Hierarchy, config: RankConfig) -> Tensor:
    """Weighted mean over the step's targets of `L_HCL + lambda L_EOV`, plus the rehearsal of stage 1.

    Of a batch that is one part of a step (see `HistoryBatches.collate`), what its mean over the step's parts must be.
    """
    questions = batch.get("questions", [])
    hidden, *recalled = model.hidden_of_parts(
        [batch["input_ids"], *(part["input_ids"] for part in questions)],
        [None, *(part.get("decoder_ids") for part in questions)],
    )
    states = hidden[batch["row"], batch["position"]]
    weight = batch["weight"]
    of_step = batch.get("target_weight", weight.sum())  # a part divides by the step's mean, not by its own sum
    total = (target_losses(model, states, batch, hierarchy, config) * weight).sum() / of_step.clamp_min(1e-9)
    if questions:
        total = total + config.rehearsal_weight * answer_loss(model, batch, recalled)
    return total


def target_losses(
    model: MeraModel, states: Tensor, batch: dict[str, Tensor], hierarchy: Hierarchy, config: RankConfig
) -> Tensor:
    """Loss [N] of each target from its state [N, H].

    With `config.target_chunk_size` the scores [N, C] never exist at once, nor does their gradient: they are computed for a
    few targets at a time, and again for the gradient.
    """
    asked: dict[str, Tensor] = {name: batch[name] for name in ("positive", "known", "told", "taught") if name in batch}
    size, total = config.target_chunk_size, len(states)
    if not size or total <= size:
        return _losses(model, states, batch["seen"], asked, hierarchy, config)
    losses, target = [], batch["seen"][:, 0]
    for begin in range(0, total, size):
        chunk = slice(begin, begin + size)
        seen = batch["seen"][(target >= begin) & (target < begin + size)]
        seen = torch.cat([seen[:, :1] - begin, seen[:, 1:]], 1)
        part = {name: value[chunk] for name, value in asked.items()}
        losses.append(checkpoint(_losses, model, states[chunk], seen, part, hierarchy, config, use_reentrant=False))
    return torch.cat(losses)


def _losses(
    model: MeraModel, states: Tensor, seen: Tensor, asked: dict[str, Tensor], hierarchy: Hierarchy, config: RankConfig
) -> Tensor:
    """Loss [N] of targets whose next visit is known (`asked["known"]`), of which a teacher says something, or both."""
    scores, eov = model.scores(states, seen)
    positive = asked["positive"]
    if config.ranking_loss == "hierarchical":
        loss = _contrastive(scores, positive, hierarchy, config)
    else:
        loss = -(scores.log_softmax(1) * positive).sum(1)
    if config.new_code_weight:
        row, label = seen[:, :2].long().unbind(1)
        is_new = positive.index_put((row, label), positive.new_zeros(()))
        loss = loss + config.new_code_weight * _contrastive(without(scores, row, label), is_new, hierarchy, config)
    if config.threshold != "none":
        loss = loss + config.threshold_weight * threshold_loss(
            scores, eov, positive, config.threshold, config.threshold_positive_weight
        )
    if "taught" not in asked:
        return loss
    told = distillation_loss(scores, eov, asked["taught"], config.threshold == "independent")
    return loss * asked["known"] + config.teacher_weight * told * asked["told"]


def _contrastive(scores: Tensor, positive: Tensor, hierarchy: Hierarchy, config: RankConfig) -> Tensor:
    return hierarchical_contrastive(scores, positive, hierarchy, config.level_weights or None, config.temperature)


class EMACallback(TrainerCallback):
    """Keeps an exponential moving average of the weights; `swap` puts it in the model's place.

    In float32, whatever the weights are: a step of a thousandth is less than bfloat16 can tell apart.
    """

    def __init__(self, model: torch.nn.Module, decay: float):
        self.decay, self.model = decay, model
        self.kept = {name: p.detach().float().clone() for name, p in self._trained()}
        self._away: dict[str, Tensor] | None = None  # the weights, while the average stands in their place

    def on_step_end(self, args, state, control, **kwargs):
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        with torch.no_grad():
            for name, parameter in self._trained():
                self.kept[name].lerp_(parameter.float(), 1 - decay)
        if control.should_save and state.is_world_process_zero:  # before the Trainer marks the step complete
            self._file(args, state).parent.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.contiguous() for name, tensor in self.kept.items()}, self._file(args, state))

    def on_train_begin(self, args, state, control, **kwargs):
        """Take up the average of the step that the run resumes from, on the device that the Trainer chose."""
        saved = self._file(args, state)
        if saved.exists():
            self.kept = load_file(saved)
        self.kept = {name: self.kept[name].to(p.device) for name, p in self._trained()}

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    @staticmethod
    def _file(args, state) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}" / "average.safetensors"

    def swap(self) -> None:
        """Put the average in the weights' place; a second call puts the weights back, to the last bit."""
        back, self._away = self._away, None
        if back is None:
            self._away = {name: p.detach().clone() for name, p in self._trained()}
        with torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_((back or self.kept)[name])


class Validation(TrainerCallback):
    """Logs recall, of all codes and of new ones, on validation patients every so many steps, for the weights to be kept."""

    def __init__(self, engine: Engine, patients: Sequence[Patient], every: int, average: EMACallback | None):
        self.engine, self.every, self.average, self.trainer = engine, every, average, None
        self.histories, self.truth, _ = histories_and_truth(engine, patients)
        self.bootstrap = Bootstrap(len(self.truth), 10)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        model = self.engine.model
        training = model.training
        model.eval()
        if self.average:
            self.average.swap()
        scores, _ = self.engine.scores(self.histories)
        figures = metrics.evaluate_ranking(
            scores, self.truth, ks=(10, 20), bootstrap=self.bootstrap, areas=False
        ).metrics
        new = metrics.evaluate_new_only(scores, self.truth, self.bootstrap)
        if self.average:
            self.average.swap()
        model.train(training)
        shown = {name: figures[name] for name in ("recall@10", "recall@20", "weighted_f1_oracle")}
        shown |= {f"new_{name}": new[name] for name in ("recall@10", "recall@20")}
        self.trainer.log({f"validation_{name}": round(one.value, 5) for name, one in shown.items()})


def run(config: RankConfig, out: Path) -> Manifest:
    """Train stage 2 from the stage-1 folder `config.start` on `config.data`, fit the cut-off, and write `out`.

    Only patients of the training part are trained on; the cut-off is fitted on the validation part; the test part is not
    looked at. Resumes from the last complete step in `out`.

    Raises:
        InputError: `out` holds something else than a checkpoint or a run, or what `rank_setup.prepare` refuses.
    """
    make_room(out)
    take_device()
    setup = prepare(config, out)
    data = setup.batches()
    if not setup.validation or not data.patients:
        raise InputError(
            f"{config.data} can't train a ranking: it holds {len(data.patients)} training and {len(setup.validation)} "
            "validation patients of two visits."
        )
    train(setup, data, out, keep_steps=True)
    if not is_first_process():
        return setup.manifest
    cut(setup)
    return tuning.save(setup.engine.model, setup.manifest, out, config, torch.float16)


def train(setup: Setup, data: Dataset, out: Path, loss: tuning.Loss | None = None, keep_steps: bool = False) -> None:
    """Run the Trainer on the setup's model; leaves the averaged weights in it where the configuration asks for them.

    Args:
        loss: of one item of `data`; by default `rank_loss`.
        keep_steps: as `run_trainer` has it.
    """
    config, model, hierarchy = setup.config, setup.engine.model, setup.hierarchy
    loss = loss or (lambda m, batch: rank_loss(m, batch, hierarchy, config))
    average = EMACallback(model, config.ema_decay) if config.ema_decay else None
    callbacks: list[TrainerCallback] = [average] if average else []
    if config.validate_every and setup.for_cut:
        callbacks.append(Validation(setup.engine, setup.for_cut, config.validate_every, average))
    optimizer = rank_optimizer(model, config)
    run_trainer(model, data, config, out, tuning.in_precision(loss, config), optimizer, callbacks, keep_steps)
    if average:
        average.swap()


def rank_optimizer(model: MeraModel, config: RankConfig) -> torch.optim.Optimizer:
    """The run's optimizer; the score head's one-a-label numbers learn at their own rate."""
    # the head's map from the state learns as the body does
    head = [p for name, p in model.head.named_parameters() if not name.startswith("per_state")]
    return make_optimizer(model, config, head, config.head_learning_rate)

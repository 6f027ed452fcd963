"""Stage 2: teach the model that knows the code book to rank the next visit's codes."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import TrainerCallback

from mera_core.losses import Hierarchy, hierarchical_contrastive, threshold_loss
from mera_core.model import MeraModel
from training.config import RankConfig
from training.memorize import memorize_loss


def rank_loss(model: MeraModel, batch: dict[str, Tensor], hierarchy: Hierarchy, config: RankConfig) -> Tensor:
    """Weighted mean over the batch's targets of `L_HCL + lambda L_EOV`, plus the rehearsal of stage 1."""
    hidden = model.hidden(batch["input_ids"])
    scores, eov = model.scores(hidden[batch["row"], batch["position"]], batch["seen"])
    positive, weight = batch["positive"], batch["weight"]
    if config.ranking_loss == "hierarchical":
        loss = hierarchical_contrastive(
            scores, positive, hierarchy, config.level_weights or None, config.temperature, reduction="none"
        )
    else:
        loss = -(scores.log_softmax(1) * positive).sum(1)
    if config.threshold != "none":
        loss = loss + config.threshold_weight * threshold_loss(
            scores, eov, positive, config.threshold, config.threshold_positive_weight, reduction="none"
        )
    total = (loss * weight).sum() / weight.sum()
    if "question_ids" in batch:
        rehearsed = memorize_loss(model, batch["question_ids"], batch["question_labels"], 512)
        total = total + config.rehearsal_weight * rehearsed
    return total


class Average(TrainerCallback):
    """Keeps an exponential moving average of the weights; `swap` puts it in the model's place."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.decay, self.model = decay, model
        self.kept = {name: p.detach().clone() for name, p in model.named_parameters()}

    def on_step_end(self, args, state, control, **kwargs):
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.kept[name].lerp_(parameter, 1 - decay)

    def swap(self) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.kept[name])

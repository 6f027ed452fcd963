"""What moves which weights: Muon for the body's matrices, AdamW for everything else, as one optimizer. Knows no loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from training.config import RunConfig


class MuonAdamW(torch.optim.Optimizer):
    """Muon for matrices and AdamW for all other parameters, seen by a scheduler or the Trainer as one optimizer.

    Muon's update of a matrix is its momentum made orthogonal, scaled to the size of AdamW's updates, so that one learning
    rate means about the same to both. Source: K. Jordan et al., "Muon", 2024; `torch.optim.Muon`.

    Args:
        matrices: parameter groups (each with its `lr`) whose parameters all have two dimensions.
        others: parameter groups for AdamW.
    """

    def __init__(self, matrices: list[dict], others: list[dict], lr: float, weight_decay: float):
        super().__init__([*matrices, *others], {"lr": lr, "weight_decay": weight_decay})
        groups = self.param_groups  # the parts work on these very dicts, so that a scheduler's rates reach them
        self._parts = (
            torch.optim.Muon(groups[: len(matrices)], lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(groups[len(matrices) :], lr=lr, weight_decay=weight_decay),
        )

    def step(self, closure: Callable | None = None):
        """One step of both."""
        loss = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both, in order."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]


def embedding_rows(backbone) -> list[nn.Parameter]:
    """The embedding table, and the output table where it is another one."""
    tables = [t.weight for t in (backbone.get_input_embeddings(), backbone.get_output_embeddings())]
    return tables[:1] if tables[0] is tables[1] else tables


def make_optimizer(
    model: nn.Module, config: RunConfig, backbone, head: list[nn.Parameter] | None = None, head_rate: float = 0.0
) -> torch.optim.Optimizer:
    """The optimizer of a run: the body, the embedding rows and the head's one-a-label numbers, each at its own rate.

    Args:
        head: parameters that learn at `head_rate`, without weight decay.
    """
    rows, head = embedding_rows(backbone), head or []
    apart = {id(p) for p in (*rows, *head)}
    body = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
    matrices = [p for p in body if config.optimizer == "muon" and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [
        {"params": [p for p in body if id(p) not in chosen], "lr": config.learning_rate},
        {"params": [p for p in rows if p.requires_grad], "lr": config.row_learning_rate or config.learning_rate},
        {"params": head, "lr": head_rate, "weight_decay": 0.0},
    ]
    others = [group for group in others if group["params"]]
    if matrices:
        rate = config.muon_learning_rate or config.learning_rate
        return MuonAdamW(
            [{"params": matrices, "lr": rate}], others, lr=config.learning_rate, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(others, lr=config.learning_rate, weight_decay=config.weight_decay)

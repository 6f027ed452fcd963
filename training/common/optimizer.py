"""What moves which weights: Muon for the body's matrices, AdamW for everything else, as one optimizer. Knows no loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mera_core.common.errors import InputError
from mera_core.model.network import MeraModel
from training.common.config import RunConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that makes a matrix orthogonal: steepest at zero (Jordan et al., 2024)."""
ITERATIONS = 5


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` whose iteration keeps the matrices' own precision, all matrices of one shape at once.

    Torch's own makes each matrix bfloat16 first. That is quick on a GPU; on a processor without bfloat16 units it takes
    ten times as long as float32, more than half of a training step. State and settings are torch's.
    """

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Any:
        """One step; `closure` as in every optimizer of torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params, grads, momenta = [], [], []
            self._init_group(group, params, grads, momenta)
            updates: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
            for param, grad, momentum in zip(params, grads, momenta, strict=True):
                momentum.lerp_(grad, 1 - group["momentum"])
                updates.setdefault(grad.shape, []).append((param, grad.lerp(momentum, group["momentum"])))
            for shape, of_shape in updates.items():
                size = 0.2 * max(shape) ** 0.5  # that of AdamW's updates: "match_rms_adamw"
                moved = orthogonal(torch.stack([update for _, update in of_shape]))
                for (param, _), direction in zip(of_shape, moved, strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"] * size)
        return loss


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly the orthogonal factor of each matrix [B, m, n]: its singular values become 0.7 to 1.2."""
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


class MuonAdamW(torch.optim.Optimizer):
    """Muon for matrices and AdamW for all other parameters, seen by a scheduler or the Trainer as one optimizer.

    Muon's update of a matrix is its momentum made orthogonal, scaled to the size of AdamW's updates, so that one learning
    rate means about the same to both. Source: K. Jordan et al., "Muon", 2024.

    Args:
        matrices: parameter groups (each with its `lr`) whose parameters all have two dimensions.
        others: parameter groups for AdamW.
    """

    def __init__(self, matrices: list[dict], others: list[dict], lr: float, weight_decay: float):
        super().__init__([*matrices, *others], {"lr": lr, "weight_decay": weight_decay})
        groups = self.param_groups  # the parts work on these very dicts, so that a scheduler's rates reach them
        self._parts = (
            Muon(groups[: len(matrices)], lr=lr, weight_decay=weight_decay),
            torch.optim.AdamW(groups[len(matrices) :], lr=lr, weight_decay=weight_decay, fused=True),
        )

    def step(self, closure: Callable | None = None) -> Any:
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
    model: MeraModel, config: RunConfig, head: Sequence[nn.Parameter] = (), head_rate: float = 0.0
) -> torch.optim.Optimizer:
    """The optimizer of a run: body or adapters, embedding rows, and the head's one-a-label numbers, each at its own rate.

    Decay pulls adapters to nothing, and the code rows beside them nowhere.

    Args:
        head: parameters that learn at `head_rate`, without weight decay.

    Raises:
        InputError: bitsandbytes' paged state is asked for without a GPU.
    """
    whole = config.tuning == "full"
    tables = (model.backbone.get_input_embeddings(), model.backbone.get_output_embeddings())
    rows = dict.fromkeys(p for t in tables for p in ([t.weight] if whole else t.parameters()) if p.requires_grad)
    apart = {id(p) for p in (*rows, *head)}
    body = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
    matrices = [p for p in body if config.optimizer == "muon" and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest, decay = [p for p in body if id(p) not in chosen], config.weight_decay
    groups = [
        {"params": rest, "lr": config.learning_rate, "weight_decay": decay},
        {
            "params": list(rows),
            "lr": config.row_learning_rate or config.learning_rate,
            "weight_decay": decay if whole else 0.0,
        },
        {"params": list(head), "lr": head_rate, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rates: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": decay}
    if matrices:
        return MuonAdamW(
            [{"params": matrices, "lr": config.muon_learning_rate or config.learning_rate}], groups, **rates
        )
    if config.optimizer in ("adamw", "muon"):
        return torch.optim.AdamW(groups, **rates, fused=whole or None)
    if config.optimizer.startswith("paged") and not torch.cuda.is_available():
        raise InputError(f"The optimizer {config.optimizer} moves its state between GPU and computer: there is no GPU.")
    from bitsandbytes import optim

    kinds = {"adamw_8bit": optim.AdamW8bit, "paged_adamw": optim.PagedAdamW, "paged_adamw_8bit": optim.PagedAdamW8bit}
    return kinds[config.optimizer](groups, **rates)

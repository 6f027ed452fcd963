"""Which weights which optimizer moves, at which rate; and that the pair is one optimizer to whoever holds it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.tiny import tiny_model
from training.common.config import MemorizeConfig
from training.common.optimizer import Muon, embedding_rows, make_optimizer, orthogonal


def rates(optimizer: torch.optim.Optimizer) -> dict[int, float]:
    return {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}


def fill_gradients(model: torch.nn.Module, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_learns_once_and_at_its_own_rate(name: str) -> None:
    model = tiny_model()
    config = MemorizeConfig(optimizer=name, learning_rate=1e-3, muon_learning_rate=4e-3, row_learning_rate=2e-4)
    head = list(model.head.parameters())
    found = rates(make_optimizer(model, config, head, 1e-2))
    assert len(found) == len(list(model.parameters()))
    rows = {id(p) for p in embedding_rows(model.backbone)}
    for parameter in model.parameters():
        if id(parameter) in rows:
            expected = 2e-4
        elif any(parameter is p for p in head):
            expected = 1e-2
        else:
            expected = 4e-3 if name == "muon" and parameter.ndim == 2 else 1e-3
        assert found[id(parameter)] == expected


def test_a_scheduler_reaches_both_parts() -> None:
    model = tiny_model()
    optimizer = make_optimizer(model, MemorizeConfig(optimizer="muon"))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = [p.detach().clone() for p in model.parameters()]
    fill_gradients(model, 0)
    optimizer.step()
    schedule.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_state_that_was_saved_goes_on_as_if_never_stopped() -> None:
    config, model = MemorizeConfig(optimizer="muon"), tiny_model()
    optimizer = make_optimizer(model, config)
    fill_gradients(model, 1)
    optimizer.step()
    resumed = copy.deepcopy(model)
    again = make_optimizer(resumed, config)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in again.param_groups:
        group["lr"] *= 0.5  # as a scheduler does after resuming: it must reach what steps
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    for one, its in ((model, optimizer), (resumed, again)):
        fill_gradients(one, 2)
        its.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(8, 8), (8, 20), (20, 8)])
def test_muon_in_float32_does_what_torch_does_in_bfloat16(shape) -> None:
    ours, theirs = (nn.Parameter(torch.arange(shape[0] * shape[1], dtype=torch.float32).view(shape)) for _ in range(2))
    mine = Muon([ours], lr=0.02, weight_decay=0.1)
    torchs = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        ours.grad = torch.randn(shape, generator=draw)
        theirs.grad = ours.grad.clone()
        before = ours.detach().clone()
        mine.step()
        torchs.step()
        step = (ours - before).norm()
        assert (ours - theirs).norm() < 0.05 * step  # bfloat16 has three digits, and the iteration is steep


def test_matrices_of_one_shape_move_as_they_do_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    both = torch.randn(2, 6, 10, generator=draw)
    assert torch.allclose(orthogonal(both)[1], orthogonal(both[1:])[0], atol=1e-5)
    singular = torch.linalg.svdvals(orthogonal(both))
    assert singular.min() > 0.6 and singular.max() < 1.3

"""Kept rows of a table are those that stand in it, whoever wrote to it since."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from mera_core.model.network import MeraModel
from mera_core.model.row_cache import KeptRows
from tests.tiny import CODES, tiny_model

IDS = torch.tensor([3, 0, 3, 5])


def _table(rows: int = 7) -> nn.Parameter:
    return nn.Parameter(torch.arange(rows * 2.0).view(rows, 2), requires_grad=False)


def test_rows_are_kept_while_nobody_writes() -> None:
    weight = _table()
    with torch.inference_mode():
        kept = KeptRows.of(weight, IDS)
    assert kept is not None and torch.equal(kept.rows, weight[IDS])
    assert kept.hold(weight)
    assert not kept.hold(_table())
    assert not kept.hold(weight.requires_grad_())


def test_a_new_table_at_the_address_of_an_old_one_is_another() -> None:
    weight = _table(100_000)
    kept = KeptRows.of(weight, IDS)
    for _ in range(20):  # freed memory would be given out again at once
        weight.data = torch.zeros(100_000, 2)
        assert not kept.hold(weight)


def test_a_weight_that_does_not_count_its_writes_is_not_kept() -> None:
    with torch.inference_mode():
        assert KeptRows.of(nn.Parameter(torch.zeros(7, 2), requires_grad=False), IDS) is None
    assert KeptRows.of(nn.Parameter(torch.zeros(7, 2)), IDS) is None  # a fused optimizer's step is not counted
    assert KeptRows.of(torch.zeros(7, 2), IDS) is None  # a merged weight, made as it is asked for
    assert not KeptRows.of(_table(), IDS).hold(_table() + 1)


def _in_place(model: MeraModel) -> None:
    with torch.no_grad():
        _weight(model)[model.scored_ids] += 1


def _in_inference(model: MeraModel) -> None:
    with torch.inference_mode():
        _weight(model)[model.scored_ids] += 1


def _by_optimizer(model: MeraModel, **options) -> None:
    optimizer = torch.optim.AdamW(model.train().requires_grad_().parameters(), lr=0.1, **options)
    model.scores(torch.ones(1, 32))[0].sum().backward()
    optimizer.step()
    model.eval().requires_grad_(False)


def _by_loading(model: MeraModel) -> None:
    model.load_state_dict(tiny_model(labels=model.labels, seed=1).state_dict())


def _by_rounding(model: MeraModel) -> None:
    model.backbone.to(torch.bfloat16).float()


def _by_replacing(model: MeraModel) -> None:
    model.backbone.set_output_embeddings(nn.Linear(32, len(_weight(model)), bias=False))


def _by_growing(model: MeraModel) -> None:
    model.backbone.resize_token_embeddings(len(_weight(model)) + 64)
    _in_place(model)


def _weight(model: MeraModel) -> nn.Parameter:
    return model.backbone.get_output_embeddings().weight


@pytest.mark.parametrize(
    "write",
    [
        _in_place,
        _in_inference,
        _by_optimizer,
        pytest.param(lambda model: _by_optimizer(model, foreach=True), id="foreach"),
        pytest.param(lambda model: _by_optimizer(model, fused=True), id="fused"),
        _by_loading,
        _by_rounding,
        _by_replacing,
        _by_growing,
    ],
)
def test_a_model_scores_with_the_rows_it_has_now(write: Callable[[MeraModel], None]) -> None:
    model = tiny_model(labels=CODES[::4], tied=False).requires_grad_(False)
    hidden = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = model.scores(hidden)[0]
        assert model._kept is not None and model._kept.hold(_weight(model))
    write(model)
    with torch.inference_mode():
        after = model.scores(hidden)[0]
    assert not torch.equal(before, after)
    assert torch.allclose(after, model.scores(hidden)[0], atol=1e-5)  # with gradients rows are picked one by one

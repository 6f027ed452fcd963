"""Many labels, many targets: the loss in pieces is the loss at once, and its scores never fill the memory."""

from __future__ import annotations

import random

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code, Ontology
from mera_core.model.losses import Hierarchy
from mera_core.model.sequence import Encoder, SequenceConfig
from tests.tiny import tiny_model, tiny_vocabulary
from training.common.config import RankConfig
from training.rank.batches import HistoryBatches
from training.rank.run import rank_loss

BOOK = Ontology.load()
LABELS: tuple[Code, ...] = tuple(sorted(BOOK.billable("ICD9"))[::12])  # 1,214 of them, over all chapters


def case(**settings):
    """A model over `LABELS` and one batch of forty patients, some targets with seen codes and some without."""
    config = RankConfig(batch_size=40, epochs=1, start_weight=0.25, rest_weight=0.5, **settings)
    vocabulary = tiny_vocabulary(LABELS)
    model = tiny_model(LABELS, vocabulary)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(0.2 if parameter.ndim == 2 else 1)
    draw = random.Random(3)
    patients = [
        Patient([Visit(draw.sample(LABELS, draw.randint(1, 6))) for _ in range(draw.randint(2, 4))], id=str(n))
        for n in range(40)
    ]
    return model, HistoryBatches(patients, LABELS, Encoder(vocabulary, SequenceConfig()), config)[0], config


HIERARCHY = Hierarchy.from_ontology(LABELS, BOOK)


def loss_and_gradients(**settings) -> tuple[float, dict[str, torch.Tensor]]:
    model, batch, config = case(**settings)
    loss = rank_loss(model, batch, HIERARCHY, config)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "settings",
    [{}, {"threshold": "adaptive"}, {"ranking_loss": "cross_entropy", "threshold": "none"}, {"copy": False}],
)
@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_the_loss_in_pieces_is_the_loss_at_once(settings, at_once) -> None:
    whole, gradients = loss_and_gradients(**settings)
    pieces, in_pieces = loss_and_gradients(target_chunk_size=at_once, **settings)
    assert pieces == pytest.approx(whole, rel=1e-6)
    assert gradients.keys() == in_pieces.keys() and len(gradients) > 10
    for name, gradient in gradients.items():
        torch.testing.assert_close(in_pieces[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


class Largest(TorchDispatchMode):
    """Notes the largest float tensor over the labels that any operation makes, forward or backward."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            floats = isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
            if floats and {len(LABELS), len(LABELS) + 1} & {*tensor.shape}:
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("at_once", [0, 16])
def test_scores_of_all_targets_never_stand_in_memory_at_once(at_once) -> None:
    model, batch, config = case(target_chunk_size=at_once)
    targets = len(batch["weight"])
    assert targets > 200
    scores, rows = targets * len(LABELS), 32 * (len(LABELS) + 1)
    with Largest() as largest:
        rank_loss(model, batch, HIERARCHY, config).backward()
    if at_once:
        assert 0 < largest.elements <= max(at_once * (len(LABELS) + 1), rows) < 0.2 * scores
    else:
        assert largest.elements >= scores

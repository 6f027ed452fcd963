"""A rough look never changes the answer: against all logits, on tables where neighbours, copies and rounding could."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_model, tiny_vocabulary
from training.memorize import likeliest as module
from training.memorize.likeliest import BLOCK, BLOCKS_AT_ONCE, likeliest

ROWS = 5 * BLOCK * BLOCKS_AT_ONCE // 2 + 17


@pytest.fixture
def model(monkeypatch):
    """A model with a table of thousands of rows, on a processor that is said to multiply bfloat16 fast."""
    made = tiny_model((), tiny_vocabulary(()))
    made.backbone.resize_token_embeddings(ROWS + 5)
    monkeypatch.setattr(module, "rough_look_pays", lambda *_: True)
    return made


def with_rows(model, rows) -> slice:
    with torch.no_grad():
        model.backbone.get_output_embeddings().weight[5:] = rows
    return slice(5, 5 + ROWS)


def table(kind: str) -> torch.Tensor:
    rows = torch.randn(ROWS, 32, generator=torch.Generator().manual_seed(1))
    if kind == "nearly equal":  # told apart by less than bfloat16 can hold
        return rows[:1] + 1e-3 * rows
    if kind == "copies":  # each row many times, in many blocks
        return rows[:97].repeat(ROWS // 97 + 1, 1)[:ROWS]
    if kind == "the last is best":
        rows[-1] = 10 * torch.ones(32)
    return rows


@pytest.mark.parametrize("kind", ["any", "nearly equal", "copies", "the last is best"])
@torch.inference_mode()
def test_it_is_what_all_logits_give(model, kind, monkeypatch):
    among = with_rows(model, table(kind))
    states = torch.randn(1100, 32, generator=torch.Generator().manual_seed(2)) + 0.5
    logits = model.logits(states, among)
    exactly, computed = module._exactly, []
    monkeypatch.setattr(module, "_exactly", lambda m, s, a: computed.append(len(s)) or exactly(m, s, a))
    index, height = likeliest(model, states, among)
    assert torch.equal(index - among.start, logits.argmax(-1))
    assert torch.allclose(height, logits.amax(-1), atol=1e-4)
    if kind in ("nearly equal", "copies"):
        assert sum(computed) > 1000, "the rough look can't have decided these"
    else:
        assert sum(computed) < 600, "the rough look should have decided most"


@torch.inference_mode()
def test_what_is_only_compared_is_compared_rightly(model):
    """Logits to compare with that lie just above, just below, and far from the best."""
    among = with_rows(model, table("nearly equal"))
    states = torch.randn(600, 32, generator=torch.Generator().manual_seed(2))
    best = model.logits(states, among).amax(-1)
    off = torch.tensor([-5.0, -0.01, 0.01, 5.0]).repeat(150)
    _, found = likeliest(model, states, among, best + off)
    assert torch.equal(found > best + off, off < 0)


def test_a_rough_look_is_taken_of_plain_products_only():
    model = tiny_model()
    cpu = torch.device("cpu")
    pays = module.rough_look_pays(model, cpu)
    assert pays == bool(torch.cpu.get_capabilities().get("amx_bf16"))
    model.text_config.final_logit_softcapping = 30.0
    assert not module.rough_look_pays(model, cpu)

"""Rows that move alone: which questions a step asks, what takes a gradient, and that it teaches without harm to the rest."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from mera_core.checkpoint.folder import load_checkpoint, read_manifest
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Ontology
from mera_core.model.prompts import CODE, DEFINITION, EQUIVALENT
from tests.tiny import CODES, tiny_model
from training.common.config import MemorizeConfig
from training.memorize import run as memorize
from training.memorize.loss import memorize_loss
from training.memorize.questions import QuestionSampler
from training.memorize.recall_eval import codes_exact, definitions_exact
from training.memorize.row_training import RowBatches, let_rows_move, rows_loss

BOOK = Ontology.load()
SETTINGS = MemorizeConfig(
    init_from="x",
    train_missed_rows_only=True,
    epochs_on_missed=3,
    batch_size=8,
    weight_decay=0.0,
    epochs=2.5,
    hierarchy_share=0.0,
)
MOVED = CODES[2:5]


def sampler_of(model, equivalents: bool = False) -> QuestionSampler:
    return QuestionSampler(model.vocabulary, BOOK, list(model.vocabulary.ids), with_equivalents=equivalents)


def test_a_step_asks_about_the_rows_that_move_and_for_the_places_of_all():
    model = tiny_model()
    sampler = sampler_of(model, equivalents=True)
    data = RowBatches(sampler, replace(SETTINGS, equivalents_share=1.0), MOVED)
    asked = Counter(question for questions, _ in data._steps for question in questions)
    still = Counter(question for _, questions in data._steps for question in questions)
    assert {question.code for question in asked} == set(MOVED) and set(asked.values()) == {3}
    assert {question.kind for question in asked} == {DEFINITION, CODE}
    assert {question.kind for question in still} == {CODE, EQUIVALENT} and set(still.values()) == {2, 3}
    assert {question.code for question in still if question.kind == CODE} == set(CODES)
    assert len({len(questions) for questions, _ in data._steps}) <= 2, "they are divided evenly"
    assert max(len(questions) for questions, _ in data._steps) <= SETTINGS.batch_size
    again = RowBatches(sampler, replace(SETTINGS, equivalents_share=1.0), MOVED)
    assert all(
        torch.equal(part["input_ids"], same["input_ids"])
        for kind in ("asked", "still")
        for part, same in zip(data[1][kind]["questions"], again[1][kind]["questions"], strict=True)
    )


@pytest.mark.parametrize("tied", [True, False])
def test_only_their_rows_move_and_the_others_stay_to_the_bit(tied):
    model = tiny_model(tied=tied)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    let_rows_move(model, MOVED)
    data, trained = RowBatches(sampler_of(model), SETTINGS, MOVED), [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == (1 if tied else 2)
    optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.0)
    for step in range(len(data)):
        optimizer.zero_grad()
        rows_loss(model, data[step]).backward()
        optimizer.step()
    rows = sorted(model.vocabulary.ids[code] for code in MOVED)
    for name, weight in model.state_dict().items():
        changed = (weight != before[name]).flatten(1).any(1) if weight.ndim > 1 else weight != before[name]
        assert changed.nonzero().flatten().tolist() == (rows if "embed" in name or "lm_head" in name else []), name


def test_the_loss_is_that_of_both_kinds_and_its_gradient_that_of_both_for_these_rows():
    """The body takes no gradient from questions that name no code: the rows' gradient is the same with it."""
    model, other = tiny_model(), tiny_model()
    item = RowBatches(sampler_of(model), SETTINGS, MOVED)[0]
    let_rows_move(model, MOVED)
    loss = rows_loss(model, item)
    loss.backward()
    whole = memorize_loss(other, item["asked"]) + memorize_loss(other, item["still"])
    whole.backward()
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    rows = [model.vocabulary.ids[code] for code in MOVED]
    ours, theirs = (m.backbone.get_input_embeddings().weight.grad for m in (model, other))
    torch.testing.assert_close(ours[rows], theirs[rows], rtol=1e-4, atol=1e-6)
    assert ours.abs().sum() == pytest.approx(float(ours[rows].abs().sum()))


def test_it_teaches_what_was_missed_and_keeps_what_was_known(tmp_path, monkeypatch):
    codes = BOOK.billable("ICD9")[:40]
    monkeypatch.setattr(memorize, "code_set", lambda ontology, systems: {c: BOOK.definition(c) for c in codes})
    first = MemorizeConfig(
        hidden_size=64, intermediate_size=128, layers=2, heads=2, word_pieces=500, epochs=20, batch_size=16, save_every=0,
        hierarchy_share=0.0, optimizer="muon", muon_learning_rate=0.02, learning_rate=0.01, common_direction=2.0,
    )  # fmt: skip
    memorize.run(first, tmp_path / "first")
    before, _ = load_checkpoint(tmp_path / "first")
    further = replace(
        first, init_from=str(tmp_path / "first"), train_missed_rows_only=True, epochs_on_missed=40, epochs=20, weight_decay=0.0,
        optimizer="adamw", muon_learning_rate=0.0, learning_rate=0.02, save_every=5,
    )  # fmt: skip
    memorize.run(further, tmp_path / "second")
    after, manifest = load_checkpoint(tmp_path / "second")
    known = [
        (sum(definitions_exact(model.eval(), codes, BOOK, 0)[0]), sum(codes_exact(model, codes, BOOK, 0)[0]))
        for model in (before, after)
    ]
    missed = len(codes) - known[0][0]
    assert 5 <= missed <= 35, f"the first stage should leave something to learn, and some known: {known[0]}"
    assert known[1][0] - known[0][0] >= missed / 3 and known[1][1] >= 38, known
    assert (
        manifest.method["memorize"]["train_missed_rows_only"]
        and "train_missed_rows_only" not in manifest.method["before"]["memorize"]
    )
    layers = [name for name, _ in before.named_parameters() if "layers" in name]
    assert all(torch.equal(before.state_dict()[name], after.state_dict()[name]) for name in layers)


def test_nothing_to_move_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(memorize, "go_on", lambda config: (tiny_model(()), list(CODES)))
    monkeypatch.setattr(memorize, "kept_missed", lambda *_: [])
    with pytest.raises(InputError, match="x knows every code both ways"):
        memorize.run(SETTINGS, tmp_path / "out")


def test_what_stage_2_forgot_is_learned_by_rows_and_the_rest_of_the_checkpoint_stays(
    tiny_checkpoint, tmp_path, monkeypatch
) -> None:
    before = Engine.load(tiny_checkpoint)
    forgotten = [code for code in before.model.vocabulary.ids if code not in before.label_space][:3]
    monkeypatch.setattr(memorize, "kept_missed", lambda *_: forgotten)
    settings = {"epochs_on_missed": 3, "epochs": 0.5, "weight_decay": 0.0, "learning_rate": 0.01, "batch_size": 8}
    config = MemorizeConfig(init_from=str(tiny_checkpoint), train_missed_rows_only=True, save_every=0, **settings)
    memorize.run(config, tmp_path / "rows")
    after, manifest = Engine.load(tmp_path / "rows"), read_manifest(tmp_path / "rows")
    assert manifest.stage == "rank" and after.label_space == before.label_space and manifest.calibration
    assert (
        manifest.method["rows"]["epochs_on_missed"] == 3
        and manifest.method["rank"] == before.manifest["method"]["rank"]
    )
    moved = [before.model.vocabulary.ids[code] for code in forgotten]
    rows = (engine.model.backbone.get_input_embeddings().weight for engine in (before, after))
    same = torch.isclose(*rows).all(1)
    assert not same[moved].any() and same.sum() == len(same) - len(moved)
    patient = Patient([Visit(before.label_space[:2])])
    assert after.rank(patient).scores == pytest.approx(before.rank(patient).scores, abs=1e-3)

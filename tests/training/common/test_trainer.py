"""A run that is killed and started again ends with the weights of one that was not; and what is left on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mera_core.common.errors import InputError
from tests.training.common.one_process import KillAt, Killed, stage_2
from training.common import trainer
from training.common.trainer import COMPLETE, last_complete, run_trainer
from training.rank import run as rank

SETTINGS = {"batch_size": 4, "epochs": 2, "save_every": 4, "log_every": 100, "learning_rate": 1e-2, "rehearsal": 4}


def parts(**settings):
    """A fresh model, its data, settings and loss: 12 steps with shuffling, dropping, dropout and random candidates."""
    return stage_2(24, **(SETTINGS | {"drop": 0.2, "attention_dropout": 0.2} | settings))


def trained(out: Path, kill_at: int | None = None, frozen: bool = False, **settings) -> dict[str, torch.Tensor]:
    model, data, config, loss = parts(**settings)
    model.backbone.model.layers.requires_grad_(not frozen)
    callbacks = [KillAt(kill_at)] if kill_at else []
    run_trainer(model, data, config, out, loss, rank.rank_optimizer(model, config), callbacks)
    return copy_of(model)


def copy_of(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict[str, torch.Tensor]:
    return trained(tmp_path_factory.mktemp("unbroken") / "out")


def test_training_moves_the_weights_and_repeats_exactly(tmp_path, unbroken) -> None:
    before = parts()[0].state_dict()
    assert not torch.equal(before["head.bias"], unbroken["head.bias"])
    assert_equal(trained(tmp_path / "out"), unbroken)


@pytest.mark.parametrize("step", [8, 11])
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(tmp_path, unbroken, step, capsys) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed):
        trained(out, kill_at=step)
    kept = last_complete(out / "steps")
    assert kept.name == ("checkpoint-4" if step <= 8 else "checkpoint-8")  # the step of 8 is saved after its callback
    assert_equal(trained(out), unbroken)
    assert f"Going on from step {kept.name[-1]} of 12" in capsys.readouterr().out


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path, unbroken) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed):
        trained(out, kill_at=11)
    newest = out / "steps" / "checkpoint-8"
    (newest / COMPLETE).unlink()
    (newest / trainer.WEIGHTS).write_bytes(b"cut short")
    assert last_complete(out / "steps").name == "checkpoint-4"
    assert_equal(trained(out), unbroken)


def test_the_newest_checkpoint_is_by_number_not_by_name(tmp_path) -> None:
    for step in (4, 12, 8):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    assert last_complete(tmp_path).name == "checkpoint-12"
    assert last_complete(tmp_path / "nothing") is None


def test_finished_steps_are_cleared_and_the_log_stands_beside_the_folder(tmp_path, unbroken) -> None:
    for name in ("one", "two"):  # two runs in one process: each to its own log
        trained(tmp_path / name, save_every=6, log_every=1)
        assert not (tmp_path / name / "steps").exists()
        logs = [path for path in tmp_path.rglob("events.out.tfevents.*") if name in path.parts]
        assert logs and all(path.stat().st_size > 500 for path in logs)
        assert not any(path.is_relative_to(tmp_path / name) for path in logs)  # saving replaces that folder


def test_parameter_groups_learn_at_their_own_rates(tmp_path) -> None:
    model, data, config, loss = parts(save_every=0)
    before = copy_of(model)
    groups = [{"params": list(model.backbone.parameters()), "lr": 0.0, "weight_decay": 0.0}]
    groups.append({"params": list(model.head.parameters()), "lr": 1e-2})
    run_trainer(model, data, config, tmp_path / "out", loss, torch.optim.AdamW(groups))
    moved = {name for name, weight in copy_of(model).items() if not torch.equal(weight, before[name])}
    assert "head.bias" in moved and not any(name.startswith("backbone") for name in moved)


def test_frozen_weights_are_not_written_and_a_killed_run_still_ends_alike(tmp_path) -> None:
    whole = trained(tmp_path / "whole", frozen=True)
    with pytest.raises(Killed):
        trained(tmp_path / "out", kill_at=11, frozen=True)
    written = load_file(last_complete(tmp_path / "out" / "steps") / trainer.WEIGHTS)
    assert not any(".layers." in name for name in written) and "head.cut_offset" in written
    assert_equal(trained(tmp_path / "out", frozen=True), whole)


def test_attention_is_the_one_asked_for(tmp_path) -> None:
    losses = {}
    for kind in ("eager", "sdpa"):
        model, data, config, loss = parts(attention=kind, attention_dropout=0.0)
        trainer.prepare_backbone(model, config)
        assert model.backbone.config._attn_implementation == kind
        losses[kind] = loss(model.eval(), data[0] | {"questions": []}).item()
    assert losses["eager"] == pytest.approx(losses["sdpa"], rel=1e-5)
    model, _, config, _ = parts(attention="lightning")
    with pytest.raises(InputError, match='The setting attention is "lightning"'):
        trainer.prepare_backbone(model, config)


def test_a_kept_run_is_not_trained_again(tmp_path, unbroken) -> None:
    """Until its caller has written the result, a finished run's last step stays."""
    model, data, config, loss = parts()
    run_trainer(model, data, config, tmp_path / "out", loss, rank.rank_optimizer(model, config), keep_steps=True)
    assert last_complete(tmp_path / "out" / "steps").name == "checkpoint-12"
    assert_equal(copy_of(model), unbroken)
    again, data, *_ = parts()
    run_trainer(again, data, config, tmp_path / "out", None, rank.rank_optimizer(again, config))  # no loss is asked for
    assert_equal(copy_of(again), unbroken)

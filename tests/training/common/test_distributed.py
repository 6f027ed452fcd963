"""A step is the mean over its targets, whether one process computes it, several do, or one in several passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit
from tests.conftest import ROOT, free_port
from tests.tiny import tiny_model
from tests.training.common.one_process import PATIENTS, train, train_stage_1
from training.common import trainer
from training.common.config import MemorizeConfig, RankConfig

CONFIGS = ROOT / "training" / "configs" / "accelerate"
STEPS = 2 * -(-PATIENTS // 8)
LORA = {"tuning": "lora", "lora_rank": 4, "lora_dropout": 0.0}


def accelerate(kind: str, *command: str) -> subprocess.CompletedProcess:
    """A command in two processes on the CPU, started by `accelerate launch` with a supplied configuration."""
    config = CONFIGS / f"{kind}.yaml"
    started = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", "2"]
    started += ["--main_process_port", str(free_port()), *command]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(started, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


def launched(kind: str, folder: Path, **settings) -> list[dict]:
    """What each of two processes has to tell of a training run with these settings."""
    folder.mkdir(exist_ok=True)
    asked = folder / "settings.json"
    asked.write_text(json.dumps({"folder": str(folder), **settings}))
    done = accelerate(kind, str(Path(__file__).with_name("one_process.py")), str(asked))
    if "die_at" in settings:
        assert done.returncode != 0
        return []
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"process-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """One process, whole steps of 8 patients."""
    return train(tmp_path_factory.mktemp("alone") / "out")


def assert_same_training(one: dict, other: dict, steps: int = STEPS) -> None:
    """Losses within 1e-5 at every step, the same first gradients, and the same weights at the end."""
    assert len(one["loss"]) == len(other["loss"]) == steps
    assert one["loss"] == pytest.approx(other["loss"], abs=1e-5, rel=1e-5)
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)  # before clipping: also their size
    assert one["gradients"].keys() == other["gradients"].keys() and len(one["gradients"]) > 10
    for name, gradient in other["gradients"].items():
        torch.testing.assert_close(one["gradients"][name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    for name, weight in other["weights"].items():
        torch.testing.assert_close(one["weights"][name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_accumulated_passes_give_the_step_of_one_pass(alone, tmp_path) -> None:
    assert_same_training(train(tmp_path / "two", batch_size=4, accumulate=2), alone)
    assert_same_training(train(tmp_path / "eight", batch_size=1, accumulate=8), alone)


def test_rehearsal_in_accumulated_passes_is_that_of_one_pass(tmp_path) -> None:
    whole = train(tmp_path / "whole", rehearsal=6)
    assert_same_training(train(tmp_path / "two", batch_size=4, accumulate=2, rehearsal=6), whole)
    assert_same_training(
        train(tmp_path / "eight", batch_size=1, accumulate=8, rehearsal=6), whole
    )  # two parts have none


def test_stage_1_in_accumulated_passes_is_that_of_one_pass(tmp_path) -> None:
    """The last step of a pass has four questions for eight parts: some ask nothing."""
    whole = train_stage_1(tmp_path / "whole")
    assert_same_training(train_stage_1(tmp_path / "two", batch_size=4, accumulate=2), whole, len(whole["loss"]))
    assert_same_training(train_stage_1(tmp_path / "eight", batch_size=1, accumulate=8), whole, len(whole["loss"]))


def test_two_processes_with_ddp_train_as_one_does(alone, tmp_path) -> None:
    first, second = launched("ddp", tmp_path, batch_size=4)
    assert_same_training(first, alone)
    for name, gradient in first["gradients"].items():
        assert torch.equal(gradient, second["gradients"][name]), name


def test_two_processes_with_fsdp_train_as_one_does(alone, tmp_path) -> None:
    first, second = launched("fsdp2", tmp_path, batch_size=2, accumulate=2)
    assert_same_training(first, alone)
    assert first["devices"] == {"cpu"} and second["devices"] == {"meta"}  # only the first keeps the result


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_a_process_that_gets_no_patient_of_a_step_keeps_step_with_the_other(tmp_path, kind) -> None:
    """Nine patients in steps of eight: the last step of a pass is one patient, and the second process has none."""
    first, second = launched(kind, tmp_path, batch_size=4, patients=9)
    assert_same_training(first, train(tmp_path / "alone", patients=9), steps=4)
    assert first["loss"] == second["loss"]


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_train_adapters_as_one_does(tmp_path, kind) -> None:
    first, _ = launched(kind, tmp_path, batch_size=4, **LORA)
    whole = train(tmp_path / "alone", **LORA)
    assert_same_training(first, whole)
    assert sum("lora_" in name for name in whole["gradients"]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_that_died_go_on_as_if_they_had_not(alone, tmp_path, kind) -> None:
    launched(kind, tmp_path, batch_size=4, save_every=2, die_at=5)
    assert trainer.last_complete(tmp_path / "out" / "steps").name == "checkpoint-4"
    first, _ = launched(kind, tmp_path, batch_size=4, save_every=2)
    assert first["loss"] == pytest.approx(alone["loss"], abs=1e-5, rel=1e-5)  # its log holds the first four steps too
    for name, weight in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], weight, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_the_documented_command_makes_one_checkpoint(tiny_stage1, invented_cohort, tmp_path, kind) -> None:
    config = tmp_path / "rank.yaml"
    config.write_text("epochs: 2\nbatch_size: 8\nlearning_rate: 0.005\nrehearsal: 4\nsave_every: 5\nformat: table\n")
    command = ["-m", "training", "rank", "--config", str(config), "--start", str(tiny_stage1)]
    done = accelerate(kind, *command, "--data", str(invented_cohort), "--out", str(tmp_path / "model"))
    assert done.returncode == 0, done.stderr[-3000:]
    engine = Engine.load(tmp_path / "model")
    ranking = engine.rank(Patient([Visit(["428.0", "427.31"])]))
    assert len(ranking.codes) == len(engine.label_space) > 20
    assert sorted(p.name for p in tmp_path.iterdir()) == ["logs", "model", "rank.yaml"]


def test_what_fsdp_can_not_do_is_refused_in_words(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    model = tiny_model()

    def run(**settings) -> None:
        optimizer = torch.optim.AdamW(model.parameters())
        trainer.run_trainer(model, [], RankConfig(**settings), tmp_path / "out", None, optimizer)

    with pytest.raises(InputError, match="set optimizer to adamw"):
        run(optimizer="muon")
    for name in ("adamw_8bit", "paged_adamw", "paged_adamw_8bit"):
        with pytest.raises(InputError, match=f"optimizer {name} keeps its state .* set optimizer to adamw"):
            run(optimizer=name)
    with pytest.raises(InputError, match="Weights in 4 bits can't be divided"):
        run(tuning="qlora", precision="bfloat16")
    with pytest.raises(InputError, match="ema_decay needs whole weights"):
        run(ema_decay=0.9)
    rows = MemorizeConfig(init_from="x", train_missed_rows_only=True, epochs_on_missed=1, weight_decay=0.0)
    with pytest.raises(InputError, match=r"train_missed_rows_only needs whole weights .* set it to false"):
        trainer.run_trainer(model, [], rows, tmp_path / "out", None, torch.optim.AdamW(model.parameters()))
    with pytest.raises(InputError, match="validate_every needs whole weights"):
        run(validate_every=10)


def test_the_7b_configurations_for_fsdp_are_allowed_and_take_the_steps_of_one_gpu() -> None:
    folder = ROOT / "training" / "configs"
    for stage, kind in (("memorize", MemorizeConfig), ("rank", RankConfig)):
        divided = kind.load(folder / f"llama2-7b-{stage}-fsdp.yaml")
        trainer.refuse_with_shards(divided)
        whole = kind.load(folder / f"llama2-7b-{stage}-full.yaml")
        changed = {name for name, value in divided.to_dict().items() if value != getattr(whole, name)}
        assert changed <= {"optimizer", "batch_size", "validate_every"}
        assert 8 * divided.batch_size == whole.batch_size
        with pytest.raises(InputError):
            trainer.refuse_with_shards(whole)


def test_a_run_goes_on_with_its_own_settings_only(tmp_path) -> None:
    config = RankConfig(learning_rate=1e-3, batch_size=4, accumulate=2)
    steps = tmp_path / "steps"
    assert trainer._resume_from(steps, config) is None
    (steps / "checkpoint-8").mkdir()
    (steps / "checkpoint-8" / trainer.COMPLETE).touch()
    assert trainer._resume_from(steps, config).name == "checkpoint-8"
    same = RankConfig(learning_rate=1e-3, batch_size=8, log_every=3)  # as many patients a step, in one pass
    assert trainer._resume_from(steps, same).name == "checkpoint-8"
    for other in ({"learning_rate": 2e-3, "batch_size": 8}, {"learning_rate": 1e-3, "batch_size": 4}):
        with pytest.raises(InputError, match=r"other settings \((learning_rate|sequences a step)\)"):
            trainer._resume_from(steps, RankConfig(**other))

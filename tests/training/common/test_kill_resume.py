"""A whole run of either stage is killed with signal 9 at random moments and started again, until it is through."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers.trainer_callback import tqdm

from mera_core.checkpoint.folder import read_manifest
from tests.training.families import small_book
from training.common import trainer
from training.common.config import MemorizeConfig, RankConfig, RunConfig
from training.common.trainer import last_complete
from training.memorize import run as memorize
from training.rank import run as rank
from training.rank import setup as rank_setup

STEPS = 48
SAVE_EVERY = 3
KILLS = 20
LONGEST = 300.0  # seconds that a run of some seconds may take before it counts as hung


def config_of(start: Path, data: Path) -> RankConfig:
    """A run in which everything draws at random: order, dropped codes, dropout, rehearsal's phrasings and candidates."""
    return RankConfig(
        start=str(start),
        data=str(data),
        format="table",
        passes=6,
        batch_size=12,
        learning_rate=5e-3,
        optimizer="muon",
        drop=0.2,
        attention_dropout=0.2,
        average=0.9,
        rehearsal=4,
        save_every=SAVE_EVERY,
        log_every=1,
    )


def stage1_config() -> MemorizeConfig:
    """A small model from scratch, on the small book: 54 steps that draw phrasings, hierarchy questions and candidates."""
    sizes = {"word_pieces": 500, "hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2}
    return MemorizeConfig(
        **sizes,
        passes=6,
        batch_size=32,
        learning_rate=5e-3,
        optimizer="muon",
        undivided_codes=16,
        save_every=SAVE_EVERY,
        log_every=1,
    )


def run_and_tell(config: RunConfig, out: Path, told: Path) -> None:
    """What the killed process does: the command's own run, with each logged step noted down as it comes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    tqdm.set_lock(
        threading.RLock()
    )  # forked processes share tqdm's own: whoever is killed with it in hand keeps it for good
    log = trainer.StageTrainer.log
    lines = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def log_and_tell(self, logs, *args, **kwargs):
        if "loss" in logs:
            line = {"step": self.state.global_step, "loss": logs["loss"], "grad_norm": float(logs["grad_norm"])}
            os.write(lines, (json.dumps(line) + "\n").encode())
        log(self, logs, *args, **kwargs)

    train = trainer.StageTrainer.train

    def train_and_tell(self, *args, **kwargs):
        told.with_suffix(".began").touch()
        return train(self, *args, **kwargs)

    trainer.StageTrainer.log, trainer.StageTrainer.train = log_and_tell, train_and_tell
    (rank if isinstance(config, RankConfig) else memorize).run(config, out)


@dataclass
class Run:
    """One run in its folder, over as many processes as it takes."""

    config: RunConfig
    out: Path
    kills: int = 0

    def __post_init__(self) -> None:
        self.steps: dict[int, dict] = {}
        self._told = self.out.with_suffix(".told")
        self.out.parent.mkdir(exist_ok=True)

    def attempt(self, moment: float | None) -> bool:
        """Start the command; kill it `moment` seconds after training has begun. Whether it came to its end."""
        self._told.unlink(missing_ok=True)
        began = self._told.with_suffix(".began")
        began.unlink(missing_ok=True)
        before = last_complete(self.out / "steps")
        process = multiprocessing.get_context("fork").Process(
            target=run_and_tell, args=(self.config, self.out, self._told), daemon=True
        )
        process.start()
        hung = time.monotonic() + LONGEST
        while process.is_alive() and not began.exists() and time.monotonic() < hung:
            time.sleep(0.005)
        process.join(LONGEST if moment is None else moment)
        if alive := process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            assert moment is not None and began.exists(), f"the run hung: not through in {LONGEST:.0f} s"
            self.kills += 1
        assert alive or process.exitcode == 0
        self._check(0 if before is None else int(before.name.rpartition("-")[2]))
        return not alive

    def _check(self, resumed_from: int) -> None:
        """The attempt went on at the step after the last whole checkpoint; a step done twice was the same twice."""
        lines = self._told.read_text().splitlines() if self._told.exists() else []
        told = [json.loads(line) for line in lines]
        expected = list(range(resumed_from + 1, resumed_from + 1 + len(told)))
        assert [one["step"] for one in told] == expected
        for one in told:
            assert self.steps.setdefault(one["step"], one) == one

    def result(self) -> dict[str, str]:
        """The hash of each file of the finished checkpoint."""
        return read_manifest(self.out).files


def unbroken_run(config: RunConfig, out: Path) -> tuple[Run, float]:
    """A run that nobody stops, and the seconds it took."""
    run = Run(config, out)
    began = time.perf_counter()
    assert run.attempt(None)
    assert sorted(run.steps) == list(range(1, len(run.steps) + 1)) and len(run.steps) >= STEPS
    return run, time.perf_counter() - began


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, tiny_stage1, invented_cohort) -> tuple[Run, float]:
    """Stage 2."""
    return unbroken_run(config_of(tiny_stage1, invented_cohort), tmp_path_factory.mktemp("unbroken") / "model")


def assert_killing_changes_nothing(whole: Run, seconds: float, kills: int, folder: Path) -> None:
    """Runs that are killed at so many moments in all give the losses and the files of the whole one."""
    draw = random.Random(kills)
    killed = finished = number = 0
    while killed < kills or not finished:
        run = Run(whole.config, folder / f"run-{number}" / "model")
        while not run.attempt(draw.uniform(0, 0.4 * seconds) if killed + run.kills < kills else None):
            pass
        assert run.steps == whole.steps  # the loss curve, step for step
        assert run.result() == whole.result() and len(whole.result()) >= 3
        assert not (run.out / "steps").exists()
        killed, finished, number = killed + run.kills, finished + 1, number + 1
    assert killed >= kills


def test_killed_at_random_moments_stage_2_ends_as_if_it_was_not(tmp_path, unbroken) -> None:
    assert_killing_changes_nothing(*unbroken, KILLS, tmp_path)


def test_killed_at_random_moments_stage_1_ends_as_if_it_was_not(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(memorize, "code_book", lambda ontology, systems: small_book())
    whole, seconds = unbroken_run(stage1_config(), tmp_path / "unbroken" / "model")
    assert_killing_changes_nothing(whole, seconds, KILLS, tmp_path)


def test_killed_after_training_before_the_result_is_written_it_need_not_train_again(tmp_path, unbroken) -> None:
    whole, _ = unbroken
    run = Run(whole.config, tmp_path / "model")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_dies_in_fit_cut, args=(run.config, run.out))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert last_complete(run.out / "steps").name == f"checkpoint-{STEPS}"
    assert run.attempt(None)
    assert run.steps == {} and run.result() == whole.result()


def _dies_in_fit_cut(config: RankConfig, out: Path) -> None:
    rank_setup.fit_cut = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
    rank.run(config, out)

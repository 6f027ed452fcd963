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

STEPS = 48
KILLS = 20
LONGEST = 300.0  # seconds that a run of some seconds may take before it counts as hung
RUN = {"epochs": 6, "learning_rate": 5e-3, "optimizer": "muon", "save_every": 3, "log_every": 1}
# everything draws at random: order, dropped codes, dropout, phrasings, hierarchy questions and candidates
STAGE_2 = {"batch_size": 12, "drop": 0.2, "attention_dropout": 0.2, "ema_decay": 0.9, "rehearsal": 4, "format": "table"}
STAGE_1 = {
    "batch_size": 32, "sampled_negatives": 16,
    "word_pieces": 500, "hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2,
}  # fmt: skip


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


@pytest.mark.parametrize("stage", [1, 2])
def test_killed_at_random_moments_a_run_ends_as_if_it_was_not(
    stage, tiny_stage1, invented_cohort, tmp_path, monkeypatch
) -> None:
    """Runs that are killed at twenty moments in all give the losses and the files of one that nobody stopped."""
    monkeypatch.setattr(memorize, "code_set", lambda ontology, systems: small_book())
    config = MemorizeConfig(**RUN, **STAGE_1)
    if stage == 2:
        config = RankConfig(start=str(tiny_stage1), data=str(invented_cohort), **RUN, **STAGE_2)
    whole, began = Run(config, tmp_path / "unbroken" / "model"), time.perf_counter()
    assert whole.attempt(None)
    seconds = time.perf_counter() - began
    assert sorted(whole.steps) == list(range(1, len(whole.steps) + 1)) and len(whole.steps) >= STEPS
    draw, killed, finished = random.Random(KILLS), 0, 0
    while killed < KILLS or not finished:
        run = Run(config, tmp_path / f"run-{finished}" / "model")
        while not run.attempt(draw.uniform(0, 0.4 * seconds) if killed + run.kills < KILLS else None):
            pass
        assert run.steps == whole.steps  # the loss curve, step for step
        assert run.result() == whole.result() and len(whole.result()) >= 3
        assert not (run.out / "steps").exists()
        killed, finished = killed + run.kills, finished + 1

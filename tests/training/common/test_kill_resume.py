"""A whole run of either stage is killed with signal 9 at random moments and started again, until it is through."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import pytest
from transformers.trainer_callback import tqdm

from mera_core.checkpoint.folder import read_manifest
from tests.training.families import small_book
from training.common import trainer
from training.common.config import MemorizeConfig, RankConfig, RunConfig
from training.memorize import run as memorize
from training.rank import run as rank

KILLS = 12
LONGEST = 300.0  # seconds that a run of some seconds may take before it counts as hung
RUN = {"epochs": 6, "learning_rate": 5e-3, "optimizer": "muon", "save_every": 3, "log_every": 1}
# everything draws at random: order, dropped codes, dropout, phrasings, hierarchy questions and candidates
STAGE_2 = {"batch_size": 12, "drop": 0.2, "attention_dropout": 0.2, "ema_decay": 0.9, "rehearsal": 4, "format": "table"}
STAGE_1 = {
    "batch_size": 32, "sampled_negatives": 16,
    "word_pieces": 500, "hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2,
}  # fmt: skip


def run_quietly(config: RunConfig, out: Path, began: Path) -> None:
    """What the killed process does: the command's own run; the file `began` is there once it trains."""
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    # forked processes share tqdm's own lock: whoever is killed with it in hand keeps it for good
    tqdm.set_lock(threading.RLock())
    train = trainer.StageTrainer.train

    def train_and_tell(self, *args, **kwargs):
        began.touch()
        return train(self, *args, **kwargs)

    trainer.StageTrainer.train = train_and_tell
    (rank if isinstance(config, RankConfig) else memorize).run(config, out)


def attempt(config: RunConfig, out: Path, moment: float | None = None) -> bool:
    """Start the run; kill it `moment` seconds after training has begun. Whether it came to its end."""
    out.parent.mkdir(exist_ok=True)
    began = out.with_suffix(".began")
    began.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(target=run_quietly, args=(config, out, began), daemon=True)
    process.start()
    hung = time.monotonic() + LONGEST
    while process.is_alive() and not began.exists() and time.monotonic() < hung:
        time.sleep(0.005)
    process.join(LONGEST if moment is None else moment)
    if alive := process.is_alive():
        process.kill()
        process.join()
        assert moment is not None and began.exists(), f"the run hung: not through in {LONGEST:.0f} s"
    assert alive or process.exitcode == 0
    return not alive


@pytest.mark.parametrize("stage", [1, 2])
def test_killed_at_random_moments_a_run_ends_as_if_it_was_not(
    stage, tiny_stage1, invented_cohort, tmp_path, monkeypatch
) -> None:
    """Runs that are killed at a dozen moments in all give the files of one that nobody stopped."""
    monkeypatch.setattr(memorize, "code_set", lambda ontology, systems: small_book())
    config = MemorizeConfig(**RUN, **STAGE_1)
    if stage == 2:
        config = RankConfig(start=str(tiny_stage1), data=str(invented_cohort), **RUN, **STAGE_2)
    whole, started = tmp_path / "unbroken" / "model", time.perf_counter()
    assert attempt(config, whole)
    seconds, files = time.perf_counter() - started, read_manifest(whole).files
    draw, killed, finished = random.Random(KILLS), 0, 0
    while killed < KILLS or not finished:
        out = tmp_path / f"run-{finished}" / "model"
        while not attempt(config, out, draw.uniform(0, 0.4 * seconds) if killed < KILLS else None):
            killed += 1
        assert read_manifest(out).files == files and len(files) >= 3
        assert not (out / "steps").exists()
        finished += 1

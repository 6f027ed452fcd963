"""One process of a training run in the tests of several processes: `python one_process.py SETTINGS.json`.

Trains a tiny model on an invented cohort and writes, from each process, what it logged, the first step's gradients and
the final weights.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Ontology
from mera_core.model.losses import Hierarchy
from mera_core.model.sequence import Encoder, SequenceConfig
from tests.tiny import CODES, tiny_model
from training.common import adapters, trainer
from training.common.config import MemorizeConfig, RankConfig, RunConfig
from training.common.optimizer import make_optimizer
from training.memorize.loss import memorize_loss
from training.memorize.questions import QuestionBatches, QuestionSampler
from training.rank import run as rank
from training.rank.batches import HistoryBatches

BOOK = Ontology.load()
SETTINGS = {"batch_size": 8, "epochs": 2, "learning_rate": 1e-2, "log_every": 1, "save_every": 0}
PATIENTS = 22
"""Not a multiple of the patients of a step: the last step of a pass is a short one."""


def cohort(count: int = PATIENTS) -> list[Patient]:
    """Patients with one to five visits, so that the parts of a step hold unlike numbers of targets."""
    draw = random.Random(7)
    return [
        Patient([Visit(draw.sample(CODES, draw.randint(1, 3))) for _ in range(draw.randint(1, 5))], sex="F", id=str(n))
        for n in range(count)
    ]


class Gradients(TrainerCallback):
    """Keeps the gradients of the first step, whole, as the optimizer sees them."""

    def __init__(self):
        self.kept: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 0:
            for name, parameter in self.trainer.model.model.named_parameters():
                if parameter.grad is not None:
                    grad = parameter.grad
                    self.kept[name] = (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).clone()


def stage_2(patients: int = PATIENTS, **settings):
    """A small model, its data, the settings and the loss of a run of stage 2."""
    values = {"start_weight": 0.25, "rest_weight": 0.5, "drop": 0.2, "rehearsal_hierarchy": 0.0}
    config = RankConfig(**(SETTINGS | values | settings))
    model = small_model(config)
    rank.set_attention_dropout(model.backbone, config.attention_dropout)
    questions = QuestionSampler(model.vocabulary, BOOK, list(CODES))
    data = HistoryBatches(cohort(patients), CODES, Encoder(model.vocabulary, SequenceConfig()), config, questions)
    hierarchy = Hierarchy.from_ontology(CODES, BOOK)
    return model, data, config, lambda m, batch: rank.rank_loss(m, batch, hierarchy, config)


def train(out: Path, extra_callbacks=(), patients: int = PATIENTS, **settings) -> dict:
    """What a run of stage 2 logged at each step, its first gradients, and its final weights."""
    model, data, config, loss = stage_2(patients, **settings)
    return ran(model, data, config, out, loss, rank.rank_optimizer(model, config), extra_callbacks)


def train_stage_1(out: Path, **settings) -> dict:
    """The same of a run of stage 1."""
    config = MemorizeConfig(**(SETTINGS | {"sampled_negatives": 3, "hierarchy_share": 0.0} | settings))
    model = small_model(config)
    data = QuestionBatches(QuestionSampler(model.vocabulary, BOOK, list(CODES)), config)
    return ran(model, data, config, out, memorize_loss, make_optimizer(model, config))


def small_model(config: RunConfig):
    torch.manual_seed(config.seed)
    model = tiny_model(CODES)
    with torch.no_grad():  # weights of a usual size: large ones blow rounding up
        for parameter in model.backbone.parameters():
            parameter.mul_(0.2 if parameter.ndim == 2 else 1)
    if config.tuning != "full":
        adapters.add_adapters(model, config)
    return model


def ran(model, data, config: RunConfig, out: Path, loss, optimizer, extra_callbacks=()) -> dict:
    gradients = Gradients()
    run = trainer.run_trainer(model, data, config, out, loss, optimizer, [gradients, *extra_callbacks])
    logged = [entry for entry in run.state.log_history if "loss" in entry]
    return {
        "loss": [entry["loss"] for entry in logged],
        "grad_norm": [float(entry["grad_norm"]) for entry in logged],
        "gradients": gradients.kept,
        "weights": {name: tensor.detach().clone() for name, tensor in model.state_dict().items()},
        "devices": {str(parameter.device) for parameter in model.parameters()},
    }


class Killed(Exception):
    """What a power cut looks like from inside."""


class KillAt(TrainerCallback):
    """Ends training, or with `hard` the process, when a step is through and before it is saved."""

    def __init__(self, step: int, hard: bool = False):
        self.step, self.hard = step, hard

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            if self.hard:
                os._exit(9)
            raise Killed


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder, die_at = Path(asked.pop("folder")), asked.pop("die_at", None)
    result = train(folder / "out", [KillAt(die_at, hard=True)] if die_at else (), **asked)
    torch.save(result, folder / f"process-{torch.distributed.get_rank()}.pt")
    trainer.leave_processes()

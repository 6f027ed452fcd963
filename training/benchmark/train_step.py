"""What a training step costs: MERA's losses beside plain cross-entropy, and how many tokens a second that is.

The model is that of the checkpoint; the label space is every billable code of ICD-9-CM, or of both code sets. A step is
forward, backward and optimizer on batches made beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mera_core.checkpoint.folder import load_checkpoint
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code, Ontology
from mera_core.model.losses import Hierarchy
from mera_core.model.network import MeraModel, start_code_rows
from mera_core.model.sequence import Encoder, SequenceConfig
from mera_core.model.vocabulary import Vocabulary
from training.benchmark.invented import patients
from training.benchmark.rows import Row, Setting, paired, row, seconds
from training.common.config import RankConfig
from training.rank.batches import HistoryBatches
from training.rank.run import rank_loss, rank_optimizer

TITLE = "Training: a step with the hierarchical and the threshold loss, beside plain cross-entropy"
HCL = RankConfig(batch_size=64, epochs=1, trim_inputs=True, batches="by_tokens")
PLAIN = replace(HCL, ranking_loss="cross_entropy", threshold="none")


class Steps:
    """A model in training, one step after another, over batches that were made beforehand."""

    def __init__(self, model: MeraModel, ontology: Ontology, config: RankConfig, cohort: Sequence[Patient]):
        self.model, self.config = model.train(), config
        self.hierarchy = Hierarchy.from_ontology(model.labels, ontology, config.levels)
        self.optimizer = rank_optimizer(model, config)
        data = HistoryBatches(cohort, model.labels, Encoder(model.vocabulary, SequenceConfig(), remember=True), config)
        self.batches = [data[i] for i in range(len(data))]
        self.tokens = [batch["input_ids"].numel() for batch in self.batches]
        """Tokens of each batch, padding included."""
        self._next = itertools.cycle(self.batches)

    def step(self) -> float:
        """Train on the next batch; seconds it took."""
        return seconds(self._step, next(self._next))

    def _step(self, batch: dict) -> None:
        rank_loss(self.model, batch, self.hierarchy, self.config).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def model_over(checkpoint: Path, ontology: Ontology, labels: Sequence[Code]) -> MeraModel:
    """The checkpoint's model with these codes as its label space; rows it lacks are added."""
    start, _ = load_checkpoint(checkpoint)
    backbone, vocabulary = start.backbone.float(), start.vocabulary
    if missing := {code: ontology.definition(code) for code in labels if code not in vocabulary}:
        vocabulary = Vocabulary.extend(vocabulary.tokenizer, missing)
        backbone.resize_token_embeddings(len(vocabulary), mean_resizing=False)
        start_code_rows(backbone, vocabulary, missing)
    torch.manual_seed(1)
    return MeraModel(backbone, vocabulary, labels)


def billable(ontology: Ontology, systems: Sequence[str]) -> list[Code]:
    """Every billable code of the systems, sorted."""
    return sorted(code for system in systems for code in ontology.billable(system))


def measure(setting: Setting) -> Iterator[Row]:
    """The ratio of the losses at 15k and 89k codes, and the tokens trained on in a second with each."""
    ontology, count = Ontology.load(), 16 if setting.quick else 256
    cohort = patients(count, ontology.billable("ICD9"))
    for systems in (("ICD9",),) if setting.quick else (("ICD9",), ("ICD9", "ICD10")):
        labels = billable(ontology, systems)
        ours, theirs = (
            Steps(model_over(setting.checkpoint, ontology, labels), ontology, config, cohort) for config in (HCL, PLAIN)
        )
        runs = setting.times(11, 2)
        took = paired(ours.step, theirs.step, runs, warm=1)
        yield row(
            f"a step with the hierarchical and the threshold loss, {len(labels):,} codes",
            "s",
            "a step with plain cross-entropy",
            *took,
            patients_a_step=min(64, count),
            labels=len(labels),
            optimizer=HCL.optimizer,
        )
        tokens = list(itertools.islice(itertools.cycle(ours.tokens), runs + 1))  # of the first step, which warms, too
        rates = [[n / one for n, one in zip(tokens[1:], side, strict=True)] for side in took]
        yield row(
            f"tokens trained on, {len(labels):,} codes",
            "tokens/s",
            "with plain cross-entropy",
            *rates,
            parameters=sum(parameter.numel() for parameter in ours.model.parameters()),
            tokens_a_step=round(sum(tokens) / len(tokens)),
        )

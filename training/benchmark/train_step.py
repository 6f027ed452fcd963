"""What a training step costs: MERA's loss beside plain cross-entropy, and how many tokens that is.

The model is that of the checkpoint (its width, layers and code rows, its weights); the label space is every billable code
of ICD-9-CM, or of both books. A step is forward, backward and optimizer on batches made beforehand.
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
HCL = RankConfig(batch_size=64, passes=1, trim_inputs=True, batches="by_tokens")
PLAIN = replace(HCL, ranking_loss="cross_entropy", threshold="none")


class Steps:
    """A model in training, one step after another, over batches that were made beforehand."""

    def __init__(self, model: MeraModel, ontology: Ontology, config: RankConfig, cohort: Sequence[Patient]):
        self.model, self.config = model.train(), config
        self.hierarchy = Hierarchy.from_ontology(model.labels, ontology, config.levels)
        self.optimizer = rank_optimizer(model, config)
        encoder = Encoder(model.vocabulary, SequenceConfig(), remember=True)
        data = HistoryBatches(cohort, model.labels, encoder, config)
        self.batches = [data[i] for i in range(len(data))]
        self.targets = sum(len(batch["weight"]) for batch in self.batches)
        self._next = itertools.cycle(self.batches)
        self.tokens: list[int] = []
        """Tokens of each step so far, padding included."""

    def step(self, batch: dict | None = None) -> float:
        """Train on a batch, the next one by default; seconds it took."""
        batch = batch or next(self._next)
        self.tokens.append(batch["input_ids"].numel())
        return seconds(lambda: self._step(batch))

    def _step(self, batch: dict) -> None:
        rank_loss(self.model, batch, self.hierarchy, self.config).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def one_pass(self) -> float:
        """Train on every batch once; seconds it took."""
        return sum(self.step(batch) for batch in self.batches)


def model_over(checkpoint: Path, ontology: Ontology, labels: Sequence[Code]) -> MeraModel:
    """The checkpoint's model with these codes as its label space; rows it lacks are added."""
    start, _ = load_checkpoint(checkpoint)
    backbone, vocabulary = start.backbone.float(), start.vocabulary
    missing = {code: ontology.definition(code) for code in labels if code not in vocabulary}
    if missing:
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
    ontology = Ontology.load()
    for systems in (("ICD9",), ("ICD9", "ICD10")):
        if setting.quick and len(systems) > 1:
            continue
        count = 16 if setting.quick else 256
        cohort, labels = patients(count, ontology.billable("ICD9")), billable(ontology, systems)
        ours, theirs = (
            Steps(model_over(setting.checkpoint, ontology, labels), ontology, config, cohort) for config in (HCL, PLAIN)
        )
        took = paired(ours.step, theirs.step, setting.times(11, 2), warm=1)
        yield row(
            f"a step with the hierarchical and the threshold loss, {len(labels):,} codes",
            took[0],
            "s",
            against="a step with plain cross-entropy",
            theirs=took[1],
            patients_a_step=min(64, count),
            labels=len(labels),
            optimizer=HCL.optimizer,
        )
        rates = [
            [tokens / one for tokens, one in zip(steps.tokens[-len(times) :], times, strict=True)]
            for steps, times in zip((ours, theirs), took, strict=True)
        ]
        yield row(
            f"tokens trained on, {len(labels):,} codes",
            rates[0],
            "tokens/s",
            against="with plain cross-entropy",
            theirs=rates[1],
            parameters=sum(parameter.numel() for parameter in ours.model.parameters()),
            tokens_a_step=round(sum(ours.tokens) / len(ours.tokens)),
        )

"""What a stage-2 run starts from: model, label space, patients by part. Trains nothing.

`rank.run` makes a checkpoint; experiments (`sequence_training`, `open_questions`) start from here, so that they differ
from it only in what they study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mera_core.checkpoint import Manifest
from mera_core.engine import Engine
from mera_core.errors import InputError
from mera_core.losses import Hierarchy
from mera_core.model import MeraModel
from mera_core.ontology import Code, Ontology
from mera_core.records import Patient
from mera_core.sequence import Encoder, SequenceConfig
from training import rank
from training.cohort import in_parts, read_once, with_codes
from training.config import RankConfig
from training.cut import LabelCounts, fit_cut
from training.histories import HistoryBatches
from training.memorize import QuestionSampler


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything that stage 2 trains with. counts.labels is the label space; validation: patients of two visits."""

    config: RankConfig
    engine: Engine
    manifest: Manifest
    counts: LabelCounts
    parts: dict[str, list[Patient]]
    validation: list[Patient]
    questions: QuestionSampler | None

    @property
    def hierarchy(self) -> Hierarchy:
        """Groups of the label space at the levels of the configuration."""
        return Hierarchy.from_ontology(self.counts.labels, self.engine.ontology, self.config.levels)

    def batches(self) -> HistoryBatches:
        """The run's batches of histories."""
        encoder = Encoder(self.engine.model.vocabulary, self.manifest.sequence, remember=True)
        return HistoryBatches(self.parts["train"], self.counts.labels, encoder, self.config, self.questions)


def padded(counts: LabelCounts, extra: Sequence[Code]) -> LabelCounts:
    """The label space with codes that never come true in training; their rate is that of half a visit."""
    labels = tuple(sorted({*counts.labels, *extra}))
    known = dict(zip(counts.labels, counts.rate, strict=True))
    least = counts.rate.min()
    return LabelCounts(labels, np.array([known.get(code, least) for code in labels]))


def prepare(config: RankConfig, out: Path, extra_labels: Sequence[Code] = ()) -> Setup:
    """Model, patients and label space of a run, as `rank.run` has them; `extra_labels` only pad the label space.

    Raises InputError where a setting names nothing, or a code has no token.
    """
    model, before = rank.load_start(config)
    cohort = read_once(config.data, config.format)
    parts = in_parts(with_codes(cohort.patients), cohort.report.format)
    ontology = Ontology.load()
    seen = LabelCounts.of(parts["train"])
    counts = padded(seen, extra_labels)
    if missing := [code for code in counts.labels if code not in model.vocabulary]:
        raise InputError(f"The stage-1 model has no token for {len(missing)} codes, the first is {missing[0]}.")
    torch.manual_seed(config.seed)
    model = MeraModel(model.backbone, model.vocabulary, counts.labels, config.copy)
    model.head.start(counts.rate)
    rank.set_attention_dropout(model.backbone, config.attention_dropout)
    manifest = Manifest(
        name=out.name,
        stage="rank",
        systems=before.systems,
        icd_release=before.icd_release,
        sequence=SequenceConfig(
            profile=config.profile, visit_details=config.visit_details, max_tokens=config.max_tokens
        ),
        label_space=counts.labels,
        label_level=rank.level_in_words(counts.labels, ontology),
        input_codes=seen.labels,
        copy=config.copy,
        method=before.method | {"rank": config.to_dict() | {"data": Path(config.data).name}},
        data=rank.provenance(config, cohort, parts),
    )
    questions = None
    if config.rehearsal:
        codes = list(model.vocabulary.ids)
        questions = QuestionSampler(model.vocabulary, ontology, codes, decoder_start=model.decoder_start)
    validation = [patient for patient in parts["validation"] if len(patient.visits) > 1]
    return Setup(config, Engine(model, manifest, ontology), manifest, counts, parts, validation, questions)


def train_and_cut(setup: Setup, out: Path) -> None:
    """Train the setup's model with MERA's losses and fit its cut, in place."""
    rank.train(setup.engine, setup.batches(), setup.hierarchy, setup.config, out, setup.validation)
    cut(setup)


def cut(setup: Setup) -> None:
    """Fit the cut of a setup's trained model, in place."""
    rank.set_attention_dropout(setup.engine.model.backbone, 0.0)
    setup.engine.model.eval()
    setup.manifest.method["cut"] = fit_cut(setup.engine, setup.validation, setup.counts)[0]

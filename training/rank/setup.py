"""What a stage-2 run starts from: model, label space, patients by part; and the fit of its cut at the end. Trains nothing.

The one place where a run is set up: `rank.run` makes a checkpoint of it, and experiments (`sequence_training`,
`open_questions`) differ from that only in what they study.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from mera_core.checkpoint.folder import Manifest, sha256
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.details import known_facts
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code, Ontology
from mera_core.model.losses import Hierarchy
from mera_core.model.network import MeraModel, start_detail_rows
from mera_core.model.sequence import Encoder, SequenceConfig
from mera_core.model.vocabulary import Vocabulary
from mera_core.readers import Cohort
from training.common import tuning
from training.common.backbone import add_rows, padded_rows
from training.common.config import RankConfig
from training.common.split import SPLIT_RULE, in_parts, read_once, with_codes
from training.memorize.questions import QuestionSampler
from training.rank.batches import HistoryBatches
from training.rank.cut import LabelCounts, drawn, fit_cut
from training.rank.population import fit_population
from training.teacher.run import Taught


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything that stage 2 trains with. counts.labels is the label space; validation: all patients of two visits."""

    config: RankConfig
    engine: Engine
    manifest: Manifest
    counts: LabelCounts
    parts: dict[str, list[Patient]]
    validation: list[Patient]
    questions: QuestionSampler | None
    taught: Taught | None = None

    @cached_property
    def hierarchy(self) -> Hierarchy:
        """Groups of the label space at the levels of the configuration."""
        return Hierarchy.from_ontology(self.counts.labels, self.engine.ontology, self.config.levels)

    @property
    def for_cut(self) -> list[Patient]:
        """The validation patients that the cut-off is fitted on."""
        return drawn(self.validation, len(self.counts.labels), self.config.seed)

    def batches(self) -> HistoryBatches:
        """The run's batches of histories."""
        encoder = Encoder(self.engine.model.vocabulary, self.manifest.sequence, remember=True)
        return HistoryBatches(
            self.parts["train"], self.counts.labels, encoder, self.config, self.questions, taught=self.taught
        )


def padded(counts: LabelCounts, extra: Sequence[Code]) -> LabelCounts:
    """The label space with codes that never come true in training; their rate is that of half a visit."""
    labels = tuple(sorted({*counts.labels, *extra}))
    known = dict(zip(counts.labels, counts.rate, strict=True))
    least = counts.rate.min()
    return LabelCounts(labels, np.array([known.get(code, least) for code in labels]))


def prepare(config: RankConfig, out: Path, extra_labels: Sequence[Code] = ()) -> Setup:
    """Model, patients and label space of a run. `extra_labels` pad the label space, as `config.label_space` may too.

    Raises InputError where a setting names or fits nothing, or a code has no token.
    """
    model, before = load_start(config)
    cohort = read_once(config.data, config.format)
    parts = in_parts(with_codes(cohort.patients), cohort.report.format)
    ontology = Ontology.load()
    seen = LabelCounts.of(parts["train"])
    if not seen.labels:
        raise InputError(f"{config.data} can't train a ranking: no patient of the training part has a code.")
    if unreadable := [code for code in seen.labels if code not in model.vocabulary]:
        raise InputError(
            f"The data hold {len(unreadable)} codes of which the stage-1 model has no token, the first is {unreadable[0]}."
        )
    if config.label_space == "billable":
        extra_labels = [*extra_labels, *(code for system in before.systems for code in ontology.billable(system))]
    counts = padded(seen, extra_labels) if extra_labels else seen
    if missing := [code for code in counts.labels if code not in model.vocabulary]:
        raise InputError(f"The stage-1 model has no token for {len(missing)} codes, the first is {missing[0]}.")
    taught = Taught(Path(config.teacher), counts.labels) if config.teacher else None
    torch.manual_seed(config.seed)
    vocabulary = with_details(model, parts["train"], config)
    head = model.head if before.label_space == counts.labels and before.copy == config.copy else None
    model = MeraModel(model.backbone, vocabulary, counts.labels, config.copy)
    model.head.start(counts.rate)
    if (
        head is not None
    ):  # a second turn: what the first one learned stays, what was fitted to validation patients does not
        model.head.load_state_dict(dict(head.named_parameters()), strict=False)
    set_attention_dropout(model.backbone, config.attention_dropout)
    manifest = Manifest(
        name=out.name,
        stage="rank",
        systems=before.systems,
        icd_release=before.icd_release,
        sequence=SequenceConfig(
            profile=config.profile,
            visit_details=config.visit_details,
            detail_tokens=config.detail_tokens,
            most_details=config.most_details,
            visit_intro=config.visit_intro,
            max_tokens=config.max_tokens,
        ),
        label_space=counts.labels,
        label_level=level_in_words(counts.labels, ontology),
        input_codes=seen.labels,
        copy=config.copy,
        method=before.method
        | ({"rank_before": before.method["rank"]} if "rank" in before.method else {})
        | ({"teach": taught.told} if taught else {})
        | {"rank": config.to_dict() | {"data": Path(config.data).name, "start": Path(config.start).name}},
        data=provenance(config, cohort, parts),
    )
    questions = None
    if config.rehearsal:
        codes = list(model.vocabulary.ids)
        questions = QuestionSampler(model.vocabulary, ontology, codes, decoder_start=model.decoder_start)
    validation = [patient for patient in parts["validation"] if len(patient.visits) > 1]
    return Setup(config, Engine(model, manifest, ontology), manifest, counts, parts, validation, questions, taught)


def with_details(model: MeraModel, train: Sequence[Patient], config: RankConfig) -> Vocabulary:
    """The model's vocabulary with a token for each fact that is common enough in training, their rows begun at their words'.

    Raises InputError where the run trains adapters: their rows that train were chosen in stage 1.
    """
    vocabulary = model.vocabulary
    if not config.detail_tokens or vocabulary.details:
        return vocabulary
    if config.tuning != "full":
        raise InputError("Adapters can't learn tokens for details: name the keys in visit_details, as words.")
    vocabulary = vocabulary.with_details(known_facts(train, config.detail_tokens))
    add_rows(model.backbone, padded_rows(vocabulary.rows))
    start_detail_rows(model.backbone, vocabulary)
    return vocabulary


def load_start(config: RankConfig) -> tuple[MeraModel, Manifest]:
    """The stage-1 model, with adapters where the run trains such; raises InputError where a setting names or fits nothing."""
    for name in ("start", "data"):
        if not getattr(config, name):
            raise InputError(
                f"The setting {name} is empty: rank needs a stage-1 folder (start) and patient records (data)."
            )
    model, manifest = tuning.load_start(Path(config.start), config)
    if model.encoder_decoder and not config.prefix_samples:
        raise InputError(
            f"{config.start} is an encoder-decoder, which reads one history for each next visit: set prefix_samples to true."
        )
    longest = getattr(model.text_config, "max_position_embeddings", None)
    if longest and config.max_tokens > longest:
        raise InputError(f"max_tokens is {config.max_tokens}, and {config.start} reads {longest} tokens.")
    tuning.prepare(model, config)
    return model, manifest


def cut(setup: Setup) -> None:
    """Fit cut and calibration of a setup's trained model, and describe its training patients, in place."""
    set_attention_dropout(setup.engine.model.backbone, 0.0)
    setup.engine.model.eval()
    setup.manifest.method["cut"], calibration = fit_cut(setup.engine, setup.for_cut, setup.counts)
    setup.manifest.calibration.update(calibration.to_dict())
    fit_population(setup.engine, setup.manifest, setup.parts["train"])


def set_attention_dropout(backbone, share: float) -> None:
    """Dropout of attention weights, where the architecture has it."""
    if hasattr(backbone.config, "attention_dropout"):
        backbone.config.attention_dropout = share
    for module in backbone.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = share


def level_in_words(labels: Sequence[Code], ontology: Ontology) -> str:
    """The granularity of a label space, e.g. "ICD9: 848 categories, 34 codes"."""
    counts = Counter((code.system, ontology.kind(code)) for code in labels)
    plural = {"category": "categories", "subcategory": "subcategories"}
    parts: dict[str, list[str]] = {}
    for (system, kind), n in sorted(counts.items()):
        parts.setdefault(system, []).append(f"{n} {plural.get(kind, kind + 's')}")
    return "; ".join(f"{system}: {', '.join(kinds)}" for system, kinds in parts.items())


def provenance(config: RankConfig, cohort: Cohort, parts: dict[str, list[Patient]]) -> dict:
    """Where the patients came from and how they were divided, for the manifest."""
    source = Path(config.data)
    tables = [path for path in source.glob("*.csv*") if path.is_file()] if source.is_dir() else []
    source = tables[0] if len(tables) == 1 else source
    return {
        "format": cohort.report.format,
        "source": source.name,
        "sha256": sha256(source) if source.is_file() else None,
        "import": cohort.report.to_dict(),
        "split_rule": SPLIT_RULE,
        "parts": {
            name: {"patients": len(part), "with_two_visits": sum(len(p.visits) > 1 for p in part)}
            for name, part in parts.items()
        },
    }

"""Stage 2: teach the model that knows the code book to rank the next visit's codes, then fit its cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import TrainerCallback

from mera_core import metrics
from mera_core.checkpoint import Manifest, make_room, sha256
from mera_core.engine import Engine
from mera_core.errors import InputError
from mera_core.losses import Hierarchy, hierarchical_contrastive, threshold_loss
from mera_core.model import MeraModel
from mera_core.ontology import Code, Ontology
from mera_core.readers import Cohort
from mera_core.records import Patient
from mera_core.resampling import Bootstrap
from mera_core.sequence import Encoder, SequenceConfig
from training import tuning
from training.cohort import SPLIT_RULE, histories_and_truth, in_parts, read_once, with_codes
from training.config import RankConfig
from training.cut import LabelCounts, fit_cut
from training.histories import HistoryBatches
from training.memorize import QuestionSampler, answer_loss
from training.trainer import is_first_process, run_trainer, take_device


def rank_loss(model: MeraModel, batch: dict[str, Tensor], hierarchy: Hierarchy, config: RankConfig) -> Tensor:
    """Weighted mean over the step's targets of `L_HCL + lambda L_EOV`, plus the rehearsal of stage 1.

    Of a batch that is one part of a step (see `HistoryBatches.collate`), what its mean over the step's parts must be.
    """
    questions = batch.get("questions", [])
    hidden, *recalled = model.hidden_of_parts(
        [batch["input_ids"], *(part["input_ids"] for part in questions)],
        [None, *(part.get("decoder_ids") for part in questions)],
    )
    states = hidden[batch["row"], batch["position"]]
    weight = batch["weight"]
    of_step = batch.get("target_weight", weight.sum())  # a part divides by the step's mean, not by its own sum
    total = (target_losses(model, states, batch, hierarchy, config) * weight).sum() / of_step.clamp_min(1e-9)
    if questions:
        total = total + config.rehearsal_weight * answer_loss(model, questions, recalled, 512)
    return total


def target_losses(
    model: MeraModel, states: Tensor, batch: dict[str, Tensor], hierarchy: Hierarchy, config: RankConfig
) -> Tensor:
    """Loss [N] of each target from its state [N, H].

    With `config.targets_at_once` the scores [N, C] never exist at once, nor does their gradient: they are computed for a
    few targets at a time, and again for the gradient.
    """
    size, total = config.targets_at_once, len(states)
    if not size or total <= size:
        return _losses(model, states, batch["seen"], batch["positive"], hierarchy, config)
    losses, target = [], batch["seen"][:, 0]
    for begin in range(0, total, size):
        chunk = slice(begin, begin + size)
        seen = batch["seen"][(target >= begin) & (target < begin + size)]
        seen = torch.cat([seen[:, :1] - begin, seen[:, 1:]], 1)
        args = (model, states[chunk], seen, batch["positive"][chunk], hierarchy, config)
        losses.append(checkpoint(_losses, *args, use_reentrant=False))
    return torch.cat(losses)


def _losses(
    model: MeraModel, states: Tensor, seen: Tensor, positive: Tensor, hierarchy: Hierarchy, config: RankConfig
) -> Tensor:
    scores, eov = model.scores(states, seen)
    if config.ranking_loss == "hierarchical":
        loss = hierarchical_contrastive(
            scores, positive, hierarchy, config.level_weights or None, config.temperature, reduction="none"
        )
    else:
        loss = -(scores.log_softmax(1) * positive).sum(1)
    if config.threshold != "none":
        loss = loss + config.threshold_weight * threshold_loss(
            scores, eov, positive, config.threshold, config.threshold_positive_weight, reduction="none"
        )
    return loss


class Average(TrainerCallback):
    """Keeps an exponential moving average of the weights; `swap` puts it in the model's place."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.decay, self.model = decay, model
        self.kept = {name: p.detach().clone() for name, p in self._trained()}

    def on_step_end(self, args, state, control, **kwargs):
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        with torch.no_grad():
            for name, parameter in self._trained():
                self.kept[name].lerp_(parameter, 1 - decay)
        if control.should_save and state.is_world_process_zero:  # before the Trainer marks the step complete
            self._file(args, state).parent.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.contiguous() for name, tensor in self.kept.items()}, self._file(args, state))

    def on_train_begin(self, args, state, control, **kwargs):
        """Take up the average of the step that the run resumes from, on the device that the Trainer chose."""
        saved = self._file(args, state)
        if saved.exists():
            self.kept = load_file(saved)
        self.kept = {name: self.kept[name].to(p.device) for name, p in self._trained()}

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    @staticmethod
    def _file(args, state) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}" / "average.safetensors"

    def swap(self) -> None:
        """Exchange the average and the model's weights; a second call puts both back."""
        with torch.no_grad():
            for name, parameter in self._trained():
                current = parameter.clone()
                parameter.copy_(self.kept[name])
                self.kept[name] = current


class Validation(TrainerCallback):
    """Logs recall and weighted F1 on validation patients every so many steps, for the weights that would be kept."""

    def __init__(self, engine: Engine, patients: Sequence[Patient], every: int, average: Average | None):
        self.engine, self.every, self.average, self.trainer = engine, every, average, None
        self.histories, self.truth, _ = histories_and_truth(engine, patients)
        self.bootstrap = Bootstrap(len(self.truth), 10)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        model = self.engine.model
        training = model.training
        model.eval()
        if self.average:
            self.average.swap()
        scores, _ = self.engine.scores(self.histories)
        figures = metrics.evaluate_ranking(
            scores, self.truth, ks=(10, 20), bootstrap=self.bootstrap, areas=False
        ).metrics
        if self.average:
            self.average.swap()
        model.train(training)
        shown = ("recall@10", "recall@20", "weighted_f1_oracle")
        self.trainer.log({f"validation_{name}": round(figures[name].value, 5) for name in shown})


def run(config: RankConfig, out: Path) -> Manifest:
    """Train stage 2 from the stage-1 folder `config.start` on `config.data`, fit the cut, and write `out`.

    Only patients of the training part are trained on; the cut is fitted on the validation part; the test part is not
    looked at. Resumes from the last complete step in `out`.
    """
    make_room(out)
    take_device()
    model, before = load_start(config)
    cohort = read_once(config.data, config.format)
    parts = in_parts(with_codes(cohort.patients), cohort.report.format)
    ontology = Ontology.load()
    unreadable = sorted({c for p in parts["train"] for v in p.visits for c in v.codes if c not in model.vocabulary})
    if unreadable:
        raise InputError(
            f"The data hold {len(unreadable)} codes of which the stage-1 model has no token, the first is {unreadable[0]}."
        )
    counts = LabelCounts.of(parts["train"])
    torch.manual_seed(config.seed)
    model = MeraModel(model.backbone, model.vocabulary, counts.labels, config.copy)
    model.head.start(counts.rate)
    set_attention_dropout(model.backbone, config.attention_dropout)
    sequence = SequenceConfig(profile=config.profile, visit_details=config.visit_details, max_tokens=config.max_tokens)
    manifest = Manifest(
        name=out.name,
        stage="rank",
        systems=before.systems,
        icd_release=before.icd_release,
        sequence=sequence,
        label_space=counts.labels,
        label_level=level_in_words(counts.labels, ontology),
        input_codes=counts.labels,
        copy=config.copy,
        method=before.method
        | {"rank": config.to_dict() | {"data": Path(config.data).name, "start": Path(config.start).name}},
        data=provenance(config, cohort, parts),
    )
    engine = Engine(model, manifest, ontology)
    questions = None
    if config.rehearsal:
        codes = list(model.vocabulary.ids)
        questions = QuestionSampler(model.vocabulary, ontology, codes, decoder_start=model.decoder_start)
    data = HistoryBatches(
        parts["train"], counts.labels, Encoder(model.vocabulary, sequence, remember=True), config, questions
    )
    validation = [patient for patient in parts["validation"] if len(patient.visits) > 1]
    if not validation or not data.patients:
        raise InputError(
            f"{config.data} can't train a ranking: it holds {len(data.patients)} training and {len(validation)} validation "
            "patients of two visits."
        )
    hierarchy = Hierarchy.from_ontology(counts.labels, ontology, config.levels)
    train(engine, data, hierarchy, config, out, validation, keep_steps=True)
    if not is_first_process():
        return manifest
    set_attention_dropout(model.backbone, 0.0)
    model.eval()
    manifest.method["cut"], calibration = fit_cut(engine, validation, counts)
    manifest.calibration.update(calibration.to_dict())
    return tuning.save(model, manifest, out, config, torch.float16)


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


def train(
    engine: Engine,
    data: HistoryBatches,
    hierarchy: Hierarchy,
    config: RankConfig,
    out: Path,
    validation: Sequence[Patient],
    keep_steps: bool = False,
) -> None:
    """Run the Trainer; leaves the averaged weights in the engine's model where the config asks for them.

    keep_steps: as `run_trainer` has it.
    """
    model = engine.model
    average = Average(model, config.average) if config.average else None
    callbacks: list[TrainerCallback] = [average] if average else []
    if config.validate_every and validation:
        callbacks.append(Validation(engine, validation, config.validate_every, average))
    run_trainer(
        model,
        data,
        config,
        out,
        tuning.in_precision(lambda m, batch: rank_loss(m, batch, hierarchy, config), config),
        rank_optimizer(model, config),
        callbacks,
        keep_steps,
    )
    if average:
        average.swap()


def rank_optimizer(model: MeraModel, config: RankConfig) -> torch.optim.Optimizer:
    """The run's optimizer; the score head's one-a-label numbers learn at their own rate."""
    # the head's map from the state learns as the body does
    head = [p for name, p in model.head.named_parameters() if not name.startswith("per_state")]
    return tuning.optimizer_of(model, config, head, config.head_learning_rate)


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

"""Stage 1: teach a language model the ICD codes. Questions in, a folder with the model out; sees no patients."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from mera_core.checkpoint.folder import Manifest, make_room, read_manifest
from mera_core.common.errors import InputError
from mera_core.icd.ontology import Code, Ontology
from mera_core.model.network import MeraModel, start_code_rows
from mera_core.model.prompts import CODE, DEFINITION, EQUIVALENT, in_words, phrasings
from mera_core.model.vocabulary import Vocabulary
from training.common import backbone as backbones
from training.common import tuning
from training.common.config import MemorizeConfig
from training.common.optimizer import make_optimizer
from training.common.trainer import STEPS, is_first_process, last_complete, run_trainer, take_device
from training.memorize.encoded_rows import EncodedBatches, encoded_loss, fill_rows, refuse
from training.memorize.loss import memorize_loss
from training.memorize.questions import QuestionBatches, QuestionSampler, code_set, equivalents
from training.memorize.recall_eval import codes_exact, definitions_exact
from training.memorize.row_training import RowBatches, let_rows_move, refuse_known, rows_loss

MISSED = "missed.json"


def build(config: MemorizeConfig, ontology: Ontology) -> tuple[MeraModel, list[Code]]:
    """The model before training: backbone, tokens for every node, and their rows started as the config says."""
    book, dtype = code_set(ontology, config.systems), backbones.weight_dtype(config.precision)
    if config.backbone:
        quantize = config.tuning == "qlora"
        backbone, tokenizer = backbones.load_backbone(config.backbone, dtype, quantize)
    else:
        texts = tokenizer_texts(book, config.systems, ontology)
        if config.equivalents_share:
            texts += [phrase.replace("{}", " ") for phrase in phrasings(EQUIVALENT)] * 200
            texts += [
                in_words(q.code, ontology.definition(q.code)) for q in equivalents(ontology, book) if q.code not in book
            ]
        tokenizer = backbones.word_tokenizer(texts, config.word_pieces)
        backbone = None
    vocabulary = Vocabulary.extend(tokenizer, book)
    rows = backbones.padded_rows(len(vocabulary))
    if backbone is None:
        backbone = backbones.small_llama(config, rows, tokenizer).to(dtype)  # type: ignore[arg-type]
    else:
        backbones.add_rows(backbone, rows)
    if config.row_start != "random":
        decay = 0.5 if config.row_start == "definition" else 0.0
        start_code_rows(backbone, vocabulary, book, decay, config.common_direction)
    model = MeraModel(backbone, vocabulary)
    if config.backbone:
        backbones.check_logits(model)
    if config.tuning != "full":
        from training.common import adapters  # with peft, which only those who train adapters wait for

        adapters.add_adapters(model, config)
    return model, list(book)


def tokenizer_texts(book: dict[Code, str], systems: tuple[str, ...], ontology: Ontology) -> list[str]:
    """What a from-scratch tokenizer is fitted on: the definitions, the questions, and the words of patient profiles."""
    kinds = [DEFINITION, CODE, *(name for system in systems for name in ontology.level_names(system))]
    asked = [phrase.replace("{}", " ") for kind in kinds for phrase in phrasings(kind)]
    profile = (Path(__file__).parent.parent / "configs" / "profile_words.txt").read_text(encoding="utf-8").splitlines()
    return [*book.values(), *(asked + profile) * 200]


def go_on(config: MemorizeConfig) -> tuple[MeraModel, list[Code]]:
    """The model of an earlier stage 1, and its codes; where only rows move, also one that has ranked since.

    Raises InputError where it is no such checkpoint, or knows other code systems than the config names.
    """
    model, manifest = tuning.load_start(Path(config.init_from), config)
    if manifest.stage != "memorize" and not config.train_missed_rows_only:
        raise InputError(f"{config.init_from} has learned to rank: stage 1 goes on from a stage 1.")
    if tuple(manifest.systems) != tuple(config.systems):
        raise InputError(
            f"{config.init_from} knows {' and '.join(manifest.systems)}, and the configuration names "
            f"{' and '.join(config.systems)}: name the same systems."
        )
    model.train()
    return model, list(model.vocabulary.ids)


def run(config: MemorizeConfig, out: Path) -> Manifest:
    """Train stage 1 and write the checkpoint folder `out`; resumes from `out`'s last complete step if there is one.

    Raises InputError where `out` holds something else than a checkpoint or a run, before anything is computed.
    """
    make_room(out)
    take_device()
    ontology = Ontology.load()
    torch.manual_seed(config.seed)
    model, codes = go_on(config) if config.init_from else build(config, ontology)
    tuning.prepare(model, config)
    sampler = QuestionSampler(
        model.vocabulary, ontology, codes, config.phrasings, model.decoder_start, config.equivalents_share > 0
    )
    first = out.with_name(f"{out.name}-encoded")  # holds the steps of what comes first, and nothing else
    if config.encoded_epochs and last_complete(out / STEPS) is None:
        make_room(first)
        learn_encoded(model, codes, sampler, config, ontology, first)
    after, missed = bool(config.encoded_epochs or config.init_from), []
    if config.epochs_on_missed:
        missed = kept_missed(model, sampler, config, (first if config.encoded_epochs else out) / STEPS / MISSED)
    refined = with_rates(config, config.rates_after_encoding) if config.encoded_epochs else config
    if config.train_missed_rows_only:
        refuse_known(missed, config.init_from)
        let_rows_move(model, missed)
        data = RowBatches(sampler, config, missed)
    else:
        data = QuestionBatches(sampler, config, missed)

    def loss(model: MeraModel, batch: dict) -> torch.Tensor:
        if config.train_missed_rows_only:
            return rows_loss(model, batch)
        return memorize_loss(model, batch, others_still=after)

    optimizer = make_optimizer(model, refined)
    run_trainer(model, data, refined, out, tuning.in_precision(loss, config), optimizer, keep_steps=True)
    before = read_manifest(Path(config.init_from)) if config.init_from else None
    if before is not None and before.stage == "rank":  # its rows of forgotten codes moved, and nothing else
        manifest = replace(before, name=out.name, method=before.method | {"rows": config.to_dict()}, metrics={})
    else:
        manifest = manifest_of(config, out.name, ontology)
        if before is not None:
            manifest.method["before"] = before.method
    if not is_first_process():
        return manifest
    dtype = torch.float16 if manifest.stage == "rank" else torch.float32
    manifest = tuning.save(model, manifest, out, config, dtype)
    if config.encoded_epochs:
        shutil.rmtree(first / STEPS, ignore_errors=True)
        if first.is_dir() and not any(first.iterdir()):
            first.rmdir()
    return manifest


def kept_missed(model: MeraModel, sampler: QuestionSampler, config: MemorizeConfig, file: Path) -> list[Code]:
    """The codes whose definition the model does not give to the letter, or that it does not give for their definition.

    They are found once and kept in `file`, so that a run that goes on asks for the same ones.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        return [Code(*code) for code in json.loads(file.read_text(encoding="utf-8"))]
    training = model.training
    model.eval()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=config.precision == "mixed"):
        words, _ = definitions_exact(
            model, [q.code for q in sampler.definitions], sampler.ontology, 0, with_undivided=False
        )
        back, _ = codes_exact(model, [q.code for q in sampler.backwards], sampler.ontology, 0)
    wrong = {q.code for q, right in zip(sampler.definitions, words, strict=True) if not right}
    wrong |= {q.code for q, right in zip(sampler.backwards, back, strict=True) if not right}
    missed = [q.code for q in sampler.definitions if q.code in wrong]
    model.train(training)
    if is_first_process():
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps([[code.system, code.code] for code in missed]), encoding="utf-8")
        partial.replace(file)
        print(f"{len(missed):,} of {len(sampler.definitions):,} codes are not known yet; they are asked about most.")
    return missed


def with_rates(config: MemorizeConfig, share: float) -> MemorizeConfig:
    """The run with `share` of its learning rates, but that of the rows, which has a setting of its own."""
    return replace(
        config, learning_rate=share * config.learning_rate, muon_learning_rate=share * config.muon_learning_rate
    )


def learn_encoded(
    model: MeraModel, codes: list[Code], sampler: QuestionSampler, config: MemorizeConfig, ontology: Ontology, out: Path
) -> None:
    """Train with rows that the model makes of definitions, then write them into its table; steps are kept under `out`.

    The rates are the run's, but that of the rows: here these are words, which many steps move. Settings of what comes
    after do not count, so that other questions can be tried on the same rows. A heading with a child's title is not asked
    for: nothing could tell the two apart.
    """
    refuse(model, config)
    common = config.common_direction
    first = replace(config, row_learning_rate=0.0, epochs=1.0, epochs_on_missed=0, rates_after_encoding=1.0)
    run_trainer(
        model,
        EncodedBatches(sampler, [question.code for question in sampler.backwards], config),
        first,
        out,
        tuning.in_precision(lambda model, batch: encoded_loss(model, batch, common), config),
        make_optimizer(model, first),
        keep_steps=True,
    )
    fill_rows(model, codes, ontology, common)


def manifest_of(config: MemorizeConfig, name: str, ontology: Ontology) -> Manifest:
    """What a stage-1 folder says of itself."""
    method: dict = {"memorize": config.to_dict()}
    if config.tuning != "full":
        from training.common import adapters

        method["adapters"] = adapters.of_base(config, config.backbone)
    return Manifest(
        name=name,
        stage="memorize",
        systems=config.systems,
        icd_release={system: ontology.release(system) for system in config.systems},
        method=method,
    )

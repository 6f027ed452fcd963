"""What a run is made of: one flat dataclass a stage, read from one flat YAML. Refuses contradictions; trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator

from mera_core.common.errors import InputError
from mera_core.common.schema import as_tuple, checked
from mera_core.icd.tables import LEVEL_NAMES
from mera_core.model.sequence import SequenceConfig

S = TypeVar("S")
T = TypeVar("T", bound="RunConfig")


def _as_typed(value: Any, check: Any) -> Any:
    """A 2 stays a 2: earlier runs are known by how their settings were written."""
    check(value)
    return value


def _listed(value: Any) -> Any:
    """A list as a tuple, and a text as a tuple of one."""
    return (value,) if isinstance(value, str) else as_tuple(value)


def _distinct(value: tuple) -> tuple:
    if len(set(value)) < len(value):
        raise ValueError("must name each once")
    return value


Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False), WrapValidator(_as_typed)]
Amount = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Part = Annotated[Number, Field(ge=0, lt=1)]
System = Literal["ICD10", "ICD9"]
Level = Annotated[int, Field(ge=0, le=max(map(len, LEVEL_NAMES.values())))]
Listed = BeforeValidator(_listed)
Names = Annotated[tuple[str, ...], Listed, AfterValidator(_distinct)]


EARLIER_NAMES = {
    "passes": "epochs",
    "go_on_from": "init_from",
    "missed_passes": "epochs_on_missed",
    "rows_alone": "train_missed_rows_only",
    "encoded_passes": "encoded_epochs",
    "undivided_codes": "sampled_negatives",
    "targets_at_once": "target_chunk_size",
    "average": "ema_decay",
}
"""What settings were called before; manifests and kept results of earlier runs hold these names."""


def refuse_earlier_names(values: Mapping[str, Any], where: object) -> None:
    """Raise InputError for a setting under its earlier name, with the name that it has now."""
    for earlier, name in EARLIER_NAMES.items():
        if earlier in values:
            raise InputError(f"{where}: the setting {earlier} is now called {name}.")


def loaded(kind: type[S], path: str | Path, **overrides: Any) -> S:
    """Settings of a kind from a flat YAML; `overrides` that are not None win. InputError names file and setting."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no configuration file {path}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no settings (name: value).")
    refuse_earlier_names(values, path)
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return kind(**{str(name): value for name, value in values.items()})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


@checked
class RunConfig:
    """Settings that both stages share."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Seed of every draw: initial weights, order of questions and patients, phrasings, shuffles."""
    batch_size: Count = 256
    """Sequences a step on each device."""
    accumulate: Count = 1
    """Forward passes a step (gradient accumulation)."""
    epochs: Annotated[Number, Field(ge=0.001)] = 10.0
    """How often each question or patient is seen."""
    learning_rate: Positive = 2e-3
    """Peak of a cosine schedule with linear warm-up."""
    tuning: Literal["full", "lora", "qlora"] = "full"
    """"full" trains every weight; "lora" adapters and the code rows; "qlora" those on a body in 4 bits (NF4)."""
    precision: Literal["float32", "mixed", "bfloat16"] = "float32"
    """"float32"; "mixed": float32 weights, bfloat16 arithmetic; "bfloat16": weights too (half the memory)."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass in place of keeping them: a third more time, far less memory."""
    lora_rank: Count = 16
    """Rank of each adapter."""
    lora_alpha: Positive = 32.0
    """Adapters are scaled by lora_alpha / lora_rank."""
    lora_dropout: Part = 0.05
    """Dropout of what goes into an adapter, in training."""
    lora_targets: Names = ()
    """Ends of the names of the matrices that get an adapter; empty: every matrix of the body."""
    optimizer: Literal["adamw", "muon", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = "adamw"
    """"adamw"; "muon": Muon for the body's matrices and AdamW for all else (docs/choices.md: far fewer epochs); or AdamW
    by bitsandbytes: "adamw_8bit" (8-bit state), "paged_adamw" and "paged_adamw_8bit" (state that moves to the computer's
    memory where the GPU's is full; GPU only)."""
    muon_learning_rate: Amount = 0.0
    """Learning rate of Muon's matrices, scaled to mean what AdamW's does; 0: as the rest."""
    row_learning_rate: Amount = 0.0
    """Learning rate of the embedding rows; 0: as the rest. A row is touched seldom, and AdamW then moves it far."""
    warmup_share: Part = 0.03
    """Share of all steps spent warming up."""
    weight_decay: Amount = 0.01
    """AdamW's decoupled decay."""
    compile: bool = False
    """Compile the backbone (torch.compile): minutes at the start, then faster steps; on a CPU it needs a C++ compiler."""
    attention: str = ""
    """Kind of attention: "sdpa", "eager" or "flash_attention_2" (needs that package and a GPU); empty: the backbone's own."""
    save_every: Whole = 500
    """Steps between checkpoints that a broken run resumes from; 0 saves none."""
    log_every: Count = 25
    """Steps between log lines (console and TensorBoard)."""

    def __post_init__(self):
        if self.tuning != "full" and self.optimizer == "muon":
            raise InputError("Muon is for whole matrices: with adapters (tuning) set optimizer to adamw.")
        if self.tuning != "full" and self.precision == "mixed":
            raise InputError("Mixed precision is for full tuning: with adapters set precision to bfloat16 or float32.")

    @classmethod
    def load(cls: type[T], path: str | Path, **overrides) -> T:
        """Read a flat YAML; `overrides` win."""
        return loaded(cls, path, **overrides)

    def to_dict(self) -> dict:
        """Every setting by name; one that came later only where it is used, so that runs from before it are known again."""
        values = asdict(self)
        later = {"label_space": "data", "equivalents_share": 0.0, "encoded_epochs": 0.0}
        later |= {
            "detail_tokens": (),
            "most_details": 11,
            "drop_details": 0.0,
            "visit_intro": SequenceConfig.visit_intro,
        }
        later |= {"teacher": "", "teacher_weight": 1.0, "single_visits": True, "new_code_weight": 0.0}
        later |= {"rates_after_encoding": 1.0, "epochs_on_missed": 0, "init_from": "", "train_missed_rows_only": False}
        for name, unused in later.items():
            if values.get(name) == unused:
                del values[name]
        return values


@checked
class MemorizeConfig(RunConfig):
    """Stage 1: code <-> definition and the hierarchy."""

    backbone: str = ""
    """Folder or name of a Hugging Face language model, decoder-only (LLaMA, Mistral, Qwen, Gemma ...) or encoder-decoder
    (T5); empty trains a small LLaMA-architecture model from scratch."""
    init_from: str = ""
    """Folder of an earlier stage 1 to go on from, with its codes and their rows; empty begins with the settings above and
    below."""
    systems: Annotated[tuple[System, ...], Listed, AfterValidator(_distinct), Field(min_length=1)] = ("ICD9",)
    """Code systems whose every node gets a token."""
    word_pieces: Annotated[int, Field(ge=350)] = 4000
    """Size of the SentencePiece vocabulary of a from-scratch model."""
    hidden_size: Count = 256
    """Width. Multiples of 64 only, as 4-bit serving needs."""
    intermediate_size: Count = 704
    """Width of the feed-forward layers, a multiple of 64."""
    layers: Count = 4
    """Transformer layers."""
    heads: Count = 4
    """Attention heads."""
    max_tokens: Annotated[int, Field(ge=16)] = 512
    """Longest sequence that the model will read."""
    row_start: Literal["definition", "mean", "random"] = "definition"
    """How code rows start: "definition" (position-weighted sum of word rows), "mean" (plain mean) or "random"."""
    common_direction: Amount = 0.0
    """Size of the direction that all code rows share when they start, in norms of a word row (`start_code_rows`)."""
    encoded_epochs: Amount = 0.0
    """Epochs over the codes before the others, in which a code's row is what the model itself makes of its definition
    (`training/memorize/encoded_rows.py`); for decoder-only models whose every weight is trained."""
    rates_after_encoding: Annotated[Share, Field(gt=0)] = 1.0
    """Share of `learning_rate` and `muon_learning_rate` in the epochs after encoded ones, which refine what is known."""
    epochs_on_missed: Whole = 0
    """Epochs over the codes that encoded epochs, or the stage 1 gone on from, leave unknown; they are spread among the other
    questions."""
    train_missed_rows_only: bool = False
    """Only the rows of codes that the stage 1 gone on from leaves unknown move, nothing else (`training.memorize.row_training`):
    `epochs_on_missed` ask for these codes, `batch_size` questions a step, and `epochs` for all codes, whose places are kept."""
    backwards_share: Share = 1.0
    """Share of the codes that are asked for by their definition in an epoch: this direction is learned in fewer epochs."""
    hierarchy_share: Amount = 1.0
    """Hierarchy questions asked about each code in an epoch; each draws one of the code's levels."""
    equivalents_share: Amount = 0.0
    """How often each of the other system's codes is asked for its equivalent in an epoch (CMS general equivalence maps)."""
    phrasings: Whole = 0
    """Use only the first so many phrasings of each kind of question; 0: all but the held-out one."""
    batches: Literal["mixed", "by_length"] = "mixed"
    """"mixed": every batch holds all kinds of question; "by_length": like lengths together (least padding)."""
    sampled_negatives: Whole = 1024
    """Code rows drawn as extra candidates for each batch of definition words, so that words also win undivided."""

    def __post_init__(self):
        super().__post_init__()
        if self.tuning != "full" and not self.backbone:
            raise InputError(f"There is nothing to put adapters on: tuning {self.tuning} needs a backbone.")
        if self.tuning != "full" and self.common_direction:
            raise InputError("common_direction changes the rows of words, which adapters leave alone: set it to 0.")
        if self.tuning != "full" and self.encoded_epochs:
            raise InputError(f"encoded_epochs trains every weight, which tuning {self.tuning} does not: set it to 0.")
        if self.epochs_on_missed and not (self.encoded_epochs or self.init_from):
            raise InputError(
                "epochs_on_missed come after encoded ones or an earlier stage 1: set encoded_epochs or init_from as well."
            )
        if self.init_from and self.encoded_epochs:
            raise InputError(
                f"encoded_epochs make all rows anew, and {self.init_from} holds rows: set encoded_epochs to 0."
            )
        if self.init_from and (self.backbone or self.tuning != "full"):
            raise InputError(
                "init_from goes on with every weight of an earlier stage 1: leave backbone empty and tuning at full."
            )
        if self.train_missed_rows_only and not (self.init_from and self.epochs_on_missed):
            raise InputError(
                "train_missed_rows_only trains the rows of codes that an earlier stage 1 missed: set init_from and "
                "epochs_on_missed as well."
            )
        if self.train_missed_rows_only and (self.weight_decay or self.optimizer == "muon"):
            raise InputError(
                "train_missed_rows_only trains some rows and nothing else: set weight_decay to 0, which changes all rows, and "
                "optimizer to adamw."
            )
        for name in ("hidden_size", "intermediate_size"):
            if not self.backbone and getattr(self, name) % 32:
                raise InputError(
                    f"The setting {name} is {getattr(self, name)}; it must be a multiple of 32 (64 for 4-bit)."
                )
        if not self.backbone and self.hidden_size % (2 * self.heads):  # each half of a head turns with the position
            raise InputError(
                f"hidden_size {self.hidden_size} can't be divided among {self.heads} heads into even parts."
            )


@checked
class RankConfig(RunConfig):
    """Stage 2: rank the next visit's codes. Every choice that docs/method.md marks *(ours)* is here, for an ablation to flip."""

    start: str = ""
    """Folder of the stage-1 model that ranking starts from."""
    data: str = ""
    """Patient records: a file or folder."""
    format: str = "auto"
    """Name of the records' format, as `python -m mera_core convert` knows it."""
    batch_size: Count = 64
    """Patients a step on each device."""
    profile: bool = True
    """Put sex, ethnicity and age into the words of the history."""
    visit_details: Names = ()
    """What else is said of each completed visit, by key of `Visit.details`, in this order."""
    detail_tokens: Names = ()
    """What is told of each completed visit, "age" included, as one token a fact, by key of `Visit.details`, in this order."""
    most_details: Count = 11
    """Most such tokens of a visit."""
    drop_details: Part = 0.0
    """Probability of leaving all details of a patient but age out of the input, as of a history that was typed in."""
    visit_intro: str = SequenceConfig.visit_intro
    """The words between a visit's details and its codes."""
    max_tokens: Annotated[int, Field(ge=16)] = 512
    """Longest history, in tokens."""
    shuffle: bool = True
    """Order perturbation: a new order of the codes within each visit in every epoch."""
    drop: Part = 0.0
    """Probability of leaving a code, or a visit's words, out of the input (never out of a target)."""
    every_visit: bool = True
    """Each visit but the first is a target of one pass; False: the last visit only."""
    prefix_samples: bool = False
    """Train on one sample a (history, next visit), as is usual: T - 1 passes where `every_visit` takes one."""
    trim_inputs: bool = False
    """Leave what comes after the last place that is asked out of the input. It changes no target and no gradient (only how
    dropout draws), and a history of two visits takes half the time; off in the bundled checkpoint's recipe."""
    batches: Literal["by_visits", "by_tokens", "mixed"] = "by_visits"
    """Which patients share a batch: "by_visits" or "by_tokens" (like lengths together: least padding), or "mixed"."""
    target_chunk_size: Whole = 0
    """Targets whose scores are held at a time (computed again for the gradient); 0: all. For large label spaces."""
    label_space: Literal["data", "billable"] = "data"
    """The codes that are ranked: "data" (those of the training patients), or "billable": every billable code of the model's
    systems besides. A code that never comes true in training is ranked by its row and its place in the book alone."""
    start_weight: Amount = 0.0
    """Weight of predicting the first visit from the profile alone; above 0, single-visit patients train too."""
    rest_weight: Amount = 0.0
    """Weight of predicting the rest of a visit from its first k codes (partial-diagnosis forcing)."""
    teacher: str = ""
    """Folder of `python -m training teach`: probabilities of each label after each visit, which are learned beside the true
    codes. Patients with a single visit train too."""
    teacher_weight: Amount = 1.0
    """Weight of what the teacher says beside the true codes."""
    single_visits: bool = True
    """Whether patients with a single visit train where something is asked of them."""
    new_code_weight: Amount = 0.0
    """Weight of a second hierarchical loss, in which the history's own codes are neither candidates nor true."""
    levels: Annotated[tuple[Level, ...], Listed, AfterValidator(_distinct), Field(min_length=1)] = (0, 1, 2, 3, 4)
    """Levels of the hierarchical loss; 0 is all codes."""
    level_weights: Annotated[tuple[Amount, ...], Listed] = ()
    """Weight of each of `levels`; empty: all 1."""
    temperature: Positive = 1.0
    """Temperature of the hierarchical loss."""
    threshold: Literal["adaptive", "independent", "none"] = "independent"
    """Form of the threshold loss: "adaptive" (our reading of the paper), "independent" or "none"."""
    threshold_weight: Amount = 1.0
    """Weight of the threshold loss beside the hierarchical one."""
    threshold_positive_weight: Amount = 1.0
    """Weight of true codes within the threshold loss."""
    ranking_loss: Literal["hierarchical", "cross_entropy"] = "hierarchical"
    """"hierarchical", or "cross_entropy": a plain softmax over the label space at each target."""
    copy: bool = True
    """Let the score head know which codes the history already holds."""
    head_learning_rate: Amount = 1e-2
    """Learning rate of the score head."""
    ema_decay: Part = 0.0
    """Decay of the exponential moving average of the weights that is kept (0: the last weights)."""
    validate_every: Whole = 0
    """Steps between looks at the validation patients (recall@20, weighted F1), logged beside the loss; 0 looks never."""
    rehearsal: Whole = 0
    """Stage-1 questions mixed into each step, over all its forward passes, so that stage 2 does not forget the ICD codes."""
    rehearsal_backwards: Share = 0.5
    """Definition -> code questions for each code -> definition question of the rehearsal."""
    rehearsal_hierarchy: Amount = 0.75
    """Hierarchy questions for each code -> definition question of the rehearsal."""
    rehearsal_weight: Amount = 1.0
    """Weight of their loss."""
    attention_dropout: Part = 0.0
    """Dropout of attention weights in training."""

    def __post_init__(self):
        super().__post_init__()
        if list(self.levels) != sorted(self.levels):
            raise InputError(f"The setting levels is {list(self.levels)}; the levels must rise.")
        if self.level_weights and len(self.level_weights) != len(self.levels):
            raise InputError(f"There are {len(self.level_weights)} level_weights for {len(self.levels)} levels.")
        if self.prefix_samples and (self.start_weight or self.rest_weight):
            raise InputError("prefix_samples asks for the next visit only: set start_weight and rest_weight to 0.")

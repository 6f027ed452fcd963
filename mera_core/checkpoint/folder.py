"""A checkpoint folder: what is in it, how it is written whole, and what is checked before it is trusted.

A `save_pretrained` folder (safetensors, tokenizer, config) plus the score head and `mera.json`, which explains the
rest. What is refused before a file of it is opened stands in `verify`. Knows nothing of patients or training.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from mera_core.checkpoint.verify import ADAPTERS, MANIFEST, check_files, read_manifest_values, sha256, unchanged
from mera_core.common.errors import InputError
from mera_core.common.faults import told_if_unwritable
from mera_core.common.schema import as_tuple, checked
from mera_core.icd.ontology import Code
from mera_core.model.network import HEAD_FILE, MeraModel
from mera_core.model.precision import loading_options
from mera_core.model.sequence import SequenceConfig
from mera_core.model.vocabulary import Vocabulary

MANIFEST_FORMAT = 1
_SPARE_NUMBERS = 1 << 24  # of tables that a network makes for itself, such as those of positions
HOW_LOADED = {"tokenizer_class", "backend", "auto_map", "is_local", "local_files_only", "name_or_path"}
"""What `tokenizer_config.json` says of how a tokenizer was found, and not of how it works."""
OLD = ".old"
"""What is put behind the name of a folder while it is replaced."""
GOING = ".replaced"
"""A file in a folder that is being removed, gone last: what is left of it when somebody pulls the plug is known again."""
OF_A_RUN = {"steps", "logs"}
"""What a run that was broken off leaves in its folder."""
CARD = "README.md"
EXPORTED = "Exported from a MERA checkpoint"
"""The words by which the card of an exported language model is known again."""
LIBRARIES = ("torch", "transformers", "tokenizers", "bitsandbytes", "sentencepiece")


def _codes(value: Any) -> Any:
    """Codes as a manifest writes them, "ICD9:428.0"."""
    if not isinstance(value, list):
        return value
    return tuple(Code(*each.partition(":")[::2]) if isinstance(each, str) else each for each in value)


_Codes = Annotated[tuple[Code, ...], BeforeValidator(_codes)]
_Texts = dict[str, str]
_Values = dict[str, Any]


@checked
class Manifest:
    """What `mera.json` says of a checkpoint."""

    name: str
    stage: str
    """"memorize" (knows the ICD codes) or "rank" (ranks the next visit as well)."""
    systems: Annotated[tuple[Literal["ICD9", "ICD10"], ...], BeforeValidator(as_tuple)]
    """Code systems whose nodes have tokens."""
    icd_release: _Texts
    """Release of each system's tables."""
    sequence: Annotated[
        SequenceConfig, BeforeValidator(lambda value: SequenceConfig(**value) if isinstance(value, dict) else value)
    ] = field(default_factory=SequenceConfig)
    """How histories were put into words."""
    label_space: _Codes = ()
    """The codes that are ranked, sorted."""
    label_level: str = ""
    """In words: the granularity of the label space."""
    input_codes: _Codes = ()
    """Codes that occurred in training histories; others are rolled up to the nearest of these."""
    copy: bool = True
    """Whether the score head has the term for codes that the history already holds."""
    method: dict[str, _Values] = field(default_factory=dict)
    """The run's settings, by stage."""
    data: _Values = field(default_factory=dict)
    """Provenance of the patients, split rule, counts."""
    metrics: _Values = field(default_factory=dict)
    """Figures measured on this checkpoint, by the command that measured them."""
    calibration: _Values = field(default_factory=dict)
    """Curves from margin to probability, and the cut-off (`calibration.Calibrations.to_dict`), fitted on validation
    patients; in older checkpoints one curve."""
    population: _Values = field(default_factory=dict)
    """How usual a history is among those of training (`population.Population.to_dict`); empty where it was not fitted."""
    versions: _Texts = field(default_factory=dict)
    files: _Texts = field(default_factory=dict)
    """SHA-256 of each other file of the folder."""

    @property
    def knows_equivalents(self) -> bool:
        """Whether stage 1 asked for the equivalents of the other code system's codes as well."""
        return bool(self.method.get("memorize", {}).get("equivalents_share"))

    def to_json(self) -> dict[str, Any]:
        codes = {name: list(map(str, getattr(self, name))) for name in ("label_space", "input_codes")}
        return {"format": MANIFEST_FORMAT} | vars(self) | {"sequence": asdict(self.sequence), **codes}

    @classmethod
    def from_json(cls, values: dict[str, Any], where: Path) -> Manifest:
        if values.get("format") != MANIFEST_FORMAT:
            raise InputError(f"{where} is of a format that this version does not read (it reads {MANIFEST_FORMAT}).")
        try:
            return cls(**{name: value for name, value in values.items() if name != "format"})
        except InputError as error:
            raise InputError(f"{where} is not a manifest of MERA: {error}") from error


def folder_hash(manifest: Manifest) -> str:
    """The first 12 hexadecimal digits of a hash over every file's hash: names a checkpoint's content."""
    return hashlib.sha256(json.dumps(manifest.files, sort_keys=True).encode()).hexdigest()[:12]


def refuse_unranked(name: str, labels: Sequence[Code]) -> None:
    """Raise InputError for a checkpoint without a label space."""
    if not labels:
        raise InputError(f"The checkpoint {name} has memorized ICD codes but was not trained to rank.")


def library_versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def save_checkpoint(
    model: MeraModel,
    manifest: Manifest,
    folder: Path,
    dtype: torch.dtype = torch.float16,
    network: Path | None = None,
) -> Manifest:
    """Write a checkpoint under a temporary name, then put it in place of `folder`; the manifest with hashes and versions.

    dtype: precision of the stored weights; they are computed with in float32 on a CPU. network: the checkpoint that manifest
    and model came from, of which all files but head and card are copied.

    Raises InputError where the disk is full or may not be written to, or `folder` holds something else than a checkpoint
    (see `make_room`); what was in `folder` before is there still.
    """
    with whole_folder(folder) as partial:
        if network is not None:
            for name in manifest.files.keys() - {HEAD_FILE, CARD}:
                shutil.copyfile(network / name, partial / name)
        else:
            backbone = model.backbone
            if backbone.dtype != dtype:  # the model in memory stays as it is
                backbone = copy.deepcopy(backbone).to(dtype)
            backbone.save_pretrained(partial)
            model.vocabulary.tokenizer.save_pretrained(partial)
            _without_blanks(partial / "tokenizer.json")
        model.save_head(partial)
        return write_manifest(manifest, partial)


def _without_blanks(path: Path) -> None:
    """Write a JSON file again on one line: indented, the code tokens take nearly twice the room."""
    if path.is_file():
        value = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write to, which takes its place when the block ends.

    Raises InputError as `save_checkpoint` does; what was in `folder` before is then there still.
    """
    make_room(folder)
    partial = folder.with_name(folder.name + ".partial")
    with told_if_unwritable(folder, partial):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        put_in_place(partial, folder)


def write_manifest(manifest: Manifest, folder: Path) -> Manifest:
    """Hash the files of a folder and write its `mera.json`; the manifest with hashes and versions."""
    files = {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.name != MANIFEST}
    manifest = Manifest(**{**vars(manifest), "files": files, "versions": library_versions()})
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
    return manifest


def make_room(folder: Path) -> None:
    """Before work begins: see that a checkpoint can be put at `folder` without the loss of anything else; make its parent.

    What may be replaced is an earlier checkpoint or export, and the folder of a run that was broken off. Raises InputError
    where `folder`, or the name beside it that the replaced one gets for a moment, holds something else, or the place can't
    be written to.
    """
    if folder.name in ("", ".."):
        raise InputError(f"{folder} is no name for a new folder.")
    for taken in (folder, folder.with_name(folder.name + OLD)):
        if taken.is_symlink():
            raise InputError(f"{taken} is a link to another place: name that place.")
        if taken.exists() and not _is_replaceable(taken):
            raise InputError(
                f"{taken} is there already and is no checkpoint: nothing was done to it, so name another folder."
            )
    with told_if_unwritable(folder, folder.with_name(folder.name + ".partial")):
        folder.parent.mkdir(parents=True, exist_ok=True)


def _is_replaceable(folder: Path) -> bool:
    """Whether a folder is empty or holds what this project wrote: a checkpoint, an export, or the steps of a run."""
    if not folder.is_dir():
        return False
    own = any((folder / name).is_file() for name in (MANIFEST, GOING))
    if own or {path.name for path in folder.iterdir()} <= OF_A_RUN:
        return True
    card = folder / CARD  # what any language model's folder holds besides is no sign: it might be the run's own base
    return (folder / "config.json").is_file() and card.is_file() and EXPORTED in card.read_text("utf-8", "replace")


def put_in_place(partial: Path, folder: Path) -> None:
    """Rename `partial` to `folder`; what was there is removed last, so that it is lost at no moment.

    Whoever is stopped between the two renames finds it under the name with `.old`, and the next writing puts it away.
    Raises InputError where `make_room` does.
    """
    make_room(folder)
    old = folder.with_name(folder.name + OLD)
    _remove(old)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    _remove(old)


def _remove(folder: Path) -> None:
    """Remove a folder of this project's, its sign last; what the disk refuses stays."""
    if folder.is_dir():
        with suppress(OSError):
            (folder / GOING).touch()
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != GOING:
                with suppress(OSError):
                    path.unlink()
        shutil.rmtree(folder, ignore_errors=True)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint folder; raises InputError where there is none or it can't be read."""
    return Manifest.from_json(read_manifest_values(folder), folder / MANIFEST)


def load_checkpoint(folder: Path, quantize: str | None = None) -> tuple[MeraModel, Manifest]:
    """Load a checkpoint after checking every file of it. quantize: see `precision.loading_options`.

    Raises InputError where a file is missing, altered or refused (see `verify`), the folder was replaced meanwhile, there is
    not enough memory, or tokenizer, embedding rows and label space do not agree.
    """
    loading_options(quantize)  # refuses one that does not exist before a file is read
    with unchanged(folder):
        manifest = read_manifest(folder)
        check_files(folder, manifest.files)
        if (folder / ADAPTERS).exists():  # transformers would follow it to another model
            raise InputError(
                f"{folder} holds adapters and not a whole model; merge them into their base first: "
                f"python -m training merge {folder} --out DIR."
            )
        return _built(folder, manifest, quantize), manifest


def _built(folder: Path, manifest: Manifest, quantize: str | None) -> MeraModel:
    """The model of a folder whose files have been checked."""
    transformers_logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    _refuse_larger_than_weights(family, config, folder, manifest)
    safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    backbone, found = family.from_pretrained(folder, output_loading_info=True, **safe, **loading_options(quantize))
    for kind, what in (
        ("missing_keys", "lacks"),  # they would be drawn at random
        ("unexpected_keys", "has no place for"),  # a network of fewer layers than were trained
    ):
        if found[kind]:
            raise InputError(f"The checkpoint {folder} {what} the weights {sorted(found[kind])[0]}.")
    for (
        parameter
    ) in backbone.parameters():  # off the maps of their files: a file that is cut later would end the process
        if parameter.device.type == "cpu" and parameter.is_floating_point():
            parameter.data = parameter.data.clone()
    model = MeraModel(backbone, load_vocabulary(folder), manifest.label_space, manifest.copy)
    if manifest.label_space:
        if not (folder / HEAD_FILE).is_file():
            raise InputError(f"The checkpoint {folder} lacks the file {HEAD_FILE}.")
        model.load_head(folder)
        model.head.to(model.device)
    return model.eval()


def _refuse_larger_than_weights(family: Any, config: Any, folder: Path, manifest: Manifest) -> None:
    """Refuse a configuration whose network, tables of its own included, is larger than the weights could fill.

    It is built without memory first: there are more ways to ask for much than names of settings that one could check.
    """
    with torch.device("meta"):
        shell = family.from_config(config, trust_remote_code=False)
    claimed = sum(tensor.numel() for tensor in (*shell.parameters(), *shell.buffers()))
    stored = sum((folder / name).stat().st_size for name in manifest.files if name.endswith(".safetensors"))
    if claimed > 2 * stored + _SPARE_NUMBERS:
        raise InputError(
            f"{folder / 'config.json'} asks for a network of {claimed:,} numbers, and its weights are {stored:,} bytes."
        )


def load_vocabulary(folder: Path) -> Vocabulary:
    """The tokenizer of a checkpoint folder, with its code tokens.

    The same tokenizer as `from_pretrained` gives, which hands the thousands of code tokens in `tokenizer.json` to the
    tokenizer twice more and takes a second for it.
    """
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    settings = {name: value for name, value in settings.items() if name not in HOW_LOADED}
    settings = PreTrainedTokenizerFast.convert_added_tokens(settings)
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **settings))

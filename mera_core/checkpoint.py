"""A checkpoint folder: what is in it, how it is written whole, and what is checked before it is trusted.

A `save_pretrained` folder (safetensors, tokenizer, config) plus the score head and `mera.json`, which explains the
rest. Knows files and hashes; nothing of patients or training.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from mera_core.errors import InputError
from mera_core.model import HEAD_FILE, MeraModel
from mera_core.ontology import Code
from mera_core.sequence import SequenceConfig
from mera_core.vocabulary import Vocabulary

# bitsandbytes warns at import that an optional CPU kernel, which it would download, is absent
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

MANIFEST = "mera.json"
MANIFEST_FORMAT = 1
QUANTIZE = (None, "nf4")
ALLOWED = {".safetensors", ".json", ".md", ".txt", ".jinja", ".model"}
NEEDED = ("config.json", "tokenizer.json")
LIBRARIES = ("torch", "transformers", "tokenizers", "bitsandbytes", "sentencepiece")


@dataclass(frozen=True)
class Manifest:
    """What `mera.json` says of a checkpoint."""

    name: str
    stage: str
    """"memorize" (knows the code book) or "rank" (ranks the next visit as well)."""
    systems: tuple[str, ...]
    """Code systems whose nodes have tokens."""
    icd_release: dict[str, str]
    """Release of each system's tables."""
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    """How histories were put into words."""
    label_space: tuple[Code, ...] = ()
    """The codes that are ranked, sorted."""
    label_level: str = ""
    """In words: the granularity of the label space."""
    input_codes: tuple[Code, ...] = ()
    """Codes that occurred in training histories; others are rolled up to the nearest of these."""
    copy: bool = True
    """Whether the score head has the term for codes that the history already holds."""
    method: dict[str, Any] = field(default_factory=dict)
    """The run's settings, by stage."""
    data: dict[str, Any] = field(default_factory=dict)
    """Provenance of the patients, split rule, counts."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures measured on this checkpoint, by the command that measured them."""
    calibration: dict[str, Any] = field(default_factory=dict)
    """The curve from margin to probability (`calibration.Calibration.to_dict`), fitted on validation patients."""
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each other file of the folder."""

    def to_json(self) -> dict[str, Any]:
        values = asdict(self) | {
            "format": MANIFEST_FORMAT,
            "sequence": asdict(self.sequence),
            "label_space": [str(code) for code in self.label_space],
            "input_codes": [str(code) for code in self.input_codes],
        }
        return {"format": values.pop("format"), **values}

    @classmethod
    def from_json(cls, values: dict[str, Any], where: Path) -> Manifest:
        values = dict(values)
        if values.pop("format", None) != MANIFEST_FORMAT:
            raise InputError(f"{where} is of a format that this version does not read (it reads {MANIFEST_FORMAT}).")
        try:
            for name in ("label_space", "input_codes"):
                values[name] = tuple(Code(*text.split(":", 1)) for text in values.get(name, ()))
            values["sequence"] = SequenceConfig(**values["sequence"])
            values["systems"] = tuple(values["systems"])
            if not isinstance(values.get("files"), dict):
                raise TypeError("its files are no list of names and hashes")
            return cls(**values)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise InputError(f"{where} is not a manifest of MERA: {error}.") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_hash(manifest: Manifest) -> str:
    """The first 12 hexadecimal digits of a hash over every file's hash: names a checkpoint's content."""
    return hashlib.sha256(json.dumps(manifest.files, sort_keys=True).encode()).hexdigest()[:12]


def library_versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def save_checkpoint(model: MeraModel, manifest: Manifest, folder: Path, dtype: torch.dtype = torch.float16) -> Manifest:
    """Write a checkpoint under a temporary name, then put it in place of `folder`.

    Args:
        dtype: precision of the stored weights; they are computed with in float32 on CPU.

    Returns:
        The manifest with library versions and the hash of each file.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    copy.deepcopy(model.backbone).to(dtype).save_pretrained(partial)  # the model in memory stays as it is
    model.vocabulary.tokenizer.save_pretrained(partial)
    model.save_head(partial)
    return write_manifest(manifest, partial, folder)


def write_manifest(manifest: Manifest, partial: Path, folder: Path) -> Manifest:
    """Hash the files of `partial`, write its `mera.json`, and move it to `folder`."""
    files = {p.name: sha256(p) for p in sorted(partial.iterdir()) if p.name != MANIFEST}
    manifest = Manifest(**{**vars(manifest), "files": files, "versions": library_versions()})
    path = partial / MANIFEST
    path.write_text(json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
    if partial != folder:
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint folder; raises InputError where there is none or it can't be read."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"There is no checkpoint folder {folder}.")
    if not path.is_file():
        raise InputError(f"{folder} is not a checkpoint of MERA: it has no {MANIFEST}.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} can't be read as JSON; the checkpoint was altered or cut short.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a manifest of MERA.")
    return Manifest.from_json(values, path)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder with a file missing, altered, of a kind that could run code, or not named by its manifest."""
    for name in NEEDED:
        if name not in manifest.files:
            raise InputError(
                f"The manifest of {folder} does not name the file {name}, without which it can't be loaded."
            )
    for name, expected in manifest.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file() or path.is_symlink():
            raise InputError(f"The checkpoint {folder} lacks the file {name}.")
        if sha256(path) != expected:
            raise InputError(f"The file {path} was altered after the checkpoint was made (its SHA-256 differs).")
    for path in folder.iterdir():
        if path.name != MANIFEST and (path.suffix not in ALLOWED or path.name not in manifest.files):
            raise InputError(f"The checkpoint {folder} holds a file that does not belong to it: {path.name}.")
    if "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        raise InputError(f"The checkpoint {folder} asks to run code of its own (auto_map), which is refused.")


def load_checkpoint(folder: Path, quantize: str | None = None) -> tuple[MeraModel, Manifest]:
    """Load a checkpoint after checking every file of it.

    Args:
        quantize: None for float32 on CPU (bfloat16 on a GPU), "nf4" for 4-bit through bitsandbytes.

    Raises:
        InputError: a file is missing or altered, or tokenizer, embedding rows and label space do not agree.
    """
    if quantize not in QUANTIZE:
        raise InputError(f'quantize is "{quantize}"; it can be None or "nf4".')
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu else torch.float32
    options: dict[str, Any] = {"dtype": dtype, "device_map": {"": 0} if gpu else None}
    if quantize == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    transformers_logging.disable_progress_bar()
    backbone = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, **options
    )
    vocabulary = load_vocabulary(folder)
    model = MeraModel(backbone, vocabulary, manifest.label_space, manifest.copy)
    if manifest.label_space:
        if not (folder / HEAD_FILE).is_file():
            raise InputError(f"The checkpoint {folder} lacks the file {HEAD_FILE}.")
        model.load_head(folder)
        model.head.to(model.device)
        model.label_ids = model.label_ids.to(model.device)
    return model.eval(), manifest


def load_vocabulary(folder: Path) -> Vocabulary:
    """The tokenizer of a checkpoint folder, with its code tokens."""
    return Vocabulary(PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True))

"""A checkpoint folder as files that somebody else made: what is refused before any library opens one of them.

Boundary: names, bytes, hashes, JSON and safetensors headers; knows no model. Weights may only be safetensors, all else JSON or
plain text, and nothing in it may name code to run or a file outside of the folder. The hashes in the manifest find what was
altered by accident or on the way; they are no signature: whoever writes a folder writes its hashes too. Therefore nothing
here trusts a folder more because its hashes agree.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mera_core.common.errors import InputError
from mera_core.common.faults import describe_system_error
from mera_core.common.limits import current_limits, refuse_depth

MANIFEST = "mera.json"
ALLOWED = {".safetensors", ".json", ".md", ".txt"}
ADAPTERS = "adapter_config.json"
NEEDED = ("config.json", "tokenizer.json")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_HASH = re.compile(r"[0-9a-f]{64}")
_MAGIC = (  # what no safetensors, JSON or text file begins with
    (re.compile(rb"\x80[\x00-\x07]"), "a pickle, which runs code when it is loaded"),
    (re.compile(rb"PK[\x01-\x08][\x02-\x09]"), "an archive, as pickled weights are kept in"),
    (re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf"), "a packed file"),
    (re.compile(rb"\x7fELF|MZ|#!|\xca\xfe\xba\xbe|[\xce\xcf]\xfa\xed\xfe"), "a program"),
)
_RUNS_CODE = ("auto_map", "trust_remote_code", "custom_pipelines", "custom_generate")
"""Keys by which a configuration names code of its own, to be fetched or imported."""
_ATTENTION = {None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"}
_ATTENTION_KEYS = {"attn_implementation", "_attn_implementation", "_attn_implementation_internal"}
_WIDTHS = ("hidden_size", "n_embd", "d_model", "intermediate_size", "n_inner", "ffn_dim", "vocab_size")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_MOST_POSITIONS = 1 << 20
_MOST_LISTED = 10_000  # entries of a list or mapping in a configuration

Shapes = dict[str, tuple[int, ...]]


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_manifest_values(folder: Path) -> dict[str, Any]:
    """`mera.json` of a folder, decoded and no more than that.

    Raises InputError where there is no such folder or file, or it is too large, too deep, no JSON or no object.
    """
    path = folder / MANIFEST
    try:
        if not folder.is_dir():
            raise InputError(f"There is no checkpoint folder {folder}{_kept_aside(folder)}.")
        if not _is_plain(path):
            raise InputError(f"{folder} is not a checkpoint of MERA: it has no {MANIFEST}.")
        values = _json(path)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a manifest of MERA.")
    return values


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse a folder with a file missing, altered, of a kind that could run code, too large, or not named in `files`.

    files: name -> SHA-256, as the manifest has it. Raises InputError naming the file.
    """
    try:
        _check_names(folder, files)
        shapes: Shapes = {}
        for name, expected in files.items():
            shapes |= _checked(folder / name, expected, files)
        if ADAPTERS not in files:  # whose configuration is that of a base elsewhere
            _refuse_claims(_json(folder / "config.json"), folder / "config.json", shapes)
    except OSError as error:
        raise InputError(f"The checkpoint {folder} can't be read: {error.strerror or error}.") from error


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Check and load inside this block: a folder that is replaced or written to meanwhile is refused at its end.

    Whatever a library raises over files that passed every check, and a lack of memory, becomes InputError as well.
    """
    before = _marks(folder)
    replaced = f"The checkpoint {folder} was replaced while it was loaded; load it again."
    try:
        yield
    except (InputError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of the tokenizer's library is no Exception
        words = describe_system_error(error) or f"its files do not fit together ({type(error).__name__})."
        said = f"The checkpoint {folder} can't be loaded: {words[:1].lower() + words[1:]}"
        raise InputError(said if _marks(folder) == before else replaced) from error
    if _marks(folder) != before:
        raise InputError(replaced)


def _check_names(folder: Path, files: Mapping[str, str]) -> None:
    whole = f"The checkpoint {folder} with {len(files):,} files"
    current_limits().refuse_above("checkpoint_files", len(files), whole)
    if missing := [name for name in NEEDED if name not in files]:
        raise InputError(
            f"The manifest of {folder} does not name the file {missing[0]}, without which it can't be loaded."
        )
    if len({name.lower() for name in files}) < len(files):
        raise InputError(f"The manifest of {folder} names two files that differ in capitals only.")
    for path in folder.iterdir():
        if path.name != MANIFEST and (path.suffix not in ALLOWED or path.name not in files):
            raise InputError(f"The checkpoint {folder} holds a file that does not belong to it: {path.name}.")
    for name, expected in files.items():
        if not _NAME.fullmatch(name) or name == MANIFEST or not _is_plain(folder / name):
            raise InputError(f"The checkpoint {folder} lacks the file {name}.")
        if not isinstance(expected, str) or not _HASH.fullmatch(expected):
            raise InputError(f"The manifest of {folder} has no SHA-256 for the file {name}.")


def _checked(path: Path, expected: str, files: Mapping[str, str]) -> Shapes:
    """The tensors of a file that is what its name says, unaltered, and asks for no code; none but weights have any."""
    _refuse_kind(path)
    if sha256(path) != expected:
        raise InputError(f"The file {path} was altered after the checkpoint was made (its SHA-256 differs).")
    if path.suffix == ".json":
        _refuse_code(_json(path), path, files)
    return _shapes(path) if path.suffix == ".safetensors" else {}


def _kept_aside(folder: Path) -> str:
    """A hint at what is left where the replacing of a folder was stopped between its two renames."""
    old = folder.with_name(folder.name + ".old") if folder.name else folder
    return f"; {old} holds the one that was being replaced" if (old / MANIFEST).is_file() else ""


def _is_plain(path: Path) -> bool:
    """Whether there is a regular file of that name: no link, folder, pipe or device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _refuse_kind(path: Path) -> None:
    """Refuse a file that is something else than its name says."""
    with path.open("rb") as file:
        head = file.read(16)
    if path.suffix == ".safetensors":
        head = head[8:]  # the length of the header comes first, and may be any bytes
    for magic, what in _MAGIC:
        if magic.match(head):
            raise InputError(f"The file {path} is {what}, whatever its name says.")


def _json(path: Path) -> Any:
    limits = current_limits()
    limits.refuse_above("checkpoint_json_bytes", path.stat().st_size, f"The file {path}")
    try:
        values = json.loads(path.read_bytes().decode("utf-8"))
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply: at most {limits.json_depth} levels are read.") from error
    except ValueError as error:
        raise InputError(f"{path} can't be read as JSON; the checkpoint was altered or cut short.") from error
    refuse_depth(values, str(path), limits)
    return values


def _refuse_code(value: Any, path: Path, files: Mapping[str, str]) -> None:
    """Refuse JSON that asks for code or leads out of the folder, however deep that stands."""
    if path.name.endswith(".index.json"):
        shards = value.get("weight_map") if isinstance(value, dict) else None
        if not isinstance(shards, dict) or not set(map(str, shards.values())) <= set(files):
            raise InputError(f"The file {path} names weights that are not in the manifest.")
    for each in _objects(value):
        asked = {key: each[key] for key in _RUNS_CODE if each.get(key) not in (None, False)}
        library = each.get("parent_library")  # which peft imports
        if library is not None and not (isinstance(library, str) and library.startswith("transformers.")):
            asked["parent_library"] = library
        if asked:
            raise InputError(f"The file {path} names Python code ({next(iter(asked))}), which is refused.")
        for key in _ATTENTION_KEYS & each.keys():
            named = each[key].values() if isinstance(each[key], dict) else [each[key]]
            if any(not (isinstance(name, str | None) and name in _ATTENTION) for name in named):
                raise InputError(f"The file {path} asks to fetch code for attention ({key}), which is refused.")
    if path.name == "tokenizer.json" and isinstance(value, dict):
        for key in ("padding", "truncation"):  # which the tokenizer's library carries out, however long they say
            if value.get(key) is not None:
                raise InputError(f"The file {path} sets {key}, which no checkpoint of MERA does; it is refused.")
    if path.name == "tokenizer_config.json" and isinstance(value, dict):
        for key, named in value.items():
            if named and key.endswith(("_file", "_files")):
                raise InputError(f"The file {path} names other files to load ({key}), which is refused.")


def _shapes(path: Path) -> Shapes:
    """Name -> shape of the tensors in a safetensors file, whose header agrees with its size to the byte."""
    limits = current_limits()
    with path.open("rb") as file:
        limits.refuse_above("checkpoint_header_bytes", int.from_bytes(file.read(8), "little"), f"The header of {path}")
    try:
        with safe_open(path, "np") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise InputError(
            f"The file {path} is no sound safetensors file: its header does not agree with its content."
        ) from error
    for name, shape in shapes.items():
        limits.refuse_above("checkpoint_rows", max(shape, default=0), f"The tensor {name} of {path}")
    return shapes


def _refuse_claims(config: Any, path: Path, shapes: Shapes) -> None:
    """Refuse a configuration that asks for a network larger than the weights at hand: it would be made before it is filled."""
    if not isinstance(config, dict):
        raise InputError(f"{path} is no configuration of a model.")
    if config.get("quantization_config") is not None:
        raise InputError(
            f"{path} sets quantization_config, which is refused: weights are quantized when they are loaded."
        )
    widest = max((size for shape in shapes.values() for size in shape), default=0)
    most = dict.fromkeys(_WIDTHS, widest) | dict.fromkeys(_LAYERS, len(shapes))
    for each in _objects(config):
        for key, value in each.items():
            if isinstance(value, (dict, list)) and len(value) > _MOST_LISTED:
                raise InputError(f"{path} lists {len(value):,} {key}; at most {_MOST_LISTED:,} can be read.")
            bound = _MOST_POSITIONS if "position" in key else most.get(key)
            if bound is None and key.startswith("num_"):
                bound = max(widest, len(shapes))
            if bound is not None and isinstance(value, (int, float)) and value > bound:
                raise InputError(f"{path} claims a {key} of {value:,}; with these weights {bound:,} is the most.")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in decoded JSON, however deep."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _marks(folder: Path) -> dict[str, tuple[int, ...]]:
    """Which file stands behind each name, and when it was last written to."""
    try:
        marks = {".": folder.lstat()} | {path.name: path.lstat() for path in folder.iterdir()}
    except (OSError, ValueError):
        return {}
    return {name: (mark.st_dev, mark.st_ino, mark.st_size, mark.st_mtime_ns) for name, mark in marks.items()}

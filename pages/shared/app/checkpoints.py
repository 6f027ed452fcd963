"""Which checkpoints the app offers, and in which precision they are served. Reads the environment; loads nothing."""

from __future__ import annotations

import json
import os
import time
from functools import lru_cache
from pathlib import Path

from mera_core.common.bundled import SAMPLES as BUNDLED_FOLDER

CHECKPOINT_VARIABLE = "MERA_CHECKPOINT"  # a checkpoint folder to serve in place of the bundled ones
CHECKPOINTS_VARIABLE = "MERA_CHECKPOINTS"  # a folder whose subfolders are checkpoints to choose from as well
QUANTIZE_VARIABLE = "MERA_QUANTIZE"  # nf4, int8 or bf16: how the weights of every checkpoint are held
MANIFEST = "mera.json"
BUNDLED = "mera-mini"
BEING_WRITTEN = (".partial", ".old")  # what a folder is called while it is written or replaced
LOOK_EVERY = 2.0  # seconds


def models() -> dict[str, Path | None]:
    """The checkpoints one can choose from: id (the folder's name) -> folder; None is `BUNDLED`. The first is the default."""
    default = os.environ.get(CHECKPOINT_VARIABLE)
    if default:
        found: dict[str, Path | None] = {Path(default).name: Path(default)}
    else:
        found = {BUNDLED: None} | _checkpoints(BUNDLED_FOLDER) | {BUNDLED: None}
    more = os.environ.get(CHECKPOINTS_VARIABLE)
    return found | {name: folder for name, folder in _checkpoints(more).items() if name not in found}


def ranking_models() -> list[str]:
    """The ids of those that rank, as far as their manifests tell: one that can't be read says why when it is chosen."""
    return [name for name, folder in models().items() if folder is None or _ranks(folder / MANIFEST, version(folder))]


def quantize() -> str | None:
    """The precision that the environment asks for; None for the machine's own."""
    return os.environ.get(QUANTIZE_VARIABLE) or None


def version(folder: str | Path | None) -> tuple[int, ...] | None:
    """What changes when a checkpoint is replaced, as its manifest names every file by its hash; None where there is none."""
    return _version(Path(folder or BUNDLED_FOLDER / BUNDLED) / MANIFEST, _look())


def _checkpoints(folder: str | Path | None) -> dict[str, Path]:
    return _in_folder(Path(folder), _look()) if folder else {}


def _look() -> int:
    """The number of the present look at the disk: pages ask several times in each run, and every look waits."""
    return int(time.monotonic() / LOOK_EVERY)


@lru_cache(maxsize=8)
def _in_folder(folder: Path, look: int) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    found = [path for path in sorted(folder.iterdir()) if path.suffix not in BEING_WRITTEN]
    return {path.name: path for path in found if (path / MANIFEST).is_file()}


@lru_cache(maxsize=8)
def _version(manifest: Path, look: int) -> tuple[int, ...] | None:
    try:
        mark = manifest.stat()
    except OSError:
        return None
    return mark.st_ino, mark.st_size, mark.st_mtime_ns


@lru_cache(maxsize=64)
def _ranks(manifest: Path, version: tuple[int, ...] | None) -> bool:
    try:
        return json.loads(manifest.read_bytes())["stage"] != "memorize"
    except (OSError, ValueError, KeyError, TypeError):
        return True

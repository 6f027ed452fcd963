"""Which checkpoints the app offers, and in which precision they are served. Reads the environment; loads nothing."""

from __future__ import annotations

import json
import os
import time
from functools import lru_cache
from pathlib import Path

CHECKPOINT_VARIABLE = "MERA_CHECKPOINT"  # a checkpoint folder to serve in place of the bundled ones
CHECKPOINTS_VARIABLE = "MERA_CHECKPOINTS"  # a folder whose subfolders are checkpoints to choose from as well
QUANTIZE_VARIABLE = "MERA_QUANTIZE"  # nf4, int8 or bf16: how the weights of every checkpoint are held
MANIFEST = "mera.json"
BUNDLED = "mera-mini"
BUNDLED_FOLDER = Path(__file__).resolve().parents[3] / "sample_data"
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
    return [name for name, folder in models().items() if folder is None or _ranks(folder / MANIFEST, _changed(folder))]


def quantize() -> str | None:
    """The precision that the environment asks for; None for the machine's own."""
    return os.environ.get(QUANTIZE_VARIABLE) or None


def _checkpoints(folder: str | Path | None) -> dict[str, Path]:
    return _in_folder(Path(folder), int(time.monotonic() / LOOK_EVERY)) if folder else {}


@lru_cache(maxsize=8)
def _in_folder(folder: Path, look: int) -> dict[str, Path]:
    """What a folder holds at the look number `look`: pages ask several times in each run, and every look at a disk waits."""
    if not folder.is_dir():
        return {}
    return {path.name: path for path in sorted(folder.iterdir()) if (path / MANIFEST).is_file()}


def _changed(folder: Path) -> int:
    try:
        return (folder / MANIFEST).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def _ranks(manifest: Path, changed: int) -> bool:
    try:
        return json.loads(manifest.read_bytes())["stage"] != "memorize"
    except (OSError, ValueError, KeyError, TypeError):
        return True

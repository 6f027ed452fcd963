"""Adapters merged into their base: a checkpoint that the engine loads. Moves weights; trains and measures nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from mera_core.checkpoint.folder import Manifest, make_room, save_checkpoint
from mera_core.common.errors import InputError
from training.common import adapters

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def merge(folder: Path, out: Path, base: str | None = None, dtype: str = "bfloat16") -> Manifest:
    """Write the whole model that adapters and their base make together, as a checkpoint that the engine loads.

    Args:
        base: where the base is now, if it was moved since training.
        dtype: precision of the stored weights.

    Raises:
        InputError: see `adapters.load`; `out` is `folder`, or holds something else than a checkpoint.
    """
    if dtype not in DTYPES:
        raise InputError(f'dtype is "{dtype}"; it can be {", ".join(DTYPES)}.')
    if out.resolve() == folder.resolve():
        raise InputError(f"{out} holds the adapters: name another folder for the whole model.")
    make_room(out)
    model, manifest = adapters.load(folder, base)
    adapters.merge(model)
    return save_checkpoint(model, adapters.without_adapters(manifest, out.name), out, DTYPES[dtype])

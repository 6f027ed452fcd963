"""From what training wrote to what others read: adapters merged into their base, and a plain Hugging Face folder.

Moves weights; trains and measures nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch

from mera_core.checkpoint.folder import (
    CARD,
    EXPORTED,
    Manifest,
    load_vocabulary,
    make_room,
    read_manifest,
    save_checkpoint,
    whole_folder,
)
from mera_core.checkpoint.verify import check_files
from mera_core.common.errors import InputError
from mera_core.ranking.ranking import NOTICE
from training.common import adapters
from training.common.backbone import load_weights, set_rows
from training.common.tuning import holds_adapters

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def merge(folder: Path, out: Path, base: str | None = None, dtype: str = "bfloat16") -> Manifest:
    """Write the whole model that adapters and their base make together, as a checkpoint that the engine loads.

    Args:
        base: where the base is now, if it was moved since training.
        dtype: precision of the stored weights.

    Raises:
        InputError: see `adapters.load`; `out` is `folder`, or holds something else than a checkpoint.
    """
    stored = _dtype(dtype)
    if out.resolve() == folder.resolve():
        raise InputError(f"{out} holds the adapters: name another folder for the whole model.")
    make_room(out)
    model, manifest = adapters.load(folder, base)
    adapters.merge(model)
    return save_checkpoint(model, adapters.without_adapters(manifest, out.name), out, stored)


def export(checkpoint: Path, out: Path, dtype: str | None = None) -> None:
    """Write the language model of a checkpoint as a plain folder: `AutoModelForCausalLM.from_pretrained` loads it.

    The folder has a row for each token and no more, and nothing of MERA's own: the score head and the cut-off stay behind.

    Args:
        dtype: precision of the stored weights; by default that of the checkpoint.

    Raises:
        InputError: the checkpoint is damaged, holds adapters, or is `out` itself; or `out` can't be written or holds
            something else than a checkpoint or an earlier export.
    """
    stored = _dtype(dtype) if dtype else "auto"
    if out.resolve() == checkpoint.resolve():
        raise InputError(f"{out} is the checkpoint itself: name another folder.")
    make_room(out)
    manifest = read_manifest(checkpoint)
    if holds_adapters(checkpoint):
        raise InputError(f"{checkpoint} holds adapters: python -m training merge {checkpoint} --out DIR comes first.")
    check_files(checkpoint, manifest.files)
    vocabulary = load_vocabulary(checkpoint)
    backbone = load_weights(str(checkpoint), stored)
    set_rows(backbone, len(vocabulary))
    with whole_folder(out) as partial:
        backbone.save_pretrained(partial)
        vocabulary.tokenizer.save_pretrained(partial)
        (partial / CARD).write_text(read_me(manifest, type(backbone).__name__), encoding="utf-8")


def read_me(manifest: Manifest, architecture: str) -> str:
    """What the plain folder says of itself."""
    return f"""# {manifest.name}, language model only

{NOTICE}

A {architecture} whose vocabulary holds {", ".join(manifest.systems)}: one token a code and heading (`ICD9_428.0`), and
`<end_of_visit>`. {EXPORTED} ({manifest.stage}). The score head, the learned cut and the label space
are not in this folder, so its logits are not MERA's scores.
"""


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise InputError(f'dtype is "{name}"; it can be {", ".join(DTYPES)}.')
    return DTYPES[name]

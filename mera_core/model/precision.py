"""The dtype, quantization and device of the loaded weights. Knows transformers' options; opens no file."""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from mera_core.common.errors import InputError

# bitsandbytes warns at import that an optional CPU kernel, which it would download, is absent
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

QUANTIZE = (None, "nf4", "int8", "bf16")
"""None: float32 on a CPU, bfloat16 on a GPU. nf4: 4-bit, int8: 8-bit weights (embedding and output rows stay as they are)."""


def loading_options(quantize: str | None) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a precision, on the GPU where there is one and on the CPU where there is none.

    Raises InputError for a precision that does not exist.
    """
    refuse_unknown(quantize)
    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu or quantize == "bf16" else torch.float32
    options: dict[str, Any] = {"dtype": dtype, "device_map": {"": torch.cuda.current_device()} if gpu else None}
    if quantize == "nf4":
        options["quantization_config"] = nf4(dtype)
    elif quantize == "int8":
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    return options


def refuse_unknown(quantize: str | None) -> None:
    """Raise InputError for a precision that does not exist."""
    if quantize not in QUANTIZE:
        known = ", ".join(f'"{name}"' for name in QUANTIZE if name)
        raise InputError(f'quantize is "{quantize}"; it can be None, {known}.')


def nf4(dtype: torch.dtype | str) -> BitsAndBytesConfig:
    """4-bit weights (NF4, blocks of 64) with arithmetic in `dtype`: one form for training on top of them and serving."""
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)

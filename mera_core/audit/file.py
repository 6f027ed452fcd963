"""Judgements of the hierarchy audit as a JSON file: bytes out, bytes in. Nothing is written to disk here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mera_core.audit.groups import Judgement
from mera_core.common.errors import InputError
from mera_core.common.limits import current_limits
from mera_core.common.schema import sentence
from mera_core.ranking.ranking import NOTICE


class _File(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["mera hierarchy audit 2"] = "mera hierarchy audit 2"
    notice: str = NOTICE
    judgements: list[Judgement]


def to_json(judgements: Sequence[Judgement]) -> bytes:
    """The judgements as the bytes of a file."""
    return _File(judgements=list(judgements)).model_dump_json(indent=1).encode()


def from_json(content: bytes, name: str) -> list[Judgement]:
    """The judgements of a file made by `to_json`, oldest first.

    name: of the file, for messages.
    Raises InputError where the bytes are no such file, are too many, or a judgement does not fit together.
    """
    largest, most = current_limits().audit_bytes, current_limits().audit_judgements
    if len(content) > largest:
        raise InputError(f"{name} has {len(content):,} bytes, and at most {largest:,} can be read.")
    try:
        found = _File.model_validate_json(content, strict=True).judgements
    except ValidationError as error:
        raise InputError(f"{name} is not a file of the hierarchy audit: {sentence(error)}") from error
    if len(found) > most:
        raise InputError(f"{name} holds more than {most:,} judgements.")
    return sorted(found, key=lambda each: (each.time, each.reader))

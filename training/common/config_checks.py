"""One check of a run's settings: each of the type that its field declares, and within its range. Knows no run.

A field's annotation says what it may hold (`int`, `float`, `bool`, `str`, or a tuple of one of them); `RANGES` and `CHOICES`
say which values. What several settings must be to each other stands with the settings, in `config`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from mera_core.common.errors import InputError
from mera_core.icd.ontology import SYSTEMS
from mera_core.icd.tables import LEVEL_NAMES


@dataclass(frozen=True)
class Range:
    """From `least` to `most`, both allowed unless `above` or `below` says that they are not."""

    least: float = 0
    most: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value lies in it."""
        enough = value > self.least if self.above else value >= self.least
        return enough and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"above {self.least:g}" if self.above else f"{self.least:g} or more"
        if self == SHARE:
            return "a share between 0 and 1"
        return f"{'above' if self.above else 'from'} {self.least:g} to {'below ' * self.below}{self.most:g}"


COUNT, SHARE, PART = Range(1), Range(0, 1), Range(0, 1, below=True)
ANY, POSITIVE = Range(0), Range(0, above=True)
RANGES = {
    "accumulate": COUNT,
    "attention_dropout": PART,
    "average": PART,
    "backwards_share": SHARE,
    "batch_size": COUNT,
    "common_direction": ANY,
    "drop": PART,
    "head_learning_rate": ANY,
    "heads": COUNT,
    "hidden_size": COUNT,
    "encoded_passes": ANY,
    "rates_after_encoding": Range(0, 1, above=True),
    "equivalents_share": ANY,
    "hierarchy_share": ANY,
    "intermediate_size": COUNT,
    "layers": COUNT,
    "learning_rate": POSITIVE,
    "level_weights": ANY,
    "levels": Range(0, max(map(len, LEVEL_NAMES.values()))),
    "log_every": COUNT,
    "lora_alpha": POSITIVE,
    "lora_dropout": PART,
    "lora_rank": COUNT,
    "max_tokens": Range(16),
    "missed_passes": ANY,
    "muon_learning_rate": ANY,
    "passes": Range(0.001),
    "phrasings": ANY,
    "rehearsal": ANY,
    "rehearsal_backwards": SHARE,
    "rehearsal_hierarchy": ANY,
    "rehearsal_weight": ANY,
    "rest_weight": ANY,
    "row_learning_rate": ANY,
    "save_every": ANY,
    "seed": Range(0, 2**32 - 1),
    "start_weight": ANY,
    "targets_at_once": ANY,
    "temperature": POSITIVE,
    "threshold_positive_weight": ANY,
    "threshold_weight": ANY,
    "undivided_codes": ANY,
    "validate_every": ANY,
    "warmup_share": PART,
    "weight_decay": ANY,
    "word_pieces": Range(350),
}
"""Of every number. Passes: fewer than a thousandth is no run. Word pieces: every byte and every letter of the book is one."""
CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("adamw", "muon", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"),
    "tuning": ("full", "lora", "qlora"),
    "precision": ("float32", "mixed", "bfloat16"),
    "row_start": ("definition", "mean", "random"),
    "systems": SYSTEMS,
    "threshold": ("adaptive", "independent", "none"),
    "ranking_loss": ("hierarchical", "cross_entropy"),
    "label_space": ("data", "billable"),
}
"""Of texts that are names; those whose names differ from stage to stage stand with the stage."""
NEEDED = ("systems", "levels")
"""Lists that must hold something."""
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def check(settings: Any, **choices: Sequence[str]) -> None:
    """Refuse the first setting of a dataclass that can't be; tuples are made of lists, and of a text a tuple of one.

    Args:
        choices: names that a text of this dataclass may be, beside those of `CHOICES`.

    Raises:
        InputError: one sentence with the setting, its value and what it must be.
    """
    for field in fields(settings):
        value, name = getattr(settings, field.name), field.name
        if field.type.startswith("tuple["):
            value = _items(name, value, field.type.removeprefix("tuple[").removesuffix(", ...]"))
            object.__setattr__(settings, name, value)
        else:
            _must_be(field.type, name, value, value)
        allowed = {**CHOICES, **choices}.get(name)
        for one in value if isinstance(value, tuple) else [value]:
            if name in RANGES and not RANGES[name].holds(one):
                raise InputError(f"The setting {name} is {_shown(value)}; it must be {RANGES[name]}.")
            if allowed and one not in allowed:
                raise InputError(f'The setting {name} is "{one}"; it is {", ".join(allowed[:-1])} or {allowed[-1]}.')


def _items(name: str, value: Any, kind: str) -> tuple:
    if isinstance(value, str) and kind == "str":
        value = (value,)
    if not isinstance(value, list | tuple):
        raise InputError(f"The setting {name} is {_shown(value)}; it must be a list, each of it {KINDS[kind]}.")
    for item in value:
        _must_be(kind, name, item, value)
    if name in NEEDED and not value:
        raise InputError(f"The setting {name} is empty; it must name at least one.")
    if len(set(value)) < len(value) and name != "level_weights":
        raise InputError(f"The setting {name} is {_shown(value)}; it must name each once.")
    return tuple(value)


def _must_be(kind: str, name: str, item: Any, value: Any) -> None:
    """Refuse an item that is not of a kind; `value` is the whole setting, as it is shown."""
    types = {"int": int, "float": int | float, "bool": bool, "str": str}[kind]
    if not isinstance(item, types) or (isinstance(item, bool) and kind != "bool"):
        wanted = KINDS[kind] if item is value else f"a list, each of it {KINDS[kind]}"
        raise InputError(f"The setting {name} is {_shown(value)}; it must be {wanted}.")
    if kind in ("int", "float") and not math.isfinite(item):
        raise InputError(f"The setting {name} is {_shown(value)}; it must be a finite number.")


def _shown(value: Any) -> str:
    """As a configuration file would have it, shortened."""
    if value is None:
        return "empty"
    text = str(value).lower() if isinstance(value, bool) else repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else text[:57] + "..."

"""The ablation table as its YAML says it: rows, what each changes, what is claimed of it. Runs nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from mera_core.common.errors import InputError
from training.common.config import EARLIER_NAMES, MemorizeConfig, RankConfig, RunConfig, refuse_earlier_names

SHOWN = (
    "recall@10", "recall@20", "weighted_f1_oracle", "weighted_f1_cut", "recurrent_recall@20", "new_onset_recall@20",
)  # fmt: skip
"""The figures of the table."""
WAYS = {"start": ("memorized", "untrained"), "train": ("mera", "sequence"), "output": ("rank", "decode")}
"""How a row may be trained and read; the usual way first."""


@dataclass(frozen=True)
class Row:
    """One row of the table: what it changes, and what the change is claimed to do."""

    name: str
    group: str
    claim: str = ""
    """What the paper, or we, say the change does."""
    helps: bool = False
    """The claim is that the figure rises; otherwise that it falls."""
    figure: str = "weighted_f1_oracle"
    """The figure that the claim is about."""
    about: str = ""
    """What a reader should know of the row."""
    memorize: dict[str, Any] = field(default_factory=dict)
    rank: dict[str, Any] = field(default_factory=dict)
    start: str = "memorized"
    """"memorized", or "untrained": stage 1 is built and never trained."""
    train: str = "mera"
    """"mera", or "sequence": next-code cross-entropy over the visit as a sequence."""
    output: str = "rank"
    """"rank", or "decode": greedy codes until EOV."""
    keep: bool = False
    """Whether the trained checkpoint stays in the folder of runs: the open questions go on from it."""

    def __post_init__(self) -> None:
        for name, values in WAYS.items():
            if (value := getattr(self, name)) not in values:
                raise InputError(f'The row "{self.name}" has {name}: {value}; it is {" or ".join(values)}.')
        if self.output == "decode" and self.train != "sequence":
            raise InputError(f'The row "{self.name}" decodes a model that was not trained to (train: sequence).')
        if self.figure not in SHOWN:
            raise InputError(f'The row "{self.name}" is about {self.figure}; the table has {", ".join(SHOWN)}.')

    def changes(self) -> dict[str, Any]:
        """What the row changes, JSON-ready."""
        usual = {"memorize": {}, "rank": {}} | {name: values[0] for name, values in WAYS.items()}
        return {name: value for name in usual if (value := getattr(self, name)) != usual[name]}


@dataclass(frozen=True)
class Table:
    """The rows, the first being the reference, and the settings that they share."""

    seeds: tuple[int, ...]
    memorize: dict[str, Any]
    rank: dict[str, Any]
    rows: tuple[Row, ...]

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read a table; InputError for what is no table, an unknown setting, or a name that stands twice."""
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise InputError(f"{path} can't be read as a table of ablations: {str(error).splitlines()[0]}.") from error
        needed = {"seeds", "memorize", "rank", "rows"}
        if not isinstance(values, dict) or set(values) != needed or not values["rows"] or not values["seeds"]:
            raise InputError(f"{path} must hold {', '.join(sorted(needed))}, none of them empty.")
        known = {one.name for one in fields(Row)}
        for row in values["rows"]:
            if unknown := set(row) - known:
                raise InputError(f"{path}: a row names a setting that does not exist: {', '.join(sorted(unknown))}.")
        rows = tuple(Row(**row) for row in values["rows"])
        if len({row.name for row in rows}) < len(rows):
            raise InputError(f"{path} names a row twice.")
        for settings in (
            values["memorize"],
            values["rank"],
            *(part for row in rows for part in (row.start, row.train)),
        ):
            refuse_earlier_names(settings, path)
        table = cls(tuple(values["seeds"]), values["memorize"], values["rank"], rows)
        for row in rows:  # contradictions are found now, not after a night
            table.memorize_config(row, 1)
            table.rank_config(row, 1)
        return table

    def same_model(self, one: Row, other: Row) -> bool:
        """Whether two rows train the very same model, and differ at most in how it is read."""
        return (one.start, one.train, one.memorize, one.rank) == (other.start, other.train, other.memorize, other.rank)

    def fingerprint(self, row: Row, seed: int, *more: Any) -> str:
        """Ten hexadecimal digits that another setting, seed, or `more` would change."""
        settings = [as_kept(config) for config in (self.memorize_config(row, seed), self.rank_config(row, seed))]
        text = json.dumps([*settings, row.start, row.train, *more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def memorize_config(self, row: Row, seed: int) -> MemorizeConfig:
        """Stage 1 of a row."""
        return _config(MemorizeConfig, row, self.memorize | row.memorize | {"seed": seed})

    def rank_config(self, row: Row, seed: int, **values: Any) -> RankConfig:
        """Stage 2 of a row."""
        return _config(RankConfig, row, self.rank | row.rank | {"seed": seed} | values)


def _config(kind: type, row: Row, values: dict[str, Any]):
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f'The row "{row.name}": {error}') from error


def as_kept(config: RunConfig) -> dict[str, Any]:
    """Settings under the names that kept results were marked by, so that those are known again."""
    earlier = {name: before for before, name in EARLIER_NAMES.items()}
    return {earlier.get(name, name): value for name, value in config.to_dict().items()}

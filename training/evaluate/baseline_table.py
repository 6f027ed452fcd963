"""The baseline table as files that several processes, and one checkpoint after another, may share. Fits and scores nothing.

A row depends on the label space, the patients and the tuning; not on the weights of the checkpoint beside it. So it is
kept with its draws (`OUT/NAME.npz` beside `OUT.json`), and paired anew where another checkpoint stands beside it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mera_core.common.errors import InputError
from mera_core.evaluation.bootstrap import Estimate
from training.ablate.results import claimed, load_figures, rounded, save_figures, slug, write_json
from training.evaluate.table import without_nan

log = logging.getLogger(__name__)

SAME = {
    "labels": "label space",
    "cohort": "cohort",
    "patients": "cohort",
    "seeds": "choice of seeds",
    "draws": "number of draws",
    "budget": "way of tuning",
    "cut": "way of cutting",
}
"""What all rows of a table share, and how it is called where it differs. Where the data lie, and which checkpoint stands
beside them, may change."""
NEW_ONLY_PREFIX = "new_only_"
"""Begins the names of new-only figures, which stand beside those of whole lists."""
Figures = Mapping[str, Mapping[str, Estimate]]  # part -> name -> figure


class KeptTable:
    """The table in `out`, of what `about` says, beside the figures `ours` of the checkpoint.

    shown: names of the figures that are compared. Raises InputError where `out` holds another table.
    """

    def __init__(self, out: Path, about: Mapping[str, Any], ours: Figures, shown: tuple[str, ...]):
        self.out, self.ours, self.shown = out, ours, shown
        self.about = without_nan(dict(about))
        with self._alone():
            table = self.read()
            if self.out.is_file():
                write_json(self.out, table)

    def read(self) -> dict[str, Any]:
        """The table as it stands now, beside this checkpoint. Left out are rows that can't be paired with it, and those of
        baselines that were told something else than they would be beside it."""
        if not self.out.is_file():
            return self.about | {"rows": []}
        table = json.loads(self.out.read_text(encoding="utf-8"))
        for key, words in SAME.items():
            if table.get(key) != self.about[key]:
                raise InputError(f"{self.out} holds the table of another {words}; name another file, or remove it.")
        told = self.about.get("told", {})
        rows = [row for row in table["rows"] if row.get("told") == told.get(row["name"])]
        if table["mera"] == self.about["mera"]:
            return self.about | {"rows": rows}
        return self.about | {"rows": [paired for row in rows if (paired := self._paired_anew(row))]}

    def done(self) -> set[str]:
        """Names of the rows that need not be run, those of other processes included."""
        return {row["name"] for row in self.read()["rows"] if "not_run" not in row}

    def keep(self, row: Mapping[str, Any], figures: Figures | None = None) -> dict[str, Any]:
        """Put a row into the table, whole or not at all, and return the table; other processes' rows stay.

        figures: of the row, which are then paired with the checkpoint's; None for a row that was not run.
        """
        row = dict(row)
        with self._alone():
            if figures is not None:
                path = self._draws(row["name"])
                path.parent.mkdir(exist_ok=True)
                kept = {f"{part}/{name}": rounded(figures[part][name]) for part in figures for name in self.shown}
                save_figures(path, kept)
                for part in figures:
                    row[part] = row[part] | {"mera_minus_this": self._minus(part, kept)}
            table = self.read()
            table["rows"] = [one for one in table["rows"] if one["name"] != row["name"]] + [without_nan(row)]
            write_json(self.out, table)
        return table

    def _alone(self) -> AbstractContextManager[bool]:
        """A lock that other processes on this table wait for."""
        return claimed(self.out.with_name(self.out.name + ".lock"), wait=True)

    def _minus(self, part: str, figures: Mapping[str, Estimate]) -> dict[str, Any]:
        return {name: self.ours[part][name].minus(figures[f"{part}/{name}"]).to_dict() for name in self.shown}

    def _paired_anew(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """A row beside this checkpoint in place of the one it was run with; None where its draws are not at hand."""
        if "not_run" in row:
            return row
        kept = load_figures(self._draws(row["name"]))
        if kept is None or any(
            row[part]["metrics"][name]["value"] != without_nan(kept[0][f"{part}/{name}"].value)
            for part in self.ours
            for name in self.shown
        ):  # none, or those of another run
            log.info("the draws of %s are not at hand: it is run again", row["name"])
            return None
        return row | {part: row[part] | {"mera_minus_this": self._minus(part, kept[0])} for part in self.ours}

    def _draws(self, name: str) -> Path:
        return self.out.with_suffix("") / f"{slug(name)}.npz"


def put_tuned(metrics: dict[str, Any], table: Path, compared: tuple[str, ...]) -> None:
    """Put a kept table's rows in place of the quick baselines of an evaluation, by part, the strongest first.

    Raises InputError where the table was not measured beside the checkpoint of these figures.
    """
    kept = json.loads(table.read_text(encoding="utf-8"))
    names, new = (*compared, "weighted_f1_cut"), NEW_ONLY_PREFIX
    for part in ("test", "validation"):
        result, beside = metrics[part], kept["mera"][part]
        if not all(math.isclose(result["metrics"][name]["value"], beside[name]["value"]) for name in names):
            raise InputError(
                f"{table} stands beside another checkpoint: run `python -m training baselines` for this one."
            )
        rows = [row for row in kept["rows"] if "not_run" not in row]
        rows.sort(key=lambda row: -row[part]["metrics"]["recall@20"]["value"])
        result["baselines"] = [
            {
                "name": row["name"],
                "told": row["told"],
                "metrics": {name: row[part]["metrics"][name] for name in names},
                "ours_minus_this": {name: row[part]["mera_minus_this"][name] for name in compared},
                "new_only": {
                    name.removeprefix(new): one for name, one in row[part]["metrics"].items() if name.startswith(new)
                },
                "new_only_ours_minus_this": {
                    name.removeprefix(new): one
                    for name, one in row[part]["mera_minus_this"].items()
                    if name.startswith(new)
                },
            }
            for row in rows
        ]
        result["baselines_fitted_on"] = f"{kept['patients']['train']} training patients"
        result["baselines_tuned"] = f"{kept['budget']} Intervals: {kept['interval']}."

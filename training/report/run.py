"""docs/evidence: the report and its figures, built from the JSON that the experiments left there. Measures nothing.

    python -m training report

reads the checkpoint's manifest, `baselines.json`, `ablations.json` and `question-*.json`, and writes `README.md` and
`figures/*.svg` beside them. The words are in `evidence.md.jinja`; what has no JSON yet is said to be missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from mera_core.checkpoint.folder import read_manifest
from mera_core.common.errors import InputError
from mera_core.common.formatting import Figure, with_interval
from mera_core.common.formatting import difference_words as points
from mera_core.common.formatting import share_words as percent
from mera_core.ranking.ranking import NOTICE
from training.report import figures
from training.report.figures import significant

HERE = Path("docs/evidence")
NAMES = {
    "weighted_f1_oracle": "weighted F1, oracle cut",
    "weighted_f1_cut": "weighted F1, own cut",
    **{f"new_only_recall@{k}": f"recall@{k}, new codes only" for k in (5, 10, 20)},
    "recurrent_recall@20": "recall@20, recurrent",
    "new_onset_recall@20": "recall@20, new onset",
    "cut_size_mean": "codes named a patient",
    "true_size_mean": "true codes a patient",
}


def run(checkpoint: Path, folder: Path = HERE) -> Path:
    """Build the report in `folder` for a published checkpoint; returns the report's path.

    Raises InputError where the manifest holds no figures (`python -m training publish` puts them there).
    """
    manifest = read_manifest(checkpoint)
    if "test" not in manifest.metrics:
        raise InputError(f"{checkpoint} holds no figures: publish it first (python -m training publish).")
    names = ("baselines.json", "ablations.json", *(f"question-{number}.json" for number in range(1, 5)))
    found = {name: _read(folder / name) for name in names}
    draw(found, manifest.metrics["test"], folder / "figures")
    text = (
        environment()
        .get_template("evidence.md.jinja")
        .render(
            notice=NOTICE,
            manifest=manifest,
            test=manifest.metrics["test"],
            validation=manifest.metrics["validation"],
            baselines=found["baselines.json"],
            ablations=found["ablations.json"],
            stage1=stage1_rows(found["ablations.json"]),
            questions={number: found[f"question-{number}.json"] for number in range(1, 5)},
            missing=[name for name in names if not found[name]],
        )
    )
    path = folder / "README.md"
    path.write_text(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", encoding="utf-8")
    return path


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def draw(found: dict[str, dict[str, Any] | None], test: dict[str, Any], folder: Path) -> None:
    """The figure of each file that was found, and of the checkpoint's calibration."""
    folder.mkdir(parents=True, exist_ok=True)
    if "ece_frequent" in test["metrics"]:
        figures.calibration(test, folder / "calibration.svg")
    for name, values in found.items():
        if values and not (name == "ablations.json" and "not_run" in values["rows"][0]):
            figures.DRAWN[name.removesuffix(".json")](values, folder / name.replace(".json", ".svg"))


def environment() -> Environment:
    """Jinja2 with the filters that the report is written in."""
    made = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True)
    made.tests |= {"significant": significant, "copying": lambda name: name.startswith("copy")}
    made.filters |= {
        "percent": percent,
        "points": points,
        "plain": lambda figure, digits=2: with_interval(figure, digits=digits),
        "named": lambda name: NAMES.get(name, name.replace("_", " ")),
        "thousands": lambda value: f"{value:,}",
        "listed": listed,
        "above": above,
        "side": side,
    }
    return made


def listed(words: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def above(rows: Sequence[dict[str, Any]], part: str, name: str) -> str:
    """`beside` of the rows of a table."""
    return beside({row["name"]: row[part]["mera_minus_this"][name] for row in rows})


def beside(differences: Mapping[str, Figure]) -> str:
    """In one sentence: which models MERA is above, level with and below, by the interval of MERA minus each."""
    sides: dict[str, list[str]] = {"above": [], "level with": [], "below": []}
    for model, difference in differences.items():
        sides[side(difference)].append(model)
    said = [f"{where} {listed(names)}" for where, names in sides.items() if names]
    return f"MERA is {'; '.join(said)}." if said else "no other model was run."


def side(difference: Figure) -> str:
    """Where the interval of a difference lies."""
    if not significant(difference):
        return "level with"
    return "above" if difference["low"] > 0 else "below"


def stage1_rows(found: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Rows of the ablation table with a stage 1 of their own, the reference first."""
    rows = found["rows"] if found else []
    own = [row for row in rows if row is rows[0] or {"memorize", "start"} & row.get("changes", {}).keys()]
    return [row for row in own if "stage1_memory" in row]

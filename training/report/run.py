"""docs/evidence: the report and its figures, built from the JSON that the experiments left there. Measures nothing.

    python -m training report

reads the checkpoint's manifest, `baselines.json`, `ablations.json` and `question-*.json`, and writes `README.md` and
`figures/*.svg` beside them. What has no JSON yet is said to be missing; no figure is typed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mera_core.checkpoint.folder import read_manifest
from mera_core.common.errors import InputError
from mera_core.ranking.ranking import NOTICE
from training.report import figures
from training.report.text import NAMES, above, listed, percent, plain, points, questions_in_words, table

HERE = Path("docs/evidence")


def run(checkpoint: Path, folder: Path = HERE) -> Path:
    """Build the report in `folder` for a published checkpoint; returns the report's path.

    Raises InputError where the manifest holds no figures (`python -m training publish` puts them there).
    """
    manifest = read_manifest(checkpoint)
    if "test" not in manifest.metrics:
        raise InputError(f"{checkpoint} holds no figures: publish it first (python -m training publish).")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    lines = [
        "# Evidence",
        "",
        f"**{NOTICE}** Built by `python -m training report` from the JSON files beside this page; no figure is typed by hand.",
        "",
        *opening(manifest.name, manifest.data, manifest.metrics["test"]),
        *checkpoint_section(manifest.metrics, folder),
    ]
    sections: list[tuple[str, Callable[[dict[str, Any], Path], list[str]], str]] = [
        ("baselines.json", baseline_section, "## 2. Beside other models"),
        ("ablations.json", ablation_section, "## 3. Which of the paper's claims hold on these patients"),
        *((f"question-{n}.json", question_section, "") for n in (1, 2, 3, 4)),
    ]
    missing = []
    for name, section, heading in sections:
        if name == "question-1.json":
            lines += ["## 4. What the paper leaves open", ""]
        found = _read(folder / name)
        if found is None:
            missing.append(name)
            lines += [*([heading, ""] if heading else []), f"Not run yet: there is no `{name}`.", ""]
        else:
            lines += section(found, folder)
    lines += ["## What is missing", "", *missing_section(missing)]
    path = folder / "README.md"
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return path


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def opening(name: str, data: dict[str, Any], test: dict[str, Any]) -> list[str]:
    """What is judged, on whom, and how to read the figures."""
    parts = data["parts"]
    return [
        f"A model reads the diagnosis codes of a patient's past visits and ranks every code by how likely it is at the next "
        f"one. This page says how good the bundled model ({name}) is at that, beside simpler and other models, and which parts "
        "of the method earn their place.",
        "",
        f"**Patients.** `{data['source']}` ({data['format']}). Parts by patient, so that nobody is in two: {data['split_rule']}. "
        + "; ".join(
            f"{part} {counts['patients']:,} patients ({counts['with_two_visits']:,} with two visits or more)"
            for part, counts in parts.items()
        )
        + f". The question put to each test patient ({test['patients']:,}) is the last visit, given all before it.",
        "",
        "**Figures.** *recall@k*: of the codes that the next visit held, the share among the first k of the list. "
        "*Weighted F1, oracle cut*: the list is cut at the true number of codes, which no user knows. *Weighted F1, own cut*: "
        "the model says itself where the list ends. *New onset*: codes that the patient never had before. Intervals are 95 %, "
        "over patients drawn with replacement; a difference between two models is taken on the same draws. A difference whose "
        "interval holds 0 is no difference that these patients can show. `python -m training evaluate --json` prints every figure "
        "of a checkpoint, in the schema `evaluate.schema.json` beside this page.",
        "",
    ]


def checkpoint_section(metrics: dict[str, Any], folder: Path) -> list[str]:
    """The bundled checkpoint on validation and test patients."""
    test, validation = metrics["test"], metrics["validation"]
    rows = [
        [NAMES.get(name, name), percent(validation["metrics"][name]), percent(test["metrics"][name])]
        for name in ("recall@5", "recall@10", "recall@20", "recall@30", "weighted_f1_oracle", "weighted_f1_cut")
    ]
    rows += [
        [f"{NAMES['recall@20']}, {words}", percent(validation[group]["recall@20"]), percent(test[group]["recall@20"])]
        for group, words in (("recurrent", "codes that come back"), ("new_onset", "new onsets"))
    ]
    rows += [
        [NAMES[name], plain(validation["metrics"][name]), plain(test["metrics"][name])]
        for name in ("cut_size_mean", "true_size_mean")
    ]
    lines = ["## 1. The bundled model", "", *table(["", "validation", "test"], rows), ""]
    if "all" in test["heart_failure"]:
        hf = test["heart_failure"]
        rows = [
            [words, str(hf[name]["n"]), str(hf[name]["cases"])]
            + [percent(hf[name][key]) for key in ("auroc", "auprc", "f1_at_0.5")]
            for name, words in (("all", "all patients"), ("without_history", "never had it before"))
            if name in hf
        ]
        lines += [
            f"**Heart failure at the next visit** (score: {hf['score']}). Earlier papers count patients who had it already:",
            "",
            *table(["", "patients", "cases", "AUROC", "AUPRC", "F1 at 0.5"], rows),
            "",
        ]
    if "ece_frequent" in test["metrics"]:
        figures.calibration(test, folder / "figures" / "calibration.svg")
        values = test["metrics"]
        lines += [
            f"**Calibration**, of {test['ece_of']}. Expected calibration error over codes with 50 true cases or more: "
            f"{percent(values['ece_frequent'], 2)}; mean over those codes one by one "
            f"{percent(values['ece_frequent_mean'], 2)}, of which "
            f"{percent(values['ece_frequent_mean_if_right'], 2)} is what chance alone gives with so many patients; the worst "
            f"of them {percent(values['ece_frequent_max'], 2)}. Slope {plain(values['calibration_slope'])}, Brier score "
            f"{plain(values['brier'], 5)}." + fitted_in_words(test),
            "",
            "![Predicted probability against the share that came true](figures/calibration.svg)",
            "",
        ]
    rows = [
        [
            row["name"],
            f"{row['n']:,}",
            *(percent(row["metrics"][name]) for name in ("recall@20", "weighted_f1_oracle", "weighted_f1_cut")),
        ]
        for row in test.get("subgroups", [])
    ]
    lines += [
        "**Subgroups.** Small groups have wide intervals: read those, not the figure.",
        "",
        *table(["", "patients", NAMES["recall@20"], NAMES["weighted_f1_oracle"], NAMES["weighted_f1_cut"]], rows),
        "",
    ]
    return lines


def fitted_in_words(test: dict[str, Any]) -> str:
    """Which curve was kept, and by how much, where the checkpoint carries one."""
    if "calibration" not in test:
        return ""
    loss = test["calibration"]["log_loss"]
    tried = listed([f"{name} {loss[name]:.5f}" for name in sorted(loss, key=loss.get)])
    return f" The curve was chosen by log loss in cross-validation over validation patients: {tried}."


def baseline_section(found: dict[str, Any], folder: Path) -> list[str]:
    """The baseline table, and in words what the checkpoint beats."""
    shown = ("recall@10", "recall@20", "weighted_f1_oracle", "weighted_f1_cut", "new_onset_recall@20")
    heading = ["", *(NAMES[name] for name in shown)]
    done = [row for row in found["rows"] if "not_run" not in row]
    lines = [
        "## 2. Beside other models",
        "",
        f"Every model learns from the same {found['patients']['train']:,} training patients and ranks the same codes. Tuning: "
        f"{found['budget']} {found['cut'][0].upper()}{found['cut'][1:]}. Models with random starts were fitted with seeds "
        f"{listed([str(seed) for seed in found['seeds']])}. MERA's own settings were chosen on validation patients as well; what "
        "was tried is told in `docs/choices.md`.",
        "",
    ]
    for part in ("test", "validation"):
        mera = found["mera"][part]
        rows = [["**MERA**", *(f"**{percent(mera[name])}**" for name in shown)]]
        rows += [[row["name"], *(percent(row[part]["metrics"][name]) for name in shown)] for row in done]
        lines += [f"{part.capitalize()} patients ({found['patients'][part]:,}):", "", *table(heading, rows), ""]
    rows = [[row["name"], *(points(row["test"]["mera_minus_this"][name]) for name in shown)] for row in done]
    lines += ["MERA minus each, on the same test patients, in points:", "", *table(heading, rows), ""]
    figures.baselines(found, folder / "figures" / "baselines.svg")
    lines += ["![MERA minus each baseline](figures/baselines.svg)", ""]
    for name in ("recall@20", "weighted_f1_cut"):
        for part in ("validation", "test"):
            lines.append(f"- {NAMES[name]}, {part}: {above(done, part, name)}")
    lines += ["", *(f"- Not run: {row['name']}: {row['not_run']}." for row in found["rows"] if "not_run" in row)]
    return [*lines, ""]


def ablation_section(found: dict[str, Any], folder: Path) -> list[str]:
    """The ablation table, and the claims by verdict."""
    shown = ("recall@20", "weighted_f1_oracle", "weighted_f1_cut", "new_onset_recall@20")
    reference, *others = found["rows"]
    done = [row for row in others if "not_run" not in row]
    lines = [
        "## 3. Which of the paper's claims hold on these patients",
        "",
        "Each row changes one thing of a small model of the same kind (128 wide, two layers; its settings are in "
        f"`ablations.json`), trained anew with each seed. Intervals: {found['interval']}. Differences in points, on test "
        "patients. The paper's own numbers are of MIMIC and a model a thousand times larger; UCI has three codes a visit, mostly "
        "categories, so that a claim may fail here and hold there.",
        "",
    ]
    if "not_run" in reference:
        return [*lines, f"The reference row has not been run ({reference['not_run']}).", ""]
    rows = [[f"**{reference['name']}**", str(len(reference["seeds"]))]]
    rows[0] += [f"**{percent(reference['test']['metrics'][name])}**" for name in shown]
    rows += [
        [row["name"], str(len(row["seeds"])), *(points(row["test"]["minus_reference"][name]) for name in shown)]
        for row in done
        if "minus_reference" in row["test"]
    ]
    lines += [*table(["", "seeds", *(NAMES[name] for name in shown)], rows), ""]
    figures.ablations(found, folder / "figures" / "ablations.svg")
    lines += ["![Each row's difference from the reference](figures/ablations.svg)", ""]
    lines += memory_table(found)
    if len(done) > 1:
        lines += [
            f"Of {len(done)} intervals of 95 %, about {0.05 * len(done):.0f} leave out 0 by chance alone: a verdict whose "
            "interval ends near 0 is weak.",
            "",
        ]
    for group, title in (("paper", "Claims of the paper"), ("ours", "Our own choices")):
        lines += [f"**{title}**", ""]
        for outcome in ("holds", "does not hold", "not settled"):
            for row in done:
                if row["group"] == group and row.get("verdict") == outcome:
                    difference = points(row["test"]["minus_reference"][row["figure"]])
                    about = f" ({row['about']})" if row["about"] else ""
                    lines.append(
                        f'- *{outcome}*: {row["claim"]}. Row "{row["name"]}": {NAMES[row["figure"]]} {difference}{about}.'
                    )
        lines.append("")
    lines += [f"- Not run: {row['name']}: {row['not_run']}." for row in others if "not_run" in row]
    return [*lines, ""]


def memory_table(found: dict[str, Any]) -> list[str]:
    """How much of the code book each kind of stage 1 taught the small models: one line a kind."""
    kinds = [
        row
        for number, row in enumerate(found["rows"])
        if "stage1_memory" in row and (number == 0 or {"memorize", "start"} & row["changes"].keys())
    ]
    if not kinds:
        return []
    rows = [
        [
            row["name"],
            *(f"{100 * row['stage1_memory'][way]:.1f} %" for way in ("code_to_definition", "definition_to_code")),
        ]
        for row in kinds
    ]
    return [
        f"Stage 1 of these small models is short. What it taught them of the code book ({found['stage1_memory_of']}), where the "
        "bundled checkpoint knows nearly all: rows about memorization must be read beside it.",
        "",
        *table(["stage 1 of", "code → definition", "definition → code"], rows),
        "",
    ]


def question_section(found: dict[str, Any], folder: Path) -> list[str]:
    """One open question: what was done, what came out, a figure."""
    number, text, rows = questions_in_words(found)
    figures.question(number, found, folder / "figures" / f"question-{number}.svg")
    return [
        f"### Question {number}: {found['question']}",
        "",
        *text,
        "",
        *rows,
        "",
        f"![Question {number}](figures/question-{number}.svg)",
        "",
    ]


def missing_section(missing: Sequence[str]) -> list[str]:
    """What a reader will not find here."""
    lines = [f"- `{name}` has not been made yet." for name in missing]
    lines += [
        "- Nothing here is of MIMIC-III or MIMIC-IV at full size: the records are not public. `python -m training evaluate "
        "--paper --part paper` recomputes the paper's cohort and split for whoever holds them.",
        "- No backbone of billions of parameters was trained.",
    ]
    return lines

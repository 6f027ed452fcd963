"""A finished run -> the published checkpoint: measures it as it is stored, writes figures and model card. Trains nothing."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

from mera_core.checkpoint.folder import (
    Manifest,
    load_checkpoint,
    make_room,
    read_manifest,
    save_checkpoint,
    write_manifest,
)
from mera_core.common.errors import InputError
from mera_core.common.formatting import Figure, share_words
from mera_core.common.formatting import difference_words as points
from mera_core.icd.ontology import Ontology
from mera_core.ranking.ranking import NOTICE
from training.evaluate import run as evaluate
from training.evaluate.baseline_table import put_tuned
from training.memorize import recall_eval as memory

LARGEST = 40_000_000  # bytes of all files together; what a repository can carry
LARGEST_WEIGHTS = 64_000_000  # bytes of the weights of one that memorized a code book and ranks nothing
CARD = "README.md"
POPULATIONS = {
    "uci_diabetes130": "Trained on inpatients with diabetes in US hospitals, 1999 to 2008, at most three diagnoses a visit, "
    "mostly at three digits; without dates (`encounter_id` orders the visits). It knows no other population.",
}
BEGIN, END = "<!-- results: begin", "<!-- results: end"


def run(
    source: Path,
    out: Path,
    data: str = "",
    format: str = "auto",
    readme: Path | None = None,
    baselines: Path | None = None,
) -> Manifest:
    """Measure the run in `source` and put a copy with its figures and a model card at `out`.

    Recall is measured over the whole code book and the ranking on the test part of `data`, both on the stored weights. A
    run that memorized only is stored in half precision; it takes no data.

    Args:
        baselines: the table of tuned baselines, measured beside this run; without one, quick ones are fitted.
    """
    manifest = read_manifest(source)
    if not manifest.label_space:
        if data:
            raise InputError(f"{source} was not trained to rank, so no records can measure it: leave --data out.")
        return _memory_alone(source, out)
    if not data:
        raise InputError(f"{source} ranks: name the records that it was trained on (--data).")
    _refuse_large(source, LARGEST, "*")
    model, _ = load_checkpoint(source)
    recalled = memory.measure(model, Ontology.load(), manifest.systems, manifest.knows_equivalents)
    ranked = evaluate.run(source, data, format)
    validated = evaluate.run(source, data, format, part="validation")
    for result in (ranked, validated):
        result.pop("checkpoint")  # the hash covers the model card, which holds these figures
    metrics = {"recall": recalled, "test": ranked, "validation": validated}
    if baselines is not None:
        put_tuned(metrics, baselines, evaluate.COMPARED)
    manifest = Manifest(**{**vars(manifest), "name": out.name, "metrics": metrics})
    manifest.data["commit"] = commit()
    return put(manifest, source, out, readme)


def put(manifest: Manifest, source: Path, out: Path, readme: Path | None = None) -> Manifest:
    """Write the files of `source` with this manifest and its card to `out`, and its figures into the README."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in source.iterdir():
        if path.name in manifest.files:
            shutil.copyfile(path, partial / path.name)
    (partial / CARD).write_text(card(manifest), encoding="utf-8")
    manifest = write_manifest(manifest, partial, out)
    if readme is not None:
        fill_readme(readme, manifest)
    return manifest


def _memory_alone(source: Path, out: Path) -> Manifest:
    """Publish a stage-1 run: its weights in half precision, what it remembers measured on those."""
    model, manifest = load_checkpoint(source)
    make_room(out)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        stored = Path(folder) / out.name
        save_checkpoint(model, manifest, stored, torch.float16)
        _refuse_large(stored, LARGEST_WEIGHTS, "*.safetensors")
        model, _ = load_checkpoint(stored)
        recalled = memory.measure(model, Ontology.load(), manifest.systems, manifest.knows_equivalents)
        data = manifest.data | {"commit": commit()}
        manifest = Manifest(**{**vars(manifest), "name": out.name, "metrics": {"recall": recalled}, "data": data})
        (stored / CARD).write_text(memory_card(manifest), encoding="utf-8")
        return write_manifest(manifest, stored, out)


def _refuse_large(source: Path, most: int, files: str) -> None:
    size = sum(path.stat().st_size for path in source.glob(files) if path.is_file())
    if size > most:
        raise InputError(
            f"{source} holds {size / 1e6:.0f} MB, more than the {most / 1e6:.0f} MB of a bundled checkpoint."
        )


def commit() -> str:
    """The commit of the code that publishes, with "+" where the working tree differs from it; "unknown" outside git."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "mera_core", "training")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def percent(figure: Figure | float) -> str:
    """A share as per cent, with its interval where it has one."""
    return f"{100 * figure:.2f} %" if isinstance(figure, float) else share_words(figure)


def memory_card(manifest: Manifest) -> str:
    """The model card of a checkpoint that ranks nothing, as Markdown; every figure is taken from the manifest."""
    lines = [
        *_card_head(manifest),
        f"{_origin(manifest)} trained in METHOD's first stage alone: it has memorized {' and '.join(manifest.systems)} "
        f"({'; '.join(manifest.icd_release.values())}) and ranks nothing. It saw no patient.",
        f"- Code at commit `{manifest.data['commit']}`; seeds {_seeds(manifest)}.",
        "",
        *_memory_rows(manifest.metrics["recall"], "Memory"),
        "",
        "## Limits",
        "- Stage 2 can begin from it (`python -m training rank`); by itself it answers questions on the code book.",
        "- It can be wrong, as the figures say. The book itself is at hand: `python -m mera_core lookup`.",
        "",
    ]
    return "\n".join(lines)


def _card_head(manifest: Manifest) -> list[str]:
    return [
        f"# {manifest.name}",
        "",
        f"**{NOTICE}** Written by `python -m training publish`; no figure is typed by hand.",
        "",
        "## What it is",
    ]


def _memory_rows(recall: dict[str, Any], title: str) -> list[str]:
    held_out = recall["held_out_phrasing"]
    rows = [
        f"## {title} ({recall['codes']:,} codes, greedy, exact to the letter)",
        "| question | own alphabet | undivided vocabulary | held-out phrasing |",
        "|---|---|---|---|",
        f"| code → definition | {percent(recall['code_to_definition']['words'])} | "
        f"{percent(recall['code_to_definition']['undivided'])} | {percent(held_out['code_to_definition'])} |",
        f"| definition → code | {percent(recall['definition_to_code']['codes'])} | "
        f"{percent(recall['definition_to_code']['undivided'])} | {percent(held_out['definition_to_code'])} |",
        *(
            f"| code → {level} | {percent(share)} | | {percent(held_out['hierarchy'][level])} |"
            for level, share in recall["hierarchy"].items()
        ),
    ]
    if mapped := recall.get("equivalents"):
        rows.append(
            f"| code of the other system → its equivalent ({mapped['codes']:,} codes) | {percent(mapped['right'])} | | "
            f"{percent(held_out['equivalents'])} |"
        )
    return rows


def card(manifest: Manifest) -> str:
    """The model card as Markdown; every figure is taken from the manifest."""
    recall, test, parts = manifest.metrics["recall"], manifest.metrics["test"], manifest.data["parts"]
    lines = [
        *_card_head(manifest),
        f"{_origin(manifest)} trained in two stages (METHOD: memorize, then rank). It knows "
        f"{' and '.join(manifest.systems)} ({'; '.join(manifest.icd_release.values())}) and ranks {len(manifest.label_space)} "
        f"codes ({manifest.label_level}).",
        "",
        "## Data",
        f"- Stage 2: `{manifest.data['source']}` ({manifest.data['format']}), SHA-256 `{manifest.data['sha256']}`.",
        *(
            f"- {name}: {part['patients']:,} patients, {part['with_two_visits']:,} with two visits or more"
            for name, part in parts.items()
        ),
        f"- Split by patient: {manifest.data['split_rule']}.",
        f"- Code at commit `{manifest.data['commit']}`; seeds {_seeds(manifest)}.",
        "",
        *_memory_rows(recall, "Memory, after stage 2"),
        "",
        f"## Ranking, on {test['patients']:,} patients never trained on (last visit as target)",
        "| figure | value (95 % interval over patients) |",
        "|---|---|",
        *(
            f"| {name} | {percent(test['metrics'][name])} |"
            for name in (
                "recall@5",
                "recall@10",
                "recall@20",
                "recall@30",
                "weighted_f1_oracle",
                "weighted_f1_cut",
            )
        ),
        f"| codes predicted / true, a patient | {test['metrics']['cut_size_mean']['value']:.2f} / "
        f"{test['metrics']['true_size_mean']['value']:.2f} |",
        f"| recall@20, recurrent codes | {percent(test['recurrent']['recall@20'])} |",
        f"| recall@20, new onsets | {percent(test['new_onset']['recall@20'])} |",
        *(
            f"| expected calibration error, codes with at least 50 positives | {percent(test['metrics'][name])} |"
            for name in ("ece_frequent",)
            if name in test["metrics"]
        ),
        "",
        "Beside the baselines, fitted on the same training patients; differences are paired, in points:",
        "",
        "| baseline | recall@10 | recall@20 | weighted F1 (oracle) | ours − it, recall@10 | recall@20 | weighted F1 |",
        "|---|---|---|---|---|---|---|",
        *(_baseline_row(row) for row in test["baselines"]),
        *(["", f"They are tuned: {test['baselines_tuned']}"] if "baselines_tuned" in test else []),
        "",
        f"The learned cut ({percent(test['cuts']['learned'])} weighted F1) beside others chosen on the same validation patients:",
        "",
        "| cut | weighted F1 | learned − it, points |",
        "|---|---|---|",
        *(
            f"| {r['cut']} | {percent(r['weighted_f1'])} | {points(r['learned_minus_this'])} |"
            for r in test["cuts"]["others"]
        ),
        "",
        "## Limits",
        f"- {POPULATIONS.get(manifest.data['format'], 'It knows the population of its training records and no other.')}",
        "- It ranks its own label space, whatever the history's granularity. Codes are assigned at discharge or after.",
        *_on_probabilities(manifest),
        "- Every figure of this card, subgroups included, is in `mera.json` under `metrics`.",
        "",
    ]
    return "\n".join(lines)


def results(manifest: Manifest) -> str:
    """The README's account of the checkpoint, in Markdown; every figure is taken from the manifest."""
    recall, test = manifest.metrics["recall"], manifest.metrics["test"]
    held_out, hierarchy = recall["held_out_phrasing"], recall["hierarchy"]
    shown = ("recall@10", "recall@20", "weighted_f1_oracle", "weighted_f1_cut")
    lines = [
        f"The bundled checkpoint, on {test['patients']:,} UCI patients that it never saw (their last visit as target; 95 % "
        f"intervals over patients), beside {'tuned ' * ('baselines_tuned' in test)}baselines fitted on the same training patients:",
        "",
        "| | recall@10 | recall@20 | weighted F1, oracle cut | weighted F1, own cut |",
        "|---|---|---|---|---|",
        "| **MERA (mera-mini)** | " + " | ".join(percent(test["metrics"][name]) for name in shown) + " |",
        *(
            f"| {row['name']} | "
            + " | ".join(percent(row["metrics"][name]) if name in row["metrics"] else "" for name in shown)
            + " |"
            for row in test["baselines"]
        ),
        "",
        "MERA minus each baseline on the same patients, in points:",
        "",
        "| | recall@10 | recall@20 | weighted F1, oracle cut |",
        "|---|---|---|---|",
        *(
            f"| {row['name']} | " + " | ".join(points(row["ours_minus_this"][name]) for name in shown[:3]) + " |"
            for row in test["baselines"]
        ),
        "",
        f"The learned cut names {test['metrics']['cut_size_mean']['value']:.2f} codes a patient "
        f"({test['metrics']['true_size_mean']['value']:.2f} are true). Its weighted F1 minus that of other cuts chosen on the "
        "same validation patients, in points: "
        + "; ".join(f"{row['cut']} {points(row['learned_minus_this'])}" for row in test["cuts"]["others"])
        + ".",
        "",
        f"Memory of the code book after both stages, over all {recall['codes']:,} ICD-9-CM codes, exact to the letter: code → "
        f"definition {percent(recall['code_to_definition']['words'])}, definition → code "
        f"{percent(recall['definition_to_code']['codes'])}; over the undivided vocabulary "
        f"{percent(recall['code_to_definition']['undivided'])} and {percent(recall['definition_to_code']['undivided'])}; asked in "
        f"a sentence that training never used, {percent(held_out['code_to_definition'])} and "
        f"{percent(held_out['definition_to_code'])}; up the tree, "
        + ", ".join(f"{level} {percent(share)}" for level, share in hierarchy.items())
        + ".",
        "",
        "The model card, `sample_data/mera-mini/README.md`, and `mera.json` beside it hold every figure.",
    ]
    return "\n".join(lines)


def fill_readme(readme: Path, manifest: Manifest) -> None:
    """Put `results` between the two markers of a README."""
    text = readme.read_text(encoding="utf-8")
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < 0:
        raise InputError(f"{readme} has no place for the results (a line that starts with {BEGIN}).")
    begin = text.index("\n", begin) + 1
    readme.write_text(text[:begin] + "\n" + results(manifest) + "\n\n" + text[end:], encoding="utf-8")


def _origin(manifest: Manifest) -> str:
    first, *_ = _memorized(manifest) or [{}]
    backbone = first.get("backbone")
    return (
        f"The language model {backbone}"
        if backbone
        else "A small LLaMA-architecture language model, from random weights,"
    )


def _on_probabilities(manifest: Manifest) -> list[str]:
    if not manifest.calibration:
        return ["- Scores are not calibrated probabilities, so none is shown."]
    return [
        f"- A probability is the score's {manifest.calibration['kind']} calibration, fitted on "
        f"{manifest.calibration['patients']:,} validation patients; it holds for patients like those, and no others."
    ]


def _seeds(manifest: Manifest) -> str:
    seeds = {stage: str(settings["seed"]) for stage, settings in manifest.method.items() if "seed" in settings}
    if "memorize" in seeds:
        seeds["memorize"] = " then ".join(str(settings["seed"]) for settings in _memorized(manifest))
    return ", ".join(f"{stage} {seed}" for stage, seed in seeds.items())


def _memorized(manifest: Manifest) -> list[dict[str, Any]]:
    """The settings of each run of stage 1, the first one first."""
    found, method = [], manifest.method
    while settings := method.get("memorize"):
        found.insert(0, settings)
        method = method.get("before", {})
    return found


def _baseline_row(row: dict[str, Any]) -> str:
    theirs = " | ".join(percent(row["metrics"][name]) for name in evaluate.COMPARED)
    ours = " | ".join(points(row["ours_minus_this"][name]) for name in evaluate.COMPARED)
    return f"| {row['name']} | {theirs} | {ours} |"

"""A finished run -> the published checkpoint: measures it as it is stored, writes figures and model card. Trains nothing."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader

from mera_core.checkpoint.folder import (
    Manifest,
    load_checkpoint,
    make_room,
    read_manifest,
    save_checkpoint,
    whole_folder,
    write_manifest,
)
from mera_core.common.errors import InputError
from mera_core.common.formatting import Figure, share_words
from mera_core.common.formatting import difference_words as points
from mera_core.icd.ontology import Ontology
from mera_core.ranking.calibration import Calibrations
from mera_core.ranking.ranking import NOTICE
from training.evaluate import run as evaluate
from training.evaluate.baseline_table import put_tuned
from training.memorize import recall_eval as memory
from training.report.run import beside

LARGEST = 40_000_000  # bytes of all files together; what a repository can carry
LARGEST_WEIGHTS = 64_000_000  # bytes of the weights of one that memorized ICD codes and ranks nothing
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

    Recall is measured over the whole code set and the ranking on the test part of `data`, both on the stored weights. A
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
    with whole_folder(out) as partial:
        for path in source.iterdir():
            if path.name in manifest.files:
                shutil.copyfile(path, partial / path.name)
        (partial / CARD).write_text(card(manifest), encoding="utf-8")
        manifest = write_manifest(manifest, partial)
    if readme is not None:
        fill_readme(readme, manifest)
    return manifest


def _memory_alone(source: Path, out: Path) -> Manifest:
    """Publish a stage-1 run: its weights in half precision, what it remembers measured on those."""
    model, manifest = load_checkpoint(source)
    make_room(out)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        stored = Path(folder) / out.name
        manifest = save_checkpoint(model, manifest, stored, torch.float16)
        _refuse_large(stored, LARGEST_WEIGHTS, "*.safetensors")
        model, _ = load_checkpoint(stored)
        recalled = memory.measure(model, Ontology.load(), manifest.systems, manifest.knows_equivalents)
        data = manifest.data | {"commit": commit()}
        manifest = Manifest(**{**vars(manifest), "name": out.name, "metrics": {"recall": recalled}, "data": data})
        return put(manifest, stored, out)


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


def card(manifest: Manifest) -> str:
    """The model card as Markdown; every figure is taken from the manifest."""
    return _written(
        "card.md.jinja",
        manifest,
        origin=_origin(manifest),
        seeds=_seeds(manifest),
        calibration=Calibrations.from_dict(manifest.calibration).in_words() if manifest.calibration else "",
        population=POPULATIONS.get(
            manifest.data.get("format"), "It knows the population of its training records and no other."
        ),
    )


def results(manifest: Manifest) -> str:
    """The README's account of the checkpoint, in Markdown; every figure is taken from the manifest."""
    return _written("results.md.jinja", manifest).rstrip("\n")


def _written(template: str, manifest: Manifest, **values: Any) -> str:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    made.filters |= {"percent": percent, "points": points, "beside": beside}
    # in figures of an earlier version new codes are not told apart
    rivals = [row for row in manifest.metrics.get("test", {}).get("baselines", []) if "new_only" in row]
    rivals.sort(key=lambda row: -row["new_only"]["recall@20"]["value"])
    values |= {"manifest": manifest, "notice": NOTICE, "compared": evaluate.COMPARED, "new_rivals": rivals}
    values["new_compared"] = evaluate.NEW_ONLY_COMPARED
    values["f1_order"] = f1_order_words(manifest.metrics.get("test", {}).get("f1_order"))
    return made.get_template(template).render(values)


def f1_order_words(found: dict[str, Any] | None) -> str:
    """The list made for weighted F1 beside the default one, in a sentence; "" for figures of before there were two."""
    if not found:
        return ""
    f1, minus, new = found["metrics"]["weighted_f1_cut"], found["minus_default"], found["new_only_minus_default"]
    return (
        "Lists are ordered by each code's own probability. With `--order f1`, a list made for weighted F1, in which each code "
        f"has a threshold of its own, weighted F1 at the cut-off is {percent(f1)} ({points(minus['weighted_f1_cut'])} points "
        f"against the default order), recall@10 {points(minus['recall@10'])} points, and that of new codes "
        f"alone {points(new['recall@10'])} points."
    )


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

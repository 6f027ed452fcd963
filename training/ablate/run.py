"""The ablation table: one run a row and seed, kept as it goes; which claims hold on these patients, with intervals.

Knows runs, not what a row means (`ablation_table`). Each run keeps its figures in every bootstrap draw, so
that a row's difference from the reference is paired by patient and by seed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from mera_core.checkpoint.folder import load_checkpoint, save_checkpoint
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap, Estimate, over_seeds
from mera_core.evaluation.truth import Truth, rows_of_labels
from mera_core.history.records import Patient
from mera_core.icd.ontology import Ontology
from mera_core.ranking.ranking import NOTICE
from training.ablate.results import claimed, load_figures, rounded, save_figures
from training.ablate.table import SHOWN, Row, Table
from training.common.config import MemorizeConfig
from training.common.split import SPLIT_RULE, histories_and_truth, in_parts, read_once, with_codes
from training.memorize import run as memorize
from training.memorize.recall_eval import codes_exact, definitions_exact
from training.rank import baseline_decoding as sequence_training
from training.rank import run as rank
from training.rank.setup import prepare

log = logging.getLogger(__name__)

DRAWS = 1000
KS = (5, 10, 20, 30)
MEMORY_CODES = 2000
"""Billable codes, drawn once, on which a stage-1 model's memory is measured."""
PARTS = ("validation", "test")


def run(
    config: Path,
    data: str,
    format: str,
    runs: Path,
    out: Path,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    minutes: float = float("inf"),
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Run what is missing of the table and write all of it to `out` after each run; returns it.

    A run whose figures stand beside `out` (in `ablations/` for ablations.json) under the same settings is not repeated:
    these are committed, so that a table that takes longer than one sitting goes on where it was, on any machine. All
    rows with the first seed come before any with the second, so that a table broken off is whole at fewer seeds.
    Several processes may share `runs`: what one of them is at, the others pass over.

    Args:
        only, seeds: limit what is run now (names of rows; seeds of the table). minutes: start no run after so many.
    """
    table = Table.load(config)
    if unknown := sorted(set(only) - {row.name for row in table.rows}):
        raise InputError(f"{config} has no row {', '.join(unknown)}.")
    if unknown := sorted(set(seeds) - set(table.seeds)):
        raise InputError(f"{config} has no seed {', '.join(map(str, unknown))}.")
    kept = out.with_suffix("")
    for folder in (runs, kept):
        folder.mkdir(parents=True, exist_ok=True)
    began, result = time.monotonic(), summary(table, kept, data, format, draws)
    for seed in seeds or table.seeds:
        for row in table.rows:
            if only and row.name not in only:
                continue
            with claimed(runs / f"{table.fingerprint(row, seed)}.lock") as mine:
                if not mine or _kept(kept, table, row, seed, data, draws).is_file():
                    continue
                if time.monotonic() - began > 60 * minutes:
                    return result
                log.info("ablation: %s, seed %d", row.name, seed)
                one_run(table, row, seed, data, format, runs, kept, draws)
            result = summary(table, kept, data, format, draws)
            _write(out, result)
    result = summary(table, kept, data, format, draws)
    _write(out, result)
    return result


def one_run(table: Table, row: Row, seed: int, data: str, format: str, runs: Path, kept: Path, draws: int) -> None:
    """Train one row with one seed and keep its figures in every draw, and those of rows that only read it otherwise."""
    began = time.perf_counter()
    keep_memory(stage1(table, row, seed, runs), kept)
    engine, folder = trained(table, row, seed, data, format, runs), _folder(runs, table, row, seed)
    cohort = read_once(data, format)
    parts = in_parts(with_codes(cohort.patients), cohort.report.format)
    people = {name: [patient for patient in parts[name] if len(patient.visits) > 1] for name in PARTS}
    for other in table.rows:
        if table.same_model(row, other):
            figures = {
                f"{part}/{name}": rounded(one)
                for part in PARTS
                for name, one in figures_of(engine, people[part], other.output, draws).items()
                if name in SHOWN
            }
            sizes = {f"{part}_patients": len(people[part]) for part in PARTS}
            seconds = time.perf_counter() - began
            save_figures(_kept(kept, table, other, seed, data, draws), figures, seconds=seconds, **sizes)
    if folder.exists() and not row.keep:
        shutil.rmtree(folder)


def trained(table: Table, row: Row, seed: int, data: str, format: str, runs: Path) -> Engine:
    """A row's model, trained now; its checkpoint is left in the row's folder (but for `train: sequence`)."""
    start, folder = stage1(table, row, seed, runs), _folder(runs, table, row, seed)
    config = table.rank_config(row, seed, start=str(start), data=data, format=format)
    if row.train == "sequence":
        setup = prepare(config, folder)
        sequence_training.train(setup, folder)
        return setup.engine
    rank.run(config, folder)
    return Engine.load(folder)


def stage1(table: Table, row: Row, seed: int, runs: Path) -> Path:
    """The stage-1 folder that a row starts from; made once for all rows that share it."""
    config, folder = table.memorize_config(row, seed), _stage1_folder(table, row, seed, runs)
    runs.mkdir(parents=True, exist_ok=True)
    with claimed(folder.with_suffix(".lock"), wait=True):
        if not (folder / "mera.json").is_file():
            _make_stage1(config, row.start == "memorized", folder)
    return folder


def _make_stage1(config: MemorizeConfig, trained: bool, folder: Path) -> None:
    if trained:
        memorize.run(config, folder)
        return
    ontology = Ontology.load()
    torch.manual_seed(config.seed)
    model, _ = memorize.build(config, ontology)
    save_checkpoint(model, memorize.manifest_of(config, folder.name, ontology), folder, dtype=torch.float32)


def keep_memory(folder: Path, kept: Path) -> None:
    """Measure once, and keep, which shares of `MEMORY_CODES` codes a stage-1 folder knows to the letter, each way."""
    path = _memory_file(kept, folder)
    if path.is_file():
        return
    ontology = Ontology.load()
    model, manifest = load_checkpoint(folder)
    codes = [code for system in manifest.systems for code in ontology.billable(system)]
    drawn = random.Random(0).sample(codes, min(MEMORY_CODES, len(codes)))
    found = {
        "code_to_definition": float(
            np.mean(definitions_exact(model.eval(), drawn, ontology, 0, with_undivided=False)[0])
        ),
        "definition_to_code": float(np.mean(codes_exact(model, drawn, ontology, 0)[0])),
    }
    _write(path, found)


def _memory_file(kept: Path, folder: Path) -> Path:
    return kept / f"{folder.name}.memory.json"


def kept_checkpoint(table: Table, name: str, seed: int, data: str, format: str, runs: Path) -> Path:
    """The checkpoint of a row marked `keep`, trained now where it is not at hand; InputError for another row."""
    row = next((row for row in table.rows if row.name == name), None)
    if row is None or not row.keep:
        raise InputError(f'The table of ablations keeps no checkpoint of a row "{name}".')
    folder = _folder(runs, table, row, seed)
    if not (folder / "mera.json").is_file():
        log.info("training %s, seed %d", name, seed)
        trained(table, row, seed, data, format, runs)
    return folder


def figures_of(engine: Engine, patients: Sequence[Patient], output: str, draws: int) -> dict[str, Estimate]:
    """The table's figures of one trained model on one part."""
    histories, truth, _ = histories_and_truth(engine, patients)
    bootstrap = Bootstrap(len(truth), draws)
    if output == "decode":
        decoded = sequence_training.decode(engine, histories)
        scores = sequence_training.as_scores(decoded, len(engine.label_space))
        return _figures(*with_blanks(scores, truth, max(KS)), bootstrap, decoded)
    scores, eov = engine.scores(histories)
    ranked = engine.ranked(scores, eov)
    return _figures(ranked, truth, bootstrap, None, metrics.above_cut(ranked, eov))


def with_blanks(scores: np.ndarray, truth: Truth, blanks: int) -> tuple[np.ndarray, Truth]:
    """A list shorter than k is filled up with labels that are never true, not with whatever code comes first."""
    n = len(scores)
    wide = np.hstack([scores, np.full((n, blanks), -1e6)])
    none = sparse.csr_matrix((n, blanks))
    positive, seen = (sparse.csr_matrix(sparse.hstack([part, none])) for part in (truth.positive, truth.seen))
    return wide, Truth(positive, seen, truth.missing, truth.missing_seen)


def _figures(
    scores: np.ndarray,
    truth: Truth,
    bootstrap: Bootstrap,
    decoded: Sequence[Sequence[int]] | None,
    sets: sparse.csr_matrix | None = None,
) -> dict[str, Estimate]:
    if decoded is not None:
        sets = rows_of_labels(decoded, scores.shape[1])
    evaluation = metrics.evaluate_ranking(scores, truth, sets, ks=KS, bootstrap=bootstrap, areas=False)
    groups = {f"{group}_recall@20": getattr(evaluation, group)["recall@20"] for group in ("recurrent", "new_onset")}
    return evaluation.metrics | groups


# --- the table from what is kept


def summary(table: Table, kept: Path, data: str, format: str, draws: int) -> dict[str, Any]:
    """The table as JSON: every row over the seeds that are done, with its paired difference from the reference."""

    def finished(row: Row) -> dict[int, tuple[dict[str, Estimate], dict[str, float]]]:
        loaded = {seed: load_figures(_kept(kept, table, row, seed, data, draws)) for seed in table.seeds}
        return {seed: one for seed, one in loaded.items() if one is not None}

    reference, rows, patients = finished(table.rows[0]), [], {}
    for row in table.rows:
        done = finished(row)
        entry: dict[str, Any] = {
            "name": row.name,
            "group": row.group,
            "claim": row.claim,
            "about": row.about,
            "changes": row.changes(),
            "seeds": sorted(done),
        }
        if not done:
            rows.append(entry | {"not_run": "not run yet; `python -m training ablate` goes on where it stopped"})
            continue
        numbers = [one for _, one in done.values()]
        files = [_memory_file(kept, _stage1_folder(table, row, seed, Path())) for seed in done]
        if all(file.is_file() for file in files):
            known = [json.loads(file.read_text(encoding="utf-8")) for file in files]
            entry["stage1_memory"] = {way: float(np.mean([one[way] for one in known])) for way in known[0]}
        entry["seconds"] = round(float(np.mean([one["seconds"] for one in numbers])), 1)
        patients = {part: int(numbers[0][f"{part}_patients"]) for part in PARTS}
        for part in PARTS:
            each = {seed: {name: figures[f"{part}/{name}"] for name in SHOWN} for seed, (figures, _) in done.items()}
            entry[part] = {
                "metrics": {name: over_seeds([one[name] for one in each.values()]).to_dict() for name in SHOWN},
                "by_seed": {name: [one[name].value for one in each.values()] for name in SHOWN},
            }
            both = [seed for seed in each if seed in reference]
            if row is table.rows[0] or not both:
                continue
            minus = {
                name: over_seeds([each[seed][name].minus(reference[seed][0][f"{part}/{name}"]) for seed in both])
                for name in SHOWN
            }
            entry[part]["minus_reference"] = {name: one.to_dict() for name, one in minus.items()}
            if part == "test" and row.claim:
                entry |= {"figure": row.figure, "verdict": verdict(minus[row.figure], row.helps)}
        rows.append(entry)
    return {
        "notice": NOTICE,
        "data": {"source": Path(data).name, "format": format, "split": SPLIT_RULE},
        "patients": patients,
        "interval": f"95 %, over {draws} draws of patients and of seeds; differences are paired by patient and seed",
        "base": {"memorize": table.memorize, "rank": table.rank},
        "stage1_memory_of": f"{MEMORY_CODES:,} billable codes, exact match by greedy decoding over the answer's own alphabet",
        "rows": rows,
    }


def verdict(difference: Estimate, helps: bool) -> str:
    """What the interval of a row's difference from the reference says of its claim."""
    if difference.low <= 0 <= difference.high:
        return "not settled"
    return "holds" if (difference.value > 0) == helps else "does not hold"


def _stage1_folder(table: Table, row: Row, seed: int, runs: Path) -> Path:
    settings = json.dumps([table.memorize_config(row, seed).to_dict(), row.start], sort_keys=True)
    return runs / f"stage1-{hashlib.sha256(settings.encode()).hexdigest()[:10]}"


def _folder(runs: Path, table: Table, row: Row, seed: int) -> Path:
    """Where a run's checkpoint is written; other settings are another folder."""
    return runs / f"{_slug(row.name)}-{seed}-{table.fingerprint(row, seed)}"


def _kept(kept: Path, table: Table, row: Row, seed: int, data: str, draws: int) -> Path:
    """Where the figures of one run are kept; other settings, data or draws are another run."""
    return kept / f"{_slug(row.name)}-{seed}-{table.fingerprint(row, seed, row.output, Path(data).name, draws)}.npz"


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _write(out: Path, result: dict[str, Any]) -> None:
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(out)

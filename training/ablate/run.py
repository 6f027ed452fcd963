"""The ablation table: one run a row and seed, kept as it goes; which claims hold on these patients, with intervals.

Knows runs, not what a row means (`ablation_table`). Each run keeps its figures in every bootstrap draw, so
that a row's difference from the reference is paired by patient and by seed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from mera_core.checkpoint.folder import load_checkpoint, save_checkpoint
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap, Estimate
from mera_core.evaluation.truth import Truth, rows_of_labels
from mera_core.history.records import Patient
from mera_core.icd.ontology import Ontology
from mera_core.ranking.ranking import NOTICE
from training.ablate.results import (
    as_json,
    claimed,
    figures_of,
    load_figures,
    mean_differences,
    means,
    rounded,
    save_figures,
    slug,
    write_json,
)
from training.ablate.table import SHOWN, Row, Table, as_kept
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
"""Billable codes, drawn once, on which a stage-1 model's recall is measured."""
PARTS = ("validation", "test")


@dataclass(frozen=True)
class Runs:
    """The trained models of a table on one set of records, in `folder`, each made when it is first asked for."""

    table: Table
    data: str
    format: str
    folder: Path

    def path(self, row: Row, seed: int) -> Path:
        """Where a run's checkpoint is written; other settings are another folder."""
        return self.folder / f"{slug(row.name)}-{seed}-{self.table.fingerprint(row, seed)}"

    def stage1(self, row: Row, seed: int) -> Path:
        """The stage-1 folder that a row starts from; made once for all rows that share it."""
        folder = self.folder / stage1_name(self.table, row, seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        with claimed(folder.with_suffix(".lock"), wait=True):
            if not (folder / "mera.json").is_file():
                make = memorize.run if row.start == "memorized" else make_untrained
                make(self.table.memorize_config(row, seed), folder)
        return folder

    def train(self, row: Row, seed: int) -> Engine:
        """A row's model, trained now; its checkpoint is left in the row's folder (but for `train: sequence`)."""
        folder = self.path(row, seed)
        config = self.table.rank_config(
            row, seed, start=str(self.stage1(row, seed)), data=self.data, format=self.format
        )
        if row.train == "sequence":
            setup = prepare(config, folder)
            sequence_training.train(setup, folder)
            return setup.engine
        rank.run(config, folder)
        return Engine.load(folder)

    def checkpoint(self, name: str, seed: int) -> Path:
        """The checkpoint of a row marked `keep`, trained now where it is not at hand; InputError for another row."""
        row = next((row for row in self.table.rows if row.name == name), None)
        if row is None or not row.keep:
            raise InputError(f'The table of ablations keeps no checkpoint of a row "{name}".')
        folder = self.path(row, seed)
        if not (folder / "mera.json").is_file():
            log.info("training %s, seed %d", name, seed)
            self.train(row, seed)
        return folder


def run(
    config: Path,
    data: str,
    format: str,
    runs: Path,
    out: Path,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Run what is missing of the table and write all of it to `out` after each run; returns it.

    A run whose figures stand beside `out` (in `ablations/` for ablations.json) under the same settings is not repeated:
    these are committed, so that a table that takes longer than one sitting goes on where it was, on any machine. All
    rows with the first seed come before any with the second, so that a table broken off is whole at fewer seeds.
    Several processes may share `runs`: what one of them is at, the others pass over.

    Args:
        only, seeds: limit what is run now (names of rows; seeds of the table).
    """
    table = Table.load(config)
    if unknown := sorted(set(only) - {row.name for row in table.rows}):
        raise InputError(f"{config} has no row {', '.join(unknown)}.")
    if unknown := sorted(set(seeds) - set(table.seeds)):
        raise InputError(f"{config} has no seed {', '.join(map(str, unknown))}.")
    models, kept = Runs(table, data, format, runs), out.with_suffix("")
    for folder in (runs, kept):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds or table.seeds:
        for row in table.rows:
            if only and row.name not in only:
                continue
            with claimed(runs / f"{table.fingerprint(row, seed)}.lock") as mine:
                if not mine or _kept(models, kept, row, seed, draws).is_file():
                    continue
                log.info("ablation: %s, seed %d", row.name, seed)
                one_run(models, row, seed, kept, draws)
            write_json(out, summary(models, kept, draws))
    result = summary(models, kept, draws)
    write_json(out, result)
    return result


def one_run(runs: Runs, row: Row, seed: int, kept: Path, draws: int) -> None:
    """Train one row with one seed and keep its figures in every draw, and those of rows that only read it otherwise."""
    began = time.perf_counter()
    keep_memory(runs.stage1(row, seed), kept)
    engine = runs.train(row, seed)
    cohort = read_once(runs.data, runs.format)
    parts = in_parts(with_codes(cohort.patients), cohort.report.format)
    people = {name: [patient for patient in parts[name] if len(patient.visits) > 1] for name in PARTS}
    sizes = {f"{part}_patients": len(people[part]) for part in PARTS}
    for other in runs.table.rows:
        if runs.table.same_model(row, other):
            found = {part: read_out(engine, people[part], other.output, draws) for part in PARTS}
            figures = {f"{part}/{name}": rounded(found[part][name]) for part in PARTS for name in SHOWN}
            seconds = time.perf_counter() - began
            save_figures(_kept(runs, kept, other, seed, draws), figures, seconds=seconds, **sizes)
    if not row.keep:
        shutil.rmtree(runs.path(row, seed), ignore_errors=True)


def make_untrained(config: MemorizeConfig, folder: Path) -> None:
    """A stage-1 folder whose model is built and never trained."""
    ontology = Ontology.load()
    torch.manual_seed(config.seed)
    model, _ = memorize.build(config, ontology)
    save_checkpoint(model, memorize.manifest_of(config, folder.name, ontology), folder, dtype=torch.float32)


def keep_memory(folder: Path, kept: Path) -> None:
    """Measure once, and keep, which shares of `MEMORY_CODES` codes a stage-1 folder knows to the letter, each way."""
    path = kept / f"{folder.name}.memory.json"
    if path.is_file():
        return
    ontology = Ontology.load()
    model, manifest = load_checkpoint(folder)
    codes = [code for system in manifest.systems for code in ontology.billable(system)]
    drawn = random.Random(0).sample(codes, min(MEMORY_CODES, len(codes)))
    definitions, _ = definitions_exact(model.eval(), drawn, ontology, 0, with_undivided=False)
    found = {"code_to_definition": definitions, "definition_to_code": codes_exact(model, drawn, ontology, 0)[0]}
    write_json(path, {way: float(np.mean(exact)) for way, exact in found.items()})


def read_out(engine: Engine, patients: Sequence[Patient], output: str, draws: int) -> dict[str, Estimate]:
    """The table's figures of one trained model on one part; output: as in `Row`."""
    histories, truth, _ = histories_and_truth(engine, patients)
    bootstrap = Bootstrap(len(truth), draws)
    if output == "decode":
        decoded = sequence_training.decode(engine, histories)
        scores = sequence_training.as_scores(decoded, len(engine.label_space))
        scores, truth = with_blanks(scores, truth, max(KS))
        return figures_of(scores, truth, bootstrap, rows_of_labels(decoded, scores.shape[1]), KS)
    scores, eov = engine.scores(histories)
    ranked = engine.ranked(scores, eov, truth.seen.toarray() > 0)
    return figures_of(ranked, truth, bootstrap, metrics.above_cut(ranked, eov), KS)


def with_blanks(scores: np.ndarray, truth: Truth, blanks: int) -> tuple[np.ndarray, Truth]:
    """A list shorter than k is filled up with labels that are never true, not with whatever code comes first."""
    n = len(scores)
    wide = np.hstack([scores, np.full((n, blanks), -1e6)])
    none = sparse.csr_matrix((n, blanks))
    positive, seen = (sparse.csr_matrix(sparse.hstack([part, none])) for part in (truth.positive, truth.seen))
    return wide, Truth(positive, seen, truth.missing, truth.missing_seen)


# --- the table from what is kept


def summary(runs: Runs, kept: Path, draws: int) -> dict[str, Any]:
    """The table as JSON: every row over the seeds that are done, with its paired difference from the reference."""
    table, rows, patients, reference = runs.table, [], {}, {}
    for row in table.rows:
        done = {seed: one for seed in table.seeds if (one := load_figures(_kept(runs, kept, row, seed, draws)))}
        reference = reference if rows else done
        entry: dict[str, Any] = {"name": row.name, "group": row.group, "claim": row.claim, "about": row.about}
        entry |= {"changes": row.changes(), "seeds": sorted(done)}
        rows.append(entry)
        if not done:
            entry["not_run"] = "not run yet; `python -m training ablate` goes on where it stopped"
            continue
        files = [kept / f"{stage1_name(table, row, seed)}.memory.json" for seed in done]
        if all(file.is_file() for file in files):
            known = [json.loads(file.read_text(encoding="utf-8")) for file in files]
            entry["stage1_memory"] = {way: float(np.mean([one[way] for one in known])) for way in known[0]}
        numbers = [one for _, one in done.values()]
        entry["seconds"] = round(float(np.mean([one["seconds"] for one in numbers])), 1)
        patients = {part: int(numbers[0][f"{part}_patients"]) for part in PARTS}
        both = [seed for seed in done if seed in reference]
        for part in PARTS:
            ours, base = (
                {seed: {name: figures[f"{part}/{name}"] for name in SHOWN} for seed, (figures, _) in each.items()}
                for each in (done, reference)
            )
            entry[part] = {
                "metrics": as_json(means(list(ours.values()))),
                "by_seed": {name: [one[name].value for one in ours.values()] for name in SHOWN},
            }
            if row is table.rows[0] or not both:
                continue
            minus = mean_differences([ours[seed] for seed in both], [base[seed] for seed in both])
            entry[part]["minus_reference"] = as_json(minus)
            if part == "test" and row.claim:
                entry |= {"figure": row.figure, "verdict": verdict(minus[row.figure], row.helps)}
    return {
        "notice": NOTICE,
        "data": {"source": Path(runs.data).name, "format": runs.format, "split": SPLIT_RULE},
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


def stage1_name(table: Table, row: Row, seed: int) -> str:
    """Name of the stage-1 folder of a row: one for all rows of the same stage 1."""
    settings = json.dumps([as_kept(table.memorize_config(row, seed)), row.start], sort_keys=True)
    return f"stage1-{hashlib.sha256(settings.encode()).hexdigest()[:10]}"


def _kept(runs: Runs, kept: Path, row: Row, seed: int, draws: int) -> Path:
    """Where the figures of one run are kept; other settings, data or draws are another run."""
    mark = runs.table.fingerprint(row, seed, row.output, Path(runs.data).name, draws)
    return kept / f"{slug(row.name)}-{seed}-{mark}.npz"

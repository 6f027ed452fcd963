"""Runs PyHealth 1.1.6's RETAIN or Transformer on a split that `handover` wrote. Imports nothing of ours.

    python pyhealth_runner.py RETAIN|Transformer FOLDER SEED,SEED,...

Reads FOLDER/split.json, writes FOLDER/MODEL-GOAL-SEED.npz (logits of each part) and FOLDER/MODEL.json. Models, loss and
training loop are PyHealth's own; the tokenizers are fitted on training samples alone, and a code they do not know is
PyHealth's <unk>. Tuned as the other baselines are: eight settings, and for each goal the setting and the pass with the
best recall@20 on validation patients, of whole lists or of new codes only. A run that is broken off goes on with the next
fit.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pyhealth
import torch
from pyhealth.datasets import SampleEHRDataset, get_dataloader
from pyhealth.models import RETAIN, Transformer
from pyhealth.trainer import Trainer

BATCH, PASSES, PATIENCE = 128, 30, 4
GOALS = ("recall@20", "new_only_recall@20")
GRID = [
    {"width": width, "learning_rate": rate, "dropout": dropout}
    for width, rate, dropout in product((128, 256), (1e-3, 3e-3), (0.2, 0.5))
]


def as_samples(rows: list[dict], known: set[int] | None = None) -> list[dict]:
    """PyHealth's samples; without `known` labels, a placeholder label, since only training labels have a number."""
    samples = []
    for number, row in enumerate(rows):
        labels = [str(label) for label in row["next"] if known is None or label in known]
        history = row["history"] or [["<unk>"]]
        samples.append(
            {"patient_id": str(number), "visit_id": str(number), "conditions": history, "label": labels or None}
        )
    return samples


def recalls_at_20(scores: np.ndarray, rows: list[dict]) -> dict[str, float]:
    """Mean |top-20 and Y| / |Y| by goal: of whole lists, and without the history's labels in the list and in Y."""
    return {
        GOALS[0]: recall_at_20(scores, [row["next"] for row in rows]),
        GOALS[1]: recall_at_20(without_seen(scores, rows), [sorted({*row["next"]} - {*row["seen"]}) for row in rows]),
    }


def without_seen(scores: np.ndarray, rows: list[dict]) -> np.ndarray:
    """The scores [patients, labels] with the labels of each history below all others."""
    scores = scores.copy()
    for row, patient in zip(scores, rows, strict=True):
        row[patient["seen"]] = -np.inf
    return scores


def recall_at_20(scores: np.ndarray, wanted: list[list[int]]) -> float:
    """Mean |top-20 and Y| / |Y| over patients with a label in Y."""
    top = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    found = [len(set(best) & set(labels)) / len(labels) for best, labels in zip(top, wanted, strict=True) if labels]
    return float(np.mean(found))


def logits(model, samples: list[dict], n_labels: int) -> np.ndarray:
    """[samples, labels]; labels that training never saw get a score below all others."""
    model.eval()
    order = [int(token) for token in model.label_tokenizer.vocabulary.token2idx]
    out = []
    with torch.no_grad():
        for batch in get_dataloader(samples, batch_size=256):
            out.append(model(**batch)["logit"].cpu().numpy())
    scores = np.full((len(samples), n_labels), np.concatenate(out).min() - 1.0, np.float32)
    scores[:, order] = np.concatenate(out)
    return scores


class OneAdam:
    """In the place of an optimizer's class: makes Adam once and gives the same back each time it is asked.

    PyHealth's trainer makes an optimizer in every call of `train`, and so would forget Adam's moments with every pass.
    """

    def __init__(self):
        self.made = None

    def __call__(self, groups, **settings):
        if self.made is None:
            self.made = torch.optim.Adam(groups, **settings)
        return self.made


def fit(kind: str, split: dict, settings: dict, seed: int) -> tuple:
    """One run. Returns the model, and for each goal the weights of the best pass on validation patients and its recall."""
    random.seed(seed)
    torch.manual_seed(seed)
    dataset = SampleEHRDataset(as_samples(split["train"]), dataset_name="handed over", task_name="next visit")
    options = {"dropout": settings["dropout"]}
    make = {"RETAIN": RETAIN, "Transformer": Transformer}[kind]
    model = make(dataset, ["conditions"], "label", "multilabel", embedding_dim=settings["width"], **options)
    known = {int(token) for token in model.label_tokenizer.vocabulary.token2idx}
    asked = placeholders(as_samples(split["validation"], known), known)
    loader = get_dataloader(dataset, batch_size=BATCH, shuffle=True)
    kept, best, best_pass = {}, dict.fromkeys(GOALS, -1.0), 0
    with tempfile.TemporaryDirectory() as folder:
        trainer, adam = Trainer(model, enable_logging=False, output_path=folder, device="cpu"), OneAdam()
        for number in range(1, PASSES + 1):
            # one pass at a time, so that every pass can be judged by recall@20
            trainer.train(loader, epochs=1, optimizer_class=adam, optimizer_params={"lr": settings["learning_rate"]})
            reached = recalls_at_20(logits(model, asked, split["labels"]), split["validation"])
            better = [goal for goal in GOALS if reached[goal] > best[goal]]
            if better:
                weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
                kept |= dict.fromkeys(better, weights)
                best |= {goal: reached[goal] for goal in better}
                best_pass = number
            elif number - best_pass >= PATIENCE:
                break
    return model, kept, best


def placeholders(samples: list[dict], known: set[int]) -> list[dict]:
    """The model's forward pass wants labels even where only its logits are read."""
    any_label = [str(min(known))]
    return [sample | {"label": sample["label"] or any_label} for sample in samples]


def kept_fit(kind: str, split: dict, number: int, seed: int, folder: Path) -> tuple[dict[str, float], dict[str, Path]]:
    """Of settings `number` with a seed: recall@20 on validation patients, and the file of the logits, by goal.

    A fit whose files stand for this very split is not repeated.
    """
    how = [GRID[number], PASSES, PATIENCE, BATCH, "one Adam over all passes"]
    mark = hashlib.sha256(json.dumps([*how, split]).encode()).hexdigest()[:10]
    paths = {goal: folder / f"{kind}-fit-{number}-{seed}-{goal}-{mark}.npz" for goal in GOALS}
    if not all(path.is_file() for path in paths.values()):
        model, kept, best = fit(kind, split, GRID[number], seed)
        known = {int(token) for token in model.label_tokenizer.vocabulary.token2idx}
        for goal, path in paths.items():
            model.load_state_dict(kept[goal])
            scores: dict = {
                name: logits(model, placeholders(as_samples(split[name], known), known), split["labels"])
                for name in split
                if name not in ("labels", "train")
            }
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, recall=best[goal], **scores)
            partial.replace(path)
        print(kind, GRID[number], f"seed {seed}: on validation patients {best}", flush=True)
    recalls = {}
    for goal, path in paths.items():
        with np.load(path) as stored:
            recalls[goal] = float(stored["recall"])
    return recalls, paths


def main() -> None:
    kind, folder, seeds = sys.argv[1], Path(sys.argv[2]), [int(seed) for seed in sys.argv[3].split(",")]
    split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    recalls = [kept_fit(kind, split, number, seeds[0], folder)[0] for number in range(len(GRID))]
    chosen = {goal: max(range(len(GRID)), key=lambda number: recalls[number][goal]) for goal in GOALS}
    for goal, number in chosen.items():
        for seed in seeds:
            kept = kept_fit(kind, split, number, seed, folder)[1][goal]
            shutil.copyfile(kept, folder / f"{kind}-{goal}-{seed}.npz")
    result = {
        "settings": {goal: GRID[number] for goal, number in chosen.items()},
        "tried": [
            {"settings": settings} | {f"validation_{goal}": recall for goal, recall in reached.items()}
            for settings, reached in zip(GRID, recalls, strict=True)
        ],
        "runs": len(GRID) + (len(seeds) - 1) * len(set(chosen.values())),
        "version": pyhealth.__version__,
    }
    (folder / f"{kind}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()

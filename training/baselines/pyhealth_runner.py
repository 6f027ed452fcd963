"""Runs PyHealth 1.1.6's RETAIN or Transformer on a split that `handover` wrote. Imports nothing of ours.

    python pyhealth_runner.py RETAIN|Transformer FOLDER SEED,SEED,...

Reads FOLDER/split.json, writes FOLDER/MODEL-SEED.npz (logits of each part) and FOLDER/MODEL.json. Models, loss and
training loop are PyHealth's own; the tokenizers are fitted on training samples alone, and a code they do not know is
PyHealth's <unk>. Tuned as the other baselines are: eight settings, the best recall@20 on validation patients. A run that is
broken off goes on with the next fit.
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


def recall_at_20(scores: np.ndarray, rows: list[dict]) -> float:
    """Mean |top-20 and Y| / |Y| over patients with a label."""
    top = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    found = [
        len(set(best) & set(row["next"])) / len(row["next"]) for best, row in zip(top, rows, strict=True) if row["next"]
    ]
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
    """One run: the pass with the best recall@20 on validation patients is kept. Returns the model and that recall."""
    random.seed(seed)
    torch.manual_seed(seed)
    dataset = SampleEHRDataset(as_samples(split["train"]), dataset_name="handed over", task_name="next visit")
    options = {"dropout": settings["dropout"]}
    make = {"RETAIN": RETAIN, "Transformer": Transformer}[kind]
    model = make(dataset, ["conditions"], "label", "multilabel", embedding_dim=settings["width"], **options)
    known = {int(token) for token in model.label_tokenizer.vocabulary.token2idx}
    asked = placeholders(as_samples(split["validation"], known), known)
    loader = get_dataloader(dataset, batch_size=BATCH, shuffle=True)
    best, best_recall, best_pass = None, -1.0, 0
    with tempfile.TemporaryDirectory() as folder:
        trainer, adam = Trainer(model, enable_logging=False, output_path=folder, device="cpu"), OneAdam()
        for number in range(1, PASSES + 1):
            # one pass at a time, so that every pass can be judged by recall@20
            trainer.train(loader, epochs=1, optimizer_class=adam, optimizer_params={"lr": settings["learning_rate"]})
            recall = recall_at_20(logits(model, asked, split["labels"]), split["validation"])
            if recall > best_recall:
                best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
                best_recall, best_pass = recall, number
            elif number - best_pass >= PATIENCE:
                break
    model.load_state_dict(best)
    return model, best_recall


def placeholders(samples: list[dict], known: set[int]) -> list[dict]:
    """The model's forward pass wants labels even where only its logits are read."""
    any_label = [str(min(known))]
    return [sample | {"label": sample["label"] or any_label} for sample in samples]


def kept_fit(kind: str, split: dict, number: int, seed: int, folder: Path) -> tuple[float, Path]:
    """Recall@20 on validation patients of settings `number` with a seed, and the file of its logits of each part.

    A fit whose file stands for this very split is not repeated.
    """
    how = [GRID[number], PASSES, PATIENCE, BATCH, "one Adam over all passes"]
    mark = hashlib.sha256(json.dumps([*how, split]).encode()).hexdigest()[:10]
    path = folder / f"{kind}-fit-{number}-{seed}-{mark}.npz"
    if path.is_file():
        with np.load(path) as stored:
            return float(stored["recall"]), path
    model, recall = fit(kind, split, GRID[number], seed)
    known = {int(token) for token in model.label_tokenizer.vocabulary.token2idx}
    scores: dict = {
        name: logits(model, placeholders(as_samples(split[name], known), known), split["labels"])
        for name in split
        if name not in ("labels", "train")
    }
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, recall=recall, **scores)
    partial.replace(path)
    print(kind, GRID[number], f"seed {seed}: recall@20 {recall:.4f} on validation patients", flush=True)
    return recall, path


def main() -> None:
    kind, folder, seeds = sys.argv[1], Path(sys.argv[2]), [int(seed) for seed in sys.argv[3].split(",")]
    split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    recalls = [kept_fit(kind, split, number, seeds[0], folder)[0] for number in range(len(GRID))]
    chosen = recalls.index(max(recalls))
    for seed in seeds:
        kept = kept_fit(kind, split, chosen, seed, folder)[1]
        shutil.copyfile(kept, folder / f"{kind}-{seed}.npz")
    result = {
        "settings": GRID[chosen],
        "tried": [
            {"settings": settings, "validation_recall@20": recall}
            for settings, recall in zip(GRID, recalls, strict=True)
        ],
        "runs": len(GRID) + len(seeds) - 1,
        "version": pyhealth.__version__,
    }
    (folder / f"{kind}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()

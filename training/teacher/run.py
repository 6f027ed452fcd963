"""Teach: networks on the whole record, cross-fitted, say how likely each label is after every visit of the training patients.

A student (`RankConfig.teacher`) learns these probabilities beside the true codes: also of patients with a single visit, of
whom nobody knows what came next. No patient is taught by a network that was fitted to any of their visits.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from mera_core.common.errors import InputError
from mera_core.evaluation.bootstrap import Bootstrap
from mera_core.evaluation.metrics import evaluate_new_only
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code, Ontology
from training.common.split import in_parts, read_once, with_codes
from training.teacher.features import Features, Record
from training.teacher.network import Teacher, TeacherConfig, bag_of, fit

LOGITS, ABOUT = "logits.safetensors", "teacher.json"


def run(config: TeacherConfig, data: str, format: str, out: Path) -> dict:
    """Fit the networks to the training part of `data` and write what they say to `out`; returns what `teacher.json` says."""
    cohort = read_once(data, format)
    parts = in_parts(with_codes(cohort.patients), cohort.report.format)
    train = parts["train"]
    labels = sorted({code for patient in train for visit in patient.visits for code in visit.codes})
    features = Features(train, labels, config.detail_tokens, Ontology.load())
    records = [features.record(patient) for patient in train]
    asked = [(row, visits) for row, record in enumerate(records) for visits in range(1, len(record.codes) + 1)]
    fold = np.random.default_rng(config.seed).permutation(len(train)) % config.folds
    of_row = fold[[row for row, _ in asked]]
    logits = np.zeros((len(asked), len(labels)), np.float32)
    validation = [patient for patient in parts["validation"] if len(patient.visits) > 1]
    held_out = [features.record(patient) for patient in validation]
    theirs = np.zeros((len(validation), len(labels)))
    for number in range(config.folds):
        seen = [record for record, part in zip(records, fold, strict=True) if part != number]
        mine = np.flatnonzero(of_row == number)
        for again in range(config.networks):
            network = fit(features, seen, config, config.seed * 1000 + number * config.networks + again)
            logits[mine] += _logits(network, features, [(records[asked[i][0]], asked[i][1]) for i in mine])
            if validation:
                theirs += _logits(network, features, [(r, len(r.codes) - 1) for r in held_out])
            print(f"teacher: network {again + 1} of fold {number + 1}", flush=True)
    logits /= config.networks
    figures = {}
    if validation:
        targets, pasts = zip(
            *((r.codes[-1], {c for codes in r.codes[:-1] for c in codes}) for r in held_out), strict=True
        )
        truth = Truth.from_sets(targets, pasts, len(labels))
        figures = {
            name: one.to_dict() for name, one in evaluate_new_only(theirs, truth, Bootstrap(len(truth), 1000)).items()
        }
    about = {
        "settings": asdict(config),
        "labels": list(map(str, labels)),
        "patients": [patient.id for patient in train],
        "visits": [len(record.codes) for record in records],
        "validation": figures,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / ABOUT).unlink(missing_ok=True)  # written last, so that it never describes logits of another run
    save_file({"logits": logits.astype(np.float16)}, out / LOGITS)
    (out / ABOUT).write_text(json.dumps(about) + "\n", encoding="utf-8")
    return about


def _logits(network: Teacher, features: Features, asked: list[tuple[Record, int]]) -> np.ndarray:
    """[N, C], for each record after so many of its visits."""
    found = []
    with torch.inference_mode():
        for begin in range(0, len(asked), 1024):
            found.append(network(bag_of([features.of(*each) for each in asked[begin : begin + 1024]])).numpy())
    return np.concatenate(found)


class Taught:
    """What a teacher said, read from its folder. told: its settings and figures, for a manifest.

    Raises InputError where the folder holds none, or it was made for another label space.
    """

    def __init__(self, folder: Path, labels: tuple[Code, ...]):
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            self._logits = load_file(folder / LOGITS)["logits"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder} holds no teacher: make one with python -m training teach.") from error
        if about["labels"] != list(map(str, labels)):
            raise InputError(f"The teacher in {folder} was made for another label space than that of the data.")
        self.told = about["settings"] | {"validation": about["validation"]}
        starts = np.cumsum([0, *about["visits"]])
        self._rows = {id_: range(starts[i], starts[i + 1]) for i, id_ in enumerate(about["patients"])}

    def row(self, patient: Patient, visits: int) -> int | None:
        """The row of what was said after so many visits of a patient; None where nothing was."""
        rows = self._rows.get(patient.id, range(0))
        return rows[visits - 1] if 0 < visits <= len(rows) else None

    def probabilities(self, rows: list[int]) -> torch.Tensor:
        """Of each label, [len(rows), C], float32."""
        return torch.from_numpy(self._logits[rows].astype(np.float32)).sigmoid()

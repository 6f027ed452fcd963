"""The teacher: what it is told, that it learns, whom it may teach, and what a student makes of it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit, write_visits
from mera_core.icd.ontology import Ontology
from mera_core.model.losses import distillation_loss
from tests.tiny import CODES
from training.common.config import RankConfig, loaded
from training.common.split import split_of
from training.teacher import run as teacher
from training.teacher.features import Features
from training.teacher.network import TeacherConfig, bag_of, fit

SMALL = {
    "width": 16,
    "hidden_size": 16,
    "batch_size": 16,
    "dropout": 0.0,
    "feature_dropout": 0.0,
    "learning_rate": 0.02,
}


def cohort(count: int = 120, seed: int = 0) -> list[Patient]:
    """Where a patient went after the first visit says what comes next; its code says nothing."""
    draw, made = random.Random(seed), []
    for n in range(count):
        home = draw.random() < 0.5
        first = Visit(
            [draw.choice(CODES[:4])], age=60 + draw.random(), details={"discharge": "home" if home else "died"}
        )
        made.append(Patient([first, Visit([CODES[8] if home else CODES[9]])], sex="F", id=f"{seed}-{n}"))
    return made


def features(patients: list[Patient]) -> Features:
    return Features(patients, CODES, ("discharge",), Ontology.load())


def test_a_history_says_its_codes_details_and_headings_but_nothing_of_the_visit_to_come() -> None:
    patients = cohort()
    bag = features(patients)
    record = bag.record(patients[0])
    assert bag.of(record, 1) == bag.of(bag.record(Patient(patients[0].visits[:1], sex="F")), 1)
    assert max(bag.of(record, 2)) < bag.size and len(set(bag.of(record, 2))) == len(bag.of(record, 2))
    other = Patient([Visit(patients[0].visits[0].codes, details={"discharge": "on the moon"})], sex="F")
    assert len(bag.of(bag.record(other), 1)) == len(bag.of(record, 1)) - 1  # a fact that no training visit has


def test_a_network_learns_what_the_details_say() -> None:
    patients = cohort()
    bag = features(patients)
    network = fit(bag, [bag.record(p) for p in patients], TeacherConfig(epochs=15, **SMALL), seed=1)
    fresh = cohort(60, seed=1)
    with torch.inference_mode():
        best = network(bag_of([bag.of(bag.record(p), 1) for p in fresh])).argmax(1).tolist()
    assert np.mean([CODES[b] == p.visits[1].codes[0] for b, p in zip(best, fresh, strict=True)]) > 0.95


def test_what_it_says_is_found_again_and_no_network_saw_whom_it_teaches(tmp_path, monkeypatch) -> None:
    patients = cohort(150)
    write_visits(patients, tmp_path / "visits.csv")
    seen: list[set] = []
    real = teacher.fit

    def noted(bag, records, config, seed):
        seen.append({id(record) for record in records})
        return real(bag, records, config, seed)

    asked: list[set] = []
    say = teacher._logits

    def noting(network, bag, some):
        asked.append({id(record) for record, _ in some})
        return say(network, bag, some)

    monkeypatch.setattr(teacher, "fit", noted)
    monkeypatch.setattr(teacher, "_logits", noting)
    config = TeacherConfig(folds=3, networks=1, epochs=8, detail_tokens=("discharge",), **SMALL)
    about = teacher.run(config, str(tmp_path / "visits.csv"), "table", tmp_path / "teacher")
    assert len(seen) == 3 and all(not mine & theirs for mine, theirs in zip(seen, asked[::2], strict=True))
    assert about["validation"]["recall@5"]["value"] > 0.9
    labels = tuple(sorted({code for p in patients if split_of(p.id) == "train" for v in p.visits for code in v.codes}))
    taught = teacher.Taught(tmp_path / "teacher", labels)
    patient = next(p for p in patients if split_of(p.id) == "train")
    row = taught.row(patient, 1)
    assert row is not None and taught.row(patient, 3) is None
    assert labels[int(taught.probabilities([row])[0].argmax())] == patient.visits[1].codes[0]
    assert taught.row(next(p for p in patients if split_of(p.id) == "test"), 1) is None
    with pytest.raises(InputError, match="another label space"):
        teacher.Taught(tmp_path / "teacher", labels[1:])
    with pytest.raises(InputError, match="holds no teacher"):
        teacher.Taught(tmp_path, labels)


def test_the_loss_is_least_where_the_student_says_what_the_teacher_says() -> None:
    probability = torch.tensor([[0.5, 0.2, 0.01]], dtype=torch.float64)
    eov = torch.zeros(1, dtype=torch.float64)
    scores = probability.logit().requires_grad_()
    loss = distillation_loss(scores, eov, probability)
    binary = torch.nn.functional.binary_cross_entropy_with_logits(scores, probability, reduction="sum")
    assert float(loss) == pytest.approx(float(binary - (probability * scores.log_softmax(1)).sum()))
    moved = distillation_loss(scores.detach() + torch.tensor([[0.0, 1.0, 0.0]]), eov, probability)
    assert float(moved) > float(loss)


def test_the_shipped_settings_load_and_name_what_the_student_reads(tmp_path) -> None:
    configs = Path(__file__).resolve().parents[3] / "training" / "configs"
    shipped = loaded(TeacherConfig, configs / "mera-mini-teacher.yaml")
    for turn in ("rank", "rank-2"):
        assert RankConfig.load(configs / f"mera-mini-{turn}.yaml").detail_tokens == shipped.detail_tokens
    (tmp_path / "wrong.yaml").write_text("fold: 3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"wrong\.yaml: fold is not a known name"):
        loaded(TeacherConfig, tmp_path / "wrong.yaml")

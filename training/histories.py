"""Patients -> the batches that stage 2 trains on. Knows sequences and targets; computes no loss."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mera_core.model import SEEN_FEATURES
from mera_core.ontology import Code
from mera_core.records import Patient
from mera_core.seen import seen_features
from mera_core.sequence import Encoder
from training.config import RankConfig
from training.memorize import QuestionSampler, batches_by_length


@dataclass
class Targets:
    """What one batch of sequences is asked: N targets at places (`row`, `position`).

    weight: [N]. positive: bool [N, C]. seen: [M, 2 + F], see `mera_core.model.ScoreHead`.
    """

    row: list[int]
    position: list[int]
    weight: list[float]
    positive: list[list[int]]
    seen: list[list[float]]

    def add(self, row: int, position: int, weight: float, positive: list[int], seen: list[list[float]]) -> None:
        index = len(self.row)
        self.row.append(row)
        self.position.append(position)
        self.weight.append(weight)
        self.positive.append(positive)
        self.seen += [[index, *features] for features in seen]


class HistoryBatches(Dataset):
    """Item i is the whole batch of step i, drawn from the seed and i alone.

    Args:
        patients: training patients; each visit holds `Code`s of the vocabulary and at least one.
        labels: the label space; codes outside it are input only.
        questions: source of stage-1 questions for rehearsal, or None.
    """

    def __init__(
        self,
        patients: Sequence[Patient],
        labels: Sequence[Code],
        encoder: Encoder,
        config: RankConfig,
        questions: QuestionSampler | None = None,
    ):
        self.encoder, self.config, self.questions = encoder, config, questions
        self.index = {code: i for i, code in enumerate(labels)}
        shortest = 1 if config.start_weight or config.rest_weight else 2
        self.patients = [patient for patient in patients if len(patient.visits) >= shortest]
        rng = random.Random(config.seed)
        self._batches: list[list[Patient]] = []
        whole, part = int(config.passes), config.passes % 1
        for index in range(whole + (part > 0)):
            drawn = rng.sample(self.patients, int(len(self.patients) * (1 if index < whole else part)))
            self._batches += batches_by_length(drawn, lambda p: len(p.visits), config.batch_size, rng)
        if questions is not None and config.rehearsal:
            drawn = []
            while len(drawn) < config.rehearsal * len(self._batches):
                drawn += questions.one_pass(rng, config.rehearsal_backwards, config.rehearsal_hierarchy)
            self._rehearsal = [drawn[i : i + config.rehearsal] for i in range(0, len(drawn), config.rehearsal)]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = random.Random(self.config.seed * 1_000_003 + step)
        batch = self.collate(self._batches[step], rng)
        if self.questions is not None and self.config.rehearsal:
            batch["questions"] = self.questions.batch(self._rehearsal[step], rng)
        return batch

    def collate(self, patients: Sequence[Patient], rng: random.Random) -> dict[str, Tensor]:
        """One batch as tensors: `input_ids` [B, T], `row`, `position`, `weight` [N], `positive` [N, C], `seen`."""
        config, targets, sequences = self.config, Targets([], [], [], [], []), []
        for row, patient in enumerate(patients):
            encoded = self.encoder.encode(patient, rng if config.shuffle else None, config.drop)
            sequences.append(encoded.input_ids)
            self._add_targets(targets, row, patient, encoded)
        width = max(map(len, sequences))
        ids = torch.full((len(sequences), width), self.encoder.vocabulary.pad)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence)
        positive = torch.zeros(len(targets.row), len(self.index), dtype=torch.bool)
        for index, labels in enumerate(targets.positive):
            positive[index, labels] = True
        return {
            "input_ids": ids,
            "row": torch.tensor(targets.row, dtype=torch.long),
            "position": torch.tensor(targets.position, dtype=torch.long),
            "weight": torch.tensor(targets.weight),
            "positive": positive,
            "seen": torch.tensor(targets.seen) if targets.seen else torch.zeros(0, 2 + len(SEEN_FEATURES)),
        }

    def _add_targets(self, targets: Targets, row: int, patient: Patient, encoded) -> None:
        config = self.config
        known = [[self.index[code] for code in visit.codes if code in self.index] for visit in patient.visits]
        if config.start_weight and encoded.start is not None and known[0]:
            targets.add(row, encoded.start, config.start_weight, known[0], [])
        for kept, end in enumerate(encoded.ends):
            visit = encoded.first_visit + kept
            if config.rest_weight:
                seen = seen_features(patient.visits[:visit], self.index)
                given: set[int] = set()
                for position, code in zip(encoded.codes[kept], encoded.order[kept], strict=True):
                    given.add(self.index.get(code, -1))
                    rest = [label for label in known[visit] if label not in given]
                    if rest:
                        targets.add(row, position, config.rest_weight, rest, seen)
            last = visit == len(patient.visits) - 2
            if visit + 1 < len(patient.visits) and known[visit + 1] and (config.every_visit or last):
                targets.add(row, end, 1.0, known[visit + 1], seen_features(patient.visits[: visit + 1], self.index))

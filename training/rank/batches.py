"""Patients -> the batches that stage 2 trains on, cut for as many devices as train. Knows sequences and targets; no loss."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mera_core.cohort.targets import before_last
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.model.network import SEEN_FEATURES
from mera_core.model.recurrence import seen_features
from mera_core.model.sequence import Encoded, Encoder
from training.common.config import RankConfig
from training.common.trainer import parts_a_step
from training.memorize.questions import QuestionSampler, batches_by_length
from training.teacher.run import Taught

LENGTHS: dict[str, Callable[[Patient], int]] = {
    "by_visits": lambda patient: len(patient.visits),
    "by_tokens": lambda patient: sum(len(visit.codes) + 10 for visit in patient.visits),  # its words take about ten
    "mixed": lambda patient: 0,
}
"""How long a history counts where like lengths are put together, by `RankConfig.batches`."""


@dataclass(frozen=True)
class Target:
    """One question to one sequence: at `position`, which `labels` come next? `before`: the visits that may be known.

    labels: None where nobody knows, and only the teacher says; `taught`: the row of what it says, where it says something.
    """

    position: int
    weight: float
    labels: list[int] | None
    before: Sequence[Visit]
    taught: int | None = None


class HistoryBatches(Dataset):
    """Item i is one part of the batch of a step, drawn from the seed and the step alone.

    A step takes `batch_size * parts` patients; item `step * parts + part` is what one device computes in one forward
    pass. Each item is cut from a draw of the whole step, so the same patients of a step give the same sequences, orders
    and targets however many parts there are, and `target_weight` needs no message between the processes.

    Args:
        patients: training patients; each visit holds `Code`s of the vocabulary and at least one.
        labels: the label space; codes outside it are input only.
        questions: source of stage-1 questions for rehearsal, or None.
        taught: what a teacher says after each visit, or None.
        parts: forward passes a step, over all devices; by default those of this run (`trainer.parts_a_step`).
    """

    def __init__(
        self,
        patients: Sequence[Patient],
        labels: Sequence[Code],
        encoder: Encoder,
        config: RankConfig,
        questions: QuestionSampler | None = None,
        parts: int | None = None,
        taught: Taught | None = None,
    ):
        self.encoder, self.config, self.questions, self.taught = encoder, config, questions, taught
        self.parts = parts or parts_a_step(config)
        self.index = {code: i for i, code in enumerate(labels)}
        asked_of_all = config.start_weight or config.rest_weight or taught
        shortest = 1 if asked_of_all and config.single_visits else 2
        self.patients = [patient for patient in patients if len(patient.visits) >= shortest]
        samples = self.patients
        if config.prefix_samples:
            samples = [sample for patient in self.patients for sample in prefix_samples(patient)]
        rng = random.Random(config.seed)
        self._batches: list[list[Patient]] = []
        whole, part = int(config.epochs), config.epochs % 1
        for index in range(whole + (part > 0)):
            drawn = rng.sample(samples, int(len(samples) * (1 if index < whole else part)))
            self._batches += batches_by_length(drawn, LENGTHS[config.batches], config.batch_size * self.parts, rng)
        if questions is not None and config.rehearsal:
            asked, a_step = [], config.rehearsal
            while len(asked) < a_step * len(self._batches):
                asked += questions.one_pass(rng, config.rehearsal_backwards, config.rehearsal_hierarchy)
            self._rehearsal = [asked[i : i + a_step] for i in range(0, len(asked), a_step)]

    def __len__(self) -> int:
        return len(self._batches) * self.parts

    def __getitem__(self, item: int) -> dict[str, Any]:
        step, part = divmod(item, self.parts)
        rng = random.Random(self.config.seed * 1_000_003 + step)
        batch = self.collate(self._batches[step], rng, part)
        if self.questions is not None and self.config.rehearsal:
            batch |= self.questions.batch(self._rehearsal[step], rng, part=part, parts=self.parts)
        return batch

    def collate(self, patients: Sequence[Patient], rng: random.Random, part: int = 0) -> dict[str, Tensor]:
        """One part of a step's batch as tensors.

        Returns:
            `input_ids` [B, T], right-padded; for N targets `row`, `position`, `weight` [N] and `positive` bool [N, C];
            `known` bool [N]: whether the next visit is known; with a teacher `taught` [N, C], its probabilities, and `told`
            bool [N], whether it says any;
            `seen` [M, 2 + F], see `mera_core.model.network.ScoreHead`, sorted by target. Where a step has several parts also
            `target_weight` [], the whole step's sum of weights divided by the number of parts: losses divided by it and
            averaged over the parts are the mean over the step's targets.
        """
        sequences, rows, targets, total = [], [], [], 0.0
        for place, patient in enumerate(patients):
            encoded, asked = self._sample(patient, rng)
            total += sum(target.weight for target in asked)
            if place % self.parts == part:
                rows += [len(sequences)] * len(asked)
                targets += asked
                ids = encoded.input_ids
                if self.config.trim_inputs and asked:
                    ids = ids[: max(target.position for target in asked) + 1]
                sequences.append(ids)
        if not sequences:  # fewer patients than parts: this device computes something all the same, and asks nothing
            sequences = [self.encoder.encode(patients[0]).input_ids[:1]]
        ids = torch.full((len(sequences), max(map(len, sequences))), self.encoder.vocabulary.pad)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence)
        positive = torch.zeros(len(targets), len(self.index), dtype=torch.bool)
        seen: list[list[float]] = []
        for number, target in enumerate(targets):
            positive[number, target.labels or []] = True
            seen += [[number, *features] for features in seen_features(target.before, self.index)]
        batch = {
            "input_ids": ids,
            "row": torch.tensor(rows, dtype=torch.long),
            "position": torch.tensor([target.position for target in targets], dtype=torch.long),
            "weight": torch.tensor([target.weight for target in targets]),
            "positive": positive,
            "known": torch.tensor([target.labels is not None for target in targets], dtype=torch.bool),
            "seen": torch.tensor(seen) if seen else torch.zeros(0, 2 + len(SEEN_FEATURES)),
        }
        if self.taught is not None:
            batch["told"] = torch.tensor([target.taught is not None for target in targets], dtype=torch.bool)
            batch["taught"] = self.taught.probabilities([target.taught or 0 for target in targets])
        if self.parts > 1:
            batch["target_weight"] = torch.tensor(total / self.parts)
        return batch

    def _sample(self, patient: Patient, rng: random.Random) -> tuple[Encoded, list[Target]]:
        shuffle = rng if self.config.shuffle else None
        if self.config.prefix_samples:  # what comes next is not in the input: an encoder would see it
            encoded = self.encoder.encode(before_last(patient), shuffle, self.config.drop, self.config.drop_details)
            labels = [self.index[code] for code in patient.visits[-1].codes if code in self.index]
            return encoded, [Target(encoded.ends[-1], 1.0, labels, patient.visits[:-1])] if labels else []
        encoded = self.encoder.encode(patient, shuffle, self.config.drop, self.config.drop_details)
        return encoded, list(self._targets(patient, encoded))

    def _targets(self, patient: Patient, encoded: Encoded) -> Iterator[Target]:
        config, visits = self.config, patient.visits
        known = [[self.index[code] for code in visit.codes if code in self.index] for visit in visits]
        if config.start_weight and encoded.start is not None and known[0]:
            yield Target(encoded.start, config.start_weight, known[0], ())
        for kept, end in enumerate(encoded.ends):
            visit = encoded.first_visit + kept
            if config.rest_weight:
                given: set[int] = set()
                for position, code in zip(encoded.codes[kept], encoded.order[kept], strict=True):
                    given.add(self.index.get(code, -1))
                    rest = [label for label in known[visit] if label not in given]
                    if rest:
                        yield Target(position, config.rest_weight, rest, visits[:visit])
            last = visit == len(visits) - 2
            said = self.taught.row(patient, visit + 1) if self.taught else None
            follows = visit + 1 < len(visits) and known[visit + 1] and (config.every_visit or last)
            if follows or said is not None:
                yield Target(end, 1.0, known[visit + 1] if follows else None, visits[: visit + 1], said)


def prefix_samples(patient: Patient) -> list[Patient]:
    """The patient as of each visit but the first: one sample a (history, next visit), the usual way to train."""
    return [
        replace(patient, visits=patient.visits[:end], age=patient.visits[end - 1].age)
        for end in range(2, len(patient.visits) + 1)
    ]

"""Fits a network of `architectures` with binary cross-entropy, stops by validation patients. Knows no other baseline."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mera_core.common.errors import InputError
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code
from training.baselines.architectures import ARCHITECTURES, BagOfFeatures
from training.baselines.goals import GOALS, WHOLE_LIST, Goal
from training.baselines.record_features import RecordFeatures, Told
from training.baselines.samples import CODES_ALONE, histories, history, index_of, truth_of

log = logging.getLogger(__name__)

Row: TypeAlias = list[Any]  # a history as numbers: codes of each visit, or features
MOST_VISITS = 32  # the newest ones that are read
BATCH = 128


@dataclass(frozen=True)
class NeuralSettings:
    """What a tuning run varies."""

    width: int = 128
    """Width of embeddings and states; a multiple of 8."""
    learning_rate: float = 1e-3
    """AdamW, constant."""
    dropout: float = 0.3
    """Of visit embeddings and of the last state."""
    weight_decay: float = 1e-2
    """AdamW's decoupled decay."""
    passes: int = 30
    """At most so many; for each goal the pass with the best recall@20 on validation patients is kept."""
    patience: int = 4
    """Passes without a better one, for whichever goal, before it stops."""

    def __post_init__(self) -> None:
        if self.width % 8 or self.width <= 0 or self.passes < 1 or not 0 <= self.dropout < 1:
            raise InputError(f"A baseline can't be built like this: {self}.")


class NeuralBaseline:
    """One network of the field on codes alone, no profile: fitted with BCE over the label space.

    scores are logits, of the pass that was best for a goal: whole lists, or new codes only. The same seed gives the same
    scores. Without validation patients every pass is made and the last is kept.
    """

    told = CODES_ALONE

    def __init__(
        self,
        labels: Sequence[Code],
        architecture: str = "GRU",
        settings: NeuralSettings | None = None,
        seed: int = 1,
    ):
        if architecture not in ARCHITECTURES:
            raise InputError(f'There is no baseline "{architecture}"; there are {", ".join(ARCHITECTURES)}.')
        self.labels, self.architecture, self.seed = tuple(labels), architecture, seed
        self.chosen = settings or NeuralSettings()
        self.name = f"{architecture} classifier" if architecture in ("GRU", "transformer") else architecture
        self.passes_made: dict[Goal, int] = {}
        self._codes: dict[Code, int] = {}
        self._network: nn.Module | None = None
        self._kept: dict[Goal, dict[str, Tensor]] = {}

    @property
    def settings(self) -> dict[str, float | int | str]:
        return asdict(self.chosen)

    def fit(self, patients: Sequence[Patient], validation: Sequence[Patient] = ()) -> NeuralBaseline:
        pairs, index = histories(patients), index_of(self.labels)
        pasts = [past for past, _ in pairs]
        self._learn_features(patients, pasts)
        wanted = [[index[code] for code in set(target.codes) if code in index] for _, target in pairs]
        rows, asked = self._read(pasts), self._read([history(patient) for patient in validation])
        truth, best = truth_of(validation, self.labels) if validation else None, dict.fromkeys(GOALS, -1.0)
        self.passes_made, self._kept = dict.fromkeys(GOALS, 0), {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self._network = network = self._built(wanted)
            optimiser = torch.optim.AdamW(
                network.parameters(), lr=self.chosen.learning_rate, weight_decay=self.chosen.weight_decay
            )
            for number in range(1, self.chosen.passes + 1):
                loss = self._pass(network, optimiser, rows, wanted)
                if truth is None:
                    self.passes_made = dict.fromkeys(GOALS, number)
                    continue
                scores = self._logits(network, asked)
                reached = {goal: goal.reached(scores, truth) for goal in GOALS}
                log.info("%s, pass %d: loss %.5f, recall@20 %s", self.name, number, loss, list(reached.values()))
                better = [goal for goal in GOALS if reached[goal] > best[goal]]
                if better:
                    kept = copy.deepcopy(network.state_dict())
                    for goal in better:
                        best[goal], self.passes_made[goal], self._kept[goal] = reached[goal], number, kept
                elif number - max(self.passes_made.values()) >= self.chosen.patience:
                    break
        return self

    def _learn_features(self, patients: Sequence[Patient], pasts: Sequence[Patient]) -> None:
        known = sorted({code for past in pasts for visit in past.visits for code in visit.codes})
        self._codes = {code: number for number, code in enumerate(known, 1)}

    def _empty_network(self) -> Any:
        return ARCHITECTURES[self.architecture](
            len(self._codes), len(self.labels), self.chosen.width, self.chosen.dropout
        )

    def _built(self, wanted: Sequence[Sequence[int]]) -> Any:
        """A network whose output starts at the labels' base rates."""
        network = self._empty_network()
        counts = np.bincount([label for labels in wanted for label in labels], minlength=len(self.labels))
        with torch.no_grad():
            network.embedding.weight.mul_(0.1)
            network.output.bias.copy_(torch.from_numpy((counts + 0.5) / (len(wanted) + 1)).float().logit())
        return network

    def _pass(self, network, optimiser, rows: Sequence[Row], wanted: Sequence[Sequence[int]]) -> float:
        """One pass over all samples in batches of like length; returns the mean loss a sample."""
        network.train()
        order = torch.randperm(len(rows)).tolist()
        pool, batches = BATCH * 20, []
        for begin in range(0, len(order), pool):
            chunk = sorted(order[begin : begin + pool], key=lambda i: len(rows[i]))
            batches += [chunk[i : i + BATCH] for i in range(0, len(chunk), BATCH)]
        total = 0.0
        for number in torch.randperm(len(batches)).tolist():
            batch = batches[number]
            target = torch.zeros(len(batch), len(self.labels))
            for row, sample in enumerate(batch):
                target[row, wanted[sample]] = 1.0
            logits = network(*self._inputs([rows[sample] for sample in batch]))
            loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(batch)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            total += loss.item() * len(batch)
        return total / len(rows)

    def scores(self, patients: Sequence[Patient], goal: Goal = WHOLE_LIST) -> np.ndarray:
        """Logits [patients, labels] of the pass that was best for `goal`."""
        if self._network is None:
            raise InputError(f"The baseline {self.name} was not fitted yet.")
        if goal in self._kept:
            self._network.load_state_dict(self._kept[goal])
        return self._logits(self._network, self._read([history(patient) for patient in patients]))

    @torch.inference_mode()
    def _logits(self, network: nn.Module, rows: Sequence[Row]) -> np.ndarray:
        network.eval()
        out = np.empty((len(rows), len(self.labels)), np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for begin in range(0, len(order), 256):
            batch = order[begin : begin + 256]
            out[batch] = network(*self._inputs([rows[row] for row in batch])).numpy()
        return out

    def _read(self, pasts: Sequence[Patient]) -> list[Row]:
        """Of each history's newest visits the numbers of the known codes, from 1."""
        return [
            [[self._codes[code] for code in visit.codes if code in self._codes] for visit in past.visits[-MOST_VISITS:]]
            for past in pasts
        ]

    def _inputs(self, rows: Sequence[Row]) -> tuple[Tensor, ...]:
        """Codes int [batch, visits, codes], 0 where there is none, and the number of visits [batch]."""
        visits = max(map(len, rows))
        widest = max((len(codes) for row in rows for codes in row), default=0)
        codes = torch.zeros(len(rows), visits, max(widest, 1), dtype=torch.long)
        for number, row in enumerate(rows):
            for place, numbers in enumerate(row):
                codes[number, place, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        return codes, torch.tensor([len(row) for row in rows])


class RecordNetwork(NeuralBaseline):
    """A network on a bag of all that `told` names: codes, sex, age, and details of the past visits (`RecordFeatures`)."""

    def __init__(self, labels: Sequence[Code], told: Told, settings: NeuralSettings | None = None, seed: int = 1):
        super().__init__(labels, settings=settings, seed=seed)
        self.name, self.told, self._keys = "network told the record", str(told), told
        self._record = RecordFeatures(told, {}, frozenset())

    def _learn_features(self, patients: Sequence[Patient], pasts: Sequence[Patient]) -> None:
        self._record = RecordFeatures.fit(patients, self._keys.visit, self._keys.patient)

    def _empty_network(self) -> Any:
        return BagOfFeatures(len(self._record.index), len(self.labels), self.chosen.width, self.chosen.dropout)

    def _read(self, pasts: Sequence[Patient]) -> list[Row]:
        """The numbers of each history's features, from 1."""
        return [[number + 1 for number in self._record.numbers(past)] for past in pasts]

    def _inputs(self, rows: Sequence[Row]) -> tuple[Tensor, ...]:
        """Features int [batch, most of a patient + 1], 0 where there are no more."""
        return (pad_sequence([torch.tensor([*row, 0]) for row in rows], batch_first=True),)

"""Fits a network of `architectures` with binary cross-entropy, stops by validation patients. Knows no other baseline."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from training.baselines.architectures import ARCHITECTURES, VisitClassifier
from training.baselines.samples import index_of, last_visit, samples, truth_of
from training.rank.cut import recall_at_20

log = logging.getLogger(__name__)

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
    """At most so many; the pass with the best recall@20 on validation patients is kept."""
    patience: int = 4
    """Passes without a better one before it stops."""

    def __post_init__(self) -> None:
        if self.width % 8 or self.width <= 0 or self.passes < 1 or not 0 <= self.dropout < 1:
            raise InputError(f"A baseline can't be built like this: {self}.")


class NeuralBaseline:
    """One network of the field on codes alone, no profile: fitted with BCE over the label space.

    scores are logits. The same seed gives the same scores. Without validation patients every pass is made and the last
    is kept.
    """

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
        self.passes_made = 0
        self._codes: dict[Code, int] = {}
        self._network: VisitClassifier | None = None

    @property
    def settings(self) -> dict[str, float | int | str]:
        return asdict(self.chosen)

    def fit(self, patients: Sequence[Patient], validation: Sequence[Patient] = ()) -> NeuralBaseline:
        pairs, index = samples(patients), index_of(self.labels)
        known = sorted({code for past, _ in pairs for visit in past for code in visit.codes})
        self._codes = {code: number for number, code in enumerate(known, 1)}
        wanted = [[index[code] for code in set(target.codes) if code in index] for _, target in pairs]
        truth = truth_of(validation, self.labels) if validation else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = self._built(wanted)
            optimiser = torch.optim.AdamW(
                network.parameters(), lr=self.chosen.learning_rate, weight_decay=self.chosen.weight_decay
            )
            best, best_recall, self.passes_made = None, -1.0, 0
            for number in range(1, self.chosen.passes + 1):
                loss = self._pass(network, optimiser, [past for past, _ in pairs], wanted)
                if truth is None:
                    self.passes_made = number
                    continue
                self._network = network
                recall = recall_at_20(self.scores(validation), truth)
                log.info(
                    "%s, pass %d: loss %.5f, recall@20 %.4f on validation patients", self.name, number, loss, recall
                )
                if recall > best_recall:
                    best, best_recall, self.passes_made = copy.deepcopy(network.state_dict()), recall, number
                elif number - self.passes_made >= self.chosen.patience:
                    break
            if best is not None:
                network.load_state_dict(best)
        self._network = network.eval()
        return self

    def _built(self, wanted: Sequence[Sequence[int]]) -> VisitClassifier:
        """A network whose output starts at the labels' base rates."""
        kind = ARCHITECTURES[self.architecture]
        network = kind(len(self._codes), len(self.labels), self.chosen.width, self.chosen.dropout)
        counts = np.bincount([label for labels in wanted for label in labels], minlength=len(self.labels))
        with torch.no_grad():
            network.embedding.weight.mul_(0.1)
            network.output.bias.copy_(torch.from_numpy((counts + 0.5) / (len(wanted) + 1)).float().logit())
        return network

    def _pass(self, network, optimiser, pasts: Sequence[Sequence[Visit]], wanted: Sequence[Sequence[int]]) -> float:
        """One pass over all samples in batches of like length; returns the mean loss a sample."""
        network.train()
        order = torch.randperm(len(pasts)).tolist()
        pool, batches = BATCH * 20, []
        for begin in range(0, len(order), pool):
            chunk = sorted(order[begin : begin + pool], key=lambda i: len(pasts[i]))
            batches += [chunk[i : i + BATCH] for i in range(0, len(chunk), BATCH)]
        total = 0.0
        for number in torch.randperm(len(batches)).tolist():
            rows = batches[number]
            target = torch.zeros(len(rows), len(self.labels))
            for row, sample in enumerate(rows):
                target[row, wanted[sample]] = 1.0
            logits = network(*self._inputs([pasts[sample] for sample in rows]))
            loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(rows)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            total += loss.item() * len(rows)
        return total / len(pasts)

    @torch.inference_mode()
    def scores(self, patients: Sequence[Patient]) -> np.ndarray:
        if self._network is None:
            raise InputError(f"The baseline {self.name} was not fitted yet.")
        self._network.eval()
        pasts = [last_visit(patient)[0] for patient in patients]
        out = np.empty((len(pasts), len(self.labels)), np.float32)
        order = sorted(range(len(pasts)), key=lambda i: len(pasts[i]))
        for begin in range(0, len(order), 256):
            rows = order[begin : begin + 256]
            out[rows] = self._network(*self._inputs([pasts[row] for row in rows])).numpy()
        return out

    def _inputs(self, pasts: Sequence[Sequence[Visit]]) -> tuple[Tensor, Tensor]:
        """Codes int [batch, visits, codes], 0 where there is none or it is unknown, and the number of visits [batch]."""
        known = [
            [[self._codes[code] for code in visit.codes if code in self._codes] for visit in past[-MOST_VISITS:]]
            for past in pasts
        ]
        visits = max(map(len, known))
        widest = max((len(codes) for past in known for codes in past), default=0)
        codes = torch.zeros(len(known), visits, max(widest, 1), dtype=torch.long)
        for row, past in enumerate(known):
            for place, numbers in enumerate(past):
                codes[row, place, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        return codes, torch.tensor([len(past) for past in known])

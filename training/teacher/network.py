"""The teacher: a network on a bag of features, which learns what comes next and, from every visit, what stands beside what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mera_core.common.schema import checked
from training.common.config import Amount, Count, Names, Part, Positive
from training.teacher.features import Features, Record

SKIP_RATE = 0.3  # share of the learning rate of the linear part, which has a number for every feature and label
WARMUP = 100  # steps


@checked
class TeacherConfig:
    """What a teacher is made of."""

    seed: int = 1
    """Seed of every draw."""
    folds: Count = 5
    """Parts of the training patients; nobody is taught by a network that has seen them."""
    networks: Count = 3
    """Networks a fold, whose logits are averaged."""
    detail_tokens: Names = ()
    """Keys of the details that the networks are told, as the student's setting of that name."""
    width: Count = 256
    """Width of the sum of features."""
    hidden_size: Count = 512
    """Width of the layer after it."""
    epochs: Count = 8
    """How often each next visit is seen."""
    batch_size: Count = 128
    """Histories a step, and as many visits of which the rest is asked."""
    learning_rate: Positive = 1e-3
    """Peak of AdamW's cosine schedule."""
    weight_decay: Amount = 0.03
    """AdamW's decoupled decay."""
    dropout: Part = 0.3
    """Of the two layers."""
    feature_dropout: Part = 0.2
    """Probability of leaving a feature out of the input."""
    rest_weight: Amount = 1.0
    """Weight of the rest of a visit from some of its codes, asked of every patient."""


@dataclass(frozen=True)
class Lessons:
    """What a network learns from. next_visits: (record, visits seen); rest: (record, visits) of two codes or more."""

    next_visits: Sequence[tuple[Record, int]]
    rest: Sequence[tuple[Record, int]]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Lessons:
        return cls(
            [(r, t) for r in records for t in range(1, len(r.codes)) if r.codes[t]],
            [(r, t) for r in records for t in range(1, len(r.codes) + 1) if len(r.codes[t - 1]) > 1],
        )


class Teacher(nn.Module):
    """Logits [N, C] of the next visit from bags of features; with `rest`, of the rest of the newest visit."""

    def __init__(self, features: int, labels: int, config: TeacherConfig):
        super().__init__()
        self.sum = nn.EmbeddingBag(features, config.width, mode="sum")
        nn.init.normal_(self.sum.weight, std=0.05)
        self.norm, self.hidden = nn.LayerNorm(config.width), nn.Linear(config.width, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, labels)
        nn.init.normal_(self.output.weight, std=0.01)
        self.rest_bias = nn.Parameter(torch.zeros(labels))
        self.skip = nn.EmbeddingBag(features, labels, mode="sum")
        nn.init.zeros_(self.skip.weight)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, bag: tuple[Tensor, Tensor], rest: bool = False) -> Tensor:
        state = self.dropout(F.gelu(self.norm(self.sum(*bag))))
        logits = self.output(self.dropout(F.gelu(self.hidden(state))))
        return logits + self.rest_bias if rest else logits + self.skip(*bag)


def fit(features: Features, records: Sequence[Record], config: TeacherConfig, seed: int) -> Teacher:
    """One network, fitted to every (history, next visit) of the records and to the rest of every visit."""
    torch.manual_seed(seed)
    draw, lessons, labels = np.random.default_rng(seed), Lessons.of(records), len(features.labels)
    network = Teacher(features.size, labels, config)
    counts = np.bincount([c for r, t in lessons.next_visits for c in r.codes[t]], minlength=labels)
    with torch.no_grad():
        network.output.bias.copy_(torch.from_numpy(np.log((counts + 0.5) / (len(lessons.next_visits) + 1))))
    linear = list(network.skip.parameters())
    others = [p for name, p in network.named_parameters() if not name.startswith("skip")]
    groups = [{"params": others, "share": 1.0}, {"params": linear, "share": SKIP_RATE}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    inputs = [features.of(record, visits) for record, visits in lessons.next_visits]
    size = min(config.batch_size, len(inputs))
    a_pass = len(inputs) // size
    total = a_pass * config.epochs
    for step in range(total):
        if step % a_pass == 0:
            order = draw.permutation(len(inputs))
        rows = order[step % a_pass * size : (step % a_pass + 1) * size]
        bags = [_thinned(inputs[row], config.feature_dropout, draw) for row in rows]
        targets = [lessons.next_visits[row][0].codes[lessons.next_visits[row][1]] for row in rows]
        loss = _loss(network(bag_of(bags)), targets)
        if config.rest_weight and lessons.rest:
            bags, targets = _rests(features, lessons, size, draw)
            loss = loss + config.rest_weight * _loss(network(bag_of(bags), rest=True), targets)
        rate = config.learning_rate * min(1, (step + 1) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / total))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def bag_of(features: Sequence[Sequence[int] | np.ndarray]) -> tuple[Tensor, Tensor]:
    """Indices, one after the other, and where each history's begin."""
    sizes = np.cumsum([0, *(len(each) for each in features[:-1])])
    flat = np.concatenate([np.asarray(each, np.int64) for each in features])
    return torch.from_numpy(flat), torch.from_numpy(sizes)


def _rests(features: Features, lessons: Lessons, size: int, draw: np.random.Generator):
    """Histories whose newest visit lost some of its codes, and the codes that it lost."""
    bags, targets = [], []
    for row in draw.integers(0, len(lessons.rest), size):
        record, visits = lessons.rest[row]
        codes = draw.permutation(record.codes[visits - 1])
        kept = draw.integers(1, len(codes))
        bags.append(features.of(record, visits, codes[:kept].tolist()))
        targets.append(codes[kept:].tolist())
    return bags, targets


def _thinned(features: Sequence[int], share: float, draw: np.random.Generator) -> np.ndarray:
    kept = np.asarray(features)[draw.random(len(features)) >= share]
    return kept if len(kept) else np.asarray(features[:1])


def _loss(logits: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """Binary cross-entropy, summed over labels, mean over histories."""
    positive = torch.zeros_like(logits)
    for row, codes in enumerate(targets):
        positive[row, list(codes)] = 1
    return F.binary_cross_entropy_with_logits(logits, positive, reduction="sum") / len(targets)

"""The usual way to train and use a language model here, for comparison: next-code cross-entropy, greedy decoding.

One sample a (history, next visit): the history, the next visit's codes, EOV; a softmax over label space and EOV at each
place (the paper's "sparse CE"). The list is decoded until EOV, or read off the first place, as MERA does (docs/method.md,
"Output"). Knows no hierarchy and no threshold.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mera_core.cohort.targets import before_last
from mera_core.engine import Engine
from mera_core.history.records import Patient
from mera_core.model.network import SEEN_FEATURES, MeraModel
from mera_core.model.recall import right_padded
from mera_core.model.recurrence import seen_features
from mera_core.model.sequence import Encoded, Encoder
from training.common.config import RankConfig
from training.memorize.loss import answer_loss
from training.memorize.questions import QuestionSampler
from training.rank import run as rank
from training.rank.batches import HistoryBatches
from training.rank.setup import Setup

MOST_CODES = 40  # of a decoded visit


class SequenceBatches(HistoryBatches):
    """Item i is the whole batch of step i: histories that each go on with the next visit's codes and EOV."""

    def __init__(self, patients, labels, encoder, config: RankConfig, questions: QuestionSampler | None = None):
        config = replace(config, prefix_samples=True, start_weight=0.0, rest_weight=0.0, batches="by_visits")
        super().__init__(patients, labels, encoder, config, questions, parts=1)

    def collate(self, patients: Sequence[Patient], rng: random.Random, part: int = 0) -> dict[str, Tensor]:
        """`input_ids` [B, T], `row`, `position`, `target` [N] (a label, or the number of labels for EOV), `seen`."""
        ids, row, position, target, seen = [], [], [], [], []
        for number, patient in enumerate(patients):
            history = before_last(patient)
            encoded = self.encoder.encode(history, rng if self.config.shuffle else None, self.config.drop)
            codes = [code for code in patient.visits[-1].codes if code in self.index]
            if self.config.shuffle:
                rng.shuffle(codes)
            features = seen_features(history.visits, self.index)
            begin = len(encoded.input_ids) - 1
            for place, label in enumerate([*(self.index[code] for code in codes), len(self.index)]):
                seen += [[len(target), *one] for one in features]
                row.append(number)
                position.append(begin + place)
                target.append(label)
            ids.append([*encoded.input_ids, *(self.encoder.vocabulary.ids[code] for code in codes)])
        padded, _ = right_padded(ids, self.encoder.vocabulary.pad)
        return {
            "input_ids": padded,
            "row": torch.tensor(row),
            "position": torch.tensor(position),
            "target": torch.tensor(target),
            "seen": torch.tensor(seen) if seen else torch.zeros(0, 2 + len(SEEN_FEATURES)),
        }


def sequence_loss(model: MeraModel, batch: dict, config: RankConfig) -> Tensor:
    """Mean cross-entropy of the next token over label space and EOV, plus the rehearsal of stage 1."""
    questions = batch.get("questions", [])
    hidden, *recalled = model.hidden_of_parts([batch["input_ids"], *(part["input_ids"] for part in questions)])
    scores, eov = model.scores(hidden[batch["row"], batch["position"]], batch["seen"])
    loss = F.cross_entropy(torch.cat([scores, eov[:, None]], 1), batch["target"])
    if questions:
        loss = loss + config.rehearsal_weight * answer_loss(model, batch, recalled)
    return loss


def train(setup: Setup, out: Path) -> None:
    """Train the setup's model by next-code cross-entropy; fit a cut to its first-place scores. In place."""
    config, model = setup.config, setup.engine.model
    encoder = Encoder(model.vocabulary, setup.manifest.sequence, remember=True)
    data = SequenceBatches(setup.parts["train"], setup.counts.labels, encoder, config, setup.questions)
    rank.train(setup, data, out, lambda m, batch: sequence_loss(m, batch, config))
    rank.cut(setup)


@torch.inference_mode()
def decode(engine: Engine, histories: Sequence[tuple[Patient, Encoded]], batch_size: int = 64) -> list[list[int]]:
    """Greedy codes of each history's next visit, as label indices in the order decoded; no code twice, EOV ends it."""
    room = engine.manifest["sequence"]["max_tokens"]
    model, index = engine.model, {code: label for label, code in enumerate(engine.label_space)}
    out: list[list[int]] = [[] for _ in histories]
    order = sorted(range(len(histories)), key=lambda i: len(histories[i][1].input_ids))
    for begin in range(0, len(order), batch_size):
        going = order[begin : begin + batch_size]
        tokens = {i: list(histories[i][1].input_ids) for i in going}
        for _ in range(MOST_CODES):
            ids, ends = right_padded([tokens[i] for i in going], model.vocabulary.pad)
            hidden = model.hidden(ids.to(model.device))[torch.arange(len(going)), ends]
            seen = [[n, *one] for n, i in enumerate(going) for one in seen_features(histories[i][0].visits, index)]
            scores, eov = model.scores(hidden, torch.tensor(seen, device=model.device) if seen else None)
            for n, i in enumerate(going):
                scores[n, out[i]] = -torch.inf
            best, label = scores.max(1)
            still = []
            for n, i in enumerate(going):
                if best[n] > eov[n]:
                    out[i].append(int(label[n]))
                    tokens[i].append(int(model.label_ids[label[n]]))
                    still.append(i)
            going = [i for i in still if len(tokens[i]) < room]
            if not going:
                break
    return out


def as_scores(decoded: Sequence[Sequence[int]], n_labels: int) -> np.ndarray:
    """Decoded lists as scores [N, n_labels]: falling along the list, -inf for codes that were not decoded."""
    scores = np.full((len(decoded), n_labels), -np.inf)
    for row, labels in enumerate(decoded):
        scores[row, list(labels)] = -np.arange(len(labels), dtype=float)
    return scores

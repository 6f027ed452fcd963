"""Networks of the field that read visits as sets of codes: codes in, logits over the label space out. Fits nothing.

Each takes `codes` int [batch, visits, codes] (0 pads) and `visits` int [batch], how many of them are real (the real
ones come first), and gives logits [batch, labels]. Time between visits is left out: not every source has dates. Last comes
one that reads numbers of features instead: codes and all that the record says beside them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VisitClassifier(nn.Module):
    """What they share: a visit is the sum of its codes' embeddings, and the output is linear in a state."""

    def __init__(self, n_codes: int, n_labels: int, width: int, dropout: float):
        super().__init__()
        self.embedding = nn.Embedding(n_codes + 1, width, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, n_labels)

    def forward(self, codes: Tensor, visits: Tensor) -> Tensor:
        real = torch.arange(codes.shape[1])[None] < visits[:, None]
        return self.output(self.dropout(self.state(self.dropout(self.embedding(codes).sum(2)), visits, real)))

    def state(self, seen: Tensor, visits: Tensor, real: Tensor) -> Tensor:
        """Visit embeddings [B, T, W] and which are real [B, T] -> the patient's state [B, W]."""
        raise NotImplementedError


class Factorised(VisitClassifier):
    """A low-rank table of "this code before, that code next": older visits count by a learned decay."""

    def __init__(self, n_codes: int, n_labels: int, width: int, dropout: float):
        super().__init__(n_codes, n_labels, width, dropout)
        self.decay = nn.Parameter(torch.zeros(width))

    def state(self, seen: torch.Tensor, visits: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        age = (visits[:, None] - 1 - torch.arange(seen.shape[1])[None]).clamp_min(0)
        return (seen * torch.sigmoid(self.decay + 1) ** age[:, :, None] * real[:, :, None]).sum(1)


class Recurrent(VisitClassifier):
    """A GRU over the visits; its last state."""

    def __init__(self, n_codes: int, n_labels: int, width: int, dropout: float):
        super().__init__(n_codes, n_labels, width, dropout)
        self.gru = nn.GRU(width, width, batch_first=True)

    def state(self, seen: torch.Tensor, visits: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return last(self.gru(seen)[0], visits)


class Attention(VisitClassifier):
    """A transformer encoder over the visits, numbered from the newest back; the state at the newest."""

    def __init__(self, n_codes: int, n_labels: int, width: int, dropout: float):
        super().__init__(n_codes, n_labels, width, dropout)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.place = nn.Embedding(32, width)

    def state(self, seen: torch.Tensor, visits: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        age = (visits[:, None] - 1 - torch.arange(seen.shape[1])[None]).clamp(0, 31)
        return last(self.encoder(seen + self.place(age), src_key_padding_mask=~real), visits)


class Retain(VisitClassifier):
    """RETAIN (Choi et al. 2016): two GRUs read the visits backwards and weigh each visit and each of its dimensions."""

    def __init__(self, n_codes: int, n_labels: int, width: int, dropout: float):
        super().__init__(n_codes, n_labels, width, dropout)
        self.visit_gru = nn.GRU(width, width, batch_first=True)
        self.feature_gru = nn.GRU(width, width, batch_first=True)
        self.visit_weight, self.feature_weight = nn.Linear(width, 1), nn.Linear(width, width)

    def state(self, seen: torch.Tensor, visits: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        back = reversed_visits(seen, visits)
        weight = self.visit_weight(reversed_visits(self.visit_gru(back)[0], visits))
        weight = weight.masked_fill(~real[:, :, None], -torch.inf).softmax(1)
        gate = torch.tanh(self.feature_weight(reversed_visits(self.feature_gru(back)[0], visits)))
        return (weight * gate * seen).sum(1)


class Dipole(VisitClassifier):
    """Dipole (Ma et al. 2017): a two-way GRU, and general attention of the newest visit over those before it."""

    def __init__(self, n_codes: int, n_labels: int, width: int, dropout: float):
        super().__init__(n_codes, n_labels, width, dropout)
        self.forward_gru = nn.GRU(width, width // 2, batch_first=True)
        self.backward_gru = nn.GRU(width, width // 2, batch_first=True)
        self.score = nn.Linear(width, width, bias=False)
        self.join = nn.Linear(2 * width, width)

    def state(self, seen: torch.Tensor, visits: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        back = reversed_visits(self.backward_gru(reversed_visits(seen, visits))[0], visits)
        states = torch.cat([self.forward_gru(seen)[0], back], 2)
        newest = last(states, visits)
        older = real & (torch.arange(seen.shape[1])[None] < visits[:, None] - 1)
        score = (self.score(states) * newest[:, None]).sum(2).masked_fill(~older, -1e9)
        weight = score.softmax(1) * older.any(1)[:, None]  # a patient of one visit has nothing to attend to
        return torch.tanh(self.join(torch.cat([(weight[:, :, None] * states).sum(1), newest], 1)))


ARCHITECTURES = {
    "factorised": Factorised,
    "GRU": Recurrent,
    "transformer": Attention,
    "RETAIN": Retain,
    "Dipole": Dipole,
}


class BagOfFeatures(nn.Module):
    """Two hidden layers over a bag of features, the second twice as wide, beside a linear table of features by labels.

    forward: features int [batch, most features] from 1, 0 where there are no more -> logits [batch, labels].
    """

    def __init__(self, n_features: int, n_labels: int, width: int, dropout: float):
        super().__init__()
        self.embedding = nn.EmbeddingBag(n_features + 1, width, mode="sum", padding_idx=0)
        self.linear = nn.EmbeddingBag(n_features + 1, n_labels, mode="sum", padding_idx=0)
        self.hidden = nn.Sequential(
            nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout)
        )
        self.output = nn.Linear(2 * width, n_labels)
        nn.init.zeros_(self.linear.weight)

    def forward(self, features: Tensor) -> Tensor:
        return self.output(self.hidden(self.embedding(features))) + self.linear(features)


def last(states: Tensor, visits: Tensor) -> Tensor:
    """The state at each patient's newest visit: [B, T, W] -> [B, W]."""
    return states[torch.arange(len(states)), visits - 1]


def reversed_visits(seen: Tensor, visits: Tensor) -> Tensor:
    """Each patient's real visits in reverse order; padding stays at the end."""
    place = torch.arange(seen.shape[1])[None]
    order = torch.where(place < visits[:, None], visits[:, None] - 1 - place, place)
    return seen.gather(1, order[:, :, None].expand_as(seen))

"""Scores -> the best codes of many histories as columns: what `Engine.rank` says of each. Arrays only; no model, no files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mera_core.ranking.ranking import in_order


@dataclass(frozen=True)
class Lists:
    """The lists of some histories one after the other, best first: k rows, each array [k].

    row: index of the history. place: in its list, from 0. label: index into the label space. score, share: as in `Ranking`.
    above: the code is predicted. probability: None where there is no calibration.
    """

    row: np.ndarray
    place: np.ndarray
    label: np.ndarray
    score: np.ndarray
    share: np.ndarray
    above: np.ndarray
    probability: np.ndarray | None


def best(scores: np.ndarray, eov: np.ndarray, ranked: np.ndarray, probability: np.ndarray | None, top: int) -> Lists:
    """The `top` best codes of each history, all above the cut-off where these are more.

    Args:
        scores: [N, C] logits. eov: [N] end-of-visit logits. ranked, probability: [N, C], as `Engine.ranked` and
            `Engine.probability` give them.
    """
    order = in_order(ranked)
    predicted = (ranked > eov[:, None]).sum(1)
    sizes = np.minimum(np.maximum(predicted, top), ranked.shape[1])
    row = np.repeat(np.arange(len(ranked)), sizes)
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    label = order[row, place]
    own = None if probability is None else probability[row, label]
    return Lists(row, place, label, ranked[row, label], shares(scores)[row, label], place < predicted[row], own)


def shares(scores: np.ndarray) -> np.ndarray:
    """Softmax of each row [N, C], as `Ranking.share`."""
    mass = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
    return mass / mass.sum(1, keepdims=True)

"""Scores -> a ranked, cut list of codes. Arrays and codes in, a Ranking out; knows nothing of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mera_core.history.records import Note
from mera_core.icd.ontology import Code, Ontology

NOTICE = "Research use, not for clinical decisions."
ORDERS = {
    "probability": "by each code's own probability at the next visit",
    "f1": "a list made for weighted F1: by how far each code passes a threshold of its own",
}
"""What a list can be ordered by, the default first."""


def by_probability(log_odds: np.ndarray, eov: np.ndarray, cut: float = 0.0) -> np.ndarray:
    """The scores that a list is sorted by: the log odds of each code's own probability, moved so that the cut is at EOV.

    Args:
        log_odds: [N, C], which rise strictly with each code's margin (`Calibrations.logit`), so that codes share a place
            only by chance. eov: [N] end-of-visit logits. cut: the log odds above which a code is predicted.

    Returns:
        [N, C] float64: above `eov` exactly for predicted codes.
    """
    return log_odds - cut + eov[:, None]


def for_weighted_f1(
    scores: np.ndarray, eov: np.ndarray, offset: np.ndarray | float = 0.0, order_offset: np.ndarray | float = 0.0
) -> np.ndarray:
    """The scores of a list made for weighted F1 (the order "f1"), so that one cut at EOV divides it.

    With `m = s - s_EOV`, a code is predicted when `m > offset_c`, a threshold of its own that is fitted on validation
    patients and travels with the checkpoint. Predicted codes are ordered by `m - offset_c`, all others by
    `m - order_offset_c`: the cut-off weighs a code's frequency more than the order below it does, because F1 and recall ask
    for different things. Rare codes can stand above likelier ones. Monotone in `s` for each code.

    Args:
        scores: [N, C] logits. eov: [N] end-of-visit logits. offset, order_offset: [C] or a number.

    Returns:
        [N, C] float64, on the scale of the logits: above `eov` exactly for predicted codes.
    """
    margin = scores.astype(np.float64) - eov[:, None]
    above = margin - offset
    ranked = np.where(above > 0, above, -np.logaddexp(0.0, order_offset - margin))
    return ranked + eov[:, None]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The whole label space for one patient, best first; equal scores stand in the order of their codes.

    codes: C codes. scores: [C], falling. cut: the end-of-visit score; codes above it are predicted. share: [C], the
    softmax of the logits over the label space: a share of ranking mass, not a probability. recurrent: [C] bool, the
    history already holds the code (at this granularity). probability: [C], each code's own, only where the checkpoint is
    calibrated; it falls down the list in the default order. order: what the list is ordered by, a key of `ORDERS`.
    """

    codes: tuple[Code, ...]
    scores: np.ndarray
    cut: float
    share: np.ndarray
    recurrent: np.ndarray
    checkpoint: str
    label_level: str
    ontology: Ontology = field(repr=False)
    notes: tuple[Note, ...] = ()
    probability: np.ndarray | None = None
    order: str = "probability"

    @cached_property
    def predicted(self) -> int:
        """Number of codes above the cut-off."""
        return int((self.scores > self.cut).sum())

    def to_frame(self) -> pd.DataFrame:
        """One row per code of the label space, best first."""
        frame = pd.DataFrame(
            {
                "rank": np.arange(1, len(self.codes) + 1),
                "code": [code.code for code in self.codes],
                "system": [code.system for code in self.codes],
                "definition": [self.ontology.definition(code) for code in self.codes],
                "chapter": [self.ontology.definition(self.ontology.chapter(code)) for code in self.codes],
                "score": self.scores,
                "share": self.share,
                "above_cut": self.scores > self.cut,
                "recurrent": self.recurrent,
            }
        )
        if self.probability is not None:
            frame.insert(7, "probability", self.probability)
        return frame

    def to_json(self, top: int | None = None) -> dict[str, Any]:
        """The result as `python -m mera_core rank --json` prints it; `top` rows, or all."""
        rows = []
        for place, code in enumerate(self.codes[:top]):
            row = {
                "rank": place + 1,
                "system": code.system,
                "code": code.code,
                "definition": self.ontology.definition(code),
                "score": round(float(self.scores[place]), 6),
                "share": round(float(self.share[place]), 8),
                "above_cut": bool(self.scores[place] > self.cut),
                "recurrent": bool(self.recurrent[place]),
            }
            if self.probability is not None:
                row["probability"] = round(float(self.probability[place]), 6)
            rows.append(row)
        return {
            "checkpoint": self.checkpoint,
            "label_level": self.label_level,
            "order": self.order,
            "predicted": self.predicted,
            "cut": round(float(self.cut), 6),
            "ranking": rows,
            "notes": [
                {"kind": note.kind, "message": note.message, "visit": note.visit, "code": note.code}
                for note in self.notes
            ],
            "notice": NOTICE,
        }


def best_first(scores: np.ndarray, labels: Sequence[Code]) -> np.ndarray:
    """Order [C] of the label space, best first; `labels` are sorted, so a stable sort breaks ties by code."""
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores for {len(labels)} labels.")
    return in_order(scores[None])[0]


def in_order(ranked: np.ndarray) -> np.ndarray:
    """Labels [N, C] of each row of scores, best first and equal ones by label.

    numpy sorts several times as fast where equal values may stand in any order, so only rows that have some are sorted again.
    """
    order = np.argsort(-ranked, axis=1)
    found = ranked[np.arange(len(ranked))[:, None], order]
    tied = (found[:, 1:] == found[:, :-1]).any(1)
    if tied.any():
        order[tied] = np.argsort(-ranked[tied], axis=1, kind="stable")
    return order

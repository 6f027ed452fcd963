"""What a baseline may be tuned for: recall@20 of whole lists, or of new codes in lists without the history's."""

from __future__ import annotations

from enum import Enum

import numpy as np

from mera_core.evaluation import metrics
from mera_core.evaluation.truth import Truth
from training.rank.cut import recall_at_20


class Goal(Enum):
    """A figure of validation patients, by which settings and passes are chosen; its value names it in a table."""

    WHOLE_LIST = "recall@20"
    NEW_ONLY = "new_only_recall@20"

    def reached(self, scores: np.ndarray, truth: Truth) -> float:
        """The figure of scores [patients, labels]."""
        return recall_at_20(*(metrics.new_only(scores, truth) if self is Goal.NEW_ONLY else (scores, truth)))


WHOLE_LIST, NEW_ONLY = GOALS = tuple(Goal)

"""How far two rankings of the same patients agree. Knows orders of labels; measures no time."""

from __future__ import annotations

import numpy as np

LISTED = 20
"""Codes whose place on the list counts most: as many as recall@20 looks at."""


def in_common(ours: np.ndarray, theirs: np.ndarray, first: int = LISTED) -> float:
    """Share of the first codes of each list [N, C], best first, that is among the first of the other; mean over patients."""
    pairs = zip(ours[:, :first], theirs[:, :first], strict=True)
    return round(float(np.mean([len({*one} & {*other}) / len(one) for one, other in pairs])), 4)


def rank_correlation(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Spearman's correlation of the places of all labels on two lists [N, C], best first; mean over patients.

    Examples:
        >>> rank_correlation(np.array([[2, 0, 1]]), np.array([[2, 0, 1]]))
        1.0
        >>> rank_correlation(np.array([[0, 1, 2]]), np.array([[2, 1, 0]]))
        -1.0
    """
    labels = ours.shape[1]
    apart = (np.argsort(ours, 1) - np.argsort(theirs, 1)).astype(np.float64)
    return round(float(np.mean(1 - 6 * (apart**2).sum(1) / (labels * (labels**2 - 1)))), 4)

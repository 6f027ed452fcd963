"""What a ranking is judged against: labels of target visits and of the histories before them, as matrices.

Knows patients as rows and labels as columns; nothing of codes, scores or models.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from mera_core.common.errors import InputError


@dataclass(frozen=True, eq=False)
class Truth:
    """What the target visits held, and what the patients' histories held before.

    positive: 0/1 csr [patients, labels], the labels of the target visit. seen: the same of the input visits.
    missing: int [patients], true codes outside the label space; missing_seen: those that the history held.
    """

    positive: sparse.csr_matrix
    seen: sparse.csr_matrix
    missing: np.ndarray
    missing_seen: np.ndarray

    @classmethod
    def from_sets(
        cls,
        targets: Sequence[Collection[int]],
        seen: Sequence[Collection[int]],
        n_labels: int,
        missing: Sequence[int] | None = None,
        missing_seen: Sequence[int] | None = None,
    ) -> Truth:
        """From one collection of label indices a patient; indices named twice count once."""
        n = len(targets)
        given = (
            seen,
            missing if missing is not None else targets,
            missing_seen if missing_seen is not None else targets,
        )
        if any(len(column) != n for column in given):
            raise InputError("Targets, seen labels and missing counts must be of the same patients.")
        zeros = np.zeros(n, np.int64)
        return cls(
            rows_of_labels(targets, n_labels),
            rows_of_labels(seen, n_labels),
            zeros if missing is None else np.asarray(missing, np.int64),
            zeros if missing_seen is None else np.asarray(missing_seen, np.int64),
        )

    def __len__(self) -> int:
        return self.positive.shape[0]

    @property
    def size(self) -> np.ndarray:
        """int [patients]: how many codes the target visit holds, in the label space or not."""
        return np.diff(self.positive.indptr) + self.missing

    @property
    def recurrent(self) -> Truth:
        """The same patients with only the true codes that their history held."""
        return Truth(as_csr(self.positive.multiply(self.seen)), self.seen, self.missing_seen, self.missing_seen)

    @property
    def new_onset(self) -> Truth:
        """The same patients with only the true codes that their history did not hold."""
        fresh = as_csr(self.positive - self.positive.multiply(self.seen))
        return Truth(fresh, self.seen, self.missing - self.missing_seen, np.zeros_like(self.missing))

    def take(self, rows: np.ndarray) -> Truth:
        """The patients at a mask or at indices."""
        return Truth(self.positive[rows], self.seen[rows], self.missing[rows], self.missing_seen[rows])


def rows_of_labels(sets: Sequence[Collection[int]], n_labels: int) -> sparse.csr_matrix:
    """Collections of label indices as a 0/1 csr matrix [len(sets), n_labels], indices rising within a row."""
    rows = [sorted(set(labels)) for labels in sets]
    if any(row and not 0 <= row[0] <= row[-1] < n_labels for row in rows):
        raise InputError(f"A label index lies outside 0 to {n_labels - 1}.")
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    indices = np.array([label for row in rows for label in row], np.int64)
    return sparse.csr_matrix((np.ones(len(indices)), indices, indptr), (len(rows), n_labels))


def as_csr(matrix: Any) -> sparse.csr_matrix:
    """The matrix as csr with sorted indices and no stored zeros."""
    matrix = sparse.csr_matrix(matrix)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix

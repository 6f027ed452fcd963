"""Rows of an output table, picked by token id. Knows tensors; nothing of networks or codes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


def picked(weight: Tensor, token_ids: Tensor | slice) -> Tensor:
    """Rows [K, H] of a table [V, H]; a slice of it is no copy."""
    if isinstance(token_ids, slice):
        return weight[token_ids]
    # of the ways to pick rows the quickest, forward and backward: three times as quick as indexing
    return nn.functional.embedding(token_ids, weight)


@dataclass(frozen=True, eq=False)
class KeptRows:
    """Rows [K, H] of a table that are asked for again and again, kept for as long as nobody writes to the table.

    A product with one state takes less time than the copy of its rows. A write is whatever torch counts as one, such as
    `load_state_dict`, or new storage. It counts neither the step of a fused optimizer, so that a weight that takes
    gradients has no kept rows, nor what is written into `weight.data`.
    """

    rows: Tensor
    version: int
    table: Tensor
    """Shares the weight's storage, so that no other table can come to stand at its address."""

    @classmethod
    def of(cls, weight: Tensor, token_ids: Tensor) -> KeptRows | None:
        """The rows as they stand now; None for a weight that is trained, or does not count its writes, or is made on use."""
        if type(weight) is not nn.Parameter or weight.requires_grad or weight.is_inference():
            return None
        return cls(picked(weight, token_ids), weight._version, weight.detach())

    def hold(self, weight: Tensor) -> bool:
        """Whether they are still those of this weight."""
        return (
            type(weight) is nn.Parameter
            and not weight.requires_grad
            and weight.data_ptr() == self.table.data_ptr()
            and weight._version == self.version
        )

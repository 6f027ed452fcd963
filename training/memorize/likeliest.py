"""The likeliest of very many tokens for very many states: a rough look at all of them, an exact one where it matters.

On a processor that multiplies bfloat16 several times as fast as float32 the rough look is in bfloat16. A bound on its error
says whether another block of tokens than the first can hold the likeliest; where one can, all logits are computed exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mera_core.model.network import MeraModel

LOGITS_AT_ONCE = 2**26
"""Logits that are held at a time: 256 MB in float32, whatever the number of codes."""
BLOCK = 64
"""Tokens that are told apart exactly once a rough look has found their block: neighbours in the book look alike."""
BLOCKS_AT_ONCE, STATES_AT_ONCE = 32, 512
"""Of one product: what it gives, 2 MB in bfloat16, is read again while the processor still has it at hand."""
ROUNDING = torch.finfo(torch.bfloat16).eps / 2


def likeliest(model: MeraModel, states: Tensor, among: slice, against: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The likeliest token of the range `among` for each state [N, H], the first of equals, and its logit: [N] each.

    Args:
        against: [N] logits that are only to be compared with what is found; where they are above all of the range, which
            of it comes first may not be told.
    """
    rows = model.backbone.get_output_embeddings().weight[among]
    if states.dtype != torch.float32 or not rough_look_pays(model, states.device) or len(rows) < BLOCK * BLOCKS_AT_ONCE:
        return _exactly(model, states, among)
    # whole blocks, by copies of the last row: they come after it, and the first of equals counts
    filled = torch.cat([rows, rows[-1:].expand(-len(rows) % BLOCK, -1)])
    rough = filled.bfloat16().split(BLOCK * BLOCKS_AT_ONCE)
    found = [_roughly_first(piece, filled, rough) for piece in states.split(STATES_AT_ONCE)]
    index, height, most = (torch.cat(part) for part in zip(*found, strict=True))
    settled = most < height if against is None else most < torch.maximum(height, against)
    index += among.start
    if not settled.all():
        index[~settled], height[~settled] = _exactly(model, states[~settled], among)
    return index, height


def rough_look_pays(model: MeraModel, device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 faster, and logits are plain products: no bias and no cap."""
    plain = getattr(model.backbone.get_output_embeddings(), "bias", None) is None
    plain &= not getattr(model.text_config, "final_logit_softcapping", None)
    return plain and device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def _exactly(model: MeraModel, states: Tensor, among: slice) -> tuple[Tensor, Tensor]:
    pieces = states.split(max(1, LOGITS_AT_ONCE // max(1, among.stop - among.start)))
    found = [model.logits(piece, among).max(-1) for piece in pieces]
    return torch.cat([one.indices for one in found]) + among.start, torch.cat([one.values for one in found])


def _roughly_first(states: Tensor, rows: Tensor, rough: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Of each state [N, H] the likeliest row in the likeliest block, its logit, and what no other block is above: [N] each.

    Args:
        rows: [K, H], a whole number of blocks. rough: the same in bfloat16, in pieces of whole blocks.
    """
    narrow = states.bfloat16()
    tops = [(narrow @ piece.T).unflatten(1, (-1, BLOCK)).amax(-1) for piece in rough]
    (_, rest), (block, _) = (part.unbind(1) for part in torch.cat(tops, 1).float().topk(2))
    tokens = block[:, None] * BLOCK + torch.arange(BLOCK)
    height, place = (F.embedding(tokens, rows) @ states[..., None])[..., 0].max(-1)
    error = 2.01 * ROUNDING * states.norm(dim=1) * rows.norm(dim=1).max() + 1.01 * ROUNDING * rest.abs()
    return tokens.gather(1, place[:, None])[:, 0], height, rest + error

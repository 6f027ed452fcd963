"""Token sequences -> the state that predicts what comes next, in batches that fit the memory. Knows no patients, no scores.

Variants of a history share its beginning, because a causal model's state never depends on what stands to its right: the
keys and values of the history are computed once, and of each variant only what comes after the place where it parts from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from mera_core.common.errors import InputError
from mera_core.common.faults import is_out_of_memory
from mera_core.common.formatting import counted
from mera_core.model.batching import by_length
from mera_core.model.network import MeraModel
from mera_core.model.recall import right_padded

TOKENS = 8_192
"""Tokens of a batch, at most, with its padding."""
CACHED = 768
"""The same on a CPU: what such a batch passes from layer to layer stays in a core's cache, and more is slower."""
WORTH_SHARING = 0.7
"""Share of the tokens that may be left to compute, at most, for a shared beginning to pay for its cache."""
FEWEST_TO_SAVE = 256
"""Tokens saved, at least: below that a plain batch is as fast."""

Sequences = Sequence[Sequence[int]]
Batches = Iterator[tuple[list[int], Tensor]]
"""Indices of some sequences and their last states [n, H]."""


def in_batches(
    model: MeraModel, sequences: Sequences, batch_size: int, share: bool = True, tokens: int = TOKENS
) -> Batches:
    """Indices of some sequences and their last states [n, H], until every sequence had its turn.

    Batches hold sequences of like length; with `share` what the first sequence and its variants have in common is computed
    once where that pays. A batch that does not fit the memory is halved, and so are those after it; raises InputError where
    half a batch does not fit either.

    Args:
        tokens: most of a batch with its padding; a longer sequence has a batch of its own.
    """
    tokens = min(tokens, CACHED) if model.device.type == "cpu" else tokens
    shared = beginnings(sequences) if share and len(sequences) > 1 else []
    whole = whole_state(model, sequences[0]) if pays(sequences, shared) else None
    if whole is None:
        batches = by_length([len(sequence) for sequence in sequences], batch_size, tokens)
        yield from _halved(batches, lambda rows: _states(model, sequences, rows))
        return
    state, cache = whole
    yield [0], state
    left = [len(sequence) - own for sequence, own in zip(sequences[1:], shared[1:], strict=True)]
    # keys and values of the first one, which each row has a copy of
    batches = by_length(left, max(1, min(batch_size, TOKENS // len(sequences[0]))), tokens)
    variants = [[place + 1 for place in places] for places in batches]
    yield from _halved(variants, lambda rows: _states_after(model, sequences, shared, cache, rows))


def beginnings(sequences: Sequences) -> list[int]:
    """How many tokens each sequence begins with that the first one begins with too; never all of its own."""
    shared = []
    for sequence in sequences:
        most = min(len(sequence) - 1, len(sequences[0]))
        first = sequences[0]
        shared.append(next((i for i in range(most) if sequence[i] != first[i]), most))
    return shared


def pays(sequences: Sequences, shared: Sequence[int]) -> bool:
    """Whether computing the first sequence whole and only the rest of each other saves enough to be worth it."""
    total, saved = sum(map(len, sequences)), sum(shared[1:])
    return saved >= FEWEST_TO_SAVE and total - saved <= WORTH_SHARING * total


def whole_state(model: MeraModel, sequence: Sequence[int]) -> tuple[Tensor, DynamicCache] | None:
    """The last state [1, H] of a sequence and the keys and values of all its tokens; None where a model keeps none."""
    if model.encoder_decoder:
        return None
    out = model.backbone.base_model(input_ids=torch.tensor([list(sequence)], device=model.device), use_cache=True)
    cache = out.past_key_values
    layers = getattr(cache, "layers", None)
    if not isinstance(cache, DynamicCache) or not layers or any(kept_tokens(each) != len(sequence) for each in layers):
        return None  # a window that slid on, or a state instead of keys and values
    return out.last_hidden_state[:, -1], cache


def kept_tokens(layer) -> int:
    """How many tokens a layer of a cache holds keys for."""
    keys = getattr(layer, "keys", None)
    return 0 if keys is None else keys.shape[-2]


def _states(model: MeraModel, sequences: Sequences, rows: Sequence[int]) -> Tensor:
    """Last states [n, H] of whole sequences."""
    if len(rows) == 1:
        return model.hidden(torch.tensor([sequences[rows[0]]], device=model.device))[:, -1]
    ids, ends = right_padded([sequences[i] for i in rows], model.vocabulary.pad)
    return model.hidden(ids.to(model.device))[torch.arange(len(rows)), ends]


def _states_after(
    model: MeraModel, sequences: Sequences, shared: Sequence[int], cache: DynamicCache, rows: Sequence[int]
) -> Tensor:
    """Last states [n, H] of variants that go on from the first `shared` tokens of the sequence in `cache`."""
    device = model.device
    kept = max(shared[i] for i in rows)
    past = _past(model, cache, kept, len(rows))
    ids, ends = right_padded([sequences[i][shared[i] :] for i in rows], model.vocabulary.pad)
    start = torch.tensor([shared[i] for i in rows])[:, None]
    positions = start + torch.arange(ids.shape[1])
    # what the first one goes on with after a variant has parted from it, or a row is padded with, is not the row's past
    visible = torch.cat([torch.arange(kept) < start, torch.ones(ids.shape, dtype=torch.bool)], 1)
    out = model.backbone.base_model(
        input_ids=ids.to(device),
        position_ids=positions.to(device),
        attention_mask=visible.to(device),
        past_key_values=past,
        use_cache=True,
    )
    return out.last_hidden_state[torch.arange(len(rows)), ends]


def _past(model: MeraModel, cache: DynamicCache, tokens: int, rows: int) -> DynamicCache:
    """The keys and values of the first `tokens` of a cached sequence, for each of some rows."""
    past = DynamicCache(config=model.backbone.config)
    for number, layer in enumerate(cache.layers):
        keys, values = layer.keys, layer.values  # type: ignore[union-attr]
        first = slice(0, tokens)
        past.update(keys[:, :, first].expand(rows, -1, -1, -1), values[:, :, first].expand(rows, -1, -1, -1), number)
    return past


def _halved(batches: Sequence[list[int]], states: Callable[[Sequence[int]], Tensor]) -> Batches:
    """`states` of each batch; the first that does not fit the memory is halved, and so are all after it."""
    waiting, most = deque(batches), None
    while waiting:
        rows = waiting.popleft()
        if most and len(rows) > most:
            waiting.extendleft(rows[begin : begin + most] for begin in reversed(range(0, len(rows), most)))
            continue
        try:
            found = states(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            found = None
        if found is None:  # outside of the handler: the exception held on to what did not fit
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if most or len(rows) == 1:
                raise InputError(
                    f"The memory does not suffice for {counted(len(rows), 'history', 'histories')} at a time: "
                    "choose a smaller batch size, or load the model with quantize nf4."
                )
            most = (len(rows) + 1) // 2
            waiting.appendleft(rows)
            continue
        yield rows, found

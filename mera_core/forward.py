"""Token sequences -> the state that predicts what comes next, in batches that fit the memory. Knows no patients, no scores.

Sequences that begin alike (a history and its variants) can share that beginning: the first one is computed whole, and of
each other only what comes after the place where it parts from the first. The keys and values of what stands before are
the same, because a causal model's state never depends on what stands to its right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from mera_core.errors import InputError
from mera_core.model import MeraModel
from mera_core.recall import right_padded

WORTH_SHARING = 0.7
"""Share of the tokens that may be left to compute, at most, for a shared beginning to pay for its cache."""
FEWEST_TO_SAVE = 256
"""Tokens saved, at least: below that a plain batch is as fast."""

GROWTH = 1.4
"""How much longer than the shortest the longest of a batch may be, where beginnings are shared: the rest is padding."""

Sequences = Sequence[Sequence[int]]


def in_batches(
    model: MeraModel, sequences: Sequences, batch_size: int, share: bool = True
) -> Iterator[tuple[list[int], Tensor]]:
    """Indices of some sequences and their last states [n, H], until every sequence had its turn.

    Batches hold sequences of like length; with `share` a common beginning is computed once where that pays. A batch that
    does not fit the memory is halved, and so are those after it; raises InputError where half a batch does not fit either.
    """
    shared = beginnings(sequences)
    if share and pays(sequences, shared) and (whole := whole_state(model, sequences[0])) is not None:
        state, cache = whole
        yield [0], state
        left = [len(sequence) - begun for sequence, begun in zip(sequences, shared, strict=True)]
        order = sorted(range(1, len(sequences)), key=left.__getitem__)
        batches = _like(order, left, batch_size)
        steps = _halved(batches, lambda rows: _states_after(model, cache, sequences, shared, rows))
    else:
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        batches = [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]
        steps = _halved(batches, lambda rows: _states(model, sequences, rows))
    yield from steps


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
    config = model.backbone.config
    if getattr(config, "is_encoder_decoder", False):
        return None
    ids = torch.tensor([list(sequence)], device=model.device)
    out = model.backbone.base_model(input_ids=ids, use_cache=True)
    cache = out.past_key_values
    layers = getattr(cache, "layers", None)
    if (
        not isinstance(cache, DynamicCache)
        or not layers
        or any(kept_tokens(layer) != len(sequence) for layer in layers)
    ):
        return None  # a window that slid on, or a state instead of keys and values
    return out.last_hidden_state[:, -1], cache


def kept_tokens(layer) -> int:
    """How many tokens a layer of a cache holds keys for."""
    keys = getattr(layer, "keys", None)
    return 0 if keys is None else keys.shape[-2]


def _states(model: MeraModel, sequences: Sequences, rows: Sequence[int]) -> Tensor:
    ids, ends = right_padded([sequences[i] for i in rows], model.vocabulary.pad)
    return model.hidden(ids.to(model.device))[torch.arange(len(rows)), ends]


def _states_after(
    model: MeraModel, cache: DynamicCache, sequences: Sequences, shared: Sequence[int], rows: Sequence[int]
) -> Tensor:
    """Last states [n, H] of sequences that go on from the first `shared` tokens of the cached one."""
    device, kept = model.device, max(shared[i] for i in rows)
    begun = DynamicCache(config=model.backbone.config)
    for number, layer in enumerate(cache.layers):
        keys, values = (t[:, :, :kept].expand(len(rows), -1, -1, -1) for t in (layer.keys, layer.values))
        begun.update(keys, values, number)
    ids, ends = right_padded([sequences[i][shared[i] :] for i in rows], model.vocabulary.pad)
    start = torch.tensor([shared[i] for i in rows])[:, None]
    positions = start + torch.arange(ids.shape[1])
    # what the first sequence goes on with after a row has parted from it is not the row's past
    visible = torch.cat([torch.arange(kept) < start, torch.ones(ids.shape, dtype=torch.bool)], 1)
    out = model.backbone.base_model(
        input_ids=ids.to(device),
        position_ids=positions.to(device),
        attention_mask=visible.to(device),
        past_key_values=begun,
        use_cache=True,
    )
    return out.last_hidden_state[torch.arange(len(rows)), ends]


def _like(order: Sequence[int], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of `order`, which rises in length, in none of which the longest is much longer than the shortest."""
    batches: list[list[int]] = []
    for row in order:
        last = batches[-1] if batches else None
        if last and len(last) < batch_size and lengths[row] <= GROWTH * lengths[last[0]] + 4:
            last.append(row)
        else:
            batches.append([row])
    return batches


def _halved(
    batches: Sequence[list[int]], states: Callable[[Sequence[int]], Tensor]
) -> Iterator[tuple[list[int], Tensor]]:
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
                    f"The memory does not suffice for {len(rows)} {'history' if len(rows) == 1 else 'histories'} at a time: "
                    "choose a smaller batch size, or load the model with quantize nf4."
                )
            most = (len(rows) + 1) // 2
            waiting.appendleft(rows)
            continue
        yield rows, found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in main memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)

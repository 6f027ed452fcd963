"""Token sequences -> the state that predicts what comes next, in batches that fit the memory. Knows no patients, no scores.

Sequences that begin alike can share that beginning, because a causal model's state never depends on what stands to its
right: the keys and values of a beginning are computed once, and of each sequence only what comes after it. There are two
such cases. The variants of a history part from it at any place, each at its own. The histories of a population begin with
the same words up to their first code, in groups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

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
KEPT = 2_048
"""Tokens of different beginnings whose keys and values are held at once."""

Sequences = Sequence[Sequence[int]]
Batches = Iterator[tuple[list[int], Tensor]]
"""Indices of some sequences and their last states [n, H]."""


@dataclass(frozen=True)
class _Begun:
    """Keys and values of the beginnings [G, heads, T, width] in each layer, the beginning of each sequence among them, and
    how many of its tokens a sequence goes on from."""

    layers: list[tuple[Tensor, Tensor]]
    which: dict[int, int]
    shared: Sequence[int]


def in_batches(
    model: MeraModel,
    sequences: Sequences,
    batch_size: int,
    share: bool = True,
    heads: Sequence[int] = (),
    tokens: int = TOKENS,
) -> Batches:
    """Indices of some sequences and their last states [n, H], until every sequence had its turn.

    Batches hold sequences of like length; with `share` a common beginning is computed once where that pays. A batch that
    does not fit the memory is halved, and so are those after it; raises InputError where half a batch does not fit either.

    Args:
        heads: how many tokens of each sequence may well begin others, too; () where nothing is known of them.
        tokens: most of a batch with its padding; a longer sequence has a batch of its own.
    """
    tokens = min(tokens, CACHED) if model.device.type == "cpu" else tokens
    share = share and len(sequences) > 1
    shared = beginnings(sequences) if share else []
    groups = _groups(sequences, heads) if share and heads else {}
    in_groups = sum(heads[rows[0]] * (len(rows) - 1) for rows in groups.values())
    if share and sum(shared[1:]) >= in_groups and pays(sequences, shared):
        yield from _variants(model, sequences, shared, batch_size, tokens)
    elif in_groups >= FEWEST_TO_SAVE:
        yield from _by_groups(model, sequences, heads, groups, batch_size, tokens)
    else:
        yield from _plain(model, sequences, range(len(sequences)), batch_size, tokens)


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
    found = _states_and_keys(model, torch.tensor([list(sequence)]))
    return found and (found[0][:, -1], found[1])


def kept_tokens(layer) -> int:
    """How many tokens a layer of a cache holds keys for."""
    keys = getattr(layer, "keys", None)
    return 0 if keys is None else keys.shape[-2]


def _states_and_keys(model: MeraModel, ids: Tensor) -> tuple[Tensor, DynamicCache] | None:
    """States [n, T, H] of token ids [n, T] and the keys and values of all of them; None where a model keeps none."""
    if getattr(model.backbone.config, "is_encoder_decoder", False):
        return None
    out = model.backbone.base_model(input_ids=ids.to(model.device), use_cache=True)
    cache = out.past_key_values
    layers = getattr(cache, "layers", None)
    if not isinstance(cache, DynamicCache) or not layers or any(kept_tokens(layer) != ids.shape[1] for layer in layers):
        return None  # a window that slid on, or a state instead of keys and values
    return out.last_hidden_state, cache


def _plain(model: MeraModel, sequences: Sequences, rows: Sequence[int], batch_size: int, tokens: int) -> Batches:
    """Each sequence from its first token."""
    batches = by_length([len(sequences[row]) for row in rows], batch_size, tokens)
    return _halved([[rows[n] for n in places] for places in batches], lambda some: _states(model, sequences, some))


def _variants(model: MeraModel, sequences: Sequences, shared: Sequence[int], batch_size: int, tokens: int) -> Batches:
    """The first sequence whole, of each other what comes after the place where it parts from the first."""
    whole = whole_state(model, sequences[0])
    if whole is None:
        yield from _plain(model, sequences, range(len(sequences)), batch_size, tokens)
        return
    state, cache = whole
    yield [0], state
    others = range(1, len(sequences))
    begun = _Begun(_layers(cache), dict.fromkeys(others, 0), shared)
    yield from _after(model, sequences, begun, batch_size, tokens)


def _groups(sequences: Sequences, heads: Sequence[int]) -> dict[tuple[int, ...], list[int]]:
    """Sequences by their first `heads` tokens, where at least two share them and each has something left to compute."""
    found: dict[tuple[int, ...], list[int]] = {}
    for row, (sequence, head) in enumerate(zip(sequences, heads, strict=True)):
        if 0 < head < len(sequence):
            found.setdefault(tuple(sequence[:head]), []).append(row)
    return {head: rows for head, rows in found.items() if len(rows) > 1}


def _by_groups(
    model: MeraModel,
    sequences: Sequences,
    heads: Sequence[int],
    groups: dict[tuple[int, ...], list[int]],
    batch_size: int,
    tokens: int,
) -> Batches:
    """Each beginning that several share once, then what comes after it; the other sequences whole.

    Sequences of several groups are in one batch, so that a group need not be large to pay.
    """
    taken = {row for rows in groups.values() for row in rows}
    yield from _plain(model, sequences, [n for n in range(len(sequences)) if n not in taken], batch_size, tokens)
    for some in _held_together(sorted(groups, key=len)):
        ids, _ = right_padded(some, model.vocabulary.pad)
        if (found := _states_and_keys(model, ids)) is None:
            yield from _plain(model, sequences, [row for head in some for row in groups[head]], batch_size, tokens)
            continue
        which = {row: place for place, head in enumerate(some) for row in groups[head]}
        yield from _after(model, sequences, _Begun(_layers(found[1]), which, heads), batch_size, tokens)


def _held_together(heads: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Beginnings, which rise in length, in lists of at most KEPT tokens with their padding."""
    lists: list[list[tuple[int, ...]]] = [[]]
    for head in heads:
        if lists[-1] and (len(lists[-1]) + 1) * len(head) > KEPT:
            lists.append([])
        lists[-1].append(head)
    return lists


def _layers(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    return [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[union-attr]


def _after(model: MeraModel, sequences: Sequences, begun: _Begun, batch_size: int, tokens: int) -> Batches:
    """Sequences that go on from beginnings."""
    rows = list(begun.which)
    held = begun.layers[0][0].shape[-2]  # keys and values, which each row has a copy of
    left = [len(sequences[row]) - begun.shared[row] for row in rows]
    batches = by_length(left, max(1, min(batch_size, TOKENS // held)), tokens)
    some = [[rows[place] for place in places] for places in batches]
    return _halved(some, lambda rows: _states_after(model, sequences, begun, rows))


def _states(model: MeraModel, sequences: Sequences, rows: Sequence[int]) -> Tensor:
    """Last states [n, H] of whole sequences."""
    if len(rows) == 1:
        return model.hidden(torch.tensor([sequences[rows[0]]], device=model.device))[:, -1]
    ids, ends = right_padded([sequences[i] for i in rows], model.vocabulary.pad)
    return model.hidden(ids.to(model.device))[torch.arange(len(rows)), ends]


def _states_after(model: MeraModel, sequences: Sequences, begun: _Begun, rows: Sequence[int]) -> Tensor:
    """Last states [n, H] of sequences that go on from the first `shared` tokens of their beginnings."""
    device, shared = model.device, begun.shared
    kept = max(shared[i] for i in rows)
    which = torch.tensor([begun.which[i] for i in rows], device=device)
    past = _past(model, [[_of_rows(held[:, :, :kept], which) for held in layer] for layer in begun.layers])
    ids, ends = right_padded([sequences[i][shared[i] :] for i in rows], model.vocabulary.pad)
    start = torch.tensor([shared[i] for i in rows])[:, None]
    positions = start + torch.arange(ids.shape[1])
    # what a beginning goes on with after a row has parted from it, or is padded with, is not the row's past
    visible = torch.cat([torch.arange(kept) < start, torch.ones(ids.shape, dtype=torch.bool)], 1)
    out = model.backbone.base_model(
        input_ids=ids.to(device),
        position_ids=positions.to(device),
        attention_mask=visible.to(device),
        past_key_values=past,
        use_cache=True,
    )
    return out.last_hidden_state[torch.arange(len(rows)), ends]


def _past(model: MeraModel, layers: Sequence[Sequence[Tensor]]) -> DynamicCache:
    """A cache that holds these keys and values."""
    past = DynamicCache(config=model.backbone.config)
    for number, (keys, values) in enumerate(layers):
        layer = past.layers[number]
        if type(layer) is DynamicLayer:  # as `update` leaves it, less a copy of all it is given
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
        else:
            past.update(keys, values, number)
    return past


def _of_rows(held: Tensor, which: Tensor) -> Tensor:
    """Keys or values [n, heads, T, width] of each row's beginning."""
    return held.expand(len(which), -1, -1, -1) if len(held) == 1 else held.index_select(0, which)


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

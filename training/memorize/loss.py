"""What the answers to stage 1's questions cost: words against words and some codes, codes against everything. Asks nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mera_core.model.network import MeraModel

NEIGHBOURS = 2
"""Codes on either side of each code asked about, in book order, among the candidates for its definition's words."""


def memorize_loss(
    model: MeraModel, parts: list[dict[str, torch.Tensor]], undivided_codes: int, others_still: bool = False
) -> torch.Tensor:
    """Cross-entropy of the answers of a batch of questions: see `answer_loss`.

    Args:
        parts: `input_ids` and `labels` of each, as `QuestionSampler.batch` makes them.
    """
    return answer_loss(model, parts, states_of(model, parts), undivided_codes, others_still)


def states_of(model: MeraModel, parts: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    """What the model is left with at each place of some questions: states [B, T, H] of each part."""
    return model.hidden_of_parts([part["input_ids"] for part in parts], [part.get("decoder_ids") for part in parts])


def answer_loss(
    model: MeraModel,
    parts: list[dict[str, torch.Tensor]],
    hidden: list[torch.Tensor],
    undivided_codes: int,
    others_still: bool = False,
) -> torch.Tensor:
    """Cross-entropy of words against words and some codes, plus that of codes against the whole vocabulary.

    Mean over word answers plus mean over code answers. The codes that stand against words are those asked about, their
    neighbours in the book, and `undivided_codes` drawn ones: they teach the model which alphabet a question wants, at a
    fraction of a full softmax's cost.

    Args:
        hidden: states [B, T, H] of each part.
        others_still: rows of codes that only stand against an answer take no gradient. Adam makes steps of like size of
            gradients of any size, so that the small ones of all rows in every step would wear down what they hold.
    """
    asked = [part["labels"] >= 0 for part in parts]
    states = torch.cat([state[where] for state, where in zip(hidden, asked, strict=True)])
    labels = torch.cat([part["labels"][where] for part, where in zip(parts, asked, strict=True)])
    n_words, total = model.vocabulary.n_words, len(model.vocabulary)
    loss = states.new_zeros((), dtype=torch.float32)
    is_word = labels < n_words
    if is_word.any():
        candidates = _word_candidates(parts, n_words, total, undivided_codes)
        moved = candidates <= n_words if others_still else None
        loss = loss + F.cross_entropy(_logits(model, states[is_word], candidates, moved).float(), labels[is_word])
    if not is_word.all():
        answers, moved = labels[~is_word], None
        if others_still:
            moved = torch.zeros(total, dtype=torch.bool, device=labels.device).index_fill(0, answers, True)
        loss = loss + F.cross_entropy(_logits(model, states[~is_word], slice(0, total), moved).float(), answers)
    return loss


def _logits(
    model: MeraModel, states: torch.Tensor, ids: torch.Tensor | slice, moved: torch.Tensor | None
) -> torch.Tensor:
    """`model.logits` where, of the rows of `ids`, those in the mask `moved` [K] take a gradient; None: all do."""
    if moved is None:
        return model.logits(states, ids)
    table = model.backbone.get_output_embeddings()
    rows, bias = table.weight[ids], getattr(table, "bias", None)
    return model.against(states, torch.where(moved[:, None], rows, rows.detach()), None if bias is None else bias[ids])


def _word_candidates(parts: list[dict[str, torch.Tensor]], n_words: int, total: int, drawn: int) -> torch.Tensor:
    """Every word piece, EOV (at n_words), and the codes that stand against words in this batch."""
    ids = torch.cat([part["input_ids"].flatten() for part in parts])
    codes = ids[ids > n_words]
    near = (codes[:, None] + torch.arange(-NEIGHBOURS, NEIGHBOURS + 1, device=ids.device)).flatten()
    random_codes = torch.randint(n_words + 1, total, (min(drawn, total - n_words - 1),), device=ids.device)
    against = torch.cat([near.clamp(n_words + 1, total - 1), random_codes]).unique()
    return torch.cat([torch.arange(n_words + 1, device=ids.device), against])

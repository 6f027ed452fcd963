"""What the answers to stage 1's questions cost: words against words and some codes, codes against everything. Asks nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from mera_core.model.network import MeraModel


def memorize_loss(model: MeraModel, asked: dict[str, Any], others_still: bool = False) -> torch.Tensor:
    """Cross-entropy of the answers of a batch of questions: see `answer_loss`."""
    return answer_loss(model, asked, states_of(model, asked["questions"]), others_still)


def states_of(model: MeraModel, parts: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    """What the model is left with at each place of some questions: states [B, T, H] of each part."""
    return model.hidden_of_parts([part["input_ids"] for part in parts], [part.get("decoder_ids") for part in parts])


def answer_loss(
    model: MeraModel, asked: dict[str, Any], hidden: list[torch.Tensor], others_still: bool = False
) -> torch.Tensor:
    """Cross-entropy of words against words and some codes, plus that of codes against the whole vocabulary.

    Mean over word answers plus mean over code answers, both of the whole step: of a batch that is one part of it, what its
    mean over the parts must be. The codes that stand against words teach the model which alphabet a question wants, at a
    fraction of a full softmax's cost.

    Args:
        asked: as `QuestionSampler.batch` makes it. hidden: states [B, T, H] of each of its `questions`.
        others_still: rows of codes that only stand against an answer take no gradient. Adam makes steps of like size of
            gradients of any size, so that the small ones of all rows in every step would wear down what they hold.
    """
    parts, n_words, total = asked["questions"], model.vocabulary.n_words, len(model.vocabulary)
    wanted = [part["labels"] >= 0 for part in parts]
    states = torch.cat([state[where] for state, where in zip(hidden, wanted, strict=True)])
    labels = torch.cat([part["labels"][where] for part, where in zip(parts, wanted, strict=True)])
    is_word = labels < n_words
    candidates = torch.cat(
        [torch.arange(n_words + 1, device=labels.device), asked["against"]]
    )  # every word, EOV, codes
    moved = candidates <= n_words if others_still else None
    words = F.cross_entropy(
        _logits(model, states[is_word], candidates, moved).float(), labels[is_word], reduction="sum"
    )
    answers = labels[~is_word]
    if others_still:
        moved = torch.zeros(total, dtype=torch.bool, device=labels.device).index_fill(0, answers, True)
    codes = F.cross_entropy(_logits(model, states[~is_word], slice(0, total), moved).float(), answers, reduction="sum")
    of_step = asked["answers"].clamp_min(1e-9)
    return words / of_step[0] + codes / of_step[1]


def _logits(
    model: MeraModel, states: torch.Tensor, ids: torch.Tensor | slice, moved: torch.Tensor | None
) -> torch.Tensor:
    """`model.logits` where, of the rows of `ids`, those in the mask `moved` [K] take a gradient; None: all do."""
    if moved is None:
        return model.logits(states, ids)
    table = model.backbone.get_output_embeddings()
    rows, bias = table.weight[ids], getattr(table, "bias", None)
    return model.against(states, torch.where(moved[:, None], rows, rows.detach()), None if bias is None else bias[ids])

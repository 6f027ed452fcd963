"""The end of stage 1: the rows of codes that are still unknown move alone, in a model that otherwise stays as it is. Ours.

When nearly the whole book is known, a step of all weights pays for the codes it asks for with others. A row is read by the
body like a word that stands for its definition, and enough by itself to have that definition told. Whatever is asked of
another code without naming one of these is asked as well: not to be learned, but so that no moved row takes its place.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Code
from mera_core.model.network import MeraModel
from training.common.config import MemorizeConfig
from training.common.optimizer import embedding_rows
from training.common.trainer import parts_a_step
from training.memorize.loss import answer_loss, memorize_loss, states_of
from training.memorize.questions import Question, QuestionSampler, repeated


def let_rows_move(model: MeraModel, codes: Sequence[Code]) -> None:
    """Freeze everything but the rows of `codes`, of the input table and of the output table. In place.

    The other rows of a table take no gradient; that they stay to the bit needs an optimizer without weight decay.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for table in embedding_rows(model.backbone):
        moves = torch.zeros(len(table), 1, dtype=table.dtype)
        moves[[model.vocabulary.ids[code] for code in codes]] = 1
        table.requires_grad_(True)
        table.register_hook(lambda gradient, moves=moves: gradient * moves.to(gradient.device))


class RowBatches(Dataset):
    """Item `step * parts + part` is one forward pass of a step, as `QuestionBatches` has it.

    An item holds two batches, as `QuestionSampler.batch` makes them: `asked` about the codes whose rows move, both
    ways and up the tree, and `still`, questions whose words name no code, about any: definition -> code and equivalents.
    """

    def __init__(self, sampler: QuestionSampler, config: MemorizeConfig, codes: Sequence[Code]):
        self.sampler, self.config, self.parts = sampler, config, parts_a_step(config)
        rng = random.Random(config.seed)
        asked = [
            question for _ in range(config.epochs_on_missed) for question in _one_pass(sampler, config, codes, rng)
        ]
        still = _still(sampler, config, rng)
        steps = -(-len(asked) // (config.batch_size * self.parts))
        self._steps = [(_share(asked, step, steps), _share(still, step, steps)) for step in range(steps)]

    def __len__(self) -> int:
        return len(self._steps) * self.parts

    def __getitem__(self, item: int) -> dict[str, dict[str, Any]]:
        step, part = divmod(item, self.parts)
        rng = random.Random(self.config.seed * 1_000_003 + step)
        asked, still = (
            self.sampler.batch(drawn, rng, self.config.sampled_negatives, part, self.parts)
            for drawn in self._steps[step]
        )
        return {"asked": asked, "still": still}


def _one_pass(
    sampler: QuestionSampler, config: MemorizeConfig, codes: Sequence[Code], rng: random.Random
) -> list[Question]:
    drawn = sampler.both_ways(codes)
    drawn += [asked for code in codes for asked in sampler.ancestors_asked(code, config.hierarchy_share, rng)]
    return rng.sample(drawn, len(drawn))


def _still(sampler: QuestionSampler, config: MemorizeConfig, rng: random.Random) -> list[Question]:
    kinds = ((sampler.backwards, config.backwards_share), (sampler.equivalents, config.equivalents_share))
    drawn = [q for questions, share in kinds for q in repeated(questions, share * config.epochs, rng)]
    return rng.sample(drawn, len(drawn))


def _share(items: Sequence, step: int, steps: int) -> Sequence:
    """What falls to a step of an even division."""
    return items[len(items) * step // steps : len(items) * (step + 1) // steps]


def rows_loss(model: MeraModel, item: dict[str, dict[str, Any]]) -> Tensor:
    """Cross-entropy of the answers about the codes that move, plus that of the answers about any code: see `answer_loss`.

    No row that moves stands in a question of the second kind, so that the body takes no gradient from it.

    Args:
        item: as `RowBatches` makes it.
    """
    loss = memorize_loss(model, item["asked"])
    if item["still"]["questions"]:
        with torch.no_grad():
            states = states_of(model, item["still"]["questions"])
        loss = loss + answer_loss(model, item["still"], states)
    return loss


def refuse_known(codes: Sequence[Code], before: str) -> None:
    """Raise InputError where nothing is left to learn."""
    if not codes:
        raise InputError(f"{before} knows every code both ways: no row is left to move (train_missed_rows_only).")

"""Before stage 1 proper: code rows as what the model itself makes of definitions, learned as an autoencoder. Ours.

While this lasts no code has a row of its own. What the model is left with after "Code for <definition>:" stands in the
code's place: on the way in, where "Define <code>:" asks for the definition back or "Block of <code>:" for what is above,
and on the way out, where codes are told apart. So one function is learned from every definition at once, in place of a row
for each code that only the few steps asking for it move. At the end its values are written into the table, and stage 1
goes on with them as rows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Code, Ontology
from mera_core.model.network import MeraModel, common_direction
from mera_core.model.prompts import CODE, DEFINITION, question_ids
from mera_core.model.recall import last_states, right_padded
from training.common.config import MemorizeConfig
from training.common.trainer import parts_a_step
from training.memorize.questions import PARTS, Question, QuestionSampler, question_batch

RUN_OF_CODES = 16
"""Codes that follow each other in the book and share a batch: those that are hard to tell apart."""
FILLED_FROM = 2
"""Phrasings of "definition -> code" over which a row is averaged when the table is filled."""


def encoded(states: Tensor, common: float) -> Tensor:
    """Rows [N, H] of the codes whose definitions ended in `states` [N, H]: unit length, plus the direction all codes share."""
    direction = common_direction(states.shape[-1]).to(states.device)
    return F.normalize(states.float(), dim=-1) + common * direction


class EncodedBatches(Dataset):
    """Item i is the batch of step i, made from the seed and i alone, so that a resumed run sees the same steps.

    An item holds `parts`, each with `definitions` [B, T] (questions "definition -> code"), their `ends` [B], and of the same
    codes `input_ids` and `labels` [B, T] (questions "code -> definition", as `question_batch` has them). Where more is asked
    for, `above` holds `definitions` and `ends` of ancestors that are no codes of the step, and `hierarchy` and `equivalents`
    hold `input_ids` [M, T], their `ends` [M], and `answers` [M], each answer's place among the step's codes and, after them,
    the ancestors; `hierarchy` also `places` [M], where among the codes the one asked about is.
    """

    def __init__(self, sampler: QuestionSampler, codes: Sequence[Code], config: MemorizeConfig):
        self.sampler, self.seed, self.hierarchy_share = sampler, config.seed, config.hierarchy_share
        self._told_apart = frozenset(codes)
        rng = random.Random(config.seed)
        self._batches: list[list[Code]] = []
        whole, part = int(config.encoded_epochs), config.encoded_epochs % 1
        for index in range(whole + (part > 0)):
            drawn = in_runs(codes, rng)
            drawn = drawn[: int(len(drawn) * (1 if index < whole else part))]
            self._batches += [drawn[i : i + config.batch_size] for i in range(0, len(drawn), config.batch_size)]
        self._equivalents: dict[Code, list[Question]] = {}
        for question in sampler.equivalents:
            self._equivalents.setdefault(question.answer, []).append(question)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict:
        rng, sampler = random.Random(self.seed * 1_000_003 + index), self.sampler
        asked = [
            (
                sampler.encode(Question(CODE, code, code), rng)[0],
                *sampler.encode(Question(DEFINITION, code), rng),
                code,
            )
            for code in self._batches[index]
        ]
        asked.sort(key=lambda one: len(one[0]) + len(one[2]))  # like lengths together: little padding
        pad, size = sampler.vocabulary.pad, -(-len(asked) // PARTS)
        parts = []
        for begin in range(0, len(asked), size):
            definitions, questions, answers, _ = zip(*asked[begin : begin + size], strict=True)
            ids, ends = right_padded(definitions, pad)
            questions = question_batch(list(zip(questions, answers, strict=True)), pad)
            parts.append({"definitions": ids, "ends": ends, **questions})
        item: dict = {"parts": parts}
        place_of = {code: place for place, (*_, code) in enumerate(asked)}
        above = [
            (question, place)
            for code, place in place_of.items()
            for question in sampler.ancestors_asked(code, self.hierarchy_share, rng)
            if question.answer in self._told_apart
        ]
        further = list(dict.fromkeys(question.answer for question, _ in above if question.answer not in place_of))
        place_of |= {code: len(asked) + number for number, code in enumerate(further)}
        if further:
            ids, ends = right_padded([sampler.encode(Question(CODE, c, c), rng)[0] for c in further], pad)
            item["above"] = {"definitions": ids, "ends": ends}
        if above:
            item["hierarchy"] = self._asked([question for question, _ in above], place_of, rng)
            item["hierarchy"]["places"] = torch.tensor([place for _, place in above])
        mapped = [rng.choice(self._equivalents[code]) for *_, code in asked if code in self._equivalents]
        if mapped:
            item["equivalents"] = self._asked(mapped, place_of, rng)
        return item

    def _asked(self, questions: list[Question], place_of: dict[Code, int], rng: random.Random) -> dict[str, Tensor]:
        encoded = [self.sampler.encode(question, rng)[0] for question in questions]
        ids, ends = right_padded(encoded, self.sampler.vocabulary.pad)
        answers = torch.tensor([place_of[question.answer] for question in questions])
        return {"input_ids": ids, "ends": ends, "answers": answers}


def in_runs(codes: Sequence[Code], rng: random.Random) -> list[Code]:
    """All codes once, in runs of neighbours that begin anywhere, the runs in random order."""
    first = rng.randrange(RUN_OF_CODES)
    runs = [codes[:first], *(codes[begin : begin + RUN_OF_CODES] for begin in range(first, len(codes), RUN_OF_CODES))]
    rng.shuffle(runs)
    return [code for run in runs for code in run]


def encoded_loss(model: MeraModel, item: dict, common: float) -> Tensor:
    """Cross-entropy of the definitions' words, against words and the step's codes, plus that of the codes, against the same.

    Args:
        item: as `EncodedBatches` makes it. common: size of the direction that code rows share.
    """
    parts = item["parts"]
    above, hierarchy, mapped = ([item[name]] if name in item else [] for name in ("above", "hierarchy", "equivalents"))
    looked_up = [asked["definitions"] for asked in (*parts, *above)]
    looked_up += [asked["input_ids"] for asked in (*parts, *hierarchy, *mapped)]
    n_words = model.vocabulary.n_words
    table = model.backbone.get_input_embeddings()
    is_code = [ids > n_words for ids in looked_up]
    flat = torch.cat([ids.masked_fill(code, 0).flatten() for ids, code in zip(looked_up, is_code, strict=True)])
    split = table(flat).split([ids.numel() for ids in looked_up])  # one look: its gradient is as large as the table
    embedded = iter([piece.view(*ids.shape, -1) for piece, ids in zip(split, looked_up, strict=True)])
    is_code = iter(is_code[len(parts) + len(above) :])

    answers = [_ends(_states(model, next(embedded)), asked["ends"]) for asked in (*parts, *above)]
    rows = encoded(torch.cat(answers), common)
    scaled = rows * getattr(table, "embed_scale", 1.0)
    places = [torch.arange(len(rows), device=rows.device)]
    states, labels, begin = [], [], 0
    for part in parts:
        own = scaled[begin : begin + len(part["ends"])]
        begin += len(own)
        wanted = part["labels"] >= 0
        states.append(_states(model, _with_rows(next(embedded), next(is_code), own))[wanted])
        labels.append(part["labels"][wanted])
    for asked in hierarchy:
        read = _states(model, _with_rows(next(embedded), next(is_code), scaled[asked["places"]]))
        answers.append(_ends(read, asked["ends"]))
        places.append(asked["answers"])
    for asked in mapped:
        answers.append(_ends(_states(model, next(embedded)), asked["ends"]))
        places.append(asked["answers"])
    candidates = torch.cat([model.backbone.get_output_embeddings().weight[: n_words + 1].float(), rows])
    words_lost = F.cross_entropy(model.against(torch.cat(states).float(), candidates).float(), torch.cat(labels))
    codes_lost = F.cross_entropy(
        model.against(torch.cat(answers).float(), candidates).float(), n_words + 1 + torch.cat(places)
    )
    return words_lost + codes_lost


def _with_rows(words: Tensor, is_code: Tensor, rows: Tensor) -> Tensor:
    """Embedded questions [B, T, H] with the row [B, H] of the code each asks about in that code's place."""
    return torch.where(is_code[..., None], rows[:, None].to(words.dtype), words)


def _states(model: MeraModel, embedded: Tensor) -> Tensor:
    return model.backbone.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state


def _ends(states: Tensor, ends: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), ends]


@torch.inference_mode()
def fill_rows(
    model: MeraModel, codes: Sequence[Code], ontology: Ontology, common: float, batch_size: int = 8192
) -> None:
    """Write what the model makes of each code's definition into its rows of the input and the output table. In place.

    batch_size: codes whose definitions are put in order of length together.
    """
    training = model.training
    model.eval()
    tables = {
        id(t.weight): t.weight for t in (model.backbone.get_input_embeddings(), model.backbone.get_output_embeddings())
    }
    rows = []
    for begin in range(0, len(codes), batch_size):
        part = codes[begin : begin + batch_size]
        states = [
            last_states(model, [question_ids(CODE, ontology.definition(c), model.vocabulary, phrasing) for c in part])
            for phrasing in range(FILLED_FROM)
        ]
        rows.append(encoded(torch.stack(states).mean(0), common))
    ids = torch.tensor([model.vocabulary.ids[code] for code in codes], device=model.device)
    for weight in tables.values():
        weight[ids] = torch.cat(rows).to(weight.dtype)
    model.train(training)


def refuse(model: MeraModel, config: MemorizeConfig) -> None:
    """Raise InputError for a model whose codes can't have rows of this kind, and for steps in several forward passes."""
    if parts_a_step(config) > 1:
        raise InputError(
            "encoded_epochs tells the codes of one forward pass apart, so a step can't be divided: set accumulate to 1 and "
            "train in one process."
        )
    if model.encoder_decoder:
        raise InputError("encoded_epochs is for decoder-only models: set it to 0 for an encoder-decoder.")

"""What stage 1 asks: every question about a code set, drawn with a phrasing, as token ids in batches. Trains nothing."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from mera_core.icd.ontology import SYSTEMS, Code, Ontology
from mera_core.model.prompts import CODE, DEFINITION, EQUIVALENT, in_words, phrasings, question_ids
from mera_core.model.vocabulary import Vocabulary
from training.common.config import MemorizeConfig
from training.common.trainer import parts_a_step

IGNORE = -100
PARTS = 4
"""Pieces of like length that a step's questions are put in, so that little of them is padding."""
NEIGHBOURS = 2
"""Codes on either side of each code asked about, in book order, among the candidates for its definition's words."""


@dataclass(frozen=True)
class Question:
    """One thing to memorize: `kind` as in `recall_questions`, the code asked about, and the answer where it is a code."""

    kind: str
    code: Code
    answer: Code | None = None


def code_set(ontology: Ontology, systems: tuple[str, ...]) -> dict[Code, str]:
    """Every node of the systems with its definition, in book order."""
    return {node.code: node.definition for system in systems for node in ontology.nodes(system)}


def questions(
    ontology: Ontology, codes: list[Code]
) -> tuple[list[Question], list[Question], dict[Code, list[Question]]]:
    """All questions about `codes`: code -> definition, definition -> code, and each code's hierarchy questions.

    A definition that several nodes share is asked for the billable ones only: headings often repeat a child's title.
    """
    shared: dict[str, list[Code]] = {}
    for code in codes:
        shared.setdefault(ontology.definition(code), []).append(code)
    definitions, backwards, hierarchy = [], [], {}
    for code in codes:
        definitions.append(Question(DEFINITION, code))
        if ontology.is_billable(code) or len(shared[ontology.definition(code)]) == 1:
            backwards.append(Question(CODE, code, code))
        names = ontology.level_names(code.system)
        above = [(names[level - 1], ontology.ancestor_at(code, level)) for level in range(1, ontology.level(code) + 1)]
        hierarchy[code] = [Question(name, code, answer) for name, answer in above if answer not in (None, code)]
    return definitions, backwards, {code: asked for code, asked in hierarchy.items() if asked}


def equivalents(ontology: Ontology, codes: Collection[Code]) -> list[Question]:
    """Each billable code of a system that the CMS maps lead from to one of `codes` in the other; the first is the answer."""
    known, asked = set(codes), []
    for source in SYSTEMS:
        for target in {code.system for code in known} - {source}:
            for code in ontology.billable(source):
                answer = next((found for found in ontology.equivalents(code, target) if found in known), None)
                if answer is not None:
                    asked.append(Question(EQUIVALENT, code, answer))
    return asked


class QuestionSampler:
    """Draws questions with a phrasing and turns them into token ids; the held-out phrasing is never drawn."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        ontology: Ontology,
        codes: list[Code],
        used_phrasings: int = 0,
        decoder_start: int | None = None,
        with_equivalents: bool = False,
    ):
        self.vocabulary, self.ontology, self.used_phrasings = vocabulary, ontology, used_phrasings
        self.decoder_start = decoder_start
        self.definitions, self.backwards, self.hierarchy = questions(ontology, codes)
        self.equivalents: list[Question] = equivalents(ontology, codes) if with_equivalents else []
        self._answers = {code: vocabulary.words(ontology.definition(code)) for code in codes}

    def one_pass(
        self, rng: random.Random, backwards_share: float, hierarchy_share: float, equivalents_share: float = 0.0
    ) -> list[Question]:
        """Every code's definition once, and the other questions for a share of the codes each."""
        drawn = list(self.definitions)
        drawn += rng.sample(self.backwards, int(backwards_share * len(self.backwards)))
        for code in self.hierarchy:
            drawn += self.ancestors_asked(code, hierarchy_share, rng)
        drawn += repeated(self.equivalents, equivalents_share, rng)
        rng.shuffle(drawn)
        return drawn

    def both_ways(self, codes: Sequence[Code]) -> list[Question]:
        """Code -> definition of each, and definition -> code of those that it can tell apart."""
        told_apart = {question.code: question for question in self.backwards}
        return [Question(DEFINITION, code) for code in codes] + [told_apart[c] for c in codes if c in told_apart]

    def ancestors_asked(self, code: Code, share: float, rng: random.Random) -> list[Question]:
        """`share` hierarchy questions about `code`, on average; none about a code that has nothing above it."""
        asked = self.hierarchy.get(code, [])
        count = int(share) + (rng.random() < share % 1)
        # the lower the level, the more answers there are to tell apart
        return rng.choices(asked, weights=range(1, len(asked) + 1), k=count) if asked else []

    def length(self, question: Question) -> int:
        """About how many tokens question and answer take."""
        if question.kind in (DEFINITION, CODE):
            return 8 + len(self._answers[question.code])
        if question.code in self.vocabulary:
            return 8
        return 16 + len(self.vocabulary.words(self.ontology.definition(question.code)))

    def encode(self, question: Question, rng: random.Random) -> tuple[list[int], list[int]]:
        """Token ids of the question and of its answer (a definition ends with EOS)."""
        allowed = len(phrasings(question.kind)) - 1
        phrasing = rng.randrange(min(self.used_phrasings or allowed, allowed))
        definition, subject = self.ontology.definition(question.code), question.code
        if question.kind == CODE:
            subject = definition
        elif subject not in self.vocabulary:
            subject = in_words(subject, definition)
        ids = question_ids(question.kind, subject, self.vocabulary, phrasing)
        if question.kind == DEFINITION:
            return ids, [*self._answers[question.code], self.vocabulary.eos]
        return ids, [self.vocabulary.ids[question.answer]]

    def batch(
        self, drawn: Sequence[Question], rng: random.Random, sampled_negatives: int = 512, part: int = 0, parts: int = 1
    ) -> dict[str, Any]:
        """What one of the `parts` forward passes of a step asks; `drawn` are the questions of the whole step.

        Returns:
            `questions`: PARTS of like length so that little is padding, each as `question_batch` says; `answers` [2]: how
            many words and how many codes the whole step's answers hold, divided by `parts`; `against` [K]: ids of the codes
            that stand against words in this step: those in its questions, their neighbours, and `sampled_negatives` drawn ones.
        """
        first, total = self.vocabulary.n_words + 1, len(self.vocabulary)
        encoded = [self.encode(question, rng) for question in drawn]
        words = sum(len(answer) for _, answer in encoded if answer[0] < first)
        near = {
            id_ + n for asked, _ in encoded for id_ in asked if id_ >= first for n in range(-NEIGHBOURS, NEIGHBOURS + 1)
        }
        against = near & {*range(first, total)} | {
            *rng.choices(range(first, total), k=min(sampled_negatives, total - first))
        }
        own = sorted(encoded[part::parts], key=lambda pair: len(pair[0]) + len(pair[1]))
        size = max(1, -(-len(own) // PARTS))
        questions = [
            question_batch(own[begin : begin + size], self.vocabulary.pad, self.decoder_start)
            for begin in range(0, len(own), size)
        ]
        if (
            encoded and not own
        ):  # fewer questions than parts: this device computes something all the same, and asks nothing
            questions = [question_batch(encoded[:1], self.vocabulary.pad, self.decoder_start)]
            questions[0]["labels"].fill_(IGNORE)
        answers = torch.tensor([words, sum(answer[0] >= first for _, answer in encoded)]) / parts
        return {"questions": questions, "answers": answers, "against": torch.tensor(sorted(against))}


def question_batch(
    encoded: list[tuple[list[int], list[int]]], pad: int, decoder_start: int | None = None
) -> dict[str, torch.Tensor]:
    """Questions and their answers, as token ids, for `MeraModel.hidden_of_parts`.

    Returns:
        `input_ids` [B, T], right-padded, and `labels` [B, T]: the token that should follow, IGNORE where none is asked
        for. For an encoder-decoder (`decoder_start`) `input_ids` holds the questions alone, `decoder_ids` [B, A] what the
        decoder reads, and `labels` is [B, A].
    """
    if decoder_start is None:
        rows = [(asked + answer[:-1], [IGNORE] * (len(asked) - 1) + answer) for asked, answer in encoded]
        ids, labels = zip(*rows, strict=True)
        return {"input_ids": padded(ids, pad), "labels": padded(labels, IGNORE)}
    asked, answers = zip(*encoded, strict=True)
    read = [[decoder_start, *answer[:-1]] for answer in answers]
    return {"input_ids": padded(asked, pad), "decoder_ids": padded(read, pad), "labels": padded(answers, IGNORE)}


def padded(sequences: Sequence[list[int]], value: int) -> torch.Tensor:
    """[B, T], filled up on the right with `value`."""
    out = torch.full((len(sequences), max(map(len, sequences))), value)
    for row, sequence in enumerate(sequences):
        out[row, : len(sequence)] = torch.tensor(sequence)
    return out


class QuestionBatches(Dataset):
    """Item `step * parts + part` is one forward pass of a step, made from the seed and the step alone.

    So a resumed run sees the same steps, and a step asks the same however many parts it has.
    """

    def __init__(
        self, sampler: QuestionSampler, config: MemorizeConfig, missed: Sequence[Code] = (), parts: int | None = None
    ):
        """`missed`: codes that are asked for `config.epochs_on_missed` times more than the others, both ways.

        parts: forward passes a step, over all devices; by default those of this run.
        """
        self.sampler, self.config, self.parts = sampler, config, parts or parts_a_step(config)
        size = config.batch_size * self.parts
        rng = random.Random(config.seed)
        self._batches: list[list[Question]] = []
        drawn_in_turn = self._passes(rng)
        if missed:
            whole = [question for drawn in drawn_in_turn for question in drawn]
            drawn_in_turn = [spread(whole, self._about(missed, rng))]
        for drawn in drawn_in_turn:
            if config.batches == "by_length":
                self._batches += batches_by_length(drawn, sampler.length, size, rng)
            else:
                self._batches += [drawn[i : i + size] for i in range(0, len(drawn), size)]

    def _passes(self, rng: random.Random) -> Iterator[list[Question]]:
        config = self.config
        whole, part = int(config.epochs), config.epochs % 1
        for index in range(whole + (part > 0)):
            drawn = self.sampler.one_pass(rng, config.backwards_share, config.hierarchy_share, config.equivalents_share)
            yield drawn[: int(len(drawn) * (1 if index < whole else part))]

    def _about(self, missed: Sequence[Code], rng: random.Random) -> list[Question]:
        asked = self.sampler.both_ways(missed)
        return [question for _ in range(self.config.epochs_on_missed) for question in rng.sample(asked, len(asked))]

    def __len__(self) -> int:
        return len(self._batches) * self.parts

    def __getitem__(self, item: int) -> dict[str, Any]:
        step, part = divmod(item, self.parts)
        rng = random.Random(self.config.seed * 1_000_003 + step)
        return self.sampler.batch(self._batches[step], rng, self.config.sampled_negatives, part, self.parts)


def repeated(asked: Sequence[Question], times: float, rng: random.Random) -> list[Question]:
    """Each question as often as `times` is whole, and a sample of them for the rest."""
    return [*asked] * int(times) + rng.sample(asked, int(times % 1 * len(asked)))


def spread(first: Sequence[Question], second: Sequence[Question]) -> list[Question]:
    """Both, each in its own order, evenly among each other."""
    placed = [((place + 0.5) / len(each), question) for each in (first, second) for place, question in enumerate(each)]
    return [question for _, question in sorted(placed, key=lambda pair: pair[0])]


def batches_by_length(items: list, length, batch_size: int, rng: random.Random) -> list[list]:
    """Cut shuffled items into batches of like length (little padding), in random order."""
    pool, batches = batch_size * 20, []
    for begin in range(0, len(items), pool):
        chunk = sorted(items[begin : begin + pool], key=length)
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    rng.shuffle(batches)
    return batches

"""Patient -> token ids and the positions that predict. Knows tokens and visits; nothing of weights, losses or files."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Annotated

from pydantic import BeforeValidator, Field

from mera_core.common.formatting import counted
from mera_core.common.schema import as_tuple, checked
from mera_core.history.details import AGE, facts, nearest
from mera_core.history.records import Note, Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.model.vocabulary import Vocabulary

_Keys = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
SEX_WORDS = {"F": "female", "M": "male"}
WHOLE_PHRASE = 32
"""Tokens of the profile and of each visit's words that stay while older visits are left out; more are shortened first.

More than an eighth of the longest sequence is read nowhere: a model makes nonsense of words at a length that it never saw.
"""


@checked
class SequenceConfig:
    """How a history is put into words. It is part of a checkpoint: what was trained is what is served."""

    profile: bool = True
    """Put the profile sentence (sex, ethnicity) and each visit's age before the codes."""
    patient_details: _Keys = ("ethnicity",)
    """Keys of `Patient.details` that the profile sentence names, in this order."""
    visit_details: _Keys = ()
    """Keys of `Visit.details` named before a visit's codes, in this order. Only completed visits have them."""
    detail_tokens: _Keys = ()
    """Keys of `Visit.details`, and "age", of which each fact is a token of its own before a visit's codes, in this order."""
    most_details: Annotated[int, Field(ge=1)] = 11
    """Most such tokens of a visit; what comes after them is left out."""
    visit_intro: str = "Diagnosis codes for the visit:"
    """The words between a visit's details and its codes."""
    max_tokens: Annotated[int, Field(ge=16)] = 512
    """Longest sequence, in tokens. Long words are shortened first; the newest visits are kept."""


@dataclass
class Encoded:
    """One patient as tokens.

    The state at `start` predicts the first visit (None where older visits were cut off), the state at `ends[t]`, the
    EOV of visit `first_visit + t`, predicts the visit after it; the state at `codes[t][i]` has seen the first i + 1
    codes of that visit.
    """

    input_ids: list[int]
    start: int | None
    ends: list[int]
    codes: list[list[int]]
    order: list[list[Code]]
    first_visit: int
    notes: list[Note] = field(default_factory=list)


def profile_sentence(patient: Patient, config: SequenceConfig) -> str:
    """What is known of the patient and does not change from visit to visit, in words."""
    parts = [SEX_WORDS[patient.sex]] if patient.sex in SEX_WORDS else []
    parts += _detail_words(patient.details, config.patient_details)
    return "Patient: " + (", ".join(parts) or "unknown") + "."


def visit_sentence(visit: Visit, config: SequenceConfig) -> str:
    """What is known of one completed visit apart from its codes, in words, then the introduction of its codes."""
    parts = []
    if config.profile:
        if visit.age is not None and AGE not in config.detail_tokens:
            parts.append(f"age {int(visit.age // 10) * 10}s")
        parts += _detail_words(visit.details, config.visit_details)
    return " ".join([*parts, config.visit_intro])


def _detail_words(details: Mapping[str, str], keys: tuple[str, ...]) -> list[str]:
    return [f"{key} {_rounded(details[key])}" for key in keys if details.get(key)]


def _rounded(text: str) -> str:
    """Numbers of 10 and more are given to one significant figure, so that a rare count shares its neighbours' words."""
    if text.isascii() and text.isdigit() and len(text) > 1:
        scale = 10 ** (len(text) - 1)
        return str((int(text) + scale // 2) // scale * scale)
    return text


class Encoder:
    """Puts histories into tokens; remembers the token ids of phrases.

    Those that hold a patient's or a visit's details are remembered only if `remember` is set (in training).
    """

    def __init__(self, vocabulary: Vocabulary, config: SequenceConfig, remember: bool = False):
        self.vocabulary, self.config = vocabulary, config
        self.remember = remember
        self._phrases: dict[str, list[int]] = {}

    def _words(self, text: str, details: Mapping[str, str]) -> list[int]:
        if details and not self.remember:
            return self.vocabulary.words(text)
        if text not in self._phrases:
            self._phrases[text] = self.vocabulary.words(text)
        return self._phrases[text]

    def _details(self, visit: Visit) -> list[int]:
        """Tokens of a visit's facts that the vocabulary knows."""
        details = self.vocabulary.details
        known = (nearest(fact, details) for fact in facts(visit, self.config.detail_tokens))
        return [details[fact] for fact in dict.fromkeys(known) if fact][: self.config.most_details]

    def encode(
        self,
        patient: Patient,
        shuffle: random.Random | None = None,
        drop: float = 0.0,
        drop_details: float = 0.0,
    ) -> Encoded:
        """Encode every visit of `patient`; the caller passes only visits that may be seen.

        Args:
            patient: visits must hold `Code`s of the vocabulary only.
            shuffle: draws a new order of the codes within each visit (order perturbation); None keeps the recorded one.
            drop: with `shuffle`, the probability of leaving a visit's words, a detail or one of its codes out of the input.
            drop_details: with `shuffle`, the probability of leaving all of a patient's details but age out of the input.
        """
        ids, config, told = self.vocabulary.ids, self.config, []
        bare = shuffle is not None and drop_details > 0 and shuffle.random() < drop_details
        prefix = self.vocabulary.prefix()
        profile = self._words(profile_sentence(patient, config), patient.details) if config.profile else []
        pieces: list[tuple[list[int], list[Code]]] = []
        for index, visit in enumerate(patient.visits):
            visit = self._with_age(patient, visit, index)
            order = list(visit.codes)
            if bare:
                visit = Visit(visit.codes, visit.time, visit.age)
            details = self._details(visit) if config.detail_tokens else []
            if shuffle is not None:
                shuffle.shuffle(order)
                if drop:
                    order = [code for code in order if shuffle.random() >= drop]
                    if config.detail_tokens:
                        details = [token for token in details if shuffle.random() >= drop]
                    elif shuffle.random() < drop:
                        visit = Visit(visit.codes, visit.time)
            pieces.append((details + self._words(visit_sentence(visit, config), visit.details), order))
        first, most = self._fit(len(prefix), profile, pieces)
        long = {"the patient": len(profile) > most, "visits": any(len(words) > most for words, _ in pieces[first:])}
        if any(long.values()):
            told.append(
                f"The words on {' and '.join(name for name, true in long.items() if true)} are more than this model reads "
                "beside the codes: the middle of them was left out."
            )
        if first:
            told.append(
                f"The history is longer than this model reads ({config.max_tokens} tokens): the oldest {first} of "
                f"{len(pieces)} visits were left out."
            )
        head = prefix + _shortened(profile, most)
        tokens, ends, codes, orders = list(head), [], [], []
        for words, order in pieces[first:]:
            tokens += _shortened(words, most)
            room = config.max_tokens - len(tokens) - 1
            if len(order) > room:
                told.append(
                    f"The last visit holds {len(order)} codes, more than this model reads in one history: the last "
                    f"{len(order) - room} were left out."
                )
                order = order[:room]
            codes.append(list(range(len(tokens), len(tokens) + len(order))))
            tokens += [ids[code] for code in order]
            ends.append(len(tokens))
            tokens.append(self.vocabulary.eov)
            orders.append(order)
        start = len(head) - 1 if first == 0 and head else None
        notes = [Note("truncated", " ".join(told))] if told else []
        if shuffle is None and (unread := self._unread(patient)):
            keys = ", ".join(dict.fromkeys(fact.partition(": ")[0] for fact in unread))
            notes.append(
                Note("details", f"This model does not read {counted(len(unread), 'detail')} of the visits ({keys}).")
            )
        return Encoded(tokens, start, ends, codes, orders, first, notes)

    def _unread(self, patient: Patient) -> list[str]:
        """Facts of the visits that are in no words and have no token."""
        config, details = self.config, self.vocabulary.details
        return [
            fact
            for visit in patient.visits
            for fact in facts(visit, [key for key in visit.details if key not in config.visit_details])
            if nearest(fact, details) is None or fact.partition(": ")[0] not in config.detail_tokens
        ]

    @staticmethod
    def _with_age(patient: Patient, visit: Visit, index: int) -> Visit:
        """The patient's age is the age at the last visit, so it is never written on an earlier one."""
        if visit.age is None and patient.age is not None and index == len(patient.visits) - 1:
            return Visit(visit.codes, visit.time, patient.age, visit.details)
        return visit

    def _fit(self, prefix: int, profile: list[int], pieces: list[tuple[list[int], list[Code]]]) -> tuple[int, int]:
        """Index of the oldest visit kept, and the most tokens of the profile and of each visit's words.

        Words beyond `WHOLE_PHRASE` give way to older visits, and all words to the newest visit's codes.
        """
        limit = self.config.max_tokens
        longest = max(WHOLE_PHRASE, limit // 8)

        def sizes(most: int) -> list[int]:
            visits = [min(len(words), most) + len(order) + 1 for words, order in reversed(pieces)]
            return list(accumulate(visits, initial=prefix + min(len(profile), most)))

        def that_fit(visits: int) -> int:
            return bisect_right(range(longest + 1), limit, key=lambda most: sizes(most)[visits]) - 1

        if sizes(longest)[-1] <= limit:  # nearly every history
            return 0, longest
        if (most := that_fit(len(pieces))) >= WHOLE_PHRASE:
            return 0, most
        kept = max(bisect_right(sizes(WHOLE_PHRASE), limit) - 1, min(1, len(pieces)))
        return len(pieces) - kept, max(0, that_fit(kept))


def _shortened(words: list[int], most: int) -> list[int]:
    """At most so many tokens: the beginning and the end, where a sentence says what it is about."""
    return words if len(words) <= most else words[: most - most // 2] + words[len(words) - most // 2 :]

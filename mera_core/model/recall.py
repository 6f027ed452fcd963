"""What the model recalls of the ICD codes: code -> definition, definition -> code, code -> ancestor. Knows no patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mera_core.icd.ontology import Code
from mera_core.model.network import MeraModel
from mera_core.model.prompts import CODE, DEFINITION, EQUIVALENT, question_ids
from mera_core.ranking.ranking import NOTICE

LONGEST_ANSWER = 160  # tokens; the longest definition of ICD-10-CM takes fewer


@dataclass(frozen=True)
class Recall:
    """One question to the model's memory.

    answer: the definition or the code that the model gives. truth: that of the tables (empty where they have none).
    exact: whether they are equal; None where there is no truth. alternatives: up to five codes with their share of the
    answer's softmax over the whole code list; for a definition asked by code, the codes to which the model's own answer
    leads back.
    """

    question: str
    answer: str
    truth: str
    exact: bool | None
    alternatives: tuple[tuple[Code, str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """The answer as `python -m mera_core recall --json` prints it."""
        alternatives = [
            {"system": code.system, "code": code.code, "definition": definition, "share": round(share, 8)}
            for code, definition, share in self.alternatives
        ]
        return vars(self) | {"alternatives": alternatives, "notice": NOTICE}


@torch.inference_mode()
def recall_definitions(model: MeraModel, codes: Sequence[Code], phrasing: int = 0) -> list[str]:
    """The definition of each code, decoded greedily over the words of the tokenizer."""
    vocabulary = model.vocabulary
    ids = torch.tensor([question_ids(DEFINITION, code, vocabulary, phrasing) for code in codes], device=model.device)
    answers: list[list[int]] = [[] for _ in codes]
    open_rows, cache = set(range(len(codes))), None
    for _ in range(LONGEST_ANSWER):
        state, cache = model.step(ids, cache)
        ids = model.logits(state, slice(0, vocabulary.n_words)).argmax(-1, keepdim=True)
        for row in list(open_rows):
            token = int(ids[row])
            if token == vocabulary.eos:
                open_rows.discard(row)
            else:
                answers[row].append(token)
        if not open_rows:
            break
    return [vocabulary.text(answer) for answer in answers]


@torch.inference_mode()
def recall_codes(
    model: MeraModel, definitions: Sequence[str], phrasing: int = 0, top: int = 5
) -> list[list[tuple[Code, float]]]:
    """For each definition the `top` codes with their shares, over every code and heading the model has a token for."""
    vocabulary = model.vocabulary
    states = last_states(model, [question_ids(CODE, definition, vocabulary, phrasing) for definition in definitions])
    return _top_codes(model, states, top)


@torch.inference_mode()
def recall_ancestors(
    model: MeraModel, codes: Sequence[Code], level_name: str, phrasing: int = 0, top: int = 5
) -> list[list[tuple[Code, float]]]:
    """For each code the `top` codes that the model names as its ancestor at a level ("chapter", "block", ...)."""
    asked = [question_ids(level_name, code, model.vocabulary, phrasing) for code in codes]
    return _top_codes(model, last_states(model, asked), top)


@torch.inference_mode()
def recall_equivalents(
    model: MeraModel, subjects: Sequence[Code | str], phrasing: int = 0, top: int = 5
) -> list[list[tuple[Code, float]]]:
    """For each code, written out (`prompts.in_words`) where it has no token, the `top` codes that stand for it."""
    asked = [question_ids(EQUIVALENT, subject, model.vocabulary, phrasing) for subject in subjects]
    return _top_codes(model, last_states(model, asked), top)


def _top_codes(model: MeraModel, states: Tensor, top: int) -> list[list[tuple[Code, float]]]:
    ids = torch.tensor(list(model.vocabulary.code_at), device=model.device)
    shares = model.logits(states, ids).float().softmax(-1)
    best = shares.topk(min(top, len(ids)), dim=-1)
    code_at = model.vocabulary.code_at
    return [
        [(code_at[int(ids[i])], float(share)) for i, share in zip(row_ids, row, strict=True)]
        for row_ids, row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def last_states(model: MeraModel, sequences: Sequence[Sequence[int]], batch_size: int = 512) -> Tensor:
    """The state [N, H] at the last token of each sequence, computed in batches of like length."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    states: dict[int, Tensor] = {}
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        ids, ends = right_padded([sequences[i] for i in rows], model.vocabulary.pad)
        states |= zip(rows, model.hidden(ids.to(model.device))[torch.arange(len(rows)), ends], strict=True)
    return torch.stack([states[row] for row in range(len(sequences))])


def right_padded(sequences: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids [N, T], padded on the right, and the position [N] of each sequence's last token."""
    longest = max(map(len, sequences))
    ids = [[*sequence, *[pad] * (longest - len(sequence))] for sequence in sequences]
    return torch.tensor(ids), torch.tensor([len(sequence) - 1 for sequence in sequences])

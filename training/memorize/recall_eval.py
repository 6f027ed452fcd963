"""How well a checkpoint recalls the ICD codes: exact match in both directions and up the tree. Reads no patients."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mera_core.icd.ontology import Code, Ontology
from mera_core.model.network import MeraModel
from mera_core.model.prompts import CODE, DEFINITION, EQUIVALENT, in_words, phrasings, question_ids
from mera_core.model.recall import last_states
from mera_core.model.vocabulary import Vocabulary
from training.memorize.questions import IGNORE, equivalents, question_batch

LOGITS_AT_ONCE = 2**26
"""Logits that are held at a time: 256 MB in float32, whatever the number of codes."""


def likeliest(model: MeraModel, states: torch.Tensor, among: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest token of the range `among` for each state [N, H], the first of equals, and its logit: [N] each."""
    pieces = states.split(max(1, LOGITS_AT_ONCE // (among.stop - among.start)))
    height, index = (
        torch.cat(part) for part in zip(*(model.logits(piece, among).max(-1) for piece in pieces), strict=True)
    )
    return index + among.start, height


@torch.inference_mode()
def definitions_exact(
    model: MeraModel,
    codes: Sequence[Code],
    ontology: Ontology,
    phrasing: int,
    batch_size: int = 512,
    with_undivided: bool = True,
) -> tuple[list[bool], list[bool]]:
    """Whether greedy decoding gives each code's definition to the letter.

    Greedy decoding gives exactly the book's tokens if and only if each of them is the argmax after the ones before it, so
    one forward pass over question and answer decides it (a test holds it against real decoding).

    Returns:
        Per code: over the words alone, and over the full vocabulary (words, EOV and every code). The second takes
        as many times longer as there are more codes than words; it is all False where it is not asked for.
    """
    vocabulary = model.vocabulary
    sequences = []
    for code in codes:
        asked = question_ids(DEFINITION, code, vocabulary, phrasing)
        answer = [*vocabulary.words(ontology.definition(code)), vocabulary.eos]
        sequences.append((asked, answer))
    order = sorted(range(len(codes)), key=lambda i: len(sequences[i][0]) + len(sequences[i][1]))
    words, undivided = [False] * len(codes), [False] * len(codes)
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        asked = question_batch([sequences[i] for i in rows], vocabulary.pad, model.decoder_start)
        asked = {name: tensor.to(model.device) for name, tensor in asked.items()}
        (hidden,) = model.hidden_of_parts([asked["input_ids"]], [asked.get("decoder_ids")])
        row, place = (asked["labels"] != IGNORE).nonzero(as_tuple=True)
        states, token = hidden[row, place], asked["labels"][row, place]
        best, height = likeliest(model, states, slice(0, vocabulary.n_words))
        right = best == token
        _note(words, rows, row, right)
        if with_undivided:
            _, others = likeliest(model, states, slice(vocabulary.n_words, len(vocabulary)))
            _note(undivided, rows, row, right & (height >= others))
    return words, undivided


def _note(target: list[bool], rows: Sequence[int], row: torch.Tensor, right: torch.Tensor) -> None:
    """Set `target` at `rows` [B] to whether all tokens `right` [N] of it are; row: which of the B a token is of."""
    whole = torch.ones(len(rows), dtype=torch.bool, device=right.device)
    whole.scatter_reduce_(0, row, right, "prod")
    for i, all_right in zip(rows, whole.tolist(), strict=True):
        target[i] = all_right


def _codes_of(vocabulary: Vocabulary) -> slice:
    """The ids of the codes, which come last, behind EOV."""
    return slice(vocabulary.eov + 1, len(vocabulary))


@torch.inference_mode()
def codes_exact(
    model: MeraModel, codes: Sequence[Code], ontology: Ontology, phrasing: int, batch_size: int = 8192
) -> tuple[list[bool], list[bool]]:
    """Whether each definition gives its code, or another with the same definition: over all codes, and undivided."""
    vocabulary, over_codes, undivided = model.vocabulary, [], []
    for begin in range(0, len(codes), batch_size):
        part = codes[begin : begin + batch_size]
        asked = [question_ids(CODE, ontology.definition(code), vocabulary, phrasing) for code in part]
        states = last_states(model, asked)
        best, height = likeliest(model, states, _codes_of(vocabulary))
        _, others = likeliest(model, states, slice(0, vocabulary.eov + 1))
        for code, answer, first in zip(part, best.tolist(), (height > others).tolist(), strict=True):
            right = ontology.definition(vocabulary.code_at[answer]) == ontology.definition(code)
            over_codes.append(right)
            undivided.append(right and first)
    return over_codes, undivided


@torch.inference_mode()
def code_answers(
    model: MeraModel, kind: str, subjects: Sequence[Code | str], phrasing: int, batch_size: int = 8192
) -> list[Code]:
    """The likeliest code of all as the answer to a question of a kind about each of `subjects` (see `question_ids`)."""
    vocabulary, answers = model.vocabulary, []
    for begin in range(0, len(subjects), batch_size):
        asked = [question_ids(kind, one, vocabulary, phrasing) for one in subjects[begin : begin + batch_size]]
        best, _ = likeliest(model, last_states(model, asked), _codes_of(vocabulary))
        answers += [vocabulary.code_at[answer] for answer in best.tolist()]
    return answers


def equivalents_right(model: MeraModel, ontology: Ontology, phrasing: int) -> list[bool]:
    """Whether the model names one of the codes that the CMS maps give, for each code of the other system that they map."""
    asked = equivalents(ontology, model.vocabulary.ids)
    subjects = [q.code if q.code in model.vocabulary else in_words(q.code, ontology.definition(q.code)) for q in asked]
    answers = code_answers(model, EQUIVALENT, subjects, phrasing)
    return [
        answer in ontology.equivalents(question.code, question.answer.system)
        for question, answer in zip(asked, answers, strict=True)
    ]


def measure(model: MeraModel, ontology: Ontology, systems: Sequence[str], maps: bool = False) -> dict:
    """Exact match over every billable code of `systems`, per direction, phrasing, chapter and level of the hierarchy.

    maps: the model was asked for equivalents as well (`MemorizeConfig.equivalents_share`).

    "words" and "codes" are greedy over the answer's own alphabet (every word piece; every code and heading), "undivided"
    over the whole vocabulary. Shares between 0 and 1.
    """
    codes = [code for system in systems for code in ontology.billable(system)]
    held_out = {kind: len(phrasings(kind)) - 1 for kind in (DEFINITION, CODE, "chapter")}
    words, any_word = definitions_exact(model, codes, ontology, 0)
    back, any_code = codes_exact(model, codes, ontology, 0)
    result: dict = {
        "codes": len(codes),
        "code_to_definition": {"words": _mean(words), "undivided": _mean(any_word)},
        "definition_to_code": {"codes": _mean(back), "undivided": _mean(any_code)},
        "hierarchy": _levels(model, codes, ontology, 0),
        "held_out_phrasing": {
            "code_to_definition": _mean(
                definitions_exact(model, codes, ontology, held_out[DEFINITION], with_undivided=False)[0]
            ),
            "definition_to_code": _mean(codes_exact(model, codes, ontology, held_out[CODE])[0]),
            "hierarchy": _levels(model, codes, ontology, held_out["chapter"]),
        },
    }
    if maps:
        right = equivalents_right(model, ontology, 0)
        result["equivalents"] = {"codes": len(right), "right": _mean(right)}
        held = equivalents_right(model, ontology, len(phrasings(EQUIVALENT)) - 1)
        result["held_out_phrasing"]["equivalents"] = _mean(held)
    chapters: dict[Code, list[int]] = {}
    for i, code in enumerate(codes):
        chapters.setdefault(ontology.chapter(code), []).append(i)
    result["chapters"] = [
        {
            "chapter": str(chapter),
            "name": ontology.definition(chapter),
            "codes": len(rows),
            "code_to_definition": _mean([words[i] for i in rows]),
            "definition_to_code": _mean([back[i] for i in rows]),
        }
        for chapter, rows in chapters.items()
    ]
    forgotten = [i for i in range(len(codes)) if not (words[i] and back[i])]
    result["not_exact"] = [str(codes[i]) for i in forgotten[:50]]
    return result


def _levels(model: MeraModel, codes: Sequence[Code], ontology: Ontology, phrasing: int) -> dict[str, float]:
    names = {system: ontology.level_names(system) for system in {code.system for code in codes}}
    found: dict[str, list[bool]] = {}
    for system, levels in names.items():
        for level, name in enumerate(levels, start=1):
            asked = [c for c in codes if c.system == system and ontology.ancestor_at(c, level) not in (None, c)]
            if not asked:
                continue
            answers = code_answers(model, name, asked, phrasing)
            found.setdefault(name, []).extend(
                answer == ontology.ancestor_at(code, level) for code, answer in zip(asked, answers, strict=True)
            )
    return {name: _mean(right) for name, right in found.items()}


def _mean(right: Sequence[bool]) -> float:
    return sum(right) / len(right) if right else float("nan")

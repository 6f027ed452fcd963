"""How well a checkpoint remembers the code book: exact match in both directions and up the tree. Reads no patients."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mera_core.model import MeraModel
from mera_core.ontology import Code, Ontology
from mera_core.recall import last_states, recall_ancestors, recall_equivalents
from mera_core.recall_questions import CODE, DEFINITION, EQUIVALENT, phrasings, question_ids
from training.memorize import IGNORE, equivalents, question_batch

LOGITS_AT_ONCE = 2**26
"""Logits over the vocabulary that are held at a time: 256 MB in float32, whatever the number of codes."""


@torch.inference_mode()
def definitions_exact(
    model: MeraModel, codes: Sequence[Code], ontology: Ontology, phrasing: int, batch_size: int = 512
) -> tuple[list[bool], list[bool]]:
    """Whether greedy decoding gives each code's definition to the letter.

    Greedy decoding gives exactly the book's tokens if and only if each of them is the argmax after the ones before it, so
    one forward pass over question and answer decides it (a test holds it against real decoding).

    Returns:
        Per code: over the words alone, and over the undivided vocabulary (words, EOV and every code).
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
        token = asked["labels"][row, place]
        best_word, best = _best(model, hidden[row, place])
        right_word, right_any = best_word == token, best == token
        for target, right in ((words, right_word), (undivided, right_any)):
            whole = torch.ones(len(rows), dtype=torch.bool, device=model.device)
            whole.scatter_reduce_(0, row, right, "prod")
            for n, i in enumerate(rows):
                target[i] = bool(whole[n])
    return words, undivided


def _best(model: MeraModel, states: torch.Tensor, among: Sequence[int] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest token of each state [N]: of `among` (ids; by default the words), and of the whole vocabulary."""
    vocabulary = model.vocabulary
    ids = (
        torch.tensor(list(among), device=states.device) if among else torch.arange(vocabulary.n_words).to(states.device)
    )
    of_some, of_all = [], []
    for piece in states.split(max(1, LOGITS_AT_ONCE // len(vocabulary))):
        logits = model.logits(piece, slice(0, len(vocabulary)))
        of_some.append(ids[logits[:, ids].argmax(-1)])
        of_all.append(logits.argmax(-1))
    return torch.cat(of_some), torch.cat(of_all)


@torch.inference_mode()
def codes_exact(
    model: MeraModel, codes: Sequence[Code], ontology: Ontology, phrasing: int, batch_size: int = 1024
) -> tuple[list[bool], list[bool]]:
    """Whether each definition gives its code, or another with the same definition: over all codes, and undivided."""
    vocabulary, over_codes, undivided = model.vocabulary, [], []
    for begin in range(0, len(codes), batch_size):
        part = codes[begin : begin + batch_size]
        asked = [question_ids(CODE, ontology.definition(code), vocabulary, phrasing) for code in part]
        among_codes, best = _best(model, last_states(model, asked), list(vocabulary.code_at))
        for code, among, anywhere in zip(part, among_codes.tolist(), best.tolist(), strict=True):
            book = ontology.definition(code)
            over_codes.append(ontology.definition(vocabulary.code_at[among]) == book)
            found = vocabulary.code_at.get(anywhere)
            undivided.append(found is not None and ontology.definition(found) == book)
    return over_codes, undivided


@torch.inference_mode()
def equivalents_right(model: MeraModel, ontology: Ontology, phrasing: int, batch_size: int = 4096) -> list[bool]:
    """Whether the model names one of the codes that the CMS maps give, for each code of the other system that they map."""
    asked, right = equivalents(ontology, model.vocabulary.ids), []
    for begin in range(0, len(asked), batch_size):
        part = asked[begin : begin + batch_size]
        best = recall_equivalents(model, [question.code for question in part], phrasing, top=1)
        for question, ((answer, _),) in zip(part, best, strict=True):
            right.append(answer in ontology.equivalents(question.code, question.answer.system))
    return right


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
            "code_to_definition": _mean(definitions_exact(model, codes, ontology, held_out[DEFINITION])[0]),
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
            for begin in range(0, len(asked), 4096):
                part = asked[begin : begin + 4096]
                best = recall_ancestors(model, part, name, phrasing, top=1)
                found.setdefault(name, []).extend(
                    answer[0][0] == ontology.ancestor_at(code, level) for code, answer in zip(part, best, strict=True)
                )
    return {name: _mean(right) for name, right in found.items()}


def _mean(right: Sequence[bool]) -> float:
    return sum(right) / len(right) if right else float("nan")

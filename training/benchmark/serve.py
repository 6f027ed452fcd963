"""What serving costs: `rank()` beside a bare forward pass, ranking beside decoding, batches, variants that share a beginning,
with the same checkpoint in the same process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.model.forward import in_batches
from mera_core.model.sequence import Encoded
from training.benchmark.invented import patients
from training.benchmark.rows import Row, Setting, mean_seconds, paired, rates, row, seconds

TITLE = "Serving: one forward pass, decoding, batches, variants"
LISTED = 20
"""Codes that are decoded, and whose place on two lists is compared: as many as recall@20 looks at."""
History = tuple[Patient, Encoded]


def measure(setting: Setting) -> Iterator[Row]:
    """`rank()`, decoding, batches, shared beginnings."""
    engine = Engine.load(setting.checkpoint)
    engine.warm_up()
    people = patients(8 if setting.quick else 64, codes_of(engine))
    yield from _one_pass(setting, engine, people)
    yield from _decoding(setting, engine, people)
    yield from _batches(setting, engine)
    yield from _variants(setting, engine)


def codes_of(engine: Engine) -> list[Code]:
    """The codes that it reads, sorted."""
    return sorted(engine.input_codes)


def histories_of(engine: Engine, people: Sequence[Patient]) -> list[History]:
    """Patients as the engine reads them, with their tokens."""
    return [(history, engine.encode(history)) for history, _ in map(engine.read_history, people)]


def _one_pass(setting: Setting, engine: Engine, people: Sequence[Patient]) -> Iterator[Row]:
    """From a typed history to a finished Ranking, beside the network's forward pass over the same tokens alone."""

    @torch.inference_mode()
    def bare(ids: torch.Tensor) -> None:
        """What `AutoModelForCausalLM` does when it is asked for the logits of the last token, as a tokenizer's output asks."""
        mask = torch.ones_like(ids)  # with it a pass is some 2 % quicker than without
        engine.model.backbone(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits.cpu()

    for name, ranked in (("histories as in UCI", people), ("a long history", [_long(engine, 200)])):
        read = [encoded.input_ids for _, encoded in histories_of(engine, ranked)]
        tokens = [torch.tensor([one], device=engine.model.device) for one in read]
        took = paired(
            lambda ranked=ranked: mean_seconds(engine.rank, ranked),
            lambda tokens=tokens: mean_seconds(bare, tokens),
            setting.times(21, 3),
            warm=1,
        )
        length = round(sum(map(len, read)) / len(read), 1) if len(read) > 1 else len(read[0])
        told = "a bare forward pass of the same tokens"
        yield row(f"rank(), {name}", "s", told, *took, tokens=length)


def _long(engine: Engine, tokens: int, seed: int = 3) -> Patient:
    """A patient whose history takes about so many tokens: visits of five codes."""
    draw, codes = np.random.default_rng(seed), codes_of(engine)
    visits: list[Visit] = []
    while not visits or len(histories_of(engine, [Patient(visits, sex="F")])[0][1].input_ids) < tokens:
        visits.append(Visit([codes[i] for i in draw.choice(len(codes), 5, replace=False)], age=60))
    return Patient(visits, sex="F", id="long")


def _decoding(setting: Setting, engine: Engine, people: Sequence[Patient]) -> Iterator[Row]:
    """The whole list at once, beside twenty tokens decoded one after another by transformers' `generate()`."""
    read = histories_of(engine, people[:16])
    took = paired(
        lambda: mean_seconds(lambda one: generated(engine, one), read),
        lambda: mean_seconds(lambda one: engine.scores([one])[0].argsort(), read),
        setting.times(7),
        warm=1,
    )
    yield row(
        f"{LISTED} codes decoded greedily, by transformers' generate()", "s", "the whole label space ranked", *took
    )


@torch.inference_mode()
def generated(engine: Engine, read: History) -> list[int]:
    """Token ids that the backbone goes on with, greedily, over its whole vocabulary."""
    ids = torch.tensor([read[1].input_ids], device=engine.model.device)
    out = engine.model.backbone.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=LISTED,
        min_new_tokens=LISTED,
        do_sample=False,
        pad_token_id=engine.model.vocabulary.pad,
    )
    return out[0, ids.shape[1] :].tolist()


def _batches(setting: Setting, engine: Engine) -> Iterator[Row]:
    """Patients a second in batches, beside one call each."""
    people = patients(16 if setting.quick else 256, codes_of(engine), seed=4)
    for size in (16, 64):
        took = paired(
            lambda size=size: seconds(engine.rank_many, people, size),
            lambda: seconds(lambda: [engine.rank(person) for person in people]),
            setting.times(5),
            warm=0 if setting.quick else 1,
        )
        told, figures = f"patients ranked in batches of {size}", rates(len(people), took)
        yield row(told, "patients/s", "one by one", *figures, patients=len(people))


def _variants(setting: Setting, engine: Engine) -> Iterator[Row]:
    """A history without each of its codes, and with each of 64 others: the beginning computed once, or every time."""
    long = _long(engine, 60 if setting.quick else 200)
    last, codes = long.visits[-1], [code for code in codes_of(engine) if code not in long.visits[-1].codes]

    def changed(place: int, codes: Sequence[Code]) -> Patient:
        visit = Visit(codes, age=long.visits[place].age)
        return replace(long, visits=(*long.visits[:place], visit, *long.visits[place + 1 :]))

    without = [
        changed(place, (*visit.codes[:i], *visit.codes[i + 1 :]))
        for place, visit in enumerate(long.visits)
        for i in range(len(visit.codes))
    ]
    added = [changed(len(long.visits) - 1, (*last.codes, code)) for code in codes[:64]]
    for what, variants in (("each code left out in turn", without), ("each of 64 codes added in turn", added)):
        sequences = [encoded.input_ids for _, encoded in histories_of(engine, [long, *variants])]

        @torch.inference_mode()
        def states(share: bool, sequences=sequences) -> torch.Tensor:
            out = torch.empty(len(sequences), engine.model.text_config.hidden_size)
            for rows, found in in_batches(engine.model, sequences, 128, share):
                out[rows] = found.float().cpu()
            return out

        away = float((states(True) - states(False)).abs().max())
        took = paired(
            lambda states=states: seconds(states, True),
            lambda states=states: seconds(states, False),
            setting.times(7),
            warm=1,
        )
        yield row(
            f"a history of {len(sequences[0])} tokens, {what}, its beginning computed once",
            "s",
            "every variant computed whole",
            *took,
            variants=len(variants),
            largest_difference=float(f"{away:.2g}"),
        )

"""What serving costs: `rank()` beside a bare forward pass, ranking beside decoding, batches, variants that share a beginning,
with the same checkpoint in the same process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

import numpy as np
import torch

from mera_core.engine import Engine
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.model.forward import in_batches
from mera_core.model.recurrence import seen_features
from mera_core.model.sequence import Encoded
from training.benchmark.agreement import LISTED
from training.benchmark.invented import patients
from training.benchmark.rows import Row, Setting, paired, row, seconds

TITLE = "Serving: one forward pass, decoding, batches, variants"
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
    model, device = engine.model, engine.model.device
    tokens = [torch.tensor([encoded.input_ids], device=device) for _, encoded in histories_of(engine, people)]
    long = _long(engine, 200)
    ids = torch.tensor([histories_of(engine, [long])[0][1].input_ids], device=device)

    @torch.inference_mode()
    def bare(one: torch.Tensor) -> None:
        """What `AutoModelForCausalLM` does when it is asked for the logits of the last token, as a tokenizer's output asks."""
        mask = torch.ones_like(one)  # with it a pass is some 2 % quicker than without
        model.backbone(input_ids=one, attention_mask=mask, use_cache=False, logits_to_keep=1).logits.cpu()

    runs = setting.times(21, 3)
    took = paired(
        lambda: mean(seconds(lambda p=person: engine.rank(p)) for person in people),
        lambda: mean(seconds(lambda t=one: bare(t)) for one in tokens),
        runs,
        warm=1,
    )
    shortest = mean(one.shape[1] for one in tokens)
    told = "a bare forward pass of the same tokens"
    yield row("rank(), histories as in UCI", took[0], "s", against=told, theirs=took[1], tokens=round(shortest, 1))
    took = paired(lambda: seconds(lambda: engine.rank(long)), lambda: seconds(lambda: bare(ids)), runs, warm=1)
    yield row("rank(), a long history", took[0], "s", against=told, theirs=took[1], tokens=ids.shape[1])


def _long(engine: Engine, tokens: int, seed: int = 3) -> Patient:
    """A patient whose history takes about so many tokens: visits of five codes."""
    draw, codes = np.random.default_rng(seed), codes_of(engine)
    visits: list[Visit] = []
    while not visits or len(histories_of(engine, [Patient(visits, sex="F")])[0][1].input_ids) < tokens:
        visits.append(Visit([codes[i] for i in draw.choice(len(codes), 5, replace=False)], age=60))
    return Patient(visits, sex="F", id="long")


def _decoding(setting: Setting, engine: Engine, people: Sequence[Patient]) -> Iterator[Row]:
    """The whole list at once, beside twenty codes decoded one after another, in three ways."""
    read = histories_of(engine, people[:16])
    ways = {
        "by transformers' generate()": lambda one: generated(engine, one),
        "over the label space, the past kept in memory": lambda one: decoded(engine, one, LISTED),
        "over the label space, every step from the start": lambda one: decoded(engine, one, LISTED, keep=False),
    }
    for name, way in ways.items():
        took = paired(
            lambda way=way: mean(seconds(lambda h=one: way(h)) for one in read),
            lambda: mean(seconds(lambda h=one: engine.scores([h])[0].argsort()) for one in read),
            setting.times(7, 1),
            warm=1,
        )
        yield row(
            f"{LISTED} codes decoded greedily, {name}",
            took[0],
            "s",
            against="the whole label space ranked",
            theirs=took[1],
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


@torch.inference_mode()
def decoded(engine: Engine, read: History, most: int, ends: bool = False, keep: bool = True) -> list[int]:
    """Greedy codes of the next visit, as label indices in order; no code twice.

    Args:
        ends: whether EOV ends the list.
        keep: keep the keys and values of all tokens, so that a step computes one; else each step begins anew.
    """
    model, (history, encoded) = engine.model, read
    index = {code: label for label, code in enumerate(engine.label_space)}
    rows = [[0, *features] for features in seen_features(history.visits, index)]
    seen = torch.tensor(rows, device=model.device) if rows else None
    whole, memory, out = torch.tensor([encoded.input_ids], device=model.device), None, []
    ids = whole
    while len(out) < most:
        state, memory = model.step(ids, memory) if keep else (model.hidden(whole)[:, -1], None)
        scores, eov = model.scores(state, seen)
        scores[0, out] = -torch.inf
        label = int(scores[0].argmax())
        if ends and scores[0, label] <= eov[0]:
            break
        out.append(label)
        ids = model.label_ids[label].view(1, 1)
        whole = torch.cat([whole, ids], 1)
    return out


def _batches(setting: Setting, engine: Engine) -> Iterator[Row]:
    """Patients a second in batches, beside one call each."""
    people = patients(16 if setting.quick else 256, codes_of(engine), seed=4)
    for size in (16, 64):
        took = paired(
            lambda size=size: seconds(lambda: engine.rank_many(people, size)),
            lambda: seconds(lambda: [engine.rank(person) for person in people]),
            setting.times(5, 1),
            warm=0 if setting.quick else 1,
        )
        a_second = [[len(people) / one for one in each] for each in took]
        told = f"patients ranked in batches of {size}"
        yield row(told, a_second[0], "patients/s", against="one by one", theirs=a_second[1], patients=len(people))


def _variants(setting: Setting, engine: Engine) -> Iterator[Row]:
    """A history without each of its codes, and with each of 64 others: the beginning computed once, or every time."""
    long = _long(engine, 60 if setting.quick else 200)
    last, codes = long.visits[-1], [code for code in codes_of(engine) if code not in long.visits[-1].codes]
    without = [
        Patient([*long.visits[:n], Visit([*v.codes[:i], *v.codes[i + 1 :]], age=v.age), *long.visits[n + 1 :]], sex="F")
        for n, v in enumerate(long.visits)
        for i in range(len(v.codes))
    ]
    added = [Patient([*long.visits[:-1], Visit([*last.codes, code], age=last.age)], sex="F") for code in codes[:64]]
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
            lambda f=states: seconds(lambda: f(True)),
            lambda f=states: seconds(lambda: f(False)),
            setting.times(7, 1),
            1,
        )
        yield row(
            f"a history of {len(sequences[0])} tokens, {what}, its beginning computed once",
            took[0],
            "s",
            against="every variant computed whole",
            theirs=took[1],
            variants=len(variants),
            largest_difference=float(f"{away:.2g}"),
        )

"""What a batch asks, where, and with which weight; and that step i is a matter of the seed and i alone."""

from __future__ import annotations

import random

import pytest
import torch

from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Ontology
from mera_core.model.recurrence import seen_features
from mera_core.model.sequence import Encoder, SequenceConfig
from tests.tiny import CODES, icd9, tiny_vocabulary
from training.common.config import RankConfig
from training.memorize.questions import QuestionSampler
from training.rank.batches import HistoryBatches

VOCABULARY = tiny_vocabulary()
A, B, C, D = icd9("428.0", "427.31", "584.9", "486")
INDEX = {code: i for i, code in enumerate(CODES)}


def batches(patients: list[Patient], labels=CODES, sequence=None, questions=None, **settings) -> HistoryBatches:
    config = RankConfig(**({"batch_size": 4, "epochs": 2} | settings))
    encoder = Encoder(VOCABULARY, sequence or SequenceConfig(), remember=True)
    return HistoryBatches(patients, labels, encoder, config, questions)


def collated(patient: Patient, **settings) -> dict[str, torch.Tensor]:
    data = batches([patient], **settings)
    return data.collate([patient], random.Random(0))


def asked(batch) -> list[tuple[int, float, set]]:
    """(position, weight, true codes) of each target."""
    return [
        (position, round(weight, 6), {CODES[i] for i in row.nonzero().flatten().tolist()})
        for position, weight, row in zip(
            batch["position"].tolist(), batch["weight"].tolist(), batch["positive"], strict=True
        )
    ]


def three_visits() -> Patient:
    return Patient([Visit([A, B]), Visit([A, C]), Visit([D])], sex="F", id="p")


def ends(batch) -> list[int]:
    return (batch["input_ids"][0] == VOCABULARY.eov).nonzero().flatten().tolist()


def test_every_visit_but_the_first_is_asked_at_the_eov_before_it() -> None:
    batch = collated(three_visits(), shuffle=False)
    first, second, _ = ends(batch)
    assert asked(batch) == [(first, 1.0, {A, C}), (second, 1.0, {D})]
    assert batch["row"].tolist() == [0, 0] and batch["positive"].shape == (2, 10)


def test_what_is_told_of_seen_codes_ends_with_the_visit_that_asks() -> None:
    batch = collated(three_visits())
    expected = [
        [float(target), *row] for target in (0, 1) for row in seen_features(three_visits().visits[: target + 1], INDEX)
    ]
    assert batch["seen"].tolist() == expected
    assert INDEX[D] not in batch["seen"][:, 1].tolist()  # the last visit's own code is nowhere


def test_only_the_last_visit_when_not_every_visit() -> None:
    batch = collated(three_visits(), every_visit=False)
    assert asked(batch) == [(ends(batch)[1], 1.0, {D})]


def test_the_first_visit_is_asked_after_the_profile_with_the_start_weight() -> None:
    batch = collated(three_visits(), start_weight=0.25)
    profile = len(VOCABULARY.words("Patient: female."))
    assert asked(batch)[0] == (profile, 0.25, {A, B})  # BOS stands at 0
    assert [weight for _, weight, _ in asked(batch)] == [0.25, 1.0, 1.0]
    assert (batch["seen"][:, 0] > 0).all()  # nothing was seen before the first visit


def test_the_rest_of_a_visit_is_asked_after_each_of_its_codes() -> None:
    batch = collated(three_visits(), shuffle=False, rest_weight=0.5)
    first, second, _ = ends(batch)
    assert asked(batch) == [
        (first - 2, 0.5, {B}),  # after A of the first visit
        (first, 1.0, {A, C}),
        (second - 2, 0.5, {C}),
        (second, 1.0, {D}),
    ]


def test_patients_with_one_visit_train_only_where_they_are_asked_something() -> None:
    patients = [three_visits(), Patient([Visit([A, B])], id="one")]
    assert len(batches(patients).patients) == 1
    assert len(batches(patients, start_weight=0.1).patients) == 2
    assert len(batches(patients, rest_weight=0.1).patients) == 2


def test_dropping_never_takes_a_code_out_of_a_target() -> None:
    patient = Patient([Visit([A, B, C]), Visit([A, C, D])])
    whole = batches([patient]).collate([patient], random.Random(0))
    plain, length, shorter = whole["positive"], whole["input_ids"].shape[1], 0
    for seed in range(30):
        data = batches([patient], drop=0.5)
        batch = data.collate([patient], random.Random(seed))
        assert torch.equal(batch["positive"], plain)
        assert batch["input_ids"][0, batch["position"][0]] == VOCABULARY.eov
        shorter += batch["input_ids"].shape[1] < length
    assert shorter > 20


def test_codes_outside_the_label_space_are_input_only() -> None:
    labels = tuple(code for code in CODES if code != C)
    batch = batches([three_visits()], labels).collate([three_visits()], random.Random(0))
    assert batch["positive"].shape == (2, 9)
    assert [labels[i] for i in batch["positive"][0].nonzero().flatten().tolist()] == [A]
    assert VOCABULARY.ids[C] in batch["input_ids"]


def test_visits_that_were_cut_off_ask_nothing_and_positions_still_fit() -> None:
    patient = Patient([Visit([A, B]), Visit([C]), Visit([A]), Visit([D])], sex="F")
    sequence = SequenceConfig(max_tokens=40)
    batch = batches([patient], sequence=sequence, start_weight=0.1).collate([patient], random.Random(0))
    assert batch["input_ids"].shape[1] <= 40 and len(ends(batch)) < 4
    assert asked(batch) == [
        (end, 1.0, codes) for end, codes in zip(ends(batch)[:-1], [{A}, {D}][-len(ends(batch)) + 1 :], strict=True)
    ]
    # what was cut off is still known to have been seen
    assert INDEX[B] in batch["seen"][:, 1].tolist()


def test_rows_are_padded_on_the_right() -> None:
    patients = [three_visits(), Patient([Visit([A]), Visit([B])], id="q")]
    batch = batches(patients).collate(patients, random.Random(0))
    width = batch["input_ids"].shape[1]
    length = len(Encoder(VOCABULARY, SequenceConfig()).encode(patients[1]).input_ids)
    assert length < width
    assert batch["input_ids"][1, length:].tolist() == [VOCABULARY.pad] * (width - length)
    assert batch["row"].tolist() == [0, 0, 1]


def many(count: int = 30) -> list[Patient]:
    draw = random.Random(2)
    return [Patient([Visit(draw.sample(CODES, 3)) for _ in range(draw.randint(2, 4))], id=str(n)) for n in range(count)]


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_step_i_is_a_matter_of_the_seed_and_i_alone() -> None:
    data, again = batches(many(), drop=0.2), batches(many(), drop=0.2)
    assert len(data) == 16  # two passes of 30 by 4
    for i in (11, 3, 7):  # in another order than training goes
        assert equal(data[i], again[i])
    assert equal(data[3], again[3])  # asked a second time
    assert not equal(data[0], batches(many(), drop=0.2, seed=2)[0])


def test_a_pass_sees_every_patient_once_and_a_part_of_one_a_part() -> None:
    data = batches(many(), epochs=1)
    seen = [patient.id for batch in data._batches for patient in batch]
    assert sorted(seen) == sorted(patient.id for patient in many())
    half = [patient.id for batch in batches(many(), epochs=1.5)._batches for patient in batch]
    assert len(half) == 45


def test_rehearsal_puts_stage_1_questions_into_every_step() -> None:
    book = Ontology.load()
    codes = sorted({node for code in CODES for node in (code, *book.ancestors(code))})
    sampler = QuestionSampler(tiny_vocabulary(codes), book, codes)
    data = batches(many(), questions=sampler, rehearsal=6)
    for i in (0, 5, 15):
        assert sum(len(part["input_ids"]) for part in data[i]["questions"]) == 6
        again = batches(many(), questions=sampler, rehearsal=6)[i]
        for one, other in zip(data[i]["questions"], again["questions"], strict=True):
            assert equal(one, other)
    assert "questions" not in batches(many(), questions=sampler)[0]


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.5, 0.5)])
def test_no_target_is_without_a_true_code(weights) -> None:
    data = batches(many(), start_weight=weights[0], rest_weight=weights[1])
    for i in range(len(data)):
        assert data[i]["positive"].any(1).all() and (data[i]["weight"] > 0).all()


# --- one step in several parts


def joined(data: HistoryBatches, step: int) -> list[tuple]:
    """(tokens of its sequence up to its place, weight, true labels, what was seen) of every target of a step."""
    out = []
    for part in range(data.parts):
        batch = data[step * data.parts + part]
        for n, (row, position) in enumerate(zip(batch["row"].tolist(), batch["position"].tolist(), strict=True)):
            seen = batch["seen"][batch["seen"][:, 0] == n][:, 1:]
            tokens = tuple(batch["input_ids"][row, : position + 1].tolist())
            labels = tuple(batch["positive"][n].nonzero().flatten().tolist())
            out.append((tokens, batch["weight"][n].item(), labels, tuple(map(tuple, seen.tolist()))))
    return sorted(out)


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_step_asks_the_same_however_many_parts_it_has(parts) -> None:
    settings = {"drop": 0.3, "start_weight": 0.25, "rest_weight": 0.5}
    whole = batches(many(), batch_size=24, **settings)
    config = RankConfig(batch_size=24 // parts, epochs=2, **settings)
    encoder = Encoder(VOCABULARY, SequenceConfig(), remember=True)
    divided = HistoryBatches(many(), CODES, encoder, config, parts=parts)
    assert len(whole) == 4 and len(divided) == 4 * parts
    for step in range(4):
        assert joined(divided, step) == joined(whole, step) != []
        weights = [divided[step * parts + part]["weight"].sum() for part in range(parts)]
        for part in range(parts):  # every part knows the step's weight without being told
            assert divided[step * parts + part]["target_weight"] * parts == pytest.approx(float(sum(weights)))
    assert "target_weight" not in whole[0]


def test_a_part_without_patients_is_a_sequence_that_asks_nothing() -> None:
    config = RankConfig(batch_size=1, epochs=1)
    data = HistoryBatches(many(3), CODES, Encoder(VOCABULARY, SequenceConfig()), config, parts=5)
    assert len(data) == 5
    assert [len(data[part]["weight"]) > 0 for part in range(5)] == [True, True, True, False, False]
    assert data[4]["input_ids"].shape == (1, 1) and data[4]["positive"].shape == (0, 10)
    assert data[4]["target_weight"] == data[0]["target_weight"]


def test_rehearsal_is_divided_among_the_parts() -> None:
    book = Ontology.load()
    codes = sorted({node for code in CODES for node in (code, *book.ancestors(code))})
    sampler = QuestionSampler(tiny_vocabulary(codes), book, codes)
    config = RankConfig(batch_size=2, epochs=1, rehearsal=5)
    data = HistoryBatches(many(), CODES, Encoder(VOCABULARY, SequenceConfig()), config, sampler, parts=2)
    for item in (0, 1, 7):
        assert sum(len(part["input_ids"]) for part in data[item]["questions"]) == 3 - item % 2


# --- one sample a history, and shorter inputs


def test_prefix_samples_ask_what_every_visit_asks_and_never_hold_the_answer() -> None:
    patients = many(12)
    plain, prefixes = (
        batches(patients, shuffle=False, epochs=1, batch_size=40, prefix_samples=form) for form in (False, True)
    )
    assert len(plain) == len(prefixes) == 1
    assert joined(plain, 0) == joined(prefixes, 0)
    batch = prefixes[0]
    assert len(batch["input_ids"]) == len(batch["row"]) == sum(len(p.visits) - 1 for p in patients)
    for row, position in zip(batch["row"].tolist(), batch["position"].tolist(), strict=True):
        assert set(batch["input_ids"][row, position + 1 :].tolist()) <= {VOCABULARY.pad}
    with pytest.raises(InputError, match="asks for the next visit only"):
        RankConfig(prefix_samples=True, rest_weight=0.1)


@pytest.mark.parametrize("rest_weight", [0.0, 0.5])
def test_trimmed_inputs_end_where_nothing_more_is_asked(rest_weight) -> None:
    whole, trimmed = (
        batches(many(), epochs=1, batch_size=40, rest_weight=rest_weight, drop=0.2, trim_inputs=trim)[0]
        for trim in (False, True)
    )
    assert trimmed["input_ids"].shape[1] < whole["input_ids"].shape[1]
    for row in range(len(trimmed["input_ids"])):
        last = max(trimmed["position"][trimmed["row"] == row])
        assert torch.equal(trimmed["input_ids"][row, : last + 1], whole["input_ids"][row, : last + 1])
        assert set(trimmed["input_ids"][row, last + 1 :].tolist()) <= {VOCABULARY.pad}
    assert all(torch.equal(trimmed[name], whole[name]) for name in whole if name != "input_ids")


def test_like_lengths_together_leave_little_padding() -> None:
    draw = random.Random(8)
    patients = [
        Patient(
            [Visit(draw.sample(CODES, draw.randint(1, 9))) for _ in range(draw.choice((2, 2, 2, 3, 4, 7)))], id=str(n)
        )
        for n in range(200)
    ]

    def padded(how: str) -> float:
        data = batches(patients, epochs=1, batch_size=10, batches=how)
        ids = [data[i]["input_ids"] for i in range(len(data))]
        return sum(int((one == VOCABULARY.pad).sum()) for one in ids) / sum(one.numel() for one in ids)

    assert padded("by_tokens") < 0.05 < padded("by_visits") < 0.25 < padded("mixed")


# --- a teacher beside the true codes


class Said:
    """A teacher that says 0.5 of every label after each visit of those whom it knows."""

    def __init__(self, known: set[str]):
        self.known = known

    def row(self, patient: Patient, visits: int) -> int | None:
        return visits if patient.id in self.known else None

    def probabilities(self, rows: list[int]) -> torch.Tensor:
        return torch.full((len(rows), len(CODES)), 0.5)


def test_with_a_teacher_the_last_visit_and_single_visits_are_asked_too() -> None:
    alone = Patient([Visit([A])], id="alone")
    encoder = Encoder(VOCABULARY, SequenceConfig(), remember=True)
    data = HistoryBatches([three_visits(), alone], CODES, encoder, RankConfig(), taught=Said({"p", "alone"}))
    assert len(data.patients) == 2
    batch = data.collate([three_visits(), alone], random.Random(0))
    assert batch["known"].tolist() == [True, True, False, False] and batch["told"].all()
    assert [row.sum() for row in batch["positive"]] == [2, 1, 0, 0] and batch["taught"].shape == (4, len(CODES))
    assert batch["position"].tolist()[:3] == ends(batch)
    untold = HistoryBatches([three_visits()], CODES, encoder, RankConfig(), taught=Said(set()))
    batch = untold.collate([three_visits()], random.Random(0))
    assert batch["known"].tolist() == [True, True] and not batch["told"].any()

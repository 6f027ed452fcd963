"""Next-code cross-entropy and greedy decoding: what is asked at each place, and lists that end at EOV."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from mera_core.evaluation.metrics import recall_at, top_labels
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient, Visit
from mera_core.model.sequence import Encoder, SequenceConfig
from tests import tiny
from training.ablate.run import with_blanks
from training.common.config import RankConfig
from training.rank.baseline_decoding import SequenceBatches, as_scores, decode, sequence_loss

CODES = tiny.CODES[:4]


def history(visits: int = 3) -> Patient:
    first, second, third, _ = CODES
    return Patient([Visit([first, second]), Visit([third]), Visit([second, first])][:visits], id="1", sex="F", age=70)


def batches(**values) -> SequenceBatches:
    config = RankConfig(batch_size=8, epochs=1, **values)
    encoder = Encoder(tiny.tiny_vocabulary(), SequenceConfig())
    return SequenceBatches([history()], CODES, encoder, config)


def test_each_place_asks_for_the_next_code_and_the_last_for_eov() -> None:
    data = batches(shuffle=False)
    batch = data.collate([history()], random.Random(0))
    vocabulary = data.encoder.vocabulary
    assert batch["target"].tolist() == [1, 0, 4]  # second, first, EOV
    ids, positions = batch["input_ids"][0].tolist(), batch["position"].tolist()
    assert ids[positions[0]] == vocabulary.eov
    assert [ids[p] for p in positions[1:]] == [vocabulary.ids[CODES[1]], vocabulary.ids[CODES[0]]]
    assert positions == list(range(positions[0], positions[0] + 3)) and positions[-1] == len(ids) - 1
    # the history holds first and second in visit 1, third in visit 2: a row for each, at each of three places
    assert batch["seen"][:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_sample_never_holds_a_later_visit() -> None:
    data = batches(shuffle=False)
    one = data.collate([history(2)], random.Random(0))
    changed = Patient([history().visits[0], Visit([CODES[2]]), Visit([CODES[3]])], id="1", sex="F", age=99)
    other = data.collate([replace(changed, visits=changed.visits[:2])], random.Random(0))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_shuffling_changes_the_order_of_targets_and_keeps_the_set() -> None:
    data = batches(shuffle=True)
    orders = {tuple(data.collate([history()], random.Random(seed))["target"].tolist()) for seed in range(20)}
    assert orders == {(0, 1, 4), (1, 0, 4)}


def test_a_model_trained_on_one_list_decodes_it() -> None:
    model = tiny.tiny_model(CODES)
    engine = tiny.tiny_engine(model)
    data = batches(shuffle=False)
    config = RankConfig(batch_size=8, epochs=1, shuffle=False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = data.collate([history()], random.Random(0))
    losses = []
    for _ in range(80):
        loss = sequence_loss(model, batch, config)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < losses[0]
    past = Patient(history().visits[:2], sex="F", age=None)
    read = [(past, engine.encode(past))]
    assert decode(engine, read) == [[1, 0]]
    assert decode(engine, read * 3) == [[1, 0]] * 3


def test_decoding_names_no_code_twice_and_ends() -> None:
    engine = tiny.tiny_engine(tiny.tiny_model(CODES, seed=3))
    with torch.no_grad():
        engine.model.head.eov_bias.fill_(-1e4)  # EOV never wins: every code is named, once
    past = Patient(history().visits[:1])
    (listed,) = decode(engine, [(past, engine.encode(past))])
    assert sorted(listed) == [0, 1, 2, 3]


def test_a_short_list_is_not_filled_up_with_codes() -> None:
    scores = as_scores([[2], []], 4)
    truth = Truth.from_sets([[2, 0], [0]], [[], []], 4)
    wide, padded = with_blanks(scores, truth, 5)
    assert wide.shape == (2, 9) and padded.positive.shape == (2, 9)
    np.testing.assert_allclose(recall_at(top_labels(wide, 5), padded, 5), [0.5, 0.0])
    assert recall_at(top_labels(scores, 4), truth, 4).tolist() == pytest.approx(
        [1.0, 1.0]
    )  # what it would be otherwise

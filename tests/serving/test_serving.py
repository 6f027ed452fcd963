"""Many sessions on one model: the direct engine's answers, each to whoever asked, and the model on one thread alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from mera_core.cohort.scoring import CohortScoring
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.explain import leave_one_out
from mera_core.history.records import Patient, Visit
from mera_core.model.batching import by_length
from mera_core.serving.shared_engine import SharedEngine
from mera_core.serving.turn_queue import TurnQueue
from tests.conftest import invented_patients
from tests.tiny import CODES, tiny_engine, tiny_model


@pytest.fixture(scope="module")
def patients(engine) -> list[Patient]:
    return [patient for patient in invented_patients(120) if engine.read_history(patient)[0].visits]


@pytest.fixture
def queue() -> Iterator[TurnQueue]:
    with closing(TurnQueue()) as made:
        yield made


def same(ranking, other) -> None:
    assert ranking.codes == other.codes
    np.testing.assert_allclose(ranking.scores, other.scores, atol=1e-5)
    np.testing.assert_allclose(ranking.share, other.share, atol=1e-5)
    assert ranking.recurrent.tolist() == other.recurrent.tolist()
    assert (ranking.predicted, ranking.notes, ranking.checkpoint) == (other.predicted, other.notes, other.checkpoint)


def test_fifty_sessions_on_two_models_get_what_the_engine_gives_each_of_them(engine, patients, queue):
    """One of them asks for a history that nothing can be read of, and that is its own affair."""
    engines = engine, tiny_engine(tiny_model(seed=5))
    shared = [SharedEngine(each, queue) for each in engines]

    def session(number: int) -> list:
        own = patients[number % len(patients) :: 17]
        if number == 7:
            with pytest.raises(InputError):
                shared[1].rank(Patient((Visit(("E880.9",)),), id="unreadable"))
        model = shared[number % 2]
        return [*zip(own, map(model.rank, own[:2]), strict=False), *zip(own, model.rank_many(own), strict=True)]

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(session, range(50)))
    direct = [{patient.id: each.rank(patient) for patient in patients} for each in engines]
    for number, answer in enumerate(answers):
        for patient, ranking in answer:
            same(ranking, direct[number % 2][patient.id])


def test_what_is_scored_in_turns_is_the_same_and_each_turn_as_small_as_was_asked(engine, patients, queue, monkeypatch):
    read = [(history, engine.encode(history)) for history in (engine.read_history(each)[0] for each in patients)]
    turns: list[list[int]] = []
    whole = Engine.scores

    def counted(self, read, batch_size, tokens):
        turns.append([len(encoded.input_ids) for _, encoded in read])
        return whole(self, read, batch_size, tokens)

    monkeypatch.setattr(Engine, "scores", counted)
    found = SharedEngine(engine, queue).scores(read, 10, tokens=200)
    monkeypatch.undo()
    for own, direct in zip(found, engine.scores(read), strict=True):
        np.testing.assert_allclose(own, direct, atol=1e-5)
    assert sum(map(len, turns)) == len(read) and all(len(turn) <= 10 for turn in turns)
    assert all(len(turn) * max(turn) <= 200 or len(turn) == 1 for turn in turns)
    assert [each.shape for each in SharedEngine(engine, queue).scores([])] == [(0, len(engine.label_space)), (0,)]


def test_variants_of_a_long_history_share_its_beginning_in_each_turn(engine, queue, monkeypatch):
    long = Patient(tuple(Visit((code, "401.9"), age=60) for code in ("250.00", "585.9", "428.0") * 6), sex="M", age=60)
    direct, begun = leave_one_out(engine, long), []
    whole = Engine.scores
    monkeypatch.setattr(
        Engine, "scores", lambda self, read, *rest: begun.append(read[0][0]) or whole(self, read, *rest)
    )
    monkeypatch.setattr("mera_core.explain.BATCH", 16)
    shared = leave_one_out(SharedEngine(engine, queue), long)
    assert len(begun) == -(-(len(direct.margins) - 1) // 15) > 2 and len(set(begun)) == 1
    np.testing.assert_allclose(shared.margins, direct.margins, atol=1e-5)
    assert (shared.parts, shared.rows) == (direct.parts, direct.rows)


def test_the_model_is_used_by_the_worker_alone(patients, queue):
    """Every way into the model that an Engine has, so that one that is new and passes the queue by is found."""
    users: set[str] = set()
    watched = tiny_engine()
    watched.model.backbone.get_input_embeddings().register_forward_pre_hook(
        lambda *_: users.add(threading.current_thread().name)
    )
    shared = SharedEngine(watched, queue)
    shared._manifest = replace(shared._manifest, method={"memorize": {"equivalents_share": 1.0}})
    for use in (
        lambda: shared.rank(patients[0]),
        lambda: shared.rank_many(patients[:3]),
        lambda: leave_one_out(shared, patients[0]),
        lambda: CohortScoring(shared, patients[:3]).step(),
        lambda: shared.recall(code=CODES[0]),
        lambda: shared.recall(definition="Congestive heart failure, unspecified"),
        lambda: shared.recall_definitions(CODES[:2]),
        lambda: shared.recall_ancestors(CODES[0]),
        lambda: shared.recall_equivalent("I50.9", "ICD10"),
    ):
        users.clear()
        use()
        assert len(users) == 1 and users.pop().startswith("mera-model")
    public = {name for name in vars(Engine) if not name.startswith("_")}
    known = {  # those without the model, and those above
        "load", "warm_up", "scope", "cut_offset", "read_history", "encode", "ranked", "held", "probability", "trained_on",
        "rank", "rank_many", "scores", "recall", "recall_ancestors", "recall_definitions",
        "recall_equivalent", "knows_equivalents",
    }  # fmt: skip
    assert public <= known, (
        "a new method of Engine: see that it does not use the model past the queue, and name it here"
    )


def test_recall_gives_what_the_engine_gives(engine, queue):
    shared = SharedEngine(engine, queue)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda code: shared.recall(code=code), CODES)) == [engine.recall(code=c) for c in CODES]
    assert shared.recall_definitions(CODES) == engine.recall_definitions(CODES)
    with pytest.raises(InputError, match="either a code or a definition"):
        shared.recall()


def test_batches_waste_little_and_never_vary():
    lengths = [300, 10, 11, 290, 12, 9, 10, 400]
    assert by_length(lengths, rows=3, tokens=1000) == [[5, 1, 6], [2, 4], [3, 0], [7]]
    assert by_length(lengths, rows=3, tokens=500) == [[5, 1, 6], [2, 4], [3], [0], [7]]
    assert by_length([], rows=3, tokens=10) == []
    assert by_length([5000], rows=3, tokens=10) == [[0]]

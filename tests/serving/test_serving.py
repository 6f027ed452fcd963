"""Many sessions on one model: the direct engine's answers, each to whoever asked, and the model on one thread alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from mera_core.cohort.scoring import CohortScoring
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.explain import leave_one_out
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.model.batching import by_length
from mera_core.serving.batch_queue import BusyError, Line, Settings
from mera_core.serving.shared_engine import SharedEngine
from tests.conftest import invented_patients
from tests.tiny import CODES, tiny_engine, tiny_model


@pytest.fixture(scope="module")
def engine() -> Engine:
    return tiny_engine()


@pytest.fixture(scope="module")
def patients(engine) -> list[Patient]:
    return [patient for patient in invented_patients(120) if engine.read_history(patient)[0].visits]


def same(ranking, other) -> None:
    assert ranking.codes == other.codes
    np.testing.assert_allclose(ranking.scores, other.scores, atol=1e-5)
    np.testing.assert_allclose(ranking.share, other.share, atol=1e-5)
    assert ranking.recurrent.tolist() == other.recurrent.tolist()
    assert ranking.predicted == other.predicted
    assert ranking.notes == other.notes
    assert ranking.checkpoint == other.checkpoint


def test_fifty_sessions_at_once_get_what_the_engine_gives_each_of_them(engine, patients):
    """Every thread is a session with patients of its own; the passes they share mix them, the answers do not."""
    with Line() as line:
        shared = SharedEngine(engine, line)

        def session(number: int) -> list:
            own = patients[number % len(patients) :: 17]
            singles = [shared.rank(patient) for patient in own[:4]]
            return [(own[:4], singles), (own, shared.rank_many(own))]

        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(session, range(50)))
        counts = line.counts
    direct = {patient.id: engine.rank(patient) for patient in patients}
    for answer in answers:
        for own, rankings in answer:
            for patient, ranking in zip(own, rankings, strict=True):
                same(ranking, direct[patient.id])
    assert counts.shared > 10, "no pass was shared by sessions, so nothing was tested"
    assert counts.passes < counts.units


def test_what_an_explanation_says_is_the_same(engine, patients):
    longest = max(patients, key=lambda patient: sum(len(visit.codes) for visit in patient.visits))
    with Line() as line:
        shared = SharedEngine(engine, line)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: leave_one_out(shared, longest), range(8)))
    direct = leave_one_out(engine, longest)
    for each in found:
        np.testing.assert_allclose(each.margins, direct.margins, atol=1e-5)
        assert (each.parts, each.rows) == (direct.parts, direct.rows)
        assert [effect.rank_without for effect in each.of(CODES[0])] == [
            effect.rank_without for effect in direct.of(CODES[0])
        ]


def test_variants_of_a_long_history_stay_together_and_share_its_beginning(engine, monkeypatch):
    long = Patient(tuple(Visit((code, "401.9"), age=60) for code in ("250.00", "585.9", "428.0") * 6), sex="M", age=60)
    sizes: list[int] = []
    whole = SharedEngine._each_piece

    def counted(self, pieces):
        sizes.extend(map(len, pieces))
        return whole(self, pieces)

    monkeypatch.setattr(SharedEngine, "_each_piece", counted)
    with Line(Settings(units=16)) as line:
        shared = leave_one_out(SharedEngine(engine, line), long)
    direct = leave_one_out(engine, long)
    assert sizes == [16] * (sizes.count(16)) + sizes[-1:]
    assert sum(sizes) - len(sizes) == len(direct.margins) - 1
    np.testing.assert_allclose(shared.margins, direct.margins, atol=1e-5)


def test_a_cohort_goes_through_the_line_beside_others(engine, patients):
    with Line(Settings(units=16, turn=4)) as line:
        shared = SharedEngine(engine, line)
        scoring = CohortScoring(shared, patients)
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(lambda: scoring.step(len(patients)))
            beside = [shared.rank(patients[0]) for _ in range(5)]
            running.result(60)
    for ranking in beside:
        same(ranking, engine.rank(patients[0]))
    alone = CohortScoring(engine, patients)
    alone.step(len(patients))
    for one, other in zip(scoring.scored, alone.scored, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_padding_of_a_shared_pass_changes_no_score(engine):
    """A history of one code beside one of a hundred visits in the same forward pass."""
    short = Patient((Visit(("428.0",), age=70),), sex="F", age=70)
    long = Patient(tuple(Visit(("250.00", "401.9", "585.9"), age=60) for _ in range(20)), sex="M", age=60)
    read = [engine.read_history(patient)[0] for patient in (short, long)]
    encoded = [engine.encode(history) for history in read]
    together, ends = engine.scores(list(zip(read, encoded, strict=True)), batch_size=2)
    for row, (history, tokens) in enumerate(zip(read, encoded, strict=True)):
        alone, end = engine.scores([(history, tokens)])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)
        np.testing.assert_allclose(ends[row], end[0], atol=1e-5)


def test_the_model_is_used_by_the_worker_alone(engine, patients):
    """Every way into the model that an Engine has, so that one that is new and passes the line by is found."""
    users: set[str] = set()
    watched = tiny_engine()

    def watch(*_: object) -> None:
        users.add(threading.current_thread().name)

    watched.model.backbone.get_input_embeddings().register_forward_pre_hook(watch)
    with Line() as line:
        shared = SharedEngine(watched, line)
        shared.rank(patients[0])
        shared.rank_many(patients[:3])
        leave_one_out(shared, patients[0])
        CohortScoring(shared, patients[:3]).step()
        shared.recall(code=CODES[0])
        shared.recall(definition="Congestive heart failure, unspecified")
        shared.recall_definitions(CODES[:2])
        shared._manifest = replace(shared._manifest, method={"memorize": {"equivalents_share": 1.0}})
        shared.recall_equivalent("I50.9", "ICD10")
        assert users == {"mera-line"}
        used = line.counts.passes
        assert used >= 7
    public = {name for name in vars(Engine) if not name.startswith("_")}
    known = {  # those without the model, and those above
        "load", "warm_up", "scope", "cut_offset", "read_history", "encode", "ranked",
        "rank", "rank_many", "scores", "recall", "recall_ancestors", "recall_definitions",
        "recall_equivalent", "knows_equivalents",
    }  # fmt: skip
    assert public <= known, "a new method of Engine: see that it does not use the model past the line, and name it here"


def test_recall_gives_what_the_engine_gives(engine):
    with Line() as line:
        shared = SharedEngine(engine, line)
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda code: shared.recall(code=code), CODES))
        assert found == [engine.recall(code=code) for code in CODES]
        assert shared.recall_definitions(CODES) == engine.recall_definitions(CODES)
        with pytest.raises(InputError, match="either a code or a definition"):
            shared.recall()


def test_errors_of_a_history_reach_its_own_session_only(engine, patients):
    with Line() as line:
        shared = SharedEngine(engine, line)
        with ThreadPoolExecutor(4) as pool:
            good = [pool.submit(shared.rank, patient) for patient in patients[:20]]
            bad = pool.submit(shared.rank, Patient((Visit(("E880.9",)),), id="unreadable"))
            with pytest.raises(InputError):
                bad.result(30)
            for patient, future in zip(patients[:20], good, strict=True):
                same(future.result(30), engine.rank(patient))


def test_two_models_share_a_line_and_no_pass(patients):
    first, second = tiny_engine(), tiny_engine(tiny_model(seed=5))
    with Line() as line:
        shared = [SharedEngine(first, line), SharedEngine(second, line)]
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda n: shared[n % 2].rank(patients[n // 2]), range(60)))
    for n, ranking in enumerate(found):
        same(ranking, (first, second)[n % 2].rank(patients[n // 2]))


def test_sessions_are_named_by_whoever_makes_the_engine(engine, patients, monkeypatch):
    asked: list[str] = []
    with Line() as line:
        ask = line.ask
        monkeypatch.setattr(line, "ask", lambda who, *rest: asked.append(who) or ask(who, *rest))
        SharedEngine(engine, line, who=lambda: "session 7").rank(patients[0])
    assert asked == ["session 7"]


def test_a_closed_line_refuses_with_a_sentence(engine, patients):
    line = Line()
    shared = SharedEngine(engine, line)
    shared.rank(patients[0])
    line.close()
    with pytest.raises(BusyError, match="The app is stopping"):
        shared.rank(patients[0])
    assert issubclass(BusyError, InputError)  # pages show it as it stands


def test_the_shared_engine_holds_the_same_parts(engine):
    with Line() as line:
        shared = SharedEngine(engine, line)
        assert shared.model is engine.model
        assert (shared.name, shared.scope, shared.label_space) == (engine.name, engine.scope, engine.label_space)
        with pytest.raises(InputError, match="can't be recalled"):
            shared.recall(code=Code("ICD10", "I50.9"))


def test_batches_waste_little_and_never_vary():
    lengths = [300, 10, 11, 290, 12, 9, 10, 400]
    batches = by_length(lengths, rows=3, tokens=1000)
    assert batches == [[5, 1, 6], [2, 4], [3, 0], [7]]
    assert by_length(lengths, rows=3, tokens=500) == [[5, 1, 6], [2, 4], [3], [0], [7]]
    assert by_length([], rows=3, tokens=10) == []
    assert by_length([5000], rows=3, tokens=10) == [[0]]

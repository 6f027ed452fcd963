"""Leave-one-out effects against ranking the shorter histories one by one."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mera_core import explain
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.explain import leave_one_out
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.ranking.listing import strengths
from tests.tiny import CODES, icd9

HISTORY = Patient((Visit(CODES[:3], age=60), Visit(CODES[2:5], age=62)), sex="F", age=62)


def places(ranking) -> dict[Code, tuple[int, float]]:
    return {
        code: (rank, strength)
        for rank, (code, strength) in enumerate(zip(ranking.codes, strengths(ranking), strict=True), start=1)
    }


def without(patient: Patient, visit: int, place: int | None) -> Patient:
    visits = list(patient.visits)
    if place is None:
        visits.pop(visit)
    else:
        kept = [code for i, code in enumerate(visits[visit].codes) if i != place]
        visits[visit] = Visit(kept, age=visits[visit].age)
    return Patient(tuple(visits), sex=patient.sex, age=patient.age)


@pytest.mark.parametrize("diagnosis", CODES[::3])
def test_effects_are_what_ranking_without_the_part_gives(engine, diagnosis):
    found = leave_one_out(engine, HISTORY)
    whole = places(engine.rank(HISTORY))
    assert found.rank(diagnosis) == whole[diagnosis][0]
    assert found.strength(diagnosis) == pytest.approx(whole[diagnosis][1], abs=1e-3)
    effects = found.of(diagnosis)
    assert max(abs(effect.added) for effect in effects) > 0.1, "nothing matters: the test says nothing"
    for effect in effects:
        rank, strength = places(engine.rank(without(HISTORY, effect.visit, effect.place)))[diagnosis]
        assert effect.rank_without == rank
        assert effect.added == pytest.approx(whole[diagnosis][1] - strength, abs=1e-2)


def test_one_batch(engine, monkeypatch):
    calls = []
    real = engine.scores
    monkeypatch.setattr(engine, "scores", lambda read, **how: calls.append(len(read)) or real(read, **how))
    leave_one_out(engine, HISTORY)
    assert calls == [9]  # the history, without 6 codes, without 2 visits


def test_what_would_leave_nothing_has_no_effect_to_show(engine):
    effects = leave_one_out(engine, Patient((Visit(CODES[:1]),))).of(CODES[3])
    assert [(effect.place, effect.added, effect.rank_without) for effect in effects] == [
        (None, None, None),
        (0, None, None),
    ]
    alone = leave_one_out(engine, Patient((Visit(CODES[:2]),))).of(CODES[3])
    assert [effect.added is None for effect in alone] == [True, False, False]


def test_unread_codes_and_twins_change_nothing(engine):
    patient = Patient((Visit(("foo", *CODES[:2])), Visit((Code("ICD10", "I10"), CODES[2]))))
    effects = {(e.visit, e.place): e for e in leave_one_out(engine, patient).of(CODES[5])}
    assert effects[0, 0].added == 0  # in no code set
    twins = Patient((Visit(icd9("428.0", "428.0", "486")),))
    effects = leave_one_out(engine, twins).of(CODES[5])
    assert (effects[1].added, effects[2].added) == (0, 0)  # either is left when the other goes
    assert effects[3].added != 0


def test_equal_scores_stand_in_the_order_of_their_codes():
    found = explain.Sensitivity(CODES[:4], (), (), np.array([[1.0, 2.0, 1.0, 2.0]]))
    assert [found.rank(code) for code in CODES[:4]] == [3, 1, 4, 2]


def test_a_history_too_long_is_tested_at_its_newest_end(engine, monkeypatch):
    monkeypatch.setattr(explain, "MOST_PARTS", 4)
    found = leave_one_out(engine, HISTORY)
    assert found.untested == 4
    assert [effect.visit for effect in found.of(CODES[0])] == [1, 1, 1, 1]


def test_a_diagnosis_or_history_that_is_not_ranked_is_refused(engine):
    with pytest.raises(InputError, match=r"ICD9:V10\.3 is not ranked"):
        leave_one_out(engine, HISTORY).of(Code("ICD9", "V10.3"))
    with pytest.raises(InputError, match="no code that this model can read"):
        leave_one_out(engine, Patient((Visit(("foo",)),)))
    with pytest.raises(InputError, match="holds no visit"):
        leave_one_out(engine, Patient())


def test_ten_codes_under_the_bundled_checkpoint_take_less_than_a_second():
    engine = Engine.load()
    codes = engine.label_space[:: len(engine.label_space) // 10][:10]
    patient = Patient((Visit(codes[:3], age=60), Visit(codes[3:6], age=61), Visit(codes[6:], age=62)), sex="M", age=62)
    leave_one_out(engine, patient)
    begin = time.perf_counter()
    found = leave_one_out(engine, patient)
    assert time.perf_counter() - begin < 1
    assert len(found.of(engine.label_space[0])) == 13


def test_progress_is_told_and_the_effects_are_the_same(engine, monkeypatch):
    monkeypatch.setattr(explain, "STEP", 3)
    told: list[float] = []
    found = leave_one_out(engine, HISTORY, told.append)
    assert told == sorted(told)
    assert (told[0], told[-1], len(told)) == (0.0, 1.0, 1 + -(-len(found.margins) // 3))
    np.testing.assert_allclose(found.margins, leave_one_out(engine, HISTORY).margins, atol=1e-4)


def test_what_the_listener_raises_ends_the_work(engine):
    def stop(done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_one_out(engine, HISTORY, stop)

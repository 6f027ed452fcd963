"""Networks of the field behind the one interface: what they may see, that they learn, and that they are tuned alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mera_core.common.errors import InputError
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from training.baselines.architectures import ARCHITECTURES, reversed_visits
from training.baselines.goals import NEW_ONLY, WHOLE_LIST, Goal
from training.baselines.neural import NeuralBaseline, NeuralSettings, RecordNetwork
from training.baselines.record_features import Told
from training.baselines.samples import truth_of
from training.baselines.simple import CodeFrequency
from training.baselines.tuning import BUDGET, NEURAL_GRID, Cut, Family, best_order_tilt, families, tuned
from training.rank.cut import FREQUENCY_EXPONENTS, REACH_SHARES, recall_at_20

A, B, C, D = (Code("ICD9", code) for code in ("250", "276", "401", "428"))
LABELS = (A, B, C, D)
SMALL = NeuralSettings(width=16, learning_rate=1e-2, dropout=0.0, passes=60)


def patient(*visits, id: str = "") -> Patient:
    return Patient([Visit(codes) for codes in visits], id=id)


def following(count: int, seed: int) -> list[Patient]:
    """A rule that takes order: the next visit is D where the last one was A, and B where it was C."""
    rng = np.random.default_rng(seed)
    out = []
    for n in range(count):
        past = [[(A, C)[i]] for i in rng.integers(2, size=rng.integers(1, 4))]
        out.append(patient(*past, [D if past[-1] == [A] else B], id=str(n)))
    return out


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_network_learns_what_follows_the_newest_visit(name) -> None:
    model = NeuralBaseline(LABELS, name, SMALL).fit(following(300, 0))
    scores = model.scores(following(60, 1))
    ends_in_d = [p.visits[-1].codes[0] == D for p in following(60, 1)]
    # whether a patient's visits end here is a toss: what is told is which of B and D it would be
    right = (scores[:, LABELS.index(D)] > scores[:, LABELS.index(B)]) == ends_in_d
    assert np.mean(right) > 0.95  # half of them by chance


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padding_and_the_target_visit_change_no_score(name) -> None:
    model = NeuralBaseline(LABELS, name, NeuralSettings(width=16, passes=1)).fit(following(60, 0))
    short, long = patient([A, C], [D]), patient([C], [A, B, C], [B], [A], [D])
    alone, together = model.scores([short]), model.scores([short, long])
    np.testing.assert_allclose(alone[0], together[0], atol=1e-5)
    other = patient([A, C], [B, C, A])
    assert np.array_equal(model.scores([short])[0], model.scores([other])[0])
    assert not np.allclose(model.scores([patient([A], [D])]), model.scores([patient([C], [D])]))


def test_the_same_seed_gives_the_same_scores_and_another_seed_others() -> None:
    train, asked = following(80, 0), following(10, 1)
    state = torch.get_rng_state()
    first, second, third = (
        NeuralBaseline(LABELS, "RETAIN", NeuralSettings(width=16, passes=2), seed).fit(train).scores(asked)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second) and not np.allclose(first, third)
    assert torch.equal(state, torch.get_rng_state())  # nobody else's draws are disturbed


def test_scores_start_at_the_base_rates() -> None:
    train = following(200, 0)
    model = NeuralBaseline(LABELS, "factorised", NeuralSettings(width=16, learning_rate=1e-9, passes=1)).fit(train)
    rate = CodeFrequency(LABELS).fit(train).rate
    np.testing.assert_allclose(torch.sigmoid(torch.from_numpy(model.scores(train[:5]))), [rate] * 5, atol=0.1)


def test_the_best_pass_on_validation_patients_is_kept_and_training_stops() -> None:
    labels = [Code("ICD9", str(100 + n)) for n in range(60)] + list(LABELS)
    train, validation = following(150, 0), following(50, 1)
    settings = NeuralSettings(width=16, learning_rate=3e-3, passes=30, patience=2)
    model = NeuralBaseline(labels, "GRU", settings).fit(train, validation)
    assert 1 <= model.passes_made[WHOLE_LIST] < 30
    assert recall_at_20(model.scores(validation), truth_of(validation, labels)) == 1.0


def test_each_goal_keeps_its_own_best_pass(monkeypatch) -> None:
    """Of three passes the second is best for whole lists and the first for new codes: each is scored as it was then."""
    reached = {WHOLE_LIST: iter((0.1, 0.9, 0.2)), NEW_ONLY: iter((0.8, 0.3, 0.4))}
    monkeypatch.setattr(Goal, "reached", lambda self, scores, truth: next(reached[self]))
    settings = NeuralSettings(width=16, learning_rate=1e-2, dropout=0.0, passes=3)
    train, asked = following(60, 0), following(20, 1)
    model = NeuralBaseline(LABELS, "GRU", settings).fit(train, asked)
    assert model.passes_made == {WHOLE_LIST: 2, NEW_ONLY: 1}
    for goal, passes in ((WHOLE_LIST, 2), (NEW_ONLY, 1), (WHOLE_LIST, 2)):
        alone = NeuralBaseline(LABELS, "GRU", replace(settings, passes=passes)).fit(train)
        assert np.array_equal(model.scores(asked, goal), alone.scores(asked))


def test_the_network_told_the_record_learns_from_a_detail_that_codes_do_not_hold() -> None:
    def home(count: int, seed: int) -> list[Patient]:
        """The next visit is D after a discharge home, and B after another: the codes say nothing of it."""
        told = np.random.default_rng(seed).integers(2, size=count)
        return [Patient([Visit([A], details={"discharge": ("other", "home")[t]}), Visit([(B, D)[t]])]) for t in told]

    model = RecordNetwork(LABELS, Told(visit=("discharge",)), SMALL).fit(home(200, 0))
    asked = home(50, 1)
    scores = model.scores(asked)
    right = (scores[:, 3] > scores[:, 1]) == [p.visits[-1].codes[0] == D for p in asked]
    alone, together = model.scores(asked[:1]), model.scores([asked[0], patient([B], [A, B, C, D], [A])])
    np.testing.assert_allclose(alone[0], together[0], atol=1e-5)
    stranger = Patient([Visit([Code("ICD9", "V45")]), Visit([A])], sex="M")  # with no feature that training had
    assert np.isfinite(model.scores([stranger])).all()
    assert right.all() and model.told == "codes, sex, age; of each past visit discharge"


def test_reversal_leaves_padding_at_the_end() -> None:
    seen = torch.arange(8.0).view(2, 4, 1)
    assert reversed_visits(seen, torch.tensor([4, 2]))[:, :, 0].tolist() == [[3, 2, 1, 0], [5, 4, 6, 7]]


def test_what_can_not_be_built_is_refused() -> None:
    with pytest.raises(InputError, match='no baseline "LSTM"; there are factorised, GRU'):
        NeuralBaseline(LABELS, "LSTM")
    with pytest.raises(InputError, match="can't be built"):
        NeuralSettings(width=20)
    with pytest.raises(InputError, match="was not fitted"):
        NeuralBaseline(LABELS).scores([patient([A], [B])])


# --- tuning


def test_every_family_has_the_same_budget_or_nothing_more_to_choose() -> None:
    everyone = families(LABELS, Told())
    sizes = {family.name: len(family.candidates) for family in everyone}
    assert len(NEURAL_GRID) == BUDGET == 8
    assert sizes.pop("code frequency") == 1 and sizes.pop("copy the past, then frequency") == 2
    assert set(sizes) == {"logistic regression on the history", "logistic regression told the record",
                          "network told the record", "factorised", "GRU classifier",
                          "transformer classifier", "RETAIN", "Dipole"}  # fmt: skip
    assert set(sizes.values()) == {BUDGET}
    settings = [str(make(1).settings) for make in everyone[-1].candidates]
    assert len(set(settings)) == BUDGET
    told = {family.name: family.candidates[0](1).told for family in everyone}
    assert told == {family.name: family.told for family in everyone}


class Constant:
    """Scores one label above all others, whoever asks."""

    def __init__(self, label: int):
        self.label, self.name = label, "constant"
        self.settings = {"label": label}

    def fit(self, patients, validation=()):
        return self

    def scores(self, patients):
        out = np.zeros((len(patients), 40))
        out[:, self.label] = 1
        out[:, 20:] += np.arange(20) * 0.01  # the other half stands before the first twenty
        return out


def test_tuning_keeps_what_validation_patients_rank_best() -> None:
    truth = Truth.from_sets([[7], [7, 3]], [[], []], 40)
    family = Family("constant", tuple(lambda _, n=n: Constant(n) for n in (2, 7, 3)))
    chosen, tried = tuned(family, [], [None, None], truth, 1)
    best = chosen[WHOLE_LIST]
    assert best.fitted.settings == best.make(5).settings == {"label": 7}
    assert [row["validation_recall@20"] for row in tried] == [0.0, 0.75, 0.25]


def test_tuning_for_new_codes_may_keep_another_setting_and_fits_nothing_twice() -> None:
    """Label 7 comes back to two patients and is new to none; label 3 is new to one."""
    truth = Truth.from_sets([[7], [7], [3]], [[7], [7], []], 40)
    made = []
    family = Family("constant", tuple(lambda _, n=n: (made.append(n), Constant(n))[1] for n in (7, 3)))
    chosen, tried = tuned(family, [], [None] * 3, truth, 1)
    assert {goal: one.fitted.settings["label"] for goal, one in chosen.items()} == {WHOLE_LIST: 7, NEW_ONLY: 3}
    assert [row["validation_new_only_recall@20"] for row in tried] == [0.0, 1.0] and made == [7, 3]


def test_a_cut_is_the_best_size_or_threshold_and_may_weigh_frequency() -> None:
    rng = np.random.default_rng(0)
    rate = np.array([0.4, 0.3, 0.02, 0.02])
    signal = rng.normal(size=(400, 4))
    p = 1 / (1 + np.exp(-(signal * 1.5 + np.log(rate / (1 - rate)))))
    positive = rng.random(p.shape) < p
    positive[~positive.any(1), 0] = True
    truth = Truth.from_sets([np.flatnonzero(row) for row in positive], [[]] * 400, 4)
    logits = np.log(p / (1 - p))
    plain, tilted = Cut.fit(logits, truth), Cut.fit(logits, truth, np.log(rate))
    assert plain.tilt == plain.reach_share == 0 and tilted.validation_f1 >= plain.validation_f1
    assert (logits - tilted.offset > tilted.threshold).sum() == tilted.sets(logits).sum() > 0
    one = rng.integers(4, size=400)
    shifted = np.eye(4)[one] + rng.random((400, 1)) * 100  # each list is right, but lists can't be compared
    fixed = Cut.fit(shifted, Truth.from_sets([[label] for label in one], [[]] * 400, 4))
    assert fixed.size == 1 and fixed.validation_f1 == 1.0
    assert np.array_equal(fixed.sets(shifted).toarray().argmax(1), one)
    assert set(fixed.to_dict()) == {"size", "tilt", "reach_share", "validation_f1"}


def test_a_baselines_cut_is_of_the_family_of_meras_own() -> None:
    """Two codes as common as each other, one told well and one badly: only thresholds of their own suit both."""
    rng, log_rate = np.random.default_rng(1), np.log([0.2, 0.2])
    n = 3000
    logits = np.log(0.2 / 0.8) + rng.normal(size=(n, 2)) * (3.0, 0.3)
    positive = rng.random((n, 2)) < 1 / (1 + np.exp(-logits))
    truth = Truth.from_sets([np.flatnonzero(row) for row in positive], [[]] * n, 2)
    alone = Cut.fit(logits, truth)
    cut = Cut.fit(logits, truth, log_rate)
    assert cut.reach_share in REACH_SHARES and cut.reach_share > 0 and cut.tilt in FREQUENCY_EXPONENTS
    assert cut.validation_f1 > alone.validation_f1 + 0.01
    sets = cut.sets(logits)
    assert metrics.weighted_f1(sets, truth, Bootstrap(n, 1)).value == pytest.approx(cut.validation_f1)
    assert cut.to_dict()["reach_share"] == cut.reach_share and "offset" not in cut.to_dict()


def test_the_order_of_a_list_may_give_rare_codes_their_due() -> None:
    # 25 common codes that are never right stand, by a hair, above the rare one that is: taking frequency off helps.
    log_rate = np.log(np.concatenate([np.full(25, 0.3), [0.003]]))
    scores = np.tile(np.concatenate([np.full(25, 0.5), [0.0]]), (4, 1))
    truth = Truth.from_sets([[25]] * 4, [[]] * 4, 26)
    assert best_order_tilt(scores, truth, log_rate) == 0.2  # 0.1 x log(100) is 0.46, not yet enough
    right = Truth.from_sets([[3]] * 4, [[]] * 4, 26)
    assert best_order_tilt(scores, right, log_rate) == 0.0  # nothing to gain: left as it is

"""What is fitted on validation patients: recorded codes by hand-made truth, each code's own threshold, the cut, the order."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from mera_core.checkpoint.folder import load_checkpoint, read_manifest, save_checkpoint
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient, Visit, write_visits
from mera_core.ranking.calibration import Calibration, Calibrations
from mera_core.ranking.ranking import for_weighted_f1
from tests.tiny import CODES, tiny_engine, tiny_manifest, tiny_model
from tests.training.rank.test_run import patients
from training.common.split import histories_and_truth, split_of
from training.rank import cut
from training.rank.cut import (
    F1_TOLERANCE,
    FREQUENCY_EXPONENTS,
    MAX_DROP,
    ORDER_FREQUENCY_EXPONENTS,
    REACH_SHARES,
    LabelCounts,
    _cut_offset,
    fit_cut,
    fit_recorded,
    own_thresholds,
    refit,
)

# --- codes that a history holds


def test_recorded_codes_that_come_back_less_often_than_scored_are_corrected() -> None:
    """Margins of +4 that come true half of the time, and -4 likewise: the slope goes to nothing and the shift with it."""
    engine = tiny_engine(tiny_model(seed=2))
    draw = np.random.default_rng(0)
    scores = np.full((400, 10), -9.0, np.float32)
    came = draw.random(400) < 0.5
    cohort = []
    for n in range(400):
        scores[n, n % 10] = 4.0 if draw.random() < 0.5 else -4.0
        following = [CODES[n % 10]] if came[n] else [CODES[(n + 1) % 10]]
        cohort.append(Patient([Visit([CODES[n % 10]]), Visit(following)], id=str(n)))
    engine.scores = lambda read, batch_size=64: (scores, np.zeros(400, np.float32))
    histories, truth, _ = histories_and_truth(engine, cohort)
    found = fit_recorded(engine, histories, truth)
    assert found["codes"] == 400
    assert found["slope"] == pytest.approx(0.05, abs=0.05)  # a margin that says nothing
    assert engine.model.head.recorded_slope.item() == pytest.approx(found["slope"])
    assert engine.model.head.recorded_shift.tolist() == pytest.approx(found["shift"], rel=1e-5)


def test_recorded_codes_that_are_right_as_they_are_are_left_alone() -> None:
    engine = tiny_engine(tiny_model(seed=2))
    draw = np.random.default_rng(1)
    margin = draw.normal(-1, 1.5, size=3000).astype(np.float32)
    came = draw.random(3000) < 1 / (1 + np.exp(-margin))
    scores = np.full((3000, 10), -9.0, np.float32)
    scores[np.arange(3000), np.arange(3000) % 10] = margin
    cohort = [
        Patient([Visit([CODES[n % 10]]), Visit([CODES[(n + (not came[n])) % 10]])], id=str(n)) for n in range(3000)
    ]
    engine.scores = lambda read, batch_size=64: (scores, np.zeros(3000, np.float32))
    found = fit_recorded(engine, *histories_and_truth(engine, cohort)[:2])
    assert found["slope"] == pytest.approx(1.0, abs=0.12)
    assert sum(found["shift"]) == pytest.approx(0.0, abs=0.2)


def test_without_a_recorded_code_nothing_is_corrected() -> None:
    engine = tiny_engine(tiny_model(seed=2))
    histories, truth, _ = histories_and_truth(engine, patients(5))
    with torch.no_grad():
        engine.model.head.recorded_slope.fill_(3.0)  # of an earlier fit
    bare = [(replace(history, visits=()), encoded) for history, encoded in histories]
    assert fit_recorded(engine, bare, truth) == {"codes": 0, "slope": 1.0, "shift": [0.0] * 4}
    assert engine.model.head.recorded_slope.item() == 1.0


# --- each code's own threshold


def test_a_codes_own_threshold_is_half_the_f1_within_its_reach_by_hand() -> None:
    as_trained = Calibration("platt")
    probability = np.array([[0.9, 0.2], [0.6, 0.2], [0.1, 0.2]])
    # code 0: 2 * 1.5 / (1.6 + 2) = 0.8333 for two patients; code 1: 2 * 0.6 / (0.6 + 3) = 0.3333 for all three
    own = own_thresholds(np.log(probability / (1 - probability)), as_trained)
    assert 1 / (1 + np.exp(-own)) == pytest.approx([0.8333 / 2, 0.3333 / 2], abs=1e-3)


# --- the cut and the order


@pytest.fixture(scope="module")
def fitted() -> tuple[Engine, list[Patient], LabelCounts, dict, Calibrations]:
    cohort = patients(60, seed=3)
    engine = tiny_engine(tiny_model(seed=2))
    counts = LabelCounts(CODES, np.geomspace(0.01, 0.5, 10))
    return engine, cohort, counts, *fit_cut(engine, cohort, counts)


def scored(engine: Engine, cohort: list[Patient]) -> tuple[np.ndarray, np.ndarray, Truth]:
    histories, truth, _ = histories_and_truth(engine, cohort)
    return *engine.scores(histories), truth


def test_the_cut_is_one_line_in_the_order_of_probabilities(fitted) -> None:
    engine, cohort, _, cut, calibrations = fitted
    scores, eov, truth = scored(engine, cohort)
    held = truth.seen.toarray() > 0
    assert engine.calibration is calibrations and calibrations.cut == cut["log_odds"] and cut["patients"] == 60
    log_odds = calibrations.logit(scores.astype(float) - eov[:, None], held)
    assert np.array_equal(engine.ranked(scores, eov, held) > eov[:, None], log_odds > cut["log_odds"])
    assert metrics.best_threshold(engine.probability(scores, eov, held), truth)[1] == pytest.approx(cut["weighted_f1"])


def test_the_thresholds_for_weighted_f1_in_the_head_are_those_that_were_fitted(fitted) -> None:
    engine, cohort, counts, cut, _ = fitted
    scores, eov, truth = scored(engine, cohort)
    margin, f1 = scores.astype(float) - eov[:, None], cut["for_weighted_f1"]
    own = own_thresholds(margin, Calibration.fit(margin, truth.positive))
    expected = f1["offset"] + f1["frequency_tilt"] * np.log(counts.rate) + f1["reach_share"] * own
    assert engine.cut_offset == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert f1["frequency_tilt"] in FREQUENCY_EXPONENTS and f1["reach_share"] in REACH_SHARES


def test_the_order_below_the_thresholds_is_the_one_with_the_best_recall(fitted) -> None:
    engine, cohort, counts, cut, _ = fitted
    scores, eov, truth = scored(engine, cohort)

    def recall(tilt: float) -> float:
        ranked = for_weighted_f1(scores, eov, engine.cut_offset, tilt * np.log(counts.rate))
        return float(metrics.recall_at(metrics.top_labels(ranked, 20), truth, 20).mean())

    tilt = cut["for_weighted_f1"]["order_tilt"]
    assert engine.model.head.order_offset.numpy() == pytest.approx(tilt * np.log(counts.rate), rel=1e-5)
    assert recall(tilt) == max(map(recall, ORDER_FREQUENCY_EXPONENTS))


@pytest.mark.parametrize("order", ["probability", "f1"])
def test_the_reported_f1_is_that_of_the_lists_that_users_see(fitted, order) -> None:
    engine, cohort, _, cut, _ = fitted
    rankings = engine.rank_many([replace(p, visits=p.visits[:1]) for p in cohort], order=order)
    predicted = np.array(
        [[dict(zip(r.codes, r.scores > r.cut, strict=True))[code] for code in CODES] for r in rankings]
    )
    true = np.array([[code in p.visits[1].codes for code in CODES] for p in cohort])
    each = 2 * (predicted & true).sum(0) / np.maximum(predicted.sum(0) + true.sum(0), 1)
    reported = (cut if order == "probability" else cut["for_weighted_f1"])["weighted_f1"]
    assert (each * true.sum(0)).sum() / true.sum() == pytest.approx(reported, abs=1e-6)


def test_the_thresholds_for_weighted_f1_are_at_least_as_good_as_any_over_eov(fitted) -> None:
    engine, cohort, _, cut, _ = fitted
    scores, eov, truth = scored(engine, cohort)
    _, best = metrics.best_threshold(scores.astype(float) - eov[:, None], truth)
    assert cut["for_weighted_f1"]["weighted_f1"] >= best - F1_TOLERANCE
    assert best == cut["best_threshold"]["over_eov"]["weighted_f1"]
    assert 0 < cut["best_fixed_k"]["weighted_f1"] <= 1 and 1 <= cut["best_fixed_k"]["k"] <= 10
    assert set(cut["best_threshold"]) == {"logit", "share", "over_eov"}


def test_where_frequent_codes_score_too_high_the_tilt_is_used() -> None:
    """Scores that carry a code's frequency twice: only a cut that takes it off again tells true from false."""
    engine = tiny_engine(tiny_model(copy=False, seed=2))
    rate = np.geomspace(0.01, 0.5, 10)
    cohort = patients(80, seed=5)
    signal = np.random.default_rng(0).normal(size=(80, 10))
    true = signal > 0.8
    true[np.arange(80), signal.argmax(1)] = True
    cohort = [
        replace(p, visits=(p.visits[0], Visit([code for code, one in zip(CODES, row, strict=True) if one])))
        for p, row in zip(cohort, true, strict=True)
    ]
    engine.scores = lambda read, batch_size=64: (
        (signal + 0.4 * np.log(rate)).astype(np.float32),
        np.zeros(80, np.float32),
    )
    cut = fit_cut(engine, cohort, LabelCounts(CODES, rate))[0]
    f1 = cut["for_weighted_f1"]
    assert np.corrcoef(engine.cut_offset, np.log(rate))[0, 1] > 0.7 and f1["frequency_tilt"] > 0
    assert f1["weighted_f1"] > cut["best_threshold"]["over_eov"]["weighted_f1"] + 0.02


def test_without_validation_patients_the_cut_is_refused() -> None:
    with pytest.raises(InputError, match="No validation patient has two visits"):
        fit_cut(tiny_engine(), [], LabelCounts(CODES, np.full(10, 0.1)))


def test_rare_codes_are_not_predicted_for_everybody_for_an_f1_that_hardly_minds() -> None:
    """200 codes that hardly ever come true beside ten that do: a cut that names them all costs next to no weighted F1."""
    draw = np.random.default_rng(3)
    true = np.zeros((300, 210), bool)
    true[np.arange(300), draw.integers(0, 10, 300)] = True
    true[draw.integers(0, 300, 40), draw.integers(10, 210, 40)] = True
    scores = np.where(true, 1.0, -1.0) + draw.normal(size=true.shape)
    scores[:, 10:] = draw.normal(-6, 0.3, size=(300, 200))
    truth = Truth.from_sets([np.flatnonzero(row) for row in true], [[]] * 300, 210)
    rate = (true.sum(0) + 0.5) / 301
    margin = scores.astype(np.float64)
    own = own_thresholds(margin, Calibration("platt"))
    _, offset = _cut_offset(scores, np.zeros(300), truth, np.log(rate), own)
    assert (margin > offset)[:, 10:].sum(1).mean() < 2
    flooding, _ = metrics.best_threshold(margin - 0.8 * np.log(rate) - own, truth)
    assert (margin > flooding + 0.8 * np.log(rate) + own)[:, 10:].sum(1).mean() > 2  # what the choice must avoid


def test_a_cut_whose_list_is_worthless_is_not_taken_for_its_f1() -> None:
    """Own thresholds that help two common codes and put twenty rare ones above everything: F1 rises, the list is lost."""
    draw = np.random.default_rng(5)
    true = np.zeros((400, 22), bool)
    true[:, 0], true[:, 1] = draw.random(400) < 0.5, draw.random(400) < 0.5
    scores = draw.normal(-4, 0.1, size=true.shape)
    scores[:, 0] = np.where(true[:, 0], -1.0, -3.0) + draw.normal(0, 0.3, 400)
    scores[:, 1] = np.where(true[:, 1], 3.0, 1.0) + draw.normal(0, 0.3, 400)
    own = np.full(22, -30.0)
    own[:2] = -2.0, 2.0
    truth = Truth.from_sets([np.flatnonzero(row) for row in true], [[]] * 400, 22)
    rate, eov = np.full(22, 0.1), np.zeros(400)

    def list_f1(offset) -> float:
        sets = metrics.top_sets(for_weighted_f1(scores, eov, offset), truth.size)
        return metrics.weighted_f1(sets, truth, Bootstrap(400, 1)).value

    a, tempting = metrics.best_threshold(scores - own, truth)
    chosen, offset = _cut_offset(scores, eov, truth, np.log(rate), own)
    assert tempting > chosen["weighted_f1"] + F1_TOLERANCE and list_f1(a + own) < 0.1  # what the choice must avoid
    assert list_f1(offset) > list_f1(np.full(22, 99.0)) - MAX_DROP


def test_a_cut_that_puts_codes_that_never_come_above_those_that_may_is_not_taken_for_its_f1() -> None:
    """Five codes that need thresholds of their own; with these, forty that are never true come before what is not named."""
    draw = np.random.default_rng(7)
    true = np.zeros((500, 45), bool)
    true[:, :5] = draw.random((500, 5)) < 0.4
    own = np.concatenate([np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), np.full(40, -9.0)])
    scores = draw.normal(-8.5, 0.1, size=true.shape)
    scores[:, :5] = own[:5] + np.where(true[:, :5], 0.6, -0.6) + draw.normal(0, 0.7, (500, 5))
    truth = Truth.from_sets([np.flatnonzero(row) for row in true], [[]] * 500, 45)
    eov = np.zeros(500)

    def list_figures(offset) -> tuple[float, float]:
        ranked = for_weighted_f1(scores, eov, offset)
        sets = metrics.top_sets(ranked, truth.size)
        recall = np.nanmean(metrics.recall_at(metrics.top_labels(ranked, 20), truth, 20))
        return metrics.weighted_f1(sets, truth, Bootstrap(500, 1)).value, float(recall)

    plain = list_figures(np.full(45, 99.0))
    a, tempting = metrics.best_threshold(scores - own, truth)
    chosen, offset = _cut_offset(scores, eov, truth, np.log(np.full(45, 0.1)), own)
    flooded = list_figures(a + own)
    assert tempting > chosen["weighted_f1"] + F1_TOLERANCE
    assert flooded[0] > plain[0] - MAX_DROP and flooded[1] < plain[1] - 0.1  # its F1 alone would let it through
    assert list_figures(offset)[1] >= plain[1] - MAX_DROP


# --- a checkpoint's cut on another population


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """A tiny checkpoint and records to fit its cut on."""
    folder = tmp_path_factory.mktemp("refit")
    engine = tiny_engine(tiny_model(seed=2))
    save_checkpoint(engine.model, tiny_manifest(), folder / "tiny")
    records = folder / "records.csv"
    write_visits(patients(300, seed=4), records)
    return folder / "tiny", records


def test_a_cut_is_fitted_again_and_the_network_stays(ranked, tmp_path) -> None:
    checkpoint, records = ranked
    manifest = refit(checkpoint, str(records), "table", tmp_path / "again")
    validation = sum(split_of(patient.id) == "validation" for patient in patients(300, seed=4))
    assert manifest.method["cut"]["patients"] == manifest.calibration["new"]["patients"] == validation > 10
    assert manifest.calibration["cut"] == manifest.method["cut"]["log_odds"]
    assert Engine.load(tmp_path / "again").calibration.to_dict() == manifest.calibration
    before, after = (load_checkpoint(folder)[0].state_dict() for folder in (checkpoint, tmp_path / "again"))
    fitted = {"head.cut_offset", "head.order_offset", "head.recorded_slope", "head.recorded_shift"}
    assert {name for name in before if not torch.equal(before[name], after[name])} <= fitted
    assert np.ptp(Engine.load(tmp_path / "again").cut_offset) >= 0
    assert read_manifest(tmp_path / "again").metrics == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_cut_fitted_again_leaves_the_networks_files_to_the_byte(ranked, dtype, tmp_path) -> None:
    save_checkpoint(tiny_model(seed=2), tiny_manifest(), tmp_path / "tiny", dtype)
    refit(tmp_path / "tiny", str(ranked[1]), "table", tmp_path / "again")
    before, after = (read_manifest(tmp_path / name).files for name in ("tiny", "again"))
    assert {name for name in before if before[name] != after[name]} == {"score_head.safetensors"}
    assert before.keys() == after.keys()


class OnGpu(torch.Tensor):
    """A tensor that NumPy can't read where it is."""

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self, *args, **kwargs):
        return self.as_subclass(torch.Tensor)


def test_a_cut_is_fitted_again_where_the_head_is_on_a_gpu(ranked, tmp_path, monkeypatch) -> None:
    model, manifest = load_checkpoint(ranked[0])
    model.head.rarity = model.head.rarity.as_subclass(OnGpu)
    monkeypatch.setattr(cut, "load_checkpoint", lambda folder: (model, manifest))
    assert refit(ranked[0], str(ranked[1]), "table", tmp_path / "again").method["cut"]["patients"] > 10


def test_a_cut_is_fitted_again_on_the_patients_that_the_run_would_draw(ranked, tmp_path, monkeypatch) -> None:
    fitted_on = []
    real = cut.fit_cut
    monkeypatch.setattr(
        cut, "fit_cut", lambda engine, chosen, counts: fitted_on.append(chosen) or real(engine, chosen, counts)
    )
    monkeypatch.setattr(cut, "CUT_SCORES", 12 * len(CODES))
    refit(ranked[0], str(ranked[1]), "table", tmp_path / "again")
    validation = [p for p in cut.read_once(str(ranked[1]), "table").patients if split_of(p.id) == "validation"]
    assert [p.id for p in fitted_on[0]] == [p.id for p in random.Random(1).sample(validation, 12)]


def test_a_checkpoint_that_does_not_rank_has_no_cut_to_fit(ranked, tmp_path) -> None:
    _, records = ranked
    model = tiny_model(labels=())
    save_checkpoint(model, tiny_manifest(()), tmp_path / "memory")
    with pytest.raises(InputError, match="was not trained to rank"):
        refit(tmp_path / "memory", str(records), "table", tmp_path / "again")

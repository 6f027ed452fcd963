"""Figures of rankings, cuts and probabilities: worked by hand, and beside slow loops or scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from mera_core.common.errors import InputError
from mera_core.evaluation.bootstrap import Bootstrap, Estimate, estimate, over_seeds, paired_differences
from mera_core.evaluation.metrics import (
    above_cut,
    best_fixed_size,
    best_threshold,
    cut_figures,
    evaluate_event,
    evaluate_new_only,
    evaluate_ranking,
    evaluate_subgroups,
    label_pairs,
    recall_at,
    top_labels,
    top_sets,
    weighted_f1,
)
from mera_core.evaluation.probability_metrics import (
    Pairs,
    auroc,
    average_precision,
    brier,
    calibration_slope,
    ece_of_frequent_labels,
    f1,
    frequent_label_calibration,
    macro_average_precision,
    reliability,
)
from mera_core.evaluation.truth import Truth, rows_of_labels


def cohort(seed: int, n: int = 40, labels: int = 12, ties: bool = False):
    """Random scores and truth with a signal; `missing` codes now and then."""
    rng = np.random.default_rng(seed)
    positive = rng.random((n, labels)) < rng.random(labels) * 0.4
    positive[np.arange(n), rng.integers(labels, size=n)] = True
    seen = (rng.random((n, labels)) < 0.3) | (positive & (rng.random((n, labels)) < 0.3))
    missing = rng.integers(0, 2, size=n)
    scores = (rng.normal(size=(n, labels)) + positive).astype(np.float32)
    if ties:
        scores = np.round(scores)
    sets = [list(np.flatnonzero(matrix_row)) for matrix_row in positive]
    truth = Truth.from_sets(sets, [list(np.flatnonzero(r)) for r in seen], labels, missing, missing // 2)
    return scores, truth, positive, seen, missing


def drawn_rows(bootstrap: Bootstrap, draw: int) -> np.ndarray:
    """The patients of one draw, each as often as it was drawn."""
    return np.repeat(np.arange(bootstrap.counts.shape[1]), bootstrap.counts[draw].astype(int))


# --- ranks


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), k=st.integers(1, 12), ties=st.booleans())
def test_top_labels_equals_a_stable_sort(seed, k, ties):
    scores = cohort(seed, ties=ties)[0]
    scores[0, :3] = -np.inf
    expected = [sorted(range(12), key=lambda c, row=row: (-row[c], c))[:k] for row in scores]
    assert top_labels(scores, k).tolist() == expected


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(InputError, match="NaN"):
        top_labels(np.array([[1.0, np.nan]]), 1)


# --- recall


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999), k=st.integers(1, 12))
def test_recall_equals_a_loop(seed, k):
    scores, truth, positive, seen, missing = cohort(seed)
    top = top_labels(scores, 12)
    for part, wanted, outside in (
        (truth, positive, missing),
        (truth.recurrent, positive & seen, missing // 2),
        (truth.new_onset, positive & ~seen, missing - missing // 2),
    ):
        for capped in (False, True):
            expected = []
            for row, extra in enumerate(outside):
                true = set(np.flatnonzero(wanted[row]))
                size = len(true) + extra
                hits = len(true & set(top[row, :k].tolist()))
                expected.append(hits / (min(k, size) if capped else size) if size else np.nan)
            np.testing.assert_allclose(recall_at(top, part, k, capped), expected)


# --- weighted F1 and the cut


def slow_weighted_f1(predicted, positive, missing) -> float:
    """scikit-learn's own, with a column for each true code outside the label space."""
    extra = int(np.sum(missing))
    outside = np.zeros((len(positive), extra), bool)
    outside[np.repeat(np.arange(len(positive)), missing), np.arange(extra)] = True
    return sk.f1_score(
        np.hstack([positive, outside]),
        np.hstack([predicted, np.zeros_like(outside)]),
        average="weighted",
        zero_division=0,
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999), ties=st.booleans())
def test_weighted_f1_and_its_draws_equal_sklearn(seed, ties):
    scores, truth, positive, _, missing = cohort(seed, ties=ties)
    bootstrap = Bootstrap(len(scores), 8, seed)
    oracle = np.zeros_like(positive)
    for row, size in enumerate(truth.size):
        oracle[row, top_labels(scores, 12)[row, :size]] = True
    for sets, dense in ((top_sets(scores, truth.size), oracle), (above_cut(scores, 0.5), scores > 0.5)):
        result = weighted_f1(sets, truth, bootstrap)
        assert result.value == pytest.approx(slow_weighted_f1(dense, positive, missing), abs=1e-12)
        for draw in range(8):
            rows = drawn_rows(bootstrap, draw)
            expected = slow_weighted_f1(dense[rows], positive[rows], missing[rows])
            assert result.draws[draw] == pytest.approx(expected, abs=1e-9)


def test_cut_figures_worked_by_hand():
    nothing = Truth.from_sets([[], []], [[], []], 2)
    assert weighted_f1(rows_of_labels([[0], []], 2), nothing, Bootstrap(2, 5)).value == 0.0
    truth = Truth.from_sets([[0, 1], [2]], [[], []], 3, missing=[0, 1])
    figures = cut_figures(rows_of_labels([[0, 2], [2]], 3), truth, Bootstrap(2, 5))
    assert figures["cut_precision"].value == pytest.approx(2 / 3)
    assert figures["cut_recall"].value == pytest.approx(2 / 4)
    assert figures["cut_size_mean"].value == pytest.approx(1.5)


def test_a_cut_is_strict_and_may_differ_by_patient():
    scores = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    assert above_cut(scores, np.array([2.0, 0.0])).toarray().tolist() == [[0, 0, 1], [1, 1, 1]]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 9999), ties=st.booleans())
def test_best_fixed_size_and_threshold_equal_a_search(seed, ties):
    scores, truth, positive, _, missing = cohort(seed, n=20, ties=ties)
    by_size = [weighted_f1(top_sets(scores, k), truth, Bootstrap(20, 1)).value for k in range(1, 13)]
    size, value = best_fixed_size(scores, truth)
    assert value == pytest.approx(max(by_size)) and by_size[size - 1] == pytest.approx(value)
    assert all(earlier < value - 1e-12 for earlier in by_size[: size - 1])
    threshold, value = best_threshold(scores, truth, steps=4000)
    by_cut = [slow_weighted_f1(scores > cut, positive, missing) for cut in np.unique(scores)]
    assert value == pytest.approx(slow_weighted_f1(scores > threshold, positive, missing))
    # Thresholds start at 0.05 codes a patient: below that a cut predicts next to nothing.
    assert value == pytest.approx(max(by_cut), abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_labels_that_never_come_true_weigh_nothing_but_take_places(seed):
    scores, truth, positive, _, missing = cohort(seed, n=6)
    noise = np.random.default_rng(seed).normal(size=(6, 200)).astype(np.float32)
    scores, positive = np.hstack([noise, scores]), np.hstack([np.zeros(noise.shape, bool), positive])
    truth = Truth.from_sets([list(np.flatnonzero(row)) for row in positive], [[]] * 6, 212, missing)
    result = weighted_f1(above_cut(scores, 0.5), truth, Bootstrap(6, 5))
    assert result.value == pytest.approx(slow_weighted_f1(scores > 0.5, positive, missing))
    threshold, value = best_threshold(scores, truth, steps=4000)
    cuts = np.sort(scores, axis=None)[::-1][: 50 * 6 + 1]
    assert value == pytest.approx(max(slow_weighted_f1(scores > cut, positive, missing) for cut in cuts))
    assert value == pytest.approx(slow_weighted_f1(scores > threshold, positive, missing))


# --- areas


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999), ties=st.booleans())
def test_areas_and_their_draws_equal_sklearn(seed, ties):
    scores, truth, positive, seen, _ = cohort(seed, ties=ties)
    bootstrap = Bootstrap(40, 5, seed)
    micro = average_precision(label_pairs(scores, truth), bootstrap)
    macro, n_labels = macro_average_precision(scores, truth.positive, bootstrap, least=5)
    frequent = np.flatnonzero(positive.sum(0) >= 5)
    assert n_labels == len(frequent)

    def slow_macro(rows):
        each = [
            sk.average_precision_score(positive[rows, c], scores[rows, c]) for c in frequent if positive[rows, c].any()
        ]
        return np.mean(each)

    assert micro.value == pytest.approx(sk.average_precision_score(positive.ravel(), scores.ravel()))
    if n_labels:
        assert macro.value == pytest.approx(slow_macro(np.arange(40)))
        assert macro.draws.mean() == pytest.approx(macro.value)
    for held in (True, False):
        part = seen == held
        value = average_precision(label_pairs(scores, truth, held), bootstrap).value
        if positive[part].any():
            assert value == pytest.approx(sk.average_precision_score(positive[part], scores[part]))
    one = auroc(scores[:, 0], positive[:, 0], bootstrap)
    for draw in range(5):
        rows = drawn_rows(bootstrap, draw)
        expected = sk.average_precision_score(positive[rows].ravel(), scores[rows].ravel())
        assert micro.draws[draw] == pytest.approx(expected)
        if n_labels:
            # Draws are moved, all alike, so that their mean is the value.
            change = slow_macro(rows) - slow_macro(drawn_rows(bootstrap, 0))
            assert macro.draws[draw] - macro.draws[0] == pytest.approx(change, abs=1e-6)
        if len(set(positive[rows, 0])) == 2:
            assert one.draws[draw] == pytest.approx(sk.roc_auc_score(positive[rows, 0], scores[rows, 0]))


def test_drawn_average_precision_with_many_thresholds_stays_near_the_exact_one(monkeypatch):
    scores, truth, positive, *_ = cohort(3, n=400, labels=30)
    bootstrap = Bootstrap(400, 20, 1)
    exact = average_precision(label_pairs(scores, truth), bootstrap)
    monkeypatch.setattr("mera_core.evaluation.probability_metrics.MAX_STEPS", 200)
    rough = average_precision(label_pairs(scores, truth), bootstrap)
    assert rough.value == exact.value == pytest.approx(sk.average_precision_score(positive, scores, average="micro"))
    np.testing.assert_allclose(rough.draws, exact.draws, atol=2e-3)


@pytest.mark.parametrize("steps", [1000, 20])
def test_pairs_that_are_counted_in_blocks_give_what_they_give_at_once(monkeypatch, steps):
    scores, truth, *_ = cohort(4, n=60, labels=30)
    bootstrap, pairs = Bootstrap(60, 20, 1), label_pairs(1 / (1 + np.exp(-scores)), truth)
    monkeypatch.setattr("mera_core.evaluation.probability_metrics.MAX_STEPS", steps)

    def figures() -> list[Estimate]:
        of = (average_precision, calibration_slope, brier, lambda *of: reliability(*of)[0])
        return [figure(pairs, bootstrap) for figure in of]

    at_once = figures()
    monkeypatch.setattr("mera_core.evaluation.probability_metrics.BLOCK", 7)
    for whole, parts in zip(at_once, figures(), strict=True):
        assert parts.value == pytest.approx(whole.value, abs=1e-12)
        np.testing.assert_allclose(parts.draws, whole.draws, atol=1e-12)


def test_areas_without_positives_are_not_defined():
    bootstrap = Bootstrap(3, 5)
    pairs = Pairs(np.arange(3), np.array([0.1, 0.2, 0.3]), np.zeros(3, bool))
    assert average_precision(pairs, bootstrap).to_dict() == {"value": None, "low": None, "high": None}
    assert np.isnan(auroc(pairs.score, pairs.outcome, bootstrap).value)
    assert f1(pairs.score > 0.5, pairs.outcome, bootstrap).value == 0.0
    assert np.isnan(calibration_slope(pairs, bootstrap).value)
    rare = rows_of_labels([[0]] * 49, 2)
    assert frequent_label_calibration(np.full((49, 2), 0.5), rare, Bootstrap(49, 5)).figures == {}


# --- probabilities


def test_reliability_worked_by_hand():
    pairs = Pairs(np.arange(4), np.array([0.1, 0.15, 0.9, 1.0]), np.array([False, True, True, True]))
    error, curve = reliability(pairs, Bootstrap(4, 5), bins=2)
    # Lower half: mean 0.125 against 0.5; upper half: 0.95 against 1; each half of the pairs.
    assert error.value == pytest.approx((0.375 + 0.05) / 2)
    assert [point["n"] for point in curve] == [2, 2]
    assert curve[0]["predicted"] == pytest.approx(0.125) and curve[0]["observed"] == 0.5
    assert brier(pairs, Bootstrap(4, 5)).value == pytest.approx((0.01 + 0.85**2 + 0.01) / 4)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 9999), sharpness=st.sampled_from([0.5, 1.0, 2.0]))
def test_calibration_slope_equals_sklearn_and_finds_overconfidence(seed, sharpness):
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1.5, size=4000)
    outcome = rng.random(4000) < 1 / (1 + np.exp(-logit))
    p = 1 / (1 + np.exp(-sharpness * logit))
    pairs = Pairs(np.arange(4000) // 4, p, outcome)
    bootstrap = Bootstrap(1000, 3, seed)
    slope = calibration_slope(pairs, bootstrap)

    def slope_of(rows):
        x = sharpness * logit[rows, None]
        return LogisticRegression(C=np.inf, tol=1e-8).fit(x, outcome[rows]).coef_[0, 0]

    assert slope.value == pytest.approx(slope_of(np.arange(4000)), rel=5e-3)
    assert slope.value == pytest.approx(1 / sharpness, abs=0.2 / sharpness)
    rows = (drawn_rows(bootstrap, 1)[:, None] * 4 + np.arange(4)).ravel()
    assert slope.draws[1] == pytest.approx(slope_of(rows), rel=5e-3)
    np.testing.assert_allclose(brier(pairs, bootstrap).draws[1], sk.brier_score_loss(outcome[rows], p[rows]))


def test_calibration_of_frequent_labels_worked_by_hand():
    # Label 0: 60 of 100 true at 0.5 predicted, label 1: 50 of 100 at 0.5; label 2 has 49 and is too rare to count.
    outcome = np.zeros((100, 3), bool)
    outcome[:60, 0], outcome[:50, 1], outcome[:49, 2] = True, True, True
    truth = rows_of_labels([list(np.flatnonzero(row)) for row in outcome], 3)
    found = frequent_label_calibration(np.full((100, 3), 0.5), truth, Bootstrap(100, 50))
    assert [row["label"] for row in found.labels] == [0, 1] and [row["positives"] for row in found.labels] == [60, 50]
    assert [row["ece"] for row in found.labels] == pytest.approx([0.1, 0.0])
    assert found.figures["ece_frequent"].value == pytest.approx(0.05)  # 110 of 200 pairs against 100 expected
    assert found.figures["ece_frequent_mean"].value == pytest.approx(0.05)
    assert found.figures["ece_frequent_max"].value == pytest.approx(0.1)
    # 100 tosses of a fair coin miss 50 by 4 on average
    assert found.figures["ece_frequent_mean_if_right"].value == pytest.approx(0.04, abs=0.012)
    assert found.curve == [{"n": 200, "predicted": 0.5, "observed": 0.55}]


def test_event_figures_equal_sklearn():
    rng = np.random.default_rng(5)
    outcome, before = rng.random(200) < 0.3, rng.random(200) < 0.2
    p = np.clip(0.3 * outcome + rng.random(200) * 0.7, 0, 1)
    figures = evaluate_event(p, outcome, before, n_boot=50)
    for name, keep in (("all", np.ones(200, bool)), ("without_history", ~before)):
        assert figures[name]["n"] == keep.sum() and figures[name]["cases"] == outcome[keep].sum()
        for key, value in (
            ("auroc", sk.roc_auc_score(outcome[keep], p[keep])),
            ("auprc", sk.average_precision_score(outcome[keep], p[keep])),
            ("f1_at_0.5", sk.f1_score(outcome[keep], p[keep] > 0.5)),
        ):
            assert figures[name][key]["value"] == pytest.approx(value)
            assert figures[name][key]["low"] <= figures[name][key]["value"] <= figures[name][key]["high"]


# --- intervals


def test_intervals_are_percentiles_of_whole_patient_draws():
    per_patient = np.array([0.0, 1.0, np.nan, 0.5, 1.0])
    bootstrap = Bootstrap(5, 200, seed=4)
    assert (bootstrap.counts.sum(1) == 5).all()
    result = bootstrap.mean(per_patient)
    expected = [np.nanmean(per_patient[drawn_rows(bootstrap, draw)]) for draw in range(200)]
    np.testing.assert_allclose(result.draws, expected)
    assert (result.low, result.high) == tuple(np.percentile(expected, [2.5, 97.5]))
    assert result.value == pytest.approx(0.625)


def test_the_same_seed_gives_the_same_digits():
    scores, truth, *_ = cohort(2)
    p = 1 / (1 + np.exp(-scores))
    dumps = set()
    for _ in range(2):
        bootstrap = Bootstrap(40, 50, seed=3)
        result = evaluate_ranking(scores, truth, above_cut(scores, 0.5), p, ks=(3, 5), bootstrap=bootstrap)
        dumps.add(json.dumps(result.to_dict()))
    assert len(dumps) == 1 and "NaN" not in dumps.pop()


def test_paired_difference_is_tighter_than_the_two_intervals():
    rng = np.random.default_rng(1)
    easy = rng.random(500)
    bootstrap = Bootstrap(500, 500, seed=2)
    ours, theirs = bootstrap.mean(easy + 0.02 + 0.01 * rng.normal(size=500)), bootstrap.mean(easy)
    difference = paired_differences({"recall": ours, "only ours": ours}, {"recall": theirs})
    assert list(difference) == ["recall"]
    assert 0 < difference["recall"].low < 0.02 < difference["recall"].high < 0.03
    assert ours.low < theirs.high  # unpaired, the two intervals overlap
    with pytest.raises(InputError, match="paired"):
        ours.minus(estimate(0.5, np.zeros(3)))


def test_several_runs_average_and_widen_by_how_much_they_differ():
    bootstrap = Bootstrap(50, 2000, seed=1)
    alike = bootstrap.mean(np.random.default_rng(2).random(50))
    assert over_seeds([alike]) == alike
    one, other = (estimate(alike.value + shift, alike.draws + shift) for shift in (-0.3, 0.3))
    together = over_seeds([one, other])
    assert together.value == pytest.approx(alike.value)
    # both runs low or both high each a quarter of the time
    assert together.low < alike.low - 0.25 and together.high > alike.high + 0.25
    with pytest.raises(InputError, match="same draws"):
        over_seeds([alike, estimate(0.5, np.zeros(3))])


# --- everything at once


def test_evaluation_holds_every_figure_in_range():
    scores, truth, *_ = cohort(7)
    p = 1 / (1 + np.exp(-scores))
    out = evaluate_ranking(scores, truth, above_cut(scores, 0.5), p, ks=(3, 5), bootstrap=Bootstrap(40, 50)).to_dict()
    assert set(out["metrics"]) == {
        "recall@3", "recall@5", "recall_capped@3", "recall_capped@5", "weighted_f1_oracle", "weighted_f1_cut",
        "cut_precision", "cut_recall", "cut_size_mean", "true_size_mean", "auprc_micro", "auprc_macro", "ece",
        "ece_top5", "calibration_slope", "brier",
    }  # fmt: skip
    assert set(out["new_onset"]) == {"recall@3", "recall@5", "auprc_micro"}
    assert set(out["recurrent"]) == {"recall@3", "recall@5", "auprc_micro", "ece"}  # no label comes true 50 times
    for name, figure in out["metrics"].items():
        assert figure["low"] <= figure["high"], name
    assert sum(point["n"] for point in out["reliability"]) == 40 * 12
    assert out["metrics"]["true_size_mean"]["value"] == pytest.approx(truth.size.mean())


def test_calibration_of_frequent_labels_for_new_and_recurrent_codes_apart_by_hand():
    """Label 0 comes true 60 times in 100: given 0.6 where it is new, as it comes; 0.9 where it is held, and 0.5 comes."""
    held = np.zeros((100, 2), bool)
    held[:40, 0] = True
    true = np.zeros((100, 2), bool)
    true[:20, 0] = true[40:80, 0] = True  # 20 of the 40 who held it, 40 of the 60 others
    true[:49, 1] = True  # one too few
    truth = Truth.from_sets([np.flatnonzero(row) for row in true], [np.flatnonzero(row) for row in held], 2)
    p = np.where(held, 0.9, 0.6)
    old = ece_of_frequent_labels(p, truth.positive, held, Bootstrap(100, 20))
    new = ece_of_frequent_labels(p, truth.positive, ~held, Bootstrap(100, 20))
    assert old["ece_frequent"].value == pytest.approx(0.4) and new["ece_frequent"].value == pytest.approx(40 / 60 - 0.6)
    assert 0.01 < old["ece_frequent_if_right"].value < 0.1 < old["ece_frequent"].low
    rare = ece_of_frequent_labels(p[:49], truth.positive[:49], held[:49], Bootstrap(49, 20))
    assert rare == ece_of_frequent_labels(p, truth.positive, np.zeros_like(held), Bootstrap(100, 20)) == {}
    whole = evaluate_ranking(p, truth, probability=p, ks=(1,), bootstrap=Bootstrap(100, 20))
    assert whole.recurrent["ece_frequent"].value == old["ece_frequent"].value
    alone = evaluate_new_only(p, truth, Bootstrap(100, 20), probability=p, areas=False)
    assert alone["ece_frequent"].value == new["ece_frequent"].value and "auprc_micro" not in alone


def test_new_only_takes_the_historys_labels_out_of_list_and_truth():
    """Beside loops of plain Python on a case made by hand: labels held before stand first, or have no score at all."""
    n_labels, targets, seen = (
        30,
        [{0, 7, 8, 29}, {3}, {12, 13}, {1, 28}],
        [{0, 1, 2, 3}, {3, 4}, set(), {1, *range(5, 20)}],
    )
    scores = np.array([[100 - (label * (row + 7)) % 31 for label in range(n_labels)] for row in range(4)], float)
    scores[0, [0, 1, 2, 3]] = 1000
    scores[3, 20:] = scores[3, 5] = -np.inf  # a label taken out stands behind one without a score
    probability = np.where(np.isinf(scores), 0.0, scores.clip(0, 100) / 125)
    truth = Truth.from_sets(targets, seen, n_labels, missing=[1, 1, 2, 0], missing_seen=[1, 0, 0, 0])
    figures = evaluate_new_only(scores, truth, Bootstrap(4, 5), comparable=probability, probability=probability)

    recalls, pairs = {5: [], 10: [], 20: []}, []
    for row, (true, before) in enumerate(zip(targets, seen, strict=True)):
        rest = sorted(set(range(n_labels)) - before, key=lambda label, row=row: (-scores[row, label], label))
        pairs += [(probability[row, label], label in true) for label in rest]
        for k, each in recalls.items():
            if new := true - before:
                each.append(len(new & set(rest[:k])) / len(new))
    assert len(recalls[5]) == 3  # the second patient has nothing new in the label space
    for k, each in recalls.items():
        assert figures[f"recall@{k}"].value == pytest.approx(sum(each) / 3, abs=1e-12)
    area, found, total = 0.0, 0, sum(outcome for _, outcome in pairs)
    for threshold in sorted({p for p, _ in pairs}, reverse=True):
        above = [outcome for p, outcome in pairs if p >= threshold]
        area, found = area + (sum(above) - found) / total * sum(above) / len(above), sum(above)
    assert figures["auprc_micro"].value == pytest.approx(area, abs=1e-12)
    off = [sum(p - outcome for p, outcome in pairs if min(int(p * 15), 14) == bin_) for bin_ in range(15)]
    assert figures["ece"].value == pytest.approx(sum(map(abs, off)) / len(pairs), abs=1e-9)
    assert "ece" not in evaluate_new_only(scores, truth, Bootstrap(4, 5), comparable=probability)


def test_a_model_that_repeats_the_history_finds_nothing_new():
    seen = [{1, 2}, {0, 3}, {4}]
    truth = Truth.from_sets([{1, 2, 28}, {0, 29}, {4, 27}], seen, 30)
    scores = rows_of_labels(seen, 30).toarray()
    bootstrap = Bootstrap(3, 5)
    assert evaluate_ranking(scores, truth, ks=(5,), bootstrap=bootstrap).metrics["recall@5"].value > 0.5
    figures = evaluate_new_only(scores, truth, bootstrap)
    assert [(figures[f"recall@{k}"].value, figures[f"recall@{k}"].high) for k in (5, 10, 20)] == [(0, 0)] * 3


def test_subgroups_are_their_patients_alone():
    scores, truth, *_ = cohort(8)
    old = np.arange(40) < 15
    first, second = evaluate_subgroups(
        scores, truth, {"old": old, "young": ~old, "nobody": np.zeros(40, bool)}, above_cut(scores, 0.5), n_boot=20
    )
    assert (first["name"], first["n"], second["n"]) == ("old", 15, 25)
    alone = recall_at(top_labels(scores, 10), truth, 10)[old]
    assert first["metrics"]["recall@10"]["value"] == pytest.approx(alone.mean())


def test_shapes_that_disagree_are_refused_in_words():
    scores, truth, *_ = cohort(1)
    with pytest.raises(InputError, match="Scores are"):
        evaluate_ranking(scores[:, :5], truth)
    with pytest.raises(InputError, match="outside 0 to 3"):
        rows_of_labels([[0, 4]], 4)
    with pytest.raises(InputError, match="same patients"):
        Truth.from_sets([[0]], [[0], [1]], 2)
    with pytest.raises(InputError, match="Recall at 10"):
        recall_at(top_labels(scores, 3), truth, 10)
    with pytest.raises(InputError, match="no patients"):
        Bootstrap(0)

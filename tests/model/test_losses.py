"""Losses against a slow, obvious reference in float64, and at the edges where a fast one would break."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Code, Ontology
from mera_core.model.losses import Hierarchy, hierarchical_contrastive, threshold_loss

FORMS = pytest.mark.parametrize("form", ["adaptive", "independent"])


def dense(scores, positive, groups, weights, temperature=1.0) -> torch.Tensor:
    """The formula of docs/method.md, a term at a time, in the precision of the scores: a loss a row."""
    rows = [scores.new_zeros(()) for _ in scores]
    for weight, group in zip(weights, groups, strict=True):
        for row, label in positive.nonzero().tolist():
            rivals = (group == group[label]) & ~positive[row]
            terms = torch.cat([scores[row, label][None], scores[row][rivals]]) / temperature
            rows[row] = rows[row] + weight * (terms.logsumexp(0) - terms[0])
    return torch.stack(rows)


def random_tree(n_labels: int, n_levels: int, seed: int) -> torch.Tensor:
    """Nested groups in scrambled label order: level 0 is one group, each level splits the one above."""
    g = torch.Generator().manual_seed(seed)
    levels = [torch.zeros(n_labels, dtype=torch.long)]
    for _ in range(n_levels - 1):
        finer = levels[-1] * 3 + torch.randint(0, 3, (n_labels,), generator=g)
        levels.append(torch.unique(finer, return_inverse=True)[1])
    return torch.stack(levels)


def batch(n_rows, n_labels, seed, spread=3.0, share=0.2):
    g = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(n_rows, n_labels, generator=g, dtype=torch.float64)
    return scores, torch.rand(n_rows, n_labels, generator=g) < share


@settings(max_examples=40, deadline=None)
@given(
    n_labels=st.integers(1, 30),
    n_levels=st.integers(1, 5),
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.1, 3.0, 60.0, 500.0]),
    share=st.sampled_from([0.05, 0.3, 0.9]),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_hierarchical_loss_equals_the_reference(n_labels, n_levels, seed, spread, share, temperature):
    groups = random_tree(n_labels, n_levels, seed)
    scores, positive = batch(4, n_labels, seed, spread, share)
    weights = [0.3 + level for level in range(n_levels)]
    expected = dense(scores, positive, groups, weights, temperature).float()
    args = (positive, Hierarchy(groups), weights, temperature)
    torch.testing.assert_close(hierarchical_contrastive(scores, *args).float(), expected, rtol=1e-6, atol=1e-7)
    single = hierarchical_contrastive(scores.float(), *args)
    torch.testing.assert_close(single, expected, rtol=2e-5, atol=2e-5 * max(spread, 1))


@pytest.mark.parametrize("spread", [0.0, 1.0, 60.0, 1e4])
@pytest.mark.parametrize("share", [0.15, 0.5, 0.95])
def test_gradient_agrees_with_the_dense_form_at_large_scores(spread, share):
    groups = random_tree(40, 4, 3)
    scores, positive = batch(5, 40, 11, spread, share)
    slow = scores.clone().requires_grad_()
    dense(slow, positive, groups, [1.0, 2.0, 0.5, 1.0]).sum().backward()
    fast = scores.float().requires_grad_()
    hierarchical_contrastive(fast, positive, Hierarchy(groups), [1.0, 2.0, 0.5, 1.0]).sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad.float(), rtol=1e-4, atol=1e-4)


def test_worked_example():
    # Labels 0,1 in one group, 2,3 in another; label 0 is true; scores 0, log 2, log 3, log 4.
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
    positive = torch.tensor([[True, False, False, False]])
    hierarchy = Hierarchy(torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1]]))
    loss = hierarchical_contrastive(scores, positive, hierarchy)
    assert loss.item() == pytest.approx(math.log(10) + math.log(3))


@pytest.mark.parametrize("extreme", [60.0, 1e4, 1e30])
@pytest.mark.parametrize("case", ["no negatives", "all positive", "no positives", "single code", "mixed"])
def test_edges_are_finite_and_exact(case, extreme):
    groups = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 2]])
    scores = extreme * torch.tensor([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]])
    positive = {
        "no negatives": torch.tensor([[False, False, True, False], [False, False, False, True]]),
        "all positive": torch.ones(2, 4, dtype=torch.bool),
        "no positives": torch.zeros(2, 4, dtype=torch.bool),
        "single code": torch.tensor([[True], [False]]),
        "mixed": torch.tensor([[True, False, False, False], [False, True, False, True]]),
    }[case]
    if case == "single code":
        groups, scores = groups[:, :1], scores[:, :1]
    scores = scores.clone().requires_grad_()
    hierarchy = Hierarchy(groups)
    per_level = [hierarchical_contrastive(scores, positive, hierarchy, weights) for weights in ([1.0, 0.0], [0.0, 1.0])]
    sum(per_level).sum().backward()
    assert torch.isfinite(scores.grad).all() and all(torch.isfinite(level).all() for level in per_level)
    if case == "no negatives":
        assert per_level[1].tolist() == [0.0, 0.0]  # alone in the group: exactly nothing to learn there
    if case in ("all positive", "no positives", "single code"):
        assert not torch.stack(per_level).any() and not scores.grad.any()


def test_masked_labels_at_minus_infinity_are_ignored():
    groups = random_tree(20, 3, 1)
    scores, positive = batch(4, 20, 2)
    keep = torch.arange(20) % 4 != 0
    positive &= keep
    masked = scores.masked_fill(~keep, -torch.inf).requires_grad_()
    loss = hierarchical_contrastive(masked, positive, Hierarchy(groups))
    loss.sum().backward()
    expected = hierarchical_contrastive(scores[:, keep], positive[:, keep], Hierarchy(groups[:, keep]))
    torch.testing.assert_close(loss, expected)
    assert not masked.grad[:, ~keep].any() and torch.isfinite(masked.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_worked_in_float32(dtype):
    scores, positive = batch(4, 300, 8, 4.0, 0.05)
    half = scores.to(dtype).requires_grad_()
    hierarchy = Hierarchy(random_tree(300, 4, 2))
    for loss in (
        lambda s: hierarchical_contrastive(s, positive, hierarchy),
        lambda s: threshold_loss(s, s[:, 0], positive, "adaptive"),
        lambda s: threshold_loss(s, s[:, 0], positive, "independent"),
    ):
        given, half.grad = loss(half), None
        given.sum().backward()
        assert given.dtype == torch.float32 and half.grad.dtype == dtype
        torch.testing.assert_close(given.double(), loss(half.detach().double()), rtol=1e-5, atol=1e-6)


def test_labels_are_grouped_by_their_ancestors():
    # 428 and 486 have no ancestor at level 4: alone there, and still under their category one level up
    named = [("ICD9", "428.0"), ("ICD9", "428.1"), ("ICD9", "428"), ("ICD9", "486"), ("ICD10", "I50.1")]
    hierarchy = Hierarchy.from_ontology([Code(*each) for each in named], Ontology.load())
    assert hierarchy.n_groups == (1, 3, 3, 3, 5)
    assert hierarchy.groups.tolist()[:4] == [[0, 0, 0, 0, 0]] + [[0, 0, 0, 1, 2]] * 3
    assert hierarchy.parents[3][hierarchy.groups[4]].tolist() == [0, 0, 0, 1, 2]


def test_what_does_not_fit_together_is_refused_in_words():
    scores, positive = batch(2, 6, 0)
    flat, eov = Hierarchy(torch.zeros(1, 6, dtype=torch.long)), scores[:, 0]
    wide = Hierarchy(torch.zeros(1, 7, dtype=torch.long))
    for said, call in (
        ("level 1 spreads over several groups of level 0", lambda: Hierarchy(torch.tensor([[0, 0, 1], [0, 1, 1]]))),
        ("levels x labels", lambda: Hierarchy(torch.zeros(3))),
        ("must rise", lambda: Hierarchy.from_ontology([], Ontology.load(), levels=(1, 0))),
        ("7 labels and the scores 6", lambda: hierarchical_contrastive(scores, positive, wide)),
        ("2 level weights for 1 levels", lambda: hierarchical_contrastive(scores, positive, flat, [1.0, 1.0])),
        ("temperature", lambda: hierarchical_contrastive(scores, positive, flat, temperature=0.0)),
        ("bool tensor", lambda: hierarchical_contrastive(scores, positive.float(), flat)),
        ("2 targets and an EOV score", lambda: threshold_loss(scores, eov[:1], positive)),
        ("adaptive, independent", lambda: threshold_loss(scores, eov, positive, form="fixed")),
    ):
        with pytest.raises(InputError, match=said):
            call()


def reference_threshold(scores, eov, positive, form, weight) -> list[float]:
    rows = []
    for s, e, y in zip(scores.tolist(), eov.tolist(), positive.tolist(), strict=True):
        total = sum(weight * math.log(1 + math.exp(e - c)) for c, true in zip(s, y, strict=True) if true)
        others = [math.exp(c - e) for c, true in zip(s, y, strict=True) if not true]
        total += math.log(1 + math.fsum(others)) if form == "adaptive" else sum(map(math.log1p, others))
        rows.append(total)
    return rows


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_labels=st.integers(1, 20),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    form=st.sampled_from(["adaptive", "independent"]),
    weight=st.sampled_from([0.5, 1.0, 6.0]),
)
def test_threshold_equals_the_reference_and_its_gradient_is_numerical(seed, n_labels, share, form, weight):
    scores, positive = batch(3, n_labels, seed, 2.0, share)
    eov = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = torch.tensor(reference_threshold(scores, eov, positive, form, weight), dtype=torch.float64)
    torch.testing.assert_close(threshold_loss(scores, eov, positive, form, weight), expected, rtol=1e-7, atol=1e-9)
    args = (scores.requires_grad_(), eov.requires_grad_())
    assert torch.autograd.gradcheck(lambda s, e: threshold_loss(s, e, positive, form, weight), args)


@FORMS
@pytest.mark.parametrize("extreme", [60.0, 1e4])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_threshold_is_finite_at_the_edges(form, extreme, share):
    scores = (extreme * torch.tensor([[1.0, -1.0, 1.0, -1.0]])).requires_grad_()
    positive = torch.arange(4)[None] < 4 * share
    for sign in (-1, 1):
        eov = torch.tensor([sign * extreme], requires_grad=True)
        loss = threshold_loss(scores, eov, positive, form)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(scores.grad).all() and torch.isfinite(eov.grad).all()
    if share == 0.0 and form == "adaptive":
        assert loss.item() == pytest.approx(math.log(3), abs=1e-6 + 1e-7 * extreme)  # EOV level with two of the rest


@pytest.mark.parametrize(("weight", "cut"), [(1.0, 0.5), (4.0, 0.2)])
def test_independent_form_puts_the_cut_at_the_stated_probability(weight, cut):
    # One code seen in 3 of 10 targets: it must pass EOV exactly when 0.3 is above the stated probability.
    positive = torch.tensor([[True]] * 3 + [[False]] * 7)
    score = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([score], max_iter=50)

    def closure():
        optimiser.zero_grad()
        loss = threshold_loss(score.expand(10, 1), torch.zeros(10), positive, "independent", weight).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    odds = weight * 0.3 / 0.7
    assert torch.sigmoid(score).item() == pytest.approx(odds / (1 + odds), abs=1e-4)
    assert (score.item() > 0) == (cut < 0.3)

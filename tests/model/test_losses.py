"""Losses against a slow, obvious reference in float64, and at the edges where a fast one would break."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mera_core.common.errors import InputError
from mera_core.model.losses import (
    Hierarchy,
    dynamic_threshold,
    hierarchical_contrastive,
    independent_threshold,
    threshold_loss,
)


def reference_hcl(scores, positive, groups, weights, temperature=1.0, per_code=False) -> list[float]:
    """METHOD.md's formula, word for word, in Python floats (exact range through log-sum-exp by hand)."""
    rows = []
    for s, y in zip(scores.double().tolist(), positive.tolist(), strict=True):
        codes = [c for c, p in enumerate(y) if p]
        total = 0.0
        for weight, group in zip(weights, groups.tolist(), strict=True):
            for c in codes:
                rivals = [n for n in range(len(s)) if group[n] == group[c] and not y[n]]
                terms = [s[c] / temperature] + [s[n] / temperature for n in rivals]
                top = max(terms)
                denominator = top + math.log(math.fsum(math.exp(t - top) for t in terms))
                total += weight * (denominator - terms[0])
        rows.append(total / max(len(codes), 1) if per_code else total)
    return rows


def random_tree(n_labels: int, n_levels: int, seed: int) -> torch.Tensor:
    """Nested groups in scrambled label order: level 0 is one group, each level splits the one above."""
    g = torch.Generator().manual_seed(seed)
    levels = [torch.zeros(n_labels, dtype=torch.long)]
    for _ in range(n_levels - 1):
        finer = levels[-1] * 3 + torch.randint(0, 3, (n_labels,), generator=g)
        levels.append(torch.unique(finer, return_inverse=True)[1])
    return torch.stack(levels)


def batch(n_rows, n_labels, seed, spread=3.0, share=0.2, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(n_rows, n_labels, generator=g, dtype=torch.float64)
    positive = torch.rand(n_rows, n_labels, generator=g) < share
    return scores.to(dtype), positive


@settings(max_examples=40, deadline=None)
@given(
    n_labels=st.integers(1, 30),
    n_levels=st.integers(1, 5),
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.1, 3.0, 60.0, 500.0]),
    share=st.sampled_from([0.05, 0.3, 0.9]),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    per_code=st.booleans(),
)
def test_hierarchical_loss_equals_the_reference(n_labels, n_levels, seed, spread, share, temperature, per_code):
    groups = random_tree(n_labels, n_levels, seed)
    scores, positive = batch(4, n_labels, seed, spread, share)
    weights = [0.3 + level for level in range(n_levels)]
    expected = torch.tensor(reference_hcl(scores, positive, groups, weights, temperature, per_code))
    args = (positive, Hierarchy(groups), weights, temperature, "none", per_code)
    torch.testing.assert_close(hierarchical_contrastive(scores, *args).float(), expected, rtol=1e-6, atol=1e-7)
    single = hierarchical_contrastive(scores.float(), *args)
    torch.testing.assert_close(single, expected, rtol=2e-5, atol=2e-5 * max(spread, 1))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.1, 0.5, 0.95]), per_code=st.booleans())
def test_hierarchical_gradient_is_the_numerical_one(seed, share, per_code):
    groups = random_tree(12, 4, seed)
    scores, positive = batch(3, 12, seed, 2.0, share)
    scores.requires_grad_()
    hierarchy = Hierarchy(groups)

    def loss(s):
        return hierarchical_contrastive(s, positive, hierarchy, [1.0, 0.5, 2.0, 1.0], 0.7, "none", per_code)

    assert torch.autograd.gradcheck(loss, (scores,))


def naive_hcl(scores, positive, groups, weights) -> torch.Tensor:
    """The dense form by autograd: what the hand-written backward must agree with at any size of score."""
    total = scores.new_zeros(())
    for weight, group in zip(weights, groups, strict=True):
        for row, label in positive.nonzero().tolist():
            rivals = (group == group[label]) & ~positive[row]
            terms = torch.cat([scores[row, label][None], scores[row][rivals]])
            total = total + weight * (terms.logsumexp(0) - terms[0])
    return total


@pytest.mark.parametrize("spread", [0.0, 1.0, 60.0, 1e4])
def test_gradient_agrees_with_the_dense_form_at_large_scores(spread):
    groups = random_tree(40, 4, 3)
    scores, positive = batch(5, 40, 11, spread, 0.15)
    slow = scores.clone().requires_grad_()
    naive_hcl(slow, positive, groups, [1.0, 2.0, 0.5, 1.0]).backward()
    fast = scores.float().requires_grad_()
    hierarchical_contrastive(fast, positive, Hierarchy(groups), [1.0, 2.0, 0.5, 1.0], reduction="sum").backward()
    torch.testing.assert_close(fast.grad, slow.grad.float(), rtol=1e-4, atol=1e-4)


def test_worked_example():
    # Labels 0,1 in one group, 2,3 in another; label 0 is true; scores 0, log 2, log 3, log 4.
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
    positive = torch.tensor([[True, False, False, False]])
    hierarchy = Hierarchy(torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1]]))
    loss = hierarchical_contrastive(scores, positive, hierarchy)
    assert loss.item() == pytest.approx(math.log(10) + math.log(3))


def test_other_positives_never_compete():
    positive = torch.tensor([[True, True, False, False]])
    hierarchy = Hierarchy(torch.zeros(1, 4, dtype=torch.long))
    low, high = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[1.0, 9.0, 0.0, 0.0]])
    alone = math.log(1 + 2 * math.exp(-1))
    for scores, second in ((low, math.log(3)), (high, math.log(1 + 2 * math.exp(-9)))):
        loss = hierarchical_contrastive(scores, positive, hierarchy)
        assert loss.item() == pytest.approx(alone + second, rel=1e-5)


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
    per_level = [
        hierarchical_contrastive(scores, positive, hierarchy, weights, reduction="none")
        for weights in ([1.0, 0.0], [0.0, 1.0])
    ]
    sum(per_level).sum().backward()
    assert torch.isfinite(scores.grad).all() and all(torch.isfinite(level).all() for level in per_level)
    if case == "no negatives":
        assert per_level[1].tolist() == [0.0, 0.0]  # alone in the group: exactly nothing to learn there
    if case in ("all positive", "no positives", "single code"):
        assert not torch.stack(per_level).any() and not scores.grad.any()


def test_group_without_negatives_leaves_the_gradient_of_other_levels_alone():
    scores, positive = batch(6, 9, 5, 2.0, 0.3)
    tree = torch.stack([torch.zeros(9, dtype=torch.long), torch.arange(9)])
    grads = []
    for groups in (tree, tree[:1]):
        leaf = scores.clone().requires_grad_()
        hierarchical_contrastive(leaf, positive, Hierarchy(groups)).backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)


def test_masked_labels_at_minus_infinity_are_ignored():
    groups = random_tree(20, 3, 1)
    scores, positive = batch(4, 20, 2)
    keep = torch.arange(20) % 4 != 0
    positive &= keep
    masked = scores.masked_fill(~keep, -torch.inf).requires_grad_()
    loss = hierarchical_contrastive(masked, positive, Hierarchy(groups))
    loss.backward()
    expected = hierarchical_contrastive(scores[:, keep], positive[:, keep], Hierarchy(groups[:, keep]))
    torch.testing.assert_close(loss, expected)
    assert not masked.grad[:, ~keep].any() and torch.isfinite(masked.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_worked_in_float32(dtype):
    scores, positive = batch(4, 300, 8, 4.0, 0.05)
    half = scores.to(dtype).requires_grad_()
    hierarchy = Hierarchy(random_tree(300, 4, 2))
    loss = hierarchical_contrastive(half, positive, hierarchy)
    loss.backward()
    assert loss.dtype == torch.float32 and half.grad.dtype == dtype
    exact = hierarchical_contrastive(half.detach().double(), positive, hierarchy)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    for form in (dynamic_threshold, independent_threshold):
        eov = half[:, 0]
        assert form(half, eov, positive).item() == pytest.approx(
            form(half.double(), eov.double(), positive).item(), rel=1e-6
        )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(15)))
def test_label_order_does_not_matter(seed, order):
    groups = random_tree(15, 4, seed)
    scores, positive = batch(3, 15, seed)
    eov = scores.mean(1)
    order = torch.tensor(order)

    def grad(s, y, g):
        s = s.clone().requires_grad_()
        value = hierarchical_contrastive(s, y, Hierarchy(g)) + dynamic_threshold(s, eov, y)
        (value + independent_threshold(s, eov, y)).backward()
        return value, s.grad

    value, gradient = grad(scores, positive, groups)
    moved_value, moved_gradient = grad(scores[:, order], positive[:, order], groups[:, order])
    torch.testing.assert_close(moved_value, value)
    torch.testing.assert_close(moved_gradient, gradient[:, order])


def test_per_code_and_reductions():
    scores, positive = batch(5, 20, 4)
    positive[0] = False
    hierarchy = Hierarchy(random_tree(20, 3, 4))
    rows = hierarchical_contrastive(scores, positive, hierarchy, reduction="none")
    averaged = hierarchical_contrastive(scores, positive, hierarchy, reduction="none", per_code=True)
    torch.testing.assert_close(averaged * positive.sum(1), rows)
    for form in (
        lambda **kw: hierarchical_contrastive(scores, positive, hierarchy, **kw),
        lambda **kw: dynamic_threshold(scores, scores[:, 1], positive, **kw),
        lambda **kw: independent_threshold(scores, scores[:, 1], positive, **kw),
    ):
        each = form(reduction="none")
        assert each.shape == (5,)
        torch.testing.assert_close(form(), each.mean())
        torch.testing.assert_close(form(reduction="sum"), each.sum())


def test_scores_shifted_together_give_the_same_hierarchical_loss():
    scores, positive = batch(3, 25, 6)
    hierarchy = Hierarchy(random_tree(25, 4, 6))
    loss = hierarchical_contrastive(scores, positive, hierarchy, temperature=0.5)
    torch.testing.assert_close(hierarchical_contrastive(scores + 1000, positive, hierarchy, temperature=0.5), loss)
    halved = hierarchical_contrastive(2 * scores, positive, hierarchy)
    torch.testing.assert_close(halved, loss)


# --- the hierarchy


class TinyOntology:
    """428.0 and 428.1 in 420-429; 486 a billable category; I50.1 of the other system."""

    above: ClassVar = {
        "ICD9:428.0": [None, "ICD9:CH07", "ICD9:420-429", "ICD9:428", "ICD9:428.0"],
        "ICD9:428.1": [None, "ICD9:CH07", "ICD9:420-429", "ICD9:428", "ICD9:428.1"],
        "ICD9:428": [None, "ICD9:CH07", "ICD9:420-429", "ICD9:428", None],
        "ICD9:486": [None, "ICD9:CH08", "ICD9:480-488", "ICD9:486", None],
        "ICD10:I50.1": [None, "ICD10:CH09", "ICD10:I30-I5A", "ICD10:I50", "ICD10:I50.1"],
    }

    def ancestor_at(self, code, level):
        return self.above[code][level]


def test_hierarchy_from_an_ontology():
    labels = list(TinyOntology.above)
    hierarchy = Hierarchy.from_ontology(labels, TinyOntology())
    assert hierarchy.n_groups == (1, 3, 3, 3, 5)
    assert hierarchy.groups.tolist()[:4] == [[0, 0, 0, 0, 0]] + [[0, 0, 0, 1, 2]] * 3
    # 428 has no ancestor at level 4: alone, and still under 428 one level up.
    assert hierarchy.parents[3][hierarchy.groups[4]].tolist() == [0, 0, 0, 1, 2]


def test_hierarchy_of_the_shipped_ontology(ontology):
    labels = [*ontology.billable("ICD9"), *ontology.billable("ICD10")]
    hierarchy = Hierarchy.from_ontology(labels, ontology)
    assert hierarchy.n_groups[0] == 1
    assert hierarchy.n_groups[1] == 19 + 22
    for level in (1, 2, 3, 4):
        first = {}
        for label, group in zip(labels, hierarchy.groups[level].tolist(), strict=True):
            ancestor = ontology.ancestor_at(label, level)
            assert first.setdefault(group, ancestor) == ancestor
            assert ancestor is None or ancestor.system == label.system


def test_hierarchy_refuses_groups_that_do_not_nest():
    with pytest.raises(InputError, match="level 1 spreads over several groups of level 0"):
        Hierarchy(torch.tensor([[0, 0, 1, 1], [0, 1, 1, 2]]))
    with pytest.raises(InputError, match="must rise"):
        Hierarchy.from_ontology(list(TinyOntology.above), TinyOntology(), levels=(1, 0))


def test_mismatches_are_refused_in_words():
    scores, positive = batch(2, 6, 0)
    hierarchy = Hierarchy(torch.zeros(1, 6, dtype=torch.long))
    with pytest.raises(InputError, match="7 labels and the scores 6"):
        hierarchical_contrastive(scores, positive, Hierarchy(torch.zeros(1, 7, dtype=torch.long)))
    with pytest.raises(InputError, match="2 level weights for 1 levels"):
        hierarchical_contrastive(scores, positive, hierarchy, [1.0, 1.0])
    with pytest.raises(InputError, match="temperature"):
        hierarchical_contrastive(scores, positive, hierarchy, temperature=0.0)
    with pytest.raises(InputError, match="bool tensor"):
        hierarchical_contrastive(scores, positive.float(), hierarchy)
    with pytest.raises(InputError, match="2 targets and an EOV score"):
        dynamic_threshold(scores, scores[:1, 0], positive)
    with pytest.raises(InputError, match="reduction"):
        dynamic_threshold(scores, scores[:, 0], positive, reduction="median")
    with pytest.raises(InputError, match="adaptive, independent"):
        threshold_loss(scores, scores[:, 0], positive, form="fixed")


# --- the threshold


def reference_threshold(scores, eov, positive, form, wp, wn) -> list[float]:
    rows = []
    for s, e, y in zip(scores.tolist(), eov.tolist(), positive.tolist(), strict=True):
        total = 0.0
        for c, true in enumerate(y):
            if true:
                total += wp * -math.log(math.exp(s[c]) / (math.exp(s[c]) + math.exp(e)))
            elif form == "independent":
                total += wn * -math.log(math.exp(e) / (math.exp(s[c]) + math.exp(e)))
        if form == "adaptive":
            rest = math.fsum(math.exp(s[c]) for c, true in enumerate(y) if not true)
            total += wn * -math.log(math.exp(e) / (math.exp(e) + rest))
        rows.append(total)
    return rows


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_labels=st.integers(1, 20),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    form=st.sampled_from(["adaptive", "independent"]),
    wp=st.sampled_from([0.5, 1.0, 6.0]),
    wn=st.sampled_from([0.25, 1.0]),
)
def test_threshold_equals_the_reference_and_its_gradient_is_numerical(seed, n_labels, share, form, wp, wn):
    scores, positive = batch(3, n_labels, seed, 2.0, share)
    eov = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = torch.tensor(reference_threshold(scores, eov, positive, form, wp, wn), dtype=torch.float64)
    actual = threshold_loss(scores, eov, positive, form, wp, wn, "none")
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-9)
    scores.requires_grad_()
    eov.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, e: threshold_loss(s, e, positive, form, wp, wn, "none"), (scores, eov))


@pytest.mark.parametrize("form", ["adaptive", "independent"])
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


def test_independent_form_is_binary_cross_entropy():
    scores, positive = batch(4, 12, 9)
    eov = scores.mean(1)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        scores - eov[:, None], positive.double(), pos_weight=torch.tensor(5.0), reduction="none"
    ).sum(1)
    torch.testing.assert_close(independent_threshold(scores, eov, positive, 5.0, reduction="none"), expected)


@pytest.mark.parametrize(("weight", "cut"), [(1.0, 0.5), (4.0, 0.2)])
def test_independent_form_puts_the_cut_at_the_stated_probability(weight, cut):
    # One code seen in 3 of 10 targets: it must pass EOV exactly when 0.3 is above the stated probability.
    positive = torch.tensor([[True]] * 3 + [[False]] * 7)
    score = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([score], max_iter=50)

    def closure():
        optimiser.zero_grad()
        loss = independent_threshold(score.expand(10, 1), torch.zeros(10), positive, weight)
        loss.backward()
        return loss

    optimiser.step(closure)
    odds = weight * 0.3 / 0.7
    assert torch.sigmoid(score).item() == pytest.approx(odds / (1 + odds), abs=1e-4)
    passes = score.item() > 0
    assert passes == (cut < 0.3)

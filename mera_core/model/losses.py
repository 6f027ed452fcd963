"""Training losses over a ranking's scores, as pure tensor functions (docs/method.md, stage 2).

Knows a batch of scores, which labels are positive, and which labels share a group of the tree; nothing of tokens, models,
patients or optimizers. Arithmetic is float32 (float64 for float64 input); every value and gradient is finite for finite scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mera_core.common.errors import InputError

if TYPE_CHECKING:
    from mera_core.icd.ontology import Code, Ontology

FORMS = ("adaptive", "independent")


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Which labels share an ancestor, level by level; what the hierarchical loss needs of the tree.

    groups: int64 [levels, n_labels], the group id of each label at each level, coarsest level first. Ids are
        renumbered 0..n-1 within a level. Two labels that share a group must share it at every coarser level.
    n_groups: number of groups at each level.
    parents: for each level but the first, int64 [n_groups], the group one level up that holds each group.

    Raises InputError when the levels do not nest.
    """

    groups: Tensor
    n_groups: tuple[int, ...] = field(init=False)
    parents: tuple[Tensor, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.groups.ndim != 2 or 0 in self.groups.shape:
            raise InputError(f"Groups must be levels x labels, not {tuple(self.groups.shape)}.")
        levels = [torch.unique(level, return_inverse=True)[1] for level in self.groups]
        sizes = tuple(int(level.max()) + 1 for level in levels)
        parents = []
        for depth, (coarse, fine, size) in enumerate(zip(levels, levels[1:], sizes[1:], strict=False)):
            parent = coarse.new_zeros(size).scatter_(0, fine, coarse)
            if not torch.equal(parent[fine], coarse):
                raise InputError(f"A group at level {depth + 1} spreads over several groups of level {depth}.")
            parents.append(parent)
        vars(self).update(groups=torch.stack(levels), n_groups=sizes, parents=tuple(parents))

    @property
    def n_levels(self) -> int:
        return self.groups.shape[0]

    @property
    def n_labels(self) -> int:
        return self.groups.shape[1]

    @classmethod
    def from_ontology(
        cls, labels: Sequence[Code], ontology: Ontology, levels: Sequence[int] = (0, 1, 2, 3, 4)
    ) -> Hierarchy:
        """Group the labels by their ancestors: level 0 is one group, level 1 the chapters, and so on.

        A label above a level (a category at level 4) is alone in a group of its own there: no negatives.
        Labels of both systems may be mixed: a group below level 0 never holds both.
        """
        if list(levels) != sorted(set(levels)):
            raise InputError(f"Levels must rise, each once, not {tuple(levels)}.")

        rows = []
        for level in levels:
            ids: dict[Code | str, int] = {}
            names = (
                "all" if level == 0 else ontology.ancestor_at(label, level) or f"{label} alone" for label in labels
            )
            rows.append([ids.setdefault(name, len(ids)) for name in names])
        return cls(torch.tensor(rows, dtype=torch.long))

    def to(self, device: torch.device | str) -> Hierarchy:
        """The same hierarchy on a device; itself when it is there already."""
        if self.groups.device == torch.device(device):
            return self
        moved = copy(self)
        vars(moved).update(groups=self.groups.to(device), parents=tuple(p.to(device) for p in self.parents))
        return moved


def hierarchical_contrastive(
    scores: Tensor,
    positive: Tensor,
    hierarchy: Hierarchy,
    level_weights: Sequence[float] | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Hierarchical contrastive loss [targets]: each positive against the negatives of each of its groups.

    `sum_l w_l sum_{c in Y} log(1 + sum_{n in g_l(c) \\ Y} exp((s_n - s_c) / temperature))`; exactly 0 for a group without
    negatives and for a target without positives.

    scores: [targets, labels], any float type. positive: bool, same shape. level_weights: [levels], 1 each if None.
    Differentiable once, with respect to the scores.
    """
    _check_shapes(scores, positive)
    if hierarchy.n_labels != scores.shape[1]:
        raise InputError(f"The hierarchy has {hierarchy.n_labels} labels and the scores {scores.shape[1]}.")
    if temperature <= 0:
        raise InputError(f"The temperature must be above 0, not {temperature}.")
    weights = tuple(map(float, level_weights or [1.0] * hierarchy.n_levels))
    if len(weights) != hierarchy.n_levels:
        raise InputError(f"There are {len(weights)} level weights for {hierarchy.n_levels} levels.")
    scaled = _in_full_precision(scores)
    if temperature != 1:  # a pass over all labels each way: not for nothing
        scaled = scaled / temperature
    return _HierarchicalContrastive.apply(scaled, positive, hierarchy.to(scores.device), weights)


class _HierarchicalContrastive(torch.autograd.Function):
    """Per-target loss [targets] from float scores [targets, labels].

    Written by hand because the levels nest: one exponential per label, taken against the largest negative of
    its finest group, serves every level forward and backward, and coarser levels work on groups, not labels.
    Labels run along the first axis, where a scatter adds whole contiguous rows of targets.
    """

    @staticmethod
    def forward(ctx, scores, positive, hierarchy, weights):
        target, label = positive.nonzero(as_tuple=True)
        own = scores[target, label]  # [positives]
        # Where every group of a level is a single label there are no negatives: the level is 0.
        used = [i for i in range(hierarchy.n_levels) if hierarchy.n_groups[i] < hierarchy.n_labels]
        loss = scores.new_zeros(len(scores))
        ctx.empty = not used or not len(target)
        ctx.shape = scores.shape
        if ctx.empty:
            return loss

        finest = used[-1]  # levels nest, so the used ones are the first ones
        negative = scores.t().clone(memory_format=torch.contiguous_format)  # [labels, targets]
        negative[label, target] = -torch.inf
        group = hierarchy.groups[finest]
        peak = _peak(negative, group, hierarchy.n_groups[finest])  # [groups, targets], never infinite
        exps = negative.sub_(peak.index_select(0, group)).exp_()
        mass = _gathered_sum(exps, group, hierarchy.n_groups[finest])

        # Up the tree: at each level the negatives' sum, as `mass * exp(peak)`. `pull` is what each group's
        # positives ask of its negatives: a negative's derivative is `pull * exp(s - peak) / mass`.
        peaks, pulls = {finest: peak}, {}
        own_gradient = torch.zeros_like(own)
        for level in reversed(used):
            if level != finest:
                up, size = hierarchy.parents[level], hierarchy.n_groups[level]
                filled = peak.masked_fill(mass == 0, -torch.inf)
                coarse = _peak(filled, up, size)
                mass = _gathered_sum(mass * (peak - coarse.index_select(0, up)).clamp_(max=0).exp_(), up, size)
                peak = peaks[level] = coarse
            held = hierarchy.groups[level][label]
            rivals = mass[held, target].log() + peak[held, target]  # -inf where there are none
            margin = rivals - own
            loss.index_add_(0, target, F.softplus(margin), alpha=weights[level])
            pull = torch.sigmoid(margin) * weights[level]
            own_gradient -= pull
            asked = torch.zeros_like(mass).index_put_((held, target), pull, accumulate=True)
            pulls[level] = asked.div_(mass).masked_fill_(mass == 0, 0)

        # Down the tree: what every level asks, put in the units of the finest group's peak.
        factor = pulls[0]
        for level in used[1:]:
            up = hierarchy.parents[level - 1]
            shift = (peaks[level] - peaks[level - 1].index_select(0, up)).clamp_(max=0).exp_()
            factor = factor.index_select(0, up).mul_(shift).add_(pulls[level])
        ctx.group = group
        ctx.save_for_backward(exps, factor, target, label, own_gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss):
        if ctx.empty:
            return grad_loss.new_zeros(ctx.shape), None, None, None
        exps, factor, target, label, own_gradient = ctx.saved_tensors
        gradient = (factor * grad_loss).index_select(0, ctx.group).mul_(exps).t().contiguous()
        gradient[target, label] = own_gradient * grad_loss[target]
        return gradient, None, None, None


def _peak(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Largest value of each group along the first axis; 0 where a group holds nothing but -inf."""
    index = group[:, None].expand_as(values)
    top = values.new_full((n_groups, values.shape[1]), -torch.inf).scatter_reduce_(0, index, values, "amax")
    return top.masked_fill_(top == -torch.inf, 0)


def _gathered_sum(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Sum of each group along the first axis: [n_groups, values.shape[1]]."""
    out = values.new_zeros((n_groups, values.shape[1]))
    return out.scatter_add_(0, group[:, None].expand_as(values), values)


def threshold_loss(
    scores: Tensor, eov_score: Tensor, positive: Tensor, form: str = "adaptive", positive_weight: float = 1.0
) -> Tensor:
    """Loss [targets] that puts the true codes above the score of the end of the visit (EOV) and all others below.

    "adaptive": `positive_weight * sum_{c in Y} log(1 + exp(s_EOV - s_c)) + log(1 + sum_{n not in Y} exp(s_n - s_EOV))`. The
    others share one term, so that EOV settles high when the signal is weak; a larger positive_weight brings it down.

    "independent": `positive_weight * sum_{c in Y} log(1 + exp(s_EOV - s_c)) + sum_{n not in Y} log(1 + exp(s_n - s_EOV))`,
    binary cross-entropy of `s_c - s_EOV`: a code passes the cut-off when its probability passes `1 / (1 + positive_weight)`.

    scores: [targets, labels]; eov_score: [targets]; positive: bool, as scores.
    """
    _check_shapes(scores, positive)
    if eov_score.shape != scores.shape[:1]:
        raise InputError(f"There are {len(scores)} targets and an EOV score of shape {tuple(eov_score.shape)}.")
    if form not in FORMS:
        raise InputError(f"The threshold form must be one of {', '.join(FORMS)}, not {form!r}.")
    scores = _in_full_precision(scores)
    eov = eov_score.to(scores.dtype)
    target, label = positive.nonzero(as_tuple=True)
    if form == "adaptive":  # a finite floor, not -inf: logsumexp over nothing but -inf has no gradient
        others = scores.masked_fill(positive, torch.finfo(scores.dtype).min).logsumexp(1)
        above = F.softplus(eov[target] - scores[target, label])
        return F.softplus(others - eov).index_add(0, target, above, alpha=positive_weight)
    margin = scores - eov[:, None]
    own = margin[target, label]
    # All labels as if they were negatives, then the few positives put right: no [targets, labels] weights.
    return F.softplus(margin).sum(1).index_add(0, target, positive_weight * F.softplus(-own) - F.softplus(own))


def distillation_loss(scores: Tensor, eov_score: Tensor, probability: Tensor, independent: bool = True) -> Tensor:
    """Loss [targets] against a teacher's probability [targets, labels] of each label.

    `- sum_c p_c log softmax(s)_c`, and where EOV is an independent threshold also the binary cross-entropy of
    `s_c - s_EOV` with `p_c` (Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015).

    scores: [targets, labels]; eov_score: [targets].
    """
    scores = _in_full_precision(scores)
    loss = -(probability * scores.log_softmax(1)).sum(1)
    if independent:
        margin = scores - eov_score.to(scores.dtype)[:, None]
        loss = loss + (F.softplus(margin) - probability * margin).sum(1)
    return loss


def without(scores: Tensor, row: Tensor, label: Tensor) -> Tensor:
    """The scores [targets, labels] with those of some (row, label) pairs so low that they are no candidates."""
    return scores.index_put((row, label), torch.tensor(-1e4, dtype=scores.dtype, device=scores.device))


def _check_shapes(scores: Tensor, positive: Tensor) -> None:
    if scores.ndim != 2 or positive.shape != scores.shape or positive.dtype != torch.bool:
        raise InputError(
            f"Scores must be targets x labels and positives a bool tensor of the same shape, not "
            f"{tuple(scores.shape)} and {positive.dtype} {tuple(positive.shape)}."
        )


def _in_full_precision(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()

"""Training losses over a ranking's scores, as pure tensor functions.

Knows a batch of scores, which labels are positive, and which labels share a group of the tree. Knows nothing
of tokens, models, patients or optimisers; of the ontology it asks only for a label's ancestor at a level.

Both losses come from METHOD.md, "Stage 2: rank". Arithmetic is float32 whatever the input's precision
(float64 for float64 input), and every value and gradient stays finite for any finite score.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mera_core.common.errors import InputError

if TYPE_CHECKING:
    from mera_core.icd.ontology import Code, Ontology

Reduction = Literal["mean", "sum", "none"]


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
        self._set(torch.stack(levels), sizes, tuple(parents))

    def _set(self, groups: Tensor, n_groups: tuple[int, ...], parents: tuple[Tensor, ...]) -> None:
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "n_groups", n_groups)
        object.__setattr__(self, "parents", parents)

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

        def group_name(label: Code, level: int) -> Hashable:
            if level == 0:
                return "all"
            ancestor = ontology.ancestor_at(label, level)
            return ("alone", label) if ancestor is None else ("under", ancestor)

        rows = []
        for level in levels:
            ids: dict[Hashable, int] = {}
            rows.append([ids.setdefault(group_name(label, level), len(ids)) for label in labels])
        return cls(torch.tensor(rows, dtype=torch.long))

    def to(self, device: torch.device | str) -> Hierarchy:
        """The same hierarchy on a device; itself when it is there already."""
        if self.groups.device == torch.device(device):
            return self
        moved = object.__new__(Hierarchy)
        moved._set(self.groups.to(device), self.n_groups, tuple(p.to(device) for p in self.parents))
        return moved


def hierarchical_contrastive(
    scores: Tensor,
    positive: Tensor,
    hierarchy: Hierarchy,
    level_weights: Tensor | Sequence[float] | None = None,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    per_code: bool = False,
) -> Tensor:
    """Hierarchical contrastive loss of METHOD.md: each positive against the negatives of each of its groups.

    `sum_l w_l sum_{c in Y} log(1 + sum_{n in g_l(c) \\ Y} exp((s_n - s_c) / temperature))`; a group without
    negatives gives exactly 0, and so does a target without positives.

    scores: [targets, labels], any float type. positive: bool, same shape. level_weights: [levels], 1 each if
    None. per_code: divide each target by its number of positives, so that long visits weigh as much as short
    ones. reduction: "mean" and "sum" run over targets (those without positives included); "none" gives
    [targets]. Differentiable once, with respect to the scores.
    """
    _check_shapes(scores, positive)
    if hierarchy.n_labels != scores.shape[1]:
        raise InputError(f"The hierarchy has {hierarchy.n_labels} labels and the scores {scores.shape[1]}.")
    if temperature <= 0:
        raise InputError(f"The temperature must be above 0, not {temperature}.")
    if level_weights is None:
        weights = [1.0] * hierarchy.n_levels
    else:
        weights = level_weights.tolist() if isinstance(level_weights, Tensor) else [float(w) for w in level_weights]
    if len(weights) != hierarchy.n_levels:
        raise InputError(f"There are {len(weights)} level weights for {hierarchy.n_levels} levels.")
    scaled = _in_full_precision(scores)
    if temperature != 1:  # a pass over all labels each way: not for nothing
        scaled = scaled / temperature
    per_target = _HierarchicalContrastive.apply(scaled, positive, hierarchy.to(scores.device), tuple(weights), per_code)
    return _reduce(per_target, reduction)


class _HierarchicalContrastive(torch.autograd.Function):
    """Per-target loss [targets] from float scores [targets, labels].

    Written by hand because the levels nest: one exponential per label, taken against the largest negative of
    its finest group, serves every level forward and backward, and coarser levels work on groups, not labels.
    Labels run along the first axis, where a scatter adds whole contiguous rows of targets.
    """

    @staticmethod
    def forward(ctx, scores, positive, hierarchy, weights, per_code):
        target, label = positive.nonzero(as_tuple=True)
        own = scores[target, label]  # [positives]
        share = own.new_ones(own.shape)
        if per_code:
            share = share / torch.bincount(target, minlength=len(scores)).to(own)[target]
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
            loss.index_add_(0, target, F.softplus(margin) * share, alpha=weights[level])
            pull = torch.sigmoid(margin) * share * weights[level]
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
            return grad_loss.new_zeros(ctx.shape), None, None, None, None
        exps, factor, target, label, own_gradient = ctx.saved_tensors
        gradient = (factor * grad_loss).index_select(0, ctx.group).mul_(exps).t().contiguous()
        gradient[target, label] = own_gradient * grad_loss[target]
        return gradient, None, None, None, None


def _peak(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Largest value of each group along the first axis; 0 where a group holds nothing but -inf."""
    index = group[:, None].expand_as(values)
    top = values.new_full((n_groups, values.shape[1]), -torch.inf).scatter_reduce_(0, index, values, "amax")
    return top.masked_fill_(top == -torch.inf, 0)


def _gathered_sum(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Sum of each group along the first axis: [n_groups, values.shape[1]]."""
    out = values.new_zeros((n_groups, values.shape[1]))
    return out.scatter_add_(0, group[:, None].expand_as(values), values)


def dynamic_threshold(
    scores: Tensor,
    eov_score: Tensor,
    positive: Tensor,
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Dynamic confidence threshold of METHOD.md, adaptive form: true codes above EOV, EOV above all the rest.

    `positive_weight * sum_{c in Y} log(1 + exp(s_EOV - s_c))
     + negative_weight * log(1 + sum_{n not in Y} exp(s_n - s_EOV))`

    The rest share one term, so EOV competes with their sum and settles high when the signal is weak; a larger
    positive_weight brings it down. scores: [targets, labels]; eov_score: [targets]; positive: bool. Either
    term is 0 where it has no codes. reduction as in `hierarchical_contrastive`.
    """
    scores, eov = _scores_and_eov(scores, eov_score, positive)
    # A finite floor, not -inf: logsumexp over nothing but -inf has no gradient.
    rest = scores.masked_fill(positive, torch.finfo(scores.dtype).min).logsumexp(1)
    target, label = positive.nonzero(as_tuple=True)
    above = F.softplus(eov[target] - scores[target, label])
    loss = negative_weight * F.softplus(rest - eov)
    return _reduce(loss.index_add(0, target, above, alpha=positive_weight), reduction)


def independent_threshold(
    scores: Tensor,
    eov_score: Tensor,
    positive: Tensor,
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Every code against EOV on its own: binary cross-entropy of `s_c - s_EOV`, summed over the labels.

    `positive_weight * sum_{c in Y} log(1 + exp(s_EOV - s_c))
     + negative_weight * sum_{n not in Y} log(1 + exp(s_n - s_EOV))`

    With both weights 1, `sigmoid(s_c - s_EOV)` is fitted to the code's probability and the cut falls at one
    half; in general a code passes the cut when its probability passes
    `negative_weight / (positive_weight + negative_weight)`, so a cut at probability p wants a positive_weight
    of `(1 - p) / p` (METHOD.md: about half the F1 within reach). Arguments as in `dynamic_threshold`.
    """
    scores, eov = _scores_and_eov(scores, eov_score, positive)
    margin = scores - eov[:, None]
    target, label = positive.nonzero(as_tuple=True)
    own = margin[target, label]
    # All labels as if they were negatives, then the few positives put right: no [targets, labels] weights.
    loss = negative_weight * F.softplus(margin).sum(1)
    change = positive_weight * F.softplus(-own) - negative_weight * F.softplus(own)
    return _reduce(loss.index_add(0, target, change), reduction)


def threshold_loss(
    scores: Tensor,
    eov_score: Tensor,
    positive: Tensor,
    form: str = "adaptive",
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Threshold loss by name: "adaptive" is `dynamic_threshold`, "independent" `independent_threshold`."""
    forms = {"adaptive": dynamic_threshold, "independent": independent_threshold}
    if form not in forms:
        raise InputError(f"The threshold form must be one of {', '.join(forms)}, not {form!r}.")
    return forms[form](scores, eov_score, positive, positive_weight, negative_weight, reduction)


def _check_shapes(scores: Tensor, positive: Tensor) -> None:
    if scores.ndim != 2 or positive.shape != scores.shape or positive.dtype != torch.bool:
        raise InputError(
            f"Scores must be targets x labels and positives a bool tensor of the same shape, not "
            f"{tuple(scores.shape)} and {positive.dtype} {tuple(positive.shape)}."
        )


def _in_full_precision(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()


def _scores_and_eov(scores: Tensor, eov_score: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    _check_shapes(scores, positive)
    if eov_score.shape != scores.shape[:1]:
        raise InputError(f"There are {len(scores)} targets and an EOV score of shape {tuple(eov_score.shape)}.")
    scores = _in_full_precision(scores)
    return scores, eov_score.to(scores.dtype)


def _reduce(per_target: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return per_target
    if reduction == "sum":
        return per_target.sum()
    if reduction == "mean":
        return per_target.mean()
    raise InputError(f"The reduction must be mean, sum or none, not {reduction!r}.")

"""Does the tree group what a clinician would group? Groups to judge, verdicts, and what they add up to.

Boundary: knows the ICD code set and verdicts; no model, no screen. A group is what the contrastive loss sets against a
positive at one level (labels under one ancestor, as `losses.Hierarchy` groups them), with an intruder from a
neighbouring group among them. Files are in `audit_file`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mera_core.common.errors import InputError
from mera_core.evaluation.agreement import kappa_of_readers
from mera_core.icd.ontology import Code, Ontology

VERDICTS = ("agree", "disagree", "unsure")
MEMBERS = 4  # codes of the group that are shown at most; one intruder comes with them
FEWEST = 3
LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Group:
    """Codes under one node, and one that the tree puts elsewhere.

    node: the ancestor at `level`. shown: up to `MEMBERS` of its labels and the intruder, shuffled. neighbour: the
    intruder's own ancestor at that level, a sibling of `node` where there is one. size: labels in the whole group.
    """

    level: int
    node: Code
    shown: tuple[Code, ...]
    intruder: Code
    neighbour: Code
    size: int

    @property
    def id(self) -> str:
        """Names the group by what is in it, so that readers of different sessions judge the same one."""
        words = f"{self.level} {self.node} {sorted(map(str, self.shown))} {self.intruder}"
        return hashlib.sha256(words.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One reader's verdict on one group.

    picked: the code that the reader took for the intruder before the tree's answer was shown, "" for none.
    verdict: whether the reader agrees with the tree, one of VERDICTS. time: UTC.
    Raises InputError for another verdict, a level below 1, or a reader without a name.
    """

    group: str
    level: int
    chapter: str
    node: str
    codes: tuple[str, ...]
    intruder: str
    picked: str
    verdict: str
    reader: str
    checkpoint: str
    time: datetime

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise InputError(f"A verdict is one of {', '.join(VERDICTS)}, not {self.verdict!r}.")
        if not self.reader.strip() or len(self.reader) > LONGEST_NAME:
            raise InputError(f"A reader needs a name of at most {LONGEST_NAME} characters.")
        if self.level < 1 or self.intruder not in self.codes or self.time.tzinfo is not None:
            raise InputError(f"The judgement of group {self.group} does not fit together.")

    @property
    def found(self) -> bool:
        """Whether the reader picked the intruder."""
        return self.picked == self.intruder


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the verdicts on some groups add up to.

    level, chapter: of the groups; None for all. agree, disagree, unsure: judgements. found: picks that were the intruder.
    readers: who judged. kappa: of the verdicts on the `shared` groups that every reader judged (Cohen's for two readers,
    Fleiss' for more); None where there is nothing to reckon it from.
    """

    level: int | None
    chapter: str | None
    judgements: int
    agree: int
    disagree: int
    unsure: int
    found: int
    readers: int
    kappa: float | None
    shared: int


def groups_at(labels: Sequence[Code], ontology: Ontology, level: int) -> dict[Code, tuple[Code, ...]]:
    """The labels under each node of a level, in book order of the labels given; labels above the level are left out.

    These are the groups of `losses.Hierarchy.from_ontology` at that level.
    """
    groups: dict[Code, list[Code]] = {}
    for label in labels:
        node = ontology.ancestor_at(label, level)
        if node is not None:
            groups.setdefault(node, []).append(label)
    return {node: tuple(members) for node, members in groups.items()}


def levels_to_judge(labels: Sequence[Code], ontology: Ontology) -> dict[int, int]:
    """Level (1 = chapter) -> groups that are large enough to be judged, for every level that has any.

    A level with one group alone has none: there is no other to take an intruder from.
    """
    deepest = max((ontology.level(label) for label in labels), default=0)
    found = {}
    for level in range(1, deepest + 1):
        groups = groups_at(labels, ontology, level)
        judged = sum(len(members) >= FEWEST for members in groups.values())
        if len(groups) > 1 and judged:
            found[level] = judged
    return found


def draw_groups(labels: Sequence[Code], ontology: Ontology, level: int, count: int, seed: int = 0) -> list[Group]:
    """Up to `count` different groups of a level to judge, in random order; the same for a seed and label space.

    Raises InputError where the label space has no such groups.
    """
    groups = groups_at(labels, ontology, level)
    nodes = [node for node, members in groups.items() if len(members) >= FEWEST]
    if not nodes or len(groups) < 2:
        raise InputError(f"At level {level} no group of this model's label space holds {FEWEST} codes or more.")
    draw = random.Random(f"{seed} {level}")
    draw.shuffle(nodes)
    drawn = []
    for node in nodes[:count]:
        members = groups[node]
        neighbour = draw.choice(_neighbours(node, groups, ontology))
        intruder = draw.choice(groups[neighbour])
        shown = [*draw.sample(members, min(MEMBERS, len(members))), intruder]
        draw.shuffle(shown)
        drawn.append(Group(level, node, tuple(shown), intruder, neighbour, len(members)))
    return drawn


def _neighbours(node: Code, groups: dict[Code, tuple[Code, ...]], ontology: Ontology) -> list[Code]:
    """The other groups under the same parent; where there are none, the ones before and after it in the book."""
    parent = ontology.parent(node)
    siblings = [other for other in groups if other != node and other.system == node.system]
    if parent is not None:
        nearest = [other for other in siblings if ontology.parent(other) == parent]
        if nearest:
            return nearest
    order = {each.code: place for place, each in enumerate(ontology.nodes(node.system))}
    apart = sorted(
        siblings or [other for other in groups if other != node], key=lambda o: abs(order.get(o, 0) - order[node])
    )
    return apart[:2]


def judge(
    group: Group, ontology: Ontology, picked: Code | None, verdict: str, reader: str, checkpoint: str, time: datetime
) -> Judgement:
    """The verdict of a reader on a group, ready to be kept."""
    return Judgement(
        group=group.id,
        level=group.level,
        chapter=str(ontology.chapter(group.node)),
        node=str(group.node),
        codes=tuple(map(str, group.shown)),
        intruder=str(group.intruder),
        picked=str(picked) if picked else "",
        verdict=verdict,
        reader=reader.strip(),
        checkpoint=checkpoint,
        time=time,
    )


def agreement(judgements: Sequence[Judgement]) -> list[Agreement]:
    """Agreement over all, then per level, then per level and chapter; of a group judged twice the newest counts."""
    newest = {(each.reader, each.group): each for each in sorted(judgements, key=lambda each: each.time)}
    kept = list(newest.values())
    if not kept:
        return []
    rows = [_agreement(kept, None, None)]
    for level in sorted({each.level for each in kept}):
        rows.append(_agreement([each for each in kept if each.level == level], level, None))
    for level, chapter in sorted({(each.level, each.chapter) for each in kept}):
        rows.append(_agreement([e for e in kept if (e.level, e.chapter) == (level, chapter)], level, chapter))
    return rows


def _agreement(kept: Sequence[Judgement], level: int | None, chapter: str | None) -> Agreement:
    verdicts: dict[str, dict[str, str]] = {}
    for each in kept:
        verdicts.setdefault(each.reader, {})[each.group] = each.verdict
    kappa, shared = kappa_of_readers(verdicts)
    counts = [sum(each.verdict == verdict for each in kept) for verdict in VERDICTS]
    found = sum(each.found for each in kept)
    return Agreement(level, chapter, len(kept), *counts, found=found, readers=len(verdicts), kappa=kappa, shared=shared)

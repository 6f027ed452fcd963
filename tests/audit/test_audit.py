"""The hierarchy audit: groups as the loss sees them, verdicts, agreement, and the file they travel in."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from mera_core.audit.file import from_json, to_json
from mera_core.audit.groups import Judgement, agreement, draw_groups, groups_at, judge, levels_to_judge
from mera_core.common.errors import InputError
from mera_core.evaluation.agreement import fleiss_kappa, kappa_of_readers
from mera_core.figures.audit import agreement_bars, agreement_frame, describe_agreement
from mera_core.icd.ontology import Code
from mera_core.model.losses import Hierarchy

NOON = datetime(2026, 5, 1, 12)


@pytest.fixture(scope="module")
def categories(ontology) -> tuple[Code, ...]:
    """Every three-digit category of ICD-9-CM, as a label space."""
    return tuple(sorted(node.code for node in ontology.nodes("ICD9") if node.level == 3))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_groups_are_those_of_the_contrastive_loss(categories, ontology, level):
    ids = Hierarchy.from_ontology(categories, ontology, levels=(level,)).groups[0]
    groups = groups_at(categories, ontology, level)
    assert sum(map(len, groups.values())) == len(categories)
    place = {code: i for i, code in enumerate(categories)}
    for members in groups.values():
        found = ids[torch.tensor([place[code] for code in members])]
        assert len(found.unique()) == 1
        assert int((ids == found[0]).sum()) == len(members)


def test_levels_that_have_something_to_judge(categories, ontology):
    assert list(levels_to_judge(categories, ontology)) == [1, 2]
    assert levels_to_judge(categories, ontology)[1] == 19
    full = ontology.billable("ICD9")
    assert list(levels_to_judge(full, ontology)) == [1, 2, 3]
    assert levels_to_judge(full[:1], ontology) == {}


def test_the_intruder_is_of_a_neighbouring_group_and_the_rest_are_of_one(categories, ontology):
    groups = draw_groups(categories, ontology, 2, 40)
    assert groups == draw_groups(categories, ontology, 2, 40) != draw_groups(categories, ontology, 2, 40, seed=1)
    assert len({group.id for group in groups}) == 40
    siblings = 0
    for group in groups:
        assert 4 <= len(group.shown) <= 5
        assert len(set(group.shown)) == len(group.shown)
        inside = [code for code in group.shown if ontology.ancestor_at(code, 2) == group.node]
        assert set(group.shown) - set(inside) == {group.intruder}
        assert ontology.ancestor_at(group.intruder, 2) == group.neighbour != group.node
        siblings += ontology.parent(group.neighbour) == ontology.parent(group.node)
    assert siblings == 40
    assert {group.shown.index(group.intruder) for group in groups} == {0, 1, 2, 3, 4}  # its place gives nothing away


def test_chapters_take_an_intruder_from_the_chapter_beside_them(categories, ontology):
    for group in draw_groups(categories, ontology, 1, 19):
        apart = abs(int(group.node.code.removeprefix("CH")) - int(group.neighbour.code.removeprefix("CH")))
        assert apart <= 2
        assert group.node != group.neighbour


def test_a_label_space_without_groups_is_refused(ontology):
    with pytest.raises(InputError, match="At level 2 no group"):
        draw_groups([Code("ICD9", "428"), Code("ICD9", "486")], ontology, 2, 5)


# --- kappa


def test_fleiss_kappa_of_the_published_table():
    # 14 readers, 10 items, 5 categories: the worked example after Fleiss (1971), kappa 0.210.
    table = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    items = [[category for category, count in enumerate(row) for _ in range(count)] for row in table]
    assert fleiss_kappa(items) == pytest.approx(0.210, abs=5e-4)
    with pytest.raises(ValueError, match="same number of verdicts"):
        fleiss_kappa([["a", "b"], ["a"]])


def test_kappa_is_over_what_every_reader_judged():
    verdicts = {"a": {1: "x", 2: "y", 3: "x"}, "b": {2: "y", 3: "y", 4: "x"}}
    assert kappa_of_readers(verdicts) == (cohen_kappa_score(["y", "x"], ["y", "y"]), 2)
    three = verdicts | {"c": {2: "y", 3: "x"}}
    assert kappa_of_readers(three) == (fleiss_kappa([["y", "y", "y"], ["x", "y", "x"]]), 2)
    assert kappa_of_readers({"a": {1: "x"}}) == (None, 0)
    assert kappa_of_readers({"a": {1: "x"}, "b": {2: "x"}}) == (None, 0)
    assert kappa_of_readers({"a": {1: "x", 2: "x"}, "b": {1: "x", 2: "x"}}) == (None, 2)
    assert kappa_of_readers({"a": {1: "x", 2: "y"}, "b": {1: "x", 2: "y"}}) == (1, 2)


def verdicts(categories, ontology, reader: str, words: str, level: int = 2) -> list[Judgement]:
    """A judgement a letter (a, d, u); the reader picks the intruder in the first of every two."""
    groups = draw_groups(categories, ontology, level, len(words))
    verdict = {"a": "agree", "d": "disagree", "u": "unsure"}
    picked = [group.intruder if i % 2 == 0 else None for i, group in enumerate(groups)]
    return [
        judge(group, ontology, picked[i], verdict[words[i]], reader, "tiny 0", NOON + timedelta(minutes=i))
        for i, group in enumerate(groups)
    ]


def test_agreement_over_all_per_level_and_per_chapter(categories, ontology):
    judged = [*verdicts(categories, ontology, "ann", "aadu"), *verdicts(categories, ontology, "bob", "aaad")]
    rows = agreement(judged)
    whole = rows[0]
    assert (whole.level, whole.chapter, whole.judgements) == (None, None, 8)
    assert (whole.agree, whole.disagree, whole.unsure, whole.found, whole.readers) == (5, 2, 1, 4, 2)
    assert whole.kappa == pytest.approx(cohen_kappa_score(list("aadu"), list("aaad")))
    assert whole.shared == 4
    assert (rows[1].level, rows[1].chapter, rows[1].judgements) == (2, None, 8)
    chapters = rows[2:]
    assert sum(row.judgements for row in chapters) == 8
    assert all(row.level == 2 and row.chapter.startswith("ICD9:CH") for row in chapters)
    assert agreement([]) == []


def test_of_a_group_judged_twice_the_newest_verdict_counts(categories, ontology):
    (first,) = verdicts(categories, ontology, "ann", "a")
    again = replace(first, verdict="unsure", time=NOON + timedelta(hours=1))
    assert (agreement([again, first])[0].unsure, agreement([again, first])[0].judgements) == (1, 1)


def test_figure_table_and_words_say_the_same(categories, ontology):
    rows = agreement([*verdicts(categories, ontology, "ann", "aadu"), *verdicts(categories, ontology, "bob", "aaad")])
    bar = agreement_bars(rows, ontology).data[0]
    assert list(bar.x) == [100 * row.agree / row.judgements for row in rows[2:]]
    frame = agreement_frame(rows, ontology)
    assert frame["agree"][0] == "5 (62 %)"
    assert frame["level"][0] == "all" and set(frame["level"][1:]) == {"block"}  # as the page's switch says
    said = describe_agreement(rows)
    assert "5 agree, 2 disagree and 1 are unsure" in said and f"kappa {rows[0].kappa:.2f} on 4 groups" in said


def test_judgements_that_make_no_sense_are_refused(categories, ontology):
    (good,) = verdicts(categories, ontology, "ann", "a")
    wrong = (("verdict", "perhaps"), ("reader", " "), ("reader", "x" * 61), ("level", 0), ("intruder", "ICD9:428"))
    for name, value in wrong:
        with pytest.raises(InputError):
            replace(good, **{name: value})


def test_what_is_saved_is_what_is_read(categories, ontology):
    judged = verdicts(categories, ontology, "ann Ünal", "aadu")
    content = to_json(judged)
    assert from_json(content, "ann.json") == judged


def test_files_that_are_something_else_are_refused_in_a_sentence(categories, ontology):
    content = to_json(verdicts(categories, ontology, "ann", "ad"))
    whole = json.loads(content)

    def altered(**values) -> bytes:
        first = whole["judgements"][0] | values
        return json.dumps(whole | {"judgements": [first]}).encode()

    for bad, message in (
        (b"", "is not a file of the hierarchy audit"),
        (b"no judgements", "is not a file of the hierarchy audit"),
        (content[: len(content) // 2], "is not a file of the hierarchy audit"),
        (json.dumps(whole | {"format": "other"}).encode(), "format must be"),
        (json.dumps(whole | {"more": 1}).encode(), "more is not a known key"),
        (altered(verdict="perhaps"), r"judgements\[0\].*A verdict is one of agree, disagree, unsure"),
        (altered(codes={}), r"judgements\[0\]\.codes must be a list"),
        (altered(time="noon"), r"judgements\[0\]\.time"),
        (altered(time="2026-05-01T00:00:00Z"), "does not fit together"),
        (altered(level="two"), r"judgements\[0\]\.level must be a whole number"),
        (content + b" " * 5_000_001, "at most 5,000,000 can be read"),
    ):
        with pytest.raises(InputError, match=message):
            from_json(bad, "file.json")


def test_a_chapter_that_is_not_in_the_book_is_shown_as_unknown(categories, ontology):
    (good,) = verdicts(categories, ontology, "ann", "a")
    rows = agreement([replace(good, chapter="ICD9:<b>")])
    assert agreement_frame(rows, ontology)["chapter"][2] == "unknown chapter"
    assert list(agreement_bars(rows, ontology).layout.yaxis.ticktext) == ["level 2, unknown chapter"]

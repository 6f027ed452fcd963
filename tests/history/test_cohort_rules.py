"""Cohort rules: each published step on a cohort small enough to count by hand, and the published split."""

import random

import numpy as np
import pytest

from mera_core.common.errors import InputError
from mera_core.history import cohort_rules
from mera_core.history.cohort_rules import (
    HONEST,
    HONEST_ICD9,
    HONEST_ICD10,
    PAPER_MIMIC3,
    PAPER_MIMIC4,
    CohortRules,
    PublishedSplit,
    apply,
    published_split,
    targets_of,
)
from mera_core.history.columns import VisitColumns
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code, Ontology


def nine(*codes):
    return tuple(Code("ICD9", code) for code in codes)


def ten(*codes):
    return tuple(Code("ICD10", code) for code in codes)


def patient(identity, *visits, years=None):
    made = [
        Visit(codes, age=50.0 + number, details={"year": str(years[number])} if years else {})
        for number, codes in enumerate(visits)
    ]
    return Patient(tuple(made), sex="F", age=made[-1].age, id=identity)


def counts(flow):
    return [(step.patients, step.visits, step.codes) for step in flow.steps]


def test_paper_mode_of_mimic3_drops_a_patient_with_any_empty_visit():
    cohort = [
        patient("1", nine("428.0", "401.9"), nine("428.0")),
        patient("2", nine("428.0")),
        patient("3", nine("428.0"), (), nine("427.31")),
    ]
    kept, flow = apply(VisitColumns.of(cohort), PAPER_MIMIC3)
    assert [each.id for each in kept.patients()] == ["1"]
    assert counts(flow) == [(3, 6, 6), (2, 5, 5), (1, 2, 3)]
    assert [step.what for step in flow.steps] == [
        "as read",
        "patients with at least 2 visits",
        "patients all of whose visits have codes",
    ]


def test_honest_mode_drops_the_empty_visit_and_not_its_patient():
    cohort = [patient("1", nine("428.0"), (), nine("427.31")), patient("2", (), nine("428.0"))]
    kept, flow = apply(VisitColumns.of(cohort), HONEST)
    (one,) = kept.patients()
    assert [visit.codes for visit in one.visits] == [nine("428.0"), nine("427.31")]
    assert one.age == 52.0
    assert counts(flow) == [(2, 5, 3), (2, 5, 3), (2, 3, 3), (1, 2, 2)]


def test_honest_mode_in_the_codes_of_one_system_guesses_nothing():
    cohort = [patient("1", nine("428.0", "428"), ten("I10")), patient("2", nine("428"), ten("I10"))]
    kept, flow = apply(VisitColumns.of(cohort), HONEST_ICD10)
    (one,) = kept.patients()
    assert [visit.codes for visit in one.visits] == [ten("I50.9"), ten("I10")]
    assert "1 codes translated, 2 without a target" in flow.steps[2].note
    kept, _ = apply(VisitColumns.of(cohort), HONEST_ICD9)
    assert [visit.codes for visit in kept.patients()[1].visits] == [nine("428"), nine("401.0")]


def test_paper_mode_of_mimic4_takes_late_visits_in_terms_of_icd9():
    cohort = [
        patient("1", nine("428.0"), ten("I50.22"), ten("I10", "E11.9"), years=(2012, 2013, 2014)),
        patient("2", nine("428.0"), ten("I10"), years=(2012, 2016)),
        patient("3", ten("I10"), ten("Z99.89"), ten("U07.1"), years=(2017, 2018, 2019)),
    ]
    kept, flow = apply(VisitColumns.of(cohort), PAPER_MIMIC4)
    (one,) = kept.patients()
    assert [visit.codes for visit in one.visits] == [nine("428.22"), nine("401.9", "250.00")]
    assert one.age == 52.0
    assert counts(flow)[:3] == [(3, 8, 9), (3, 6, 7), (2, 5, 6)]
    assert "1 without a target" in flow.steps[3].note  # COVID-19 is younger than the maps
    assert counts(flow)[4] == (1, 2, 3)


def test_a_rule_that_needs_the_calendar_year_says_so():
    with pytest.raises(InputError, match="calendar year"):
        apply(VisitColumns.of([patient("1", nine("428.0"))]), PAPER_MIMIC4)


def test_translation_takes_one_target_or_all_and_never_one_twice():
    book = Ontology.load()
    (several,) = ten("S72.001A")
    assert len(targets_of(several, "ICD9", "last", book)) == 1
    # Golden: the 2018 map of CMS lists three targets for I10.
    (hypertension,) = ten("I10")
    assert targets_of(hypertension, "ICD9", "all", book) == nine("401.0", "401.1", "401.9")
    assert targets_of(hypertension, "ICD9", "first", book) == nine("401.0")
    assert targets_of(hypertension, "ICD9", "last", book) == nine("401.9")
    assert targets_of(Code("ICD9", "428.0"), "ICD9", "first", book) == nine("428.0")
    # A18.01: 015.00 alone, then parts of combinations, of which 737.40 is the last row
    assert targets_of(Code("ICD10", "A18.01"), "ICD9", "last", book) == nine("015.00")
    assert nine("737.40")[0] in targets_of(Code("ICD10", "A18.01"), "ICD9", "all", book)
    # without a map it is guessed where the published rules do
    assert targets_of(*nine("428"), "ICD10", "last", book) == ()
    assert targets_of(*nine("428"), "ICD10", "last", book, append_one=True) == ten("I50.1")
    cohort = VisitColumns.of([patient("1", (*nine("401.9"), *ten("I10")))])
    kept, _ = apply(cohort, CohortRules("one", system="ICD9"))
    assert kept.patients()[0].visits[0].codes == nine("401.9")


def test_sampling_is_that_of_the_public_code():
    cohort = VisitColumns.of([patient(str(number), nine("428.0"), nine("401.9")) for number in range(50)])
    kept, flow = apply(cohort, CohortRules("some", sample=10))
    assert kept.ids == list(np.random.RandomState(6669).choice(cohort.ids, 10, False))
    assert flow.steps[-1].patients_out == 40
    assert [p.id for p in kept.patients()] == kept.ids
    assert all(p.visits == cohort.patients()[int(p.id)].visits for p in kept.patients())


def test_published_split_deals_as_the_public_code_does():
    draw = random.Random(3)
    codes = nine("428.0", "401.9", "250.00", "427.31", "038.9", "486")
    patients = [
        patient(str(draw.randint(1, 10**6)), *[tuple(draw.sample(codes, 2)) for _ in range(draw.randint(2, 5))])
        for _ in range(60)
    ]
    parts = published_split(VisitColumns.of(patients), PublishedSplit(train=30, test=10))
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [30, 20, 10]
    assert sorted(name for part in parts.values() for name in part) == sorted(each.id for each in patients)
    # The published procedure, word for word: who is forced into train, and how the rest is shuffled.
    forced = set()
    for code in codes:
        forced.add(next(int(p.id) for p in patients if any(code in visit.codes for visit in p.visits)))
    longest = max(len(p.visits) for p in patients)
    forced.add(next(int(p.id) for p in patients if len(p.visits) == longest))
    rest = np.array(list(set({int(p.id): 0 for p in patients}.keys()).difference(forced)))
    np.random.RandomState(6669).shuffle(rest)
    more = 30 - len(forced)
    assert set(parts["train"]) == {str(number) for number in [*forced, *rest[:more]]}
    assert parts["validation"] == [str(number) for number in rest[more : more + 20]]
    assert parts["test"] == [str(number) for number in rest[more + 20 :]]


@pytest.mark.parametrize(
    "settings",
    [
        {"drop_patients_with_empty_visit": True, "drop_empty_visits": True},
        {"system": "SNOMED"},
        {"translation": "best"},
        {"min_visits": -1},
        {"sample": 0},
    ],
)
def test_contradictions_are_refused(settings):
    with pytest.raises(InputError, match="cohort rules 'x'"):
        CohortRules("x", **settings)


def test_the_flow_is_a_chart_and_json():
    _, flow = apply(VisitColumns.of([patient("1", nine("428.0")), patient("2", nine("1"), nine("2"))]), HONEST)
    lines = flow.lines()
    assert lines[1] == "[ as read: 2 patients, 3 visits, 3 codes ]"
    assert "   ├──▶ left out: 1 patient, 1 visit, 1 code" in lines
    assert [step["patients"] for step in flow.to_dict()["steps"]] == [2, 1, 1, 1]
    assert flow.to_dict()["rules"]["name"] == "honest"
    with pytest.raises(InputError, match="no cohort rules 'strict'"):
        cohort_rules.named("strict")


def test_the_papers_mode_is_for_records_that_the_paper_splits():
    cohort = VisitColumns.of([patient("1", nine("401.9"), nine("428.0"))])
    with pytest.raises(InputError, match="no split of uci_diabetes130 records"):
        cohort_rules.published(cohort, "uci_diabetes130")
    with pytest.raises(InputError, match=r"needs 7,000 patients.*there are 1,"):
        cohort_rules.published(cohort, "mimic3")
    with pytest.raises(InputError, match="there are none"):
        cohort_rules.published(VisitColumns.of([patient("1", nine("401.9"))]), "mimic3")


def test_the_papers_mode_applies_its_rules_before_its_split(monkeypatch):
    monkeypatch.setitem(cohort_rules.PUBLISHED, "mimic3", (cohort_rules.PAPER_MIMIC3, PublishedSplit(train=4, test=2)))
    whole = [patient(str(number), nine("401.9"), nine("428.0")) for number in range(10)]
    cohort = VisitColumns.of([*whole, patient("10", nine("486")), patient("11", nine("486"), (), nine("486"))])
    kept, flow, parts = cohort_rules.published(cohort, "mimic3")
    assert [step.patients for step in flow.steps] == [12, 11, 10]
    assert {name: len(part) for name, part in parts.items()} == {"train": 4, "validation": 4, "test": 2}
    assert sorted(name for part in parts.values() for name in part) == sorted(kept.ids) == [str(n) for n in range(10)]
    assert "0" in parts["train"]  # the first with either code, and with most visits


def test_ids_that_are_one_number_are_two_patients():
    cohort = VisitColumns.of([patient(name, nine("401.9"), nine("428.0")) for name in ("7", "07", "8", "9")])
    parts = published_split(cohort, PublishedSplit(train=2, test=1))
    assert sorted(name for part in parts.values() for name in part) == ["07", "7", "8", "9"]

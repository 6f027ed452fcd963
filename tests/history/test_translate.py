"""Codes as recorded -> codes a checkpoint reads: every step on the way is a note, and nothing goes in silence."""

from __future__ import annotations

from collections import Counter

import pytest

from mera_core.history.records import Note, Patient, Visit, resolve
from mera_core.history.translate import nearest, translate
from mera_core.icd.ontology import CATEGORY, Code, Ontology
from tests.tiny import icd9

ICD10 = "ICD10"


def read(known: tuple[Code, ...], *visits: list[Code]) -> tuple[list[tuple[Code, ...]], tuple[Note, ...]]:
    patient, notes = translate(Patient([Visit(codes) for codes in visits]), frozenset(known), Ontology.load())
    return [visit.codes for visit in patient.visits], notes


def test_a_history_in_the_checkpoints_terms_is_given_back_as_it_is() -> None:
    known, book = icd9("428.0", "486"), Ontology.load()
    first = Visit(known, age=69, details={"admission": "urgent"})
    patient = Patient([first, Visit(known[1:])], "F", 70, "a", {"ethnicity": "asian"})
    assert resolve(patient, book)[0] is patient
    whole, notes = translate(patient, frozenset(known), book)
    assert whole is patient and notes == ()
    shorter, _ = translate(patient, frozenset(known[:1]), book)
    assert shorter == Patient(
        [Visit(known[:1], age=69, details={"admission": "urgent"})], "F", 70, "a", patient.details
    )


def test_a_finer_code_is_rolled_up_to_its_nearest_known_ancestor() -> None:
    known = icd9("428", "428.2")
    visits, notes = read(known, icd9("428.23"), icd9("428.0"))
    assert visits == [icd9("428.2"), icd9("428")]
    assert [note.kind for note in notes] == ["rolled_up", "rolled_up"]
    assert notes[1] == Note("rolled_up", "ICD9:428.0 (visit 2) is read as ICD9:428, Heart failure.", 1, "ICD9:428.0")


def test_codes_that_meet_after_the_roll_up_count_once_in_their_first_place() -> None:
    known = icd9("428", "486")
    visits, notes = read(known, icd9("428.0", "486", "428.23", "428"))
    assert visits == [icd9("428", "486")]
    assert [note.code for note in notes] == ["ICD9:428.0", "ICD9:428.23"]


def test_a_heading_above_everything_known_is_left_out_with_a_note() -> None:
    visits, notes = read(icd9("428.0", "486"), icd9("428", "486"))
    assert visits == [icd9("486")]
    assert [(note.kind, note.visit, note.code) for note in notes] == [("unread", 0, "ICD9:428")]


def test_icd10_goes_through_the_maps_to_all_targets() -> None:
    code = Code(ICD10, "E08.21")  # CMS: 249.40 and 581.81 together
    known = icd9("249.40", "581.81", "486")
    visits, notes = read(known, [code])
    assert visits == [icd9("249.40", "581.81")]
    (note,) = notes
    assert note.kind == "mapped" and note.code == "ICD10:E08.21"
    assert "read as ICD9:249.40 and ICD9:581.81" in note.message and "approximate" in note.message


def test_mapped_targets_are_rolled_up_too_and_meet_recorded_codes() -> None:
    known = icd9("249", "581")
    visits, notes = read(known, [*icd9("249"), Code(ICD10, "E08.21")])
    assert visits == [icd9("249", "581")]
    assert [note.kind for note in notes] == ["mapped"]


def test_only_targets_that_are_known_are_taken() -> None:
    visits, notes = read(icd9("581.81"), [Code(ICD10, "E08.21")])
    assert visits == [icd9("581.81")] and "249" not in notes[0].message


CATEGORIES = tuple(node.code for node in Ontology.load().nodes("ICD9") if node.level == CATEGORY)
COMPLETE = Ontology.load().billable("ICD9")
DIABETES = icd9("250", "250.5", "250.50", "250.8", "366", "362")  # a checkpoint that divides one category only


@pytest.mark.parametrize(
    ("known", "heading", "meant", "others"),
    [  # others: the commonest of them
        (CATEGORIES, "E11", "250", "ICD9:362, ICD9:357, ICD9:443, ICD9:366, ICD9:355"),
        (CATEGORIES, "I63", "434", "ICD9:433"),  # 45 of its codes, and 28
        (CATEGORIES, "I50", "428", ""),
        (CATEGORIES, "C50", "174", "ICD9:175"),  # of women and of men, 27 each: the first of the book
        (CATEGORIES, "E11.3", "250", "ICD9:362, ICD9:366"),
        (DIABETES, "E11", "250", "ICD9:362, ICD9:366"),
        (DIABETES, "E11.3", "250.50", "ICD9:362, ICD9:366"),
        (COMPLETE, "I63.3", "434.01", ""),
        (COMPLETE, "C50.0", "174.0", "ICD9:175.0"),
    ],
)
def test_a_heading_is_read_as_what_most_codes_under_it_are_mapped_to(known, heading, meant, others) -> None:
    visits, (note,) = read(known, [Code(ICD10, heading)])
    assert visits == [icd9(meant)] and note.kind == "mapped"
    named = note.message.partition("; others under it are mapped to ")[2]
    assert named.startswith(others) and bool(named) == bool(others)


def test_a_category_without_a_map_of_its_own_is_read_as_the_commonest_category() -> None:
    book, known, read_as_one = Ontology.load(), frozenset(CATEGORIES), 0
    for heading in [node.code for node in book.nodes(ICD10) if node.level == CATEGORY][::5]:
        if book.maps_to(heading, "ICD9"):
            continue
        times: Counter[Code] = Counter()
        for code in book.descendants(heading):
            targets = (row.target for row in book.maps_to(code, "ICD9") if row.target in book)
            times.update({book.ancestor_at(target, CATEGORY) for target in targets})
        patient, _ = translate(Patient([Visit([heading])]), known, book)
        found = [code for visit in patient.visits for code in visit.codes]
        assert len(found) == min(len(times), 1) and all(times[code] == max(times.values()) for code in found)
        read_as_one += len(found)
    assert read_as_one == 329


def test_chapters_and_blocks_are_read_as_nothing() -> None:
    known = (*icd9("428", "420-429"), Code("ICD9", "CH07"))
    for code in (*icd9("420-429", "425.4"), Code("ICD9", "CH07")):
        assert nearest(code, frozenset(known), Ontology.load()) is None
    assert nearest(*icd9("428.0"), frozenset(known), Ontology.load()) == Code("ICD9", "428")


def test_what_the_maps_do_not_hold_is_left_out_with_a_note() -> None:
    nothing = Code(ICD10, "R40.2130")  # CMS: no map
    visits, notes = read(icd9("486"), [nothing, *icd9("486")])
    assert visits == [icd9("486")]
    assert [(note.kind, note.code) for note in notes] == [("unread", "ICD10:R40.2130")]
    assert "no equivalent" in notes[0].message


def test_icd9_is_mapped_for_a_checkpoint_of_icd10() -> None:
    known = (Code(ICD10, "J18.9"),)
    visits, notes = read(known, icd9("486"))
    assert visits == [known] and notes[0].kind == "mapped"


def test_with_both_systems_known_a_code_is_rolled_up_within_its_own() -> None:
    known = (*icd9("428"), Code(ICD10, "I50.9"))
    visits, notes = read(known, icd9("428.9"))
    assert visits == [icd9("428")] and notes[0].kind == "rolled_up"


def test_a_visit_without_readable_codes_is_left_out_with_a_note_of_its_own() -> None:
    visits, notes = read(icd9("486"), icd9("428.0"), icd9("486"), [])
    assert visits == [icd9("486")]
    assert [(note.kind, note.visit) for note in notes] == [("unread", 0), ("unread", 0), ("unread", 2)]
    assert notes[1].message == "Visit 1 holds no code that this model reads and was left out."

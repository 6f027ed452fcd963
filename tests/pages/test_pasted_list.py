"""How a pasted list is read, and edits of a history, as the pure functions they are."""

from __future__ import annotations

from datetime import datetime

import pytest

from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code, Ontology
from pages.shared.editor import history_edits as edits
from pages.shared.editor.pasted_list import read_list

BOOK = Ontology.load()


def became(text: str) -> list[str]:
    """Each piece as 'SYSTEM:CODE', or '?' and its text."""
    return [str(piece.code) if piece.code else f"?{piece.typed}" for piece in read_list(text, BOOK)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250.00; 585.9 | I10, foo", ["ICD9:250.00", "ICD9:585.9", "ICD10:I10", "?foo"]),
        ("428.0 250.00 585.9", ["ICD9:428.0", "ICD9:250.00", "ICD9:585.9"]),
        ("4280,25000\nv5861", ["ICD9:428.0", "ICD9:250.00", "ICD9:V58.61"]),
        ("428.0 Congestive heart failure, unspecified\nI10 Hypertension", ["ICD9:428.0", "ICD10:I10"]),
        ("- E11.9: Type 2 diabetes, no complications", ["ICD10:E11.9"]),
        ("Hypertension (I10)", ["ICD10:I10"]),
        ("ICD-9: 401.9; ICD10:I50.22", ["ICD9:401.9", "ICD10:I50.22"]),
        ("E8021; 99999", ["?E8021", "?99999"]),
        ("I10 and E11.9", ["ICD10:I10", "ICD10:E11.9"]),
        ("250.00 (DM2) + 401.9 (HTN)", ["ICD9:250.00", "ICD9:401.9"]),
        ("Dx: I50.22 (chronic), since 2019", ["ICD10:I50.22", "?since 2019"]),
        ("428.0/I10; BP 140/90", ["ICD9:428.0", "ICD10:I10", "?BP 140/90"]),
        ("D51.0 Vitamin B12 deficiency anemia", ["ICD10:D51.0"]),
        ("428.0, Congestive heart failure, 401.9, fever", ["ICD9:428.0", "ICD9:401.9", "?fever"]),
        ("I10 Hypertension, foo", ["ICD10:I10", "?foo"]),
        ("428.0 CHF, 250.00 DM2, gout", ["ICD9:428.0", "ICD9:250.00", "?gout"]),
        ("I10 Hypertension, foo, gout", ["ICD10:I10", "?foo", "?gout"]),
        ("heart failure", ["?heart failure"]),
        (" ,;|\n\t ", []),
    ],
)
def test_lists_as_people_write_them(text, expected):
    assert became(text) == expected


def test_what_was_taken_as_a_description_is_reported():
    (piece,) = read_list("428.0 Congestive heart failure, unspecified", BOOK)
    assert piece.typed == "428.0 Congestive heart failure, unspecified"
    assert piece.words == "Congestive heart failure, unspecified"


def test_a_year_that_is_read_as_a_code_is_said():
    year, code = read_list("2024 I10", BOOK)
    assert str(year.code) == "ICD9:202.4"
    assert year.doubt == "2024 was read as 202.4. If it is a year, remove it."
    assert code.doubt == ""
    assert [piece.doubt for piece in read_list("202.4 I10", BOOK)] == ["", ""]
    assert [piece.doubt for piece in read_list("4280 1977 25000", BOOK)] == ["", "", ""]  # so are all of them written


def test_unread_pieces_say_why():
    unknown, both = read_list("99999; E8021", BOOK)
    assert "the nearest is ICD9:999.9" in unknown.problem
    assert "ICD9:E802.1" in both.problem
    assert "ICD10:E80.21" in both.problem


def test_a_list_too_long_is_refused():
    with pytest.raises(InputError, match="at most 500 can be pasted"):
        read_list("I10," * 600, BOOK)


A, B, C = Code("ICD9", "428.0"), Code("ICD9", "401.9"), Code("ICD10", "I10")


def test_codes_are_added_once_and_a_visit_is_made_where_asked():
    person = edits.add_codes(Patient(), [A, B, A], None)
    assert [visit.codes for visit in person.visits] == [(A, B)]
    assert edits.add_codes(person, [B, "foo"], 0).visits[0].codes == (A, B, "foo")
    assert len(edits.add_codes(person, [C], None).visits) == 2


def test_codes_are_removed_and_settled():
    person = Patient((Visit((A, "E8021", C)),))
    assert edits.remove_code(person, 0, 1).visits[0].codes == (A, C)
    settled = edits.settle_code(person, 0, 1, Code("ICD10", "E80.21"))
    assert settled.visits[0].codes == (A, Code("ICD10", "E80.21"), C)
    assert edits.settle_code(person, 0, 1, C).visits[0].codes == (A, C)


def test_a_moved_visit_leaves_its_date_and_age_behind():
    early, late = datetime(2020, 1, 1), datetime(2021, 1, 1)
    person = Patient((Visit((A,), early, 70), Visit((B,), late, 71)))
    moved = edits.move_visit(person, 0, 1)
    assert [(visit.codes, visit.time, visit.age) for visit in moved.visits] == [
        ((B,), early, 70),
        ((A,), late, 71),
    ]
    assert edits.move_visit(person, 0, -1) == person
    assert edits.remove_visit(person, 0).visits == (person.visits[1],)


def test_codes_move_between_visits_and_to_the_front():
    person = Patient((Visit((A, B, C)), Visit((B,))))
    assert [visit.codes for visit in edits.move_code(person, 0, 2, 0).visits] == [(C, A, B), (B,)]
    assert [visit.codes for visit in edits.move_code(person, 0, 0, 1).visits] == [(B, C), (B, A)]
    assert [visit.codes for visit in edits.move_code(person, 0, 1, 1).visits] == [(A, C), (B,)]
    assert [visit.codes for visit in edits.move_code(person, 1, 0, None).visits] == [(A, B, C), (), (B,)]
    assert edits.add_visit(person).visits == (*person.visits, Visit())


DAYS = [datetime(2020, month, 1) for month in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("times", "visit", "day", "place"),
    [
        ((DAYS[0], DAYS[1], DAYS[2]), 2, datetime(2019, 12, 31), 0),
        ((DAYS[0], DAYS[1], DAYS[2]), 0, datetime(2020, 2, 15), 1),
        ((DAYS[0], DAYS[1], DAYS[2]), 0, datetime(2021, 1, 1), 2),
        ((DAYS[0], DAYS[1], DAYS[2]), 1, datetime(2020, 2, 20), 1),
        ((DAYS[0], None, DAYS[2]), 1, datetime(2020, 2, 20), 1),
        ((None, None, DAYS[2]), 0, datetime(2020, 2, 20), 0),
        ((None, None), 1, datetime(2020, 2, 20), 1),
        ((DAYS[0], DAYS[1]), 1, DAYS[0], 1),
    ],
)
def test_a_dated_visit_goes_where_its_date_belongs(times, visit, day, place):
    person = Patient(tuple(Visit((Code("ICD9", f"40{n}.9"),), time) for n, time in enumerate(times)))
    edited, now_at = edits.set_date(person, visit, day.date())
    assert now_at == place
    assert edited.visits[place].codes == person.visits[visit].codes
    assert edited.visits[place].time == day
    dates = [visit.time for visit in edited.visits if visit.time is not None]
    assert dates == sorted(dates)
    assert sorted(str(visit.codes) for visit in edited.visits) == sorted(str(visit.codes) for visit in person.visits)


def test_a_date_can_be_taken_away_and_a_time_of_day_stays():
    person = Patient((Visit((A,), datetime(2020, 5, 6, 13, 30)),))
    assert edits.set_date(person, 0, datetime(2020, 5, 6).date()) == (person, 0)
    undated, place = edits.set_date(person, 0, None)
    assert (undated.visits[0].time, place) == (None, 0)

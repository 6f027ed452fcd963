"""Uploaded files as patients: what is read of each kind, what the report says of it, what is refused."""

from __future__ import annotations

import gzip
import json
import zipfile
from datetime import datetime

import pytest
from streamlit.testing.v1 import AppTest

from mera_core.common.errors import InputError
from mera_core.export.tables import history_csv, history_json
from mera_core.history.history_json import DEMO_PATIENTS
from mera_core.history.records import Patient, Visit, demo_patients
from mera_core.icd.ontology import Code
from mera_core.readers import read
from pages.shared.widgets.upload import as_typed, read_uploads
from tests.readers import shapes
from tests.readers.test_broken_sources import PATIENTS
from tests.uploads import Sent, zipped

TWO = Patient((Visit((Code("ICD9", "428.0"),), datetime(2020, 1, 1)), Visit(("foo",))), "F", 72)


def test_uploads_of_every_kind_are_read(tmp_path):
    people = [demo.patient for demo in demo_patients()[:2]]
    table = history_csv(people).encode()
    for sent in (
        Sent("cohort.csv", table),
        Sent("cohort.csv.gz", gzip.compress(table)),
        Sent("cohort.zip", zipped({"wrapped/../inner/cohort.csv": table})),
        Sent("../../cohort.csv", table),
        Sent("cohort.json", json.dumps([json.loads(history_json(person)) for person in people])),
    ):
        cohort = read_uploads([sent])
        assert [[visit.codes for visit in one.visits] for one in cohort.patients] == [
            [visit.codes for visit in one.visits] for one in people
        ], sent.name
    assert read_uploads([Sent("demos.json", DEMO_PATIENTS.read_bytes())]).report.patients == len(demo_patients())


def test_tables_that_belong_together_go_in_together(tmp_path):
    folder = shapes.mimic3(PATIENTS, tmp_path)
    cohort = read_uploads([Sent(path.name, path.read_bytes()) for path in sorted(folder.iterdir())])
    assert cohort.report.format == "mimic3"
    assert [patient.visits for patient in cohort.patients] == [patient.visits for patient in read(folder).patients]


def test_hostile_uploads_are_refused_in_a_sentence():
    with pytest.raises(InputError, match=r"^The upload with zeros\.csv, unpacked, is above the limit"):
        read_uploads([Sent("bomb.zip", zipped({"zeros.csv": b"0" * 401_000_000}))])
    with pytest.raises(InputError, match="can't be unpacked"):
        read_uploads([Sent("broken.zip", b"PK\x03\x04 and no more")])
    with pytest.raises(InputError, match=r"^Two of the files are called a\.csv\.$"):
        read_uploads([Sent("a.csv", "x"), Sent("a.csv", "y")])
    with pytest.raises(InputError, match=r"visits\[0\]\.codes"):
        read_uploads([Sent("history.json", '{"visits": [{"codes": 1}]}')])
    with pytest.raises(InputError) as told:
        read_uploads([Sent("../../etc/x.csv", "patient_id,visit,system,code\n1,0,ICD9\n")])
    assert "tmp" not in str(told.value)
    assert "mera-upload" not in str(told.value)


def test_only_a_single_history_is_taken_as_typed():
    assert as_typed(history_json(TWO).encode()) == TWO
    assert as_typed(b"[]") is None
    assert as_typed(b'{"patient_id": "1"}') is None
    assert as_typed(b"patient_id,visit") is None


def test_a_history_taken_as_typed_tells_which_codes_can_not_be_read():
    typed = {"visits": [{"codes": ["428.0", "I10", "E8021", "foo"]}]}
    cohort = read_uploads([Sent("h.json", json.dumps(typed))])
    assert cohort.patients[0].visits[0].codes == ("428.0", "I10", "E8021", "foo")
    report = cohort.report
    assert (report.codes, report.rows, sum(report.left_out.values())) == (2, 4, 2)
    assert dict(report.systems) == {"ICD9": 1, "ICD10": 1}
    said = " ".join(report.lines())
    assert "unknown codes: foo (1)" in said
    assert "1 entry: two meanings: kept as typed" in said


def test_what_was_saved_of_a_record_with_shifted_dates_is_read_again():
    person = Patient((Visit(("428.0",), datetime(2150, 3, 4)), Visit(("I10",), datetime(2151, 1, 1))))
    cohort = read_uploads([Sent("h.json", history_json(person))])
    assert cohort.patients == [person]
    assert "dates: shifted" in " ".join(cohort.report.lines())


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_archives_are_packed_in_the_usual_way_or_refused(method):
    with pytest.raises(InputError, match="can't be unpacked"):
        read_uploads([Sent("cohort.zip", zipped({"cohort.csv": b"patient_id,visit,system,code\n"}, method))])


def test_a_long_name_is_shortened_and_its_ending_stays():
    table = history_csv([TWO]).encode()
    assert read_uploads([Sent("x" * 300 + ".csv", table)]).report.patients == 1
    assert read_uploads([Sent("a.zip", zipped({"y" * 300 + ".csv": table}))]).report.patients == 1


def test_a_name_that_would_break_or_turn_a_sentence_is_told_without_it():
    with pytest.raises(InputError) as told:
        read_uploads([Sent("a.zip", zipped({"one\ntwo\u202e.csv": b"patient_id,visit\n"}))])
    assert "one_two_.csv" in str(told.value) and "\n" not in str(told.value)


def test_a_file_in_a_folder_of_another_files_name_is_refused():
    with pytest.raises(InputError, match="has the name of another file"):
        read_uploads([Sent("a.zip", zipped({"a": b"x", "a/b.csv": b"y"}))])


def _page():
    from collections import Counter

    from mera_core.readers import ImportReport
    from pages.shared.widgets.upload_view import show_report

    left_out = Counter({"code not in the ICD code set": 1_200})
    report = ImportReport("table", "as asked", 2, 3, 4, 1_204, left_out, unknown_codes=Counter({"<b>*x*": 1_200}))
    show_report("two.csv", report)


def test_the_report_is_a_table_whose_words_are_shown_as_they_stand():
    app = AppTest.from_function(_page).run(timeout=30)
    assert not app.exception
    assert app.expander[0].table[0].value.values.tolist() == [
        ["source", "diagnosis entries", "1,204"],
        ["kept", "patients", "2"],
        ["kept", "visits", "3"],
        ["kept", "codes", "4"],
        ["left out", "code not in the ICD code set", "1,200"],
        ["unknown code", r"\<b\>\*x\*", "1,200"],
    ]
    assert "left out: 1,200 entries" in app.expander[0].markdown[0].value.replace("\\", "")

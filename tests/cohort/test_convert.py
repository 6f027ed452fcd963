"""`convert` from source to file: whole or not at all, with a report, cohort rules, options and progress."""

import json
import os
import sys
import time

import pandas as pd
import pytest

import mera_core.__main__ as cli
from mera_core.cohort.convert import Job, run
from mera_core.common.errors import InputError
from mera_core.common.files import written_whole
from mera_core.common.progress import shown
from mera_core.history.columns import VisitColumns
from mera_core.history.records import demo_patients
from mera_core.readers import read

EICU = "patientunitstayid,patienthealthsystemstayid,uniquepid\n1,2,3\n"
UCI = "encounter_id,patient_nbr,diag_1,diag_2,diag_3\n1,7,428,?,428\n2,7,Q99,8,250\n3,8,250,?,?\n"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "diabetic_data.csv"
    path.write_text(UCI)
    return path


def left_behind(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_report_is_written_beside_the_table(source, tmp_path, capsys):
    out, report = tmp_path / "out.parquet", tmp_path / "report.json"
    status = cli.main(["convert", str(source), "--out", str(out), "--report", str(report), "--rules", "honest"])
    assert status == 0
    written = json.loads(report.read_text())
    assert (written["rows"], written["codes"], written["unknown_codes"]) == (9, 4, {"Q99": 1})
    assert [step["patients"] for step in written["cohort"]["steps"]] == [2, 1, 1, 1]
    assert [patient.id for patient in read(out).patients] == ["7"]
    said = capsys.readouterr().out
    assert "left out: 1 patient, 1 visit, 1 code" in said
    assert left_behind(tmp_path) == ["diabetic_data.csv", "out.parquet", "report.json"]


def test_a_visit_is_never_parted_and_pieces_make_the_whole():
    columns = VisitColumns.of([demo.patient for demo in demo_patients()])
    for rows in (1, 3, 10, 10_000):
        pieces = [batch.to_pandas() for batch in columns.batches(rows)]
        assert all(len(piece) <= max(rows, columns.codes_a_visit.max()) for piece in pieces)
        pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True)[["patient_id", "visit", "code"]],
                                      columns.table()[["patient_id", "visit", "code"]])  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"out": "out.xlsx"}, "must end in"),
        ({"out": "nowhere/out.csv"}, "no folder"),
        ({"out": "diabetic_data.csv"}, "is the source itself"),
        ({"report": "out.csv"}, "name the same file"),
        ({"rules": "strict"}, "no cohort rules 'strict'"),
        ({"to": "excel"}, "--to must be visits, meds, fhir"),
    ],
)
def test_jobs_that_cannot_be_done_are_refused_before_reading(source, tmp_path, change, said):
    paths = {name: value if name in ("rules", "to") else tmp_path / value for name, value in change.items()}
    with pytest.raises(InputError, match=said):
        Job(**{"source": source, "out": tmp_path / "out.csv", **paths})
    assert source.read_text() == UCI


def test_options_of_the_format_and_columns_of_a_table(tmp_path, source):
    table = tmp_path / "mine.csv"
    table.write_text(
        "pid;when;dx;v;ward\na;2020-02-01;I10;10;x\na;2020-01-01;401.9;9;y\na;2020-01-01;4280;9;y\na;;I10;10;z\n"
    )
    out = tmp_path / "out.csv"
    named = {"patient_id": "pid", "time": "when", "code": "dx", "system": "v", "visit.ward": "ward"}
    result = run(Job(table, out, columns=named))
    assert result.report.left_out == {"no date": 1}
    (patient,) = read(out).patients
    assert [len(visit.codes) for visit in patient.visits] == [2, 1] and str(patient.visits[1].codes[0]) == "ICD10:I10"
    assert [visit.details for visit in patient.visits] == [{"ward": "y"}, {"ward": "x"}]
    with pytest.raises(InputError, match="no column 'sexo'"):
        run(Job(table, out, columns={**named, "sex": "sexo"}))
    with pytest.raises(InputError, match="columns of its own"):
        run(Job(source, out, "uci_diabetes130", columns=named))
    with pytest.raises(InputError, match="has no option 'gap'"):
        run(Job(source, out, options={"gap": "3"}))


def test_the_report_says_why_a_format_was_taken_whatever_the_options(tmp_path):
    for name, content in (("patient", EICU), ("diagnosis", 'patientunitstayid,icd9code\n1,"401.9, I10"\n')):
        (tmp_path / f"{name}.csv").write_text(content)
    report = run(Job(tmp_path, tmp_path / "out.parquet", options={"systems": "ICD9"})).report
    assert (report.codes, report.why[:41]) == (1, "the folder has patient and diagnosis with")


@pytest.mark.parametrize("to", ["meds", "fhir"])
def test_other_formats_are_written_and_read_back(source, tmp_path, to):
    result = run(Job(source, tmp_path / "visits.parquet"))
    other = run(Job(tmp_path / "visits.parquet", tmp_path / to, "table", to=to))
    assert (other.written.patients, other.written.visits, other.written.codes) == (2, 3, result.report.codes)
    back = run(Job(tmp_path / to, tmp_path / "back.csv"))
    assert back.report.format == to
    assert back.report.systems == result.report.systems


def test_a_failure_leaves_no_file_behind(tmp_path, source):
    for content, how, said in (
        (UCI + "4,9,1\n", {"report": tmp_path / "r.json"}, "line 5 has 3 cells where the header has 5"),
        (UCI.replace("2,7,", "2,9,"), {"rules": "paper-mimic3"}, "leave no patient"),
    ):
        source.write_text(content)
        with pytest.raises(InputError, match=said):
            run(Job(source, tmp_path / "out.csv", **how))
    assert left_behind(tmp_path) == ["diabetic_data.csv"]


def test_an_end_right_after_the_file_aside_was_made_leaves_nothing_behind(tmp_path, monkeypatch):
    def ended(handle: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", ended)
        with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "out.csv", folder=False):
            pass
    assert left_behind(tmp_path) == []


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with shown(sys.stderr) as progress:
        for step in range(1, 9):
            now[0] = float(step)
            progress("a.csv", step, 8)
    assert capsys.readouterr().err.splitlines() == ["a.csv: 38%", "a.csv: 75%"]


def test_a_source_of_which_nothing_is_kept_is_refused(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("patient_id,visit,system,code\na,0,ICD9,XX1\na,0,ICD9,XX1\nb,1,,\n")
    out, report = tmp_path / "out.csv", tmp_path / "r.json"
    assert cli.main(["convert", str(tmp_path / "t.csv"), "--out", str(out), "--report", str(report)]) == 2
    said = capsys.readouterr().err
    assert "t.csv: no code was kept, so nothing is written" in said
    assert "2 entries: code not in the ICD code set; unknown codes: XX1 (2)" in said
    assert left_behind(tmp_path) == ["t.csv"]


def test_without_out_the_source_is_counted_and_nothing_is_written(source, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    assert cli.main(["convert", str(source)]) == 0
    said = capsys.readouterr().out
    assert "kept: " in said and "written: nothing" in said and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("option", ["--column", "--option"])
def test_a_name_that_is_given_twice_is_refused(source, tmp_path, capsys, option):
    """The second would replace the first in silence."""
    given = [option, "code=A", option, "code=B"]
    assert cli.main(["convert", str(source), "--out", str(tmp_path / "out.csv"), *given]) == 2
    assert f"{option} names 'code' twice" in capsys.readouterr().err

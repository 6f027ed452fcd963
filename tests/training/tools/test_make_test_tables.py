"""The generator of test tables: the sizes asked for, the real tables' shape, and nothing that readers leave out."""

import gzip
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from mera_core.common.errors import InputError
from mera_core.readers import read
from mera_core.readers.common.assemble import OVERLAPPING
from training.tools import make_test_tables
from training.tools.make_test_tables import invent, write_meds, write_mimic4


@pytest.fixture(scope="module")
def tables():
    return invent(400, 700, 8_000, seed=5)


def test_mimic4_shape_is_read_to_the_last_row(tables, tmp_path):
    write_mimic4(tables, tmp_path)
    cohort = read(tmp_path)
    report = cohort.report
    assert (report.format, report.rows, report.codes, report.visits) == ("mimic4", 8_000, 8_000, 700)
    assert report.patients == 244  # 61 % of 400 have an admission, as in MIMIC-IV
    assert report.aside == {"patients without a visit": 156, OVERLAPPING: 6}
    assert set(report.systems) == {"ICD9", "ICD10"}
    header = gzip.decompress((tmp_path / "hosp/diagnoses_icd.csv.gz").read_bytes()).split(b"\n")[0]
    assert header == b"subject_id,hadm_id,seq_num,icd_code,icd_version"


def test_codes_change_system_in_october_2015(tables, tmp_path):
    write_mimic4(tables, tmp_path)
    for patient in read(tmp_path).patients:
        systems = [{code.system for code in visit.codes} for visit in patient.visits]
        assert all(len(each) == 1 for each in systems)
        assert systems == sorted(systems, key=lambda each: each == {"ICD10"})  # nobody goes back


def test_the_same_seed_makes_the_same_tables_and_sizes_must_go_together(tables):
    again = invent(400, 700, 8_000, seed=5)
    assert all(one.equals(other) for one, other in zip(again, tables, strict=True))
    with pytest.raises(InputError, match="from 1 to 39 diagnoses"):
        invent(10, 10, 1_000)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["excel", "x"], "there is no shape 'excel'; there are mimic4 and meds."),
        (["meds", "x", "--diagnoses", "90000000"], "90,000,000 diagnoses don't go together"),
        (["mimic4", "file"], "file can't be written"),
    ],
)
def test_what_cannot_be_made_is_told_in_a_sentence_before_anything_is_drawn(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    drawn = []
    monkeypatch.setattr(make_test_tables, "_with_each", lambda *_: drawn.append(1))
    app = typer.Typer()
    app.command()(make_test_tables.main)
    told = CliRunner().invoke(app, arguments)
    assert (told.exit_code, drawn) == (2, [])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert said in told.stderr and told.stderr.count("\n") == 1 and told.stdout == ""


def test_one_patient_gives_one_record_whether_read_as_mimic4_or_as_meds(tables, tmp_path):
    write_mimic4(tables, tmp_path / "tables")
    write_meds(tables, tmp_path / "events")
    as_tables, as_events = read(tmp_path / "tables", "mimic4"), read(tmp_path / "events", "meds")
    events = {patient.id: patient for patient in as_events.patients}
    words = {}
    for patient in as_tables.patients:
        # The calendar year of a visit is in no MEDS event.
        visits = [
            replace(visit, details={k: v for k, v in visit.details.items() if k != "year"}) for visit in patient.visits
        ]
        assert events[patient.id] == replace(patient, visits=visits)
        words |= {(name, word): None for visit in visits for name, word in visit.details.items() if name != "stay"}
        words |= dict.fromkeys(patient.details.items())
    assert len(events) == len(as_tables.patients) == 244
    assert {("admission", "emergency"), ("discharge", "rehabilitation"), ("ethnicity", "hispanic")} <= set(words)
    assert ("ethnicity", "unknown") not in words

"""The project's own files as a source: visits tables and histories."""

import gzip
import json
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mera_core.common.errors import InputError
from mera_core.history.records import (
    DEMO_PATIENTS,
    demo_patients,
)
from mera_core.icd.ontology import Code
from mera_core.readers import read


def test_a_list_of_histories_is_read_with_its_systems(tmp_path):
    assert read(DEMO_PATIENTS).patients == [demo.patient for demo in demo_patients()]
    path, listed = (
        tmp_path / "h.json.gz",
        [{"visits": [{"codes": ["4280"]}]}, {"id": "x", "visits": [{"codes": ["I10"]}]}],
    )
    path.write_bytes(gzip.compress(json.dumps(listed).encode()))
    cohort = read(path)
    assert [patient.id for patient in cohort.patients] == ["history-1", "x"]
    assert [str(patient.visits[0].codes[0]) for patient in cohort.patients] == ["ICD9:428.0", "ICD10:I10"]
    assert "1 histories had no id" in cohort.report.remarks[0]


def test_codes_are_checked_and_counted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "Patient_ID,VISIT,system,code\na,0,ICD9,4280\na,0,ICD9,428.0\na,0,,E8021\na,0,ICD9,25.000\na,0,,I10\n"
    )
    cohort = read(path)
    assert cohort.patients[0].visits[0].codes == (Code("ICD9", "428.0"), Code("ICD10", "I10"))
    assert cohort.patients[0].visits[0].positions == (1, 5)
    assert cohort.report.rows == 5
    assert cohort.report.left_out == {
        "named twice in one visit": 1,
        "code in both systems, and no system given": 1,
        "code not in the ICD code set": 1,
    }
    assert cohort.report.unknown_codes == {"E8021": 1, "25.000": 1}


ROW = {"patient_id": "a", "visit": 0, "system": "ICD9", "code": "1"}
CODED = [{"codes": ["1"]}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", json.dumps(ROW) + "\n{oops\n", "line 2 is not JSON"),
        ("t.jsonl", json.dumps(ROW | {"code": ["1"]}), "line 1 must be one flat"),
        ("t.jsonl", json.dumps(ROW | {"code": 428.0}), "as a number"),
        ("t.json", json.dumps([ROW | {"code": "9" * 2_000_000}]), "row 1: a text is longer than 1,048,576 bytes"),
        ("t.csv", "patient_id,visit,system,code\na,0,ICD11,1\n", "line 2, column 'system': there is 'ICD11'"),
        ("t.csv", "patient_id,visit,system,code\n", "holds no patient"),
        ("t.csv", "patient_id,visit,code\na,0,1\n", "no column 'system'"),
        ("h.json", "{nope", "is not JSON"),
        ("h.json", "[]", "holds no patient"),
        ("h.json", json.dumps([{"visits": CODED}, {"visits": []}]), "history 2: the history is empty"),
        ("h.json", json.dumps([{"id": "a", "visits": CODED}] * 2), "share the id 'a'"),
        ("h.json", json.dumps({"visits": [CODED[0] | {"time": "2999-01-01"}]}), "in the future"),
        ("t.parquet", "PAR1 cut short", "damaged parquet"),
    ],
)
def test_faults_name_file_and_place(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said) as error:
        read(tmp_path / name, "table")
    assert name in str(error.value)


ROWS = [
    {"patient_id": "a", "visit": 0, "system": "ICD9", "code": "4280"},
    {"patient_id": "b", "visit": 0, "code": "I10"},
]


def test_visits_of_several_zones_are_in_the_order_of_their_instants(tmp_path):
    rows = ["a,0,ICD9,4280,2015-03-02T02:00:00Z", "a,1,ICD9,4019,2015-03-01T23:30:00-05:00"]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["patient_id,visit,system,code,time", *rows]))
    assert [visit.time.hour for visit in read(path).patients[0].visits] == [2, 4]
    path.write_text(path.read_text().replace("a,0", "b,1").replace("a,1", "a,0").replace("b,1", "a,1"))
    with pytest.raises(InputError, match="line 2, column 'time': this visit lies before"):
        read(path)
    one = "a,0,ICD9,4280,2015-03-02T02:00:00\na,0,ICD9,4019,2015-03-01T21:00:00-05:00"  # of one instant
    path.write_text("patient_id,visit,system,code,time\n" + one)
    assert read(path).patients[0].visits[0].time == datetime(2015, 3, 2, 2)


def test_claims_as_cms_publishes_them(tmp_path):
    """Bars, dates such as 19-Mar-2017, and the ICD version as one digit, of which 0 is the tenth."""
    (tmp_path / "carrier.csv").write_text(
        "BENE_ID|CLM_ID|CLM_FROM_DT|LINE_ICD_DGNS_CD|LINE_ICD_DGNS_VRSN_CD\n"
        "-1|-2|19-Mar-2017|E119|0\n-1|-3|02-FEB-2014|V5861|9\n-1|-4|20MAR2017|I10|0\n"
    )
    names = {"patient_id": "BENE_ID", "visit_id": "CLM_ID", "time": "CLM_FROM_DT"}
    names |= {"code": "LINE_ICD_DGNS_CD", "system": "LINE_ICD_DGNS_VRSN_CD"}
    visits = read(tmp_path / "carrier.csv", columns=names).patients[0].visits
    assert [(visit.time, str(visit.codes[0])) for visit in visits] == [
        (datetime(2014, 2, 2), "ICD9:V58.61"),
        (datetime(2017, 3, 19), "ICD10:E11.9"),
        (datetime(2017, 3, 20), "ICD10:I10"),
    ]


def test_a_json_list_of_rows_is_a_table(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(ROWS, indent=1))
    cohort = read(tmp_path / "t.json")
    assert [str(patient.visits[0].codes[0]) for patient in cohort.patients] == ["ICD9:428.0", "ICD10:I10"]
    assert cohort.report.why == "a JSON list of rows with patient_id, as in the visits table"
    (tmp_path / "mine.json").write_text('[{"pid": 1, "dx": "I10", "on": "2020-01-01"}, {"pid": 1, "dx": "I50.22"}]')
    named = {"patient_id": "pid", "code": "dx", "time": "on"}
    cohort = read(tmp_path / "mine.json", columns=named)
    assert (cohort.report.codes, dict(cohort.report.left_out)) == (1, {"no date": 1})
    assert cohort.report.why == "its columns are named by the user"
    (tmp_path / "mine.json").write_text('[{"pid": 1, "code": "I10"}, {"pid": 1, "code": 428.0}]')
    with pytest.raises(InputError, match="row 2, column 'code': the code stands as a number"):
        read(tmp_path / "mine.json", columns={"patient_id": "pid"})


def test_a_folder_with_one_table_is_that_table(tmp_path):
    with pytest.raises(InputError, match="no visits table"):
        read(tmp_path, "table")
    (tmp_path / "notes.txt").write_text("about this folder")
    (tmp_path / "visits.json").write_text(json.dumps(ROWS))
    cohort = read(tmp_path)
    assert (cohort.report.format, cohort.report.codes, cohort.report.remarks) == ("table", 2, [])
    (tmp_path / "visits.csv").write_text("patient_id,visit,system,code\na,0,ICD9,4280\n")
    with pytest.raises(InputError, match=r"holds several tables .visits\.csv, visits\.json.; name the one to read"):
        read(tmp_path)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/mine.csv").write_text("PID,DX,ON\n1,I10,2020-01-01\n")
    assert read(tmp_path / "alone", columns={"patient_id": "PID", "code": "DX", "time": "ON"}).report.codes == 1


def test_one_visit_id_with_two_dates_is_refused(tmp_path):
    named = {"patient_id": "pid", "visit_id": "vid", "time": "day", "code": "dx"}
    rows = "pid,vid,day,dx\na,7,2020-01-01,I10\na,7,,E11.9\nb,7,2020-03-01,I10\na,7,2020-01-02,I50.9\n"
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(InputError, match=r"t\.csv: line 5, column 'time': this visit has another time in an earlier"):
        read(tmp_path / "t.csv", columns=named)
    (tmp_path / "t.csv").write_text(rows.replace("01-02", "01-01"))  # a row without a date contradicts none
    assert [len(patient.visits) for patient in read(tmp_path / "t.csv", columns=named).patients] == [1, 1]


@pytest.mark.parametrize("written", ["1.23E+15", "1,23e+15", "1e+16"])
@pytest.mark.parametrize("column", ["pid", "vid"])
def test_ids_in_scientific_notation_are_refused(tmp_path, written, column):
    """Two ids that a spreadsheet rounded are one, and with them two patients."""
    row = {"pid": "1", "vid": "2", column: written}
    (tmp_path / "t.csv").write_text(f"pid;vid;dx\n7;7E10;I10\n{row['pid']};{row['vid']};I10\n")
    with pytest.raises(InputError, match=r"line 3, column '(patient|visit)_id': there is '1.*', a number that was"):
        read(tmp_path / "t.csv", columns={"patient_id": "pid", "visit_id": "vid", "code": "dx"})


def test_large_ids_that_stand_as_floats_are_refused(tmp_path):
    ids = [1.234567890123456e17, 5.0]
    table = {"patient_id": ids, "visit": [0, 0], "system": ["ICD10"] * 2, "code": ["I10"] * 2}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"row 1, column 'patient_id': there is '1\.23.*e\+17', a number that was"):
        read(tmp_path / "t.parquet")

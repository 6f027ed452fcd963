"""The project's own files as a source: visits tables and histories."""

import gzip
import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mera_core.common.errors import InputError
from mera_core.history.records import (
    DEMO_PATIENTS,
    TABLE_SUFFIXES,
    demo_patients,
    write_visits,
)
from mera_core.icd.ontology import Code
from mera_core.readers import read


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_demo_patients_come_back_from_every_kind_of_file(tmp_path, suffix):
    patients = [demo.patient for demo in demo_patients()]
    write_visits(patients, tmp_path / f"t{suffix}")
    cohort = read(tmp_path / f"t{suffix}")
    assert cohort.patients == patients
    assert cohort.report.codes == cohort.report.rows == sum(len(v.codes) for p in patients for v in p.visits)


def test_a_list_of_histories_is_read_with_its_systems(tmp_path):
    assert read(DEMO_PATIENTS).patients == [demo.patient for demo in demo_patients()]
    path = tmp_path / "h.json.gz"
    path.write_bytes(
        gzip.compress(
            json.dumps([{"visits": [{"codes": ["4280"]}]}, {"id": "x", "visits": [{"codes": ["I10"]}]}]).encode()
        )
    )
    cohort = read(path)
    assert [patient.id for patient in cohort.patients] == ["history-1", "x"]
    assert [patient.visits[0].codes[0] for patient in cohort.patients] == [
        Code("ICD9", "428.0"),
        Code("ICD10", "I10"),
    ]
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


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "t.jsonl",
            b'{"patient_id":"a","visit":0,"system":"ICD9","code":"1"}\n{oops\n',
            "line 2 is not JSON",
        ),
        (
            "t.jsonl",
            b'{"patient_id":"a","visit":0,"system":"ICD9","code":["1"]}\n',
            "line 1 must be one flat",
        ),
        ("t.jsonl", b'{"patient_id":"a","visit":0,"system":"ICD9","code":428.0}\n', "as a number"),
        ("t.csv", b"patient_id,visit,system,code\na,0,ICD11,1\n", "line 2, column 'system': there is 'ICD11'"),
        ("t.csv", b"patient_id,visit,system,code\n", "holds no patient"),
        ("t.csv", b"patient_id,visit,code\na,0,1\n", "no column 'system'"),
        ("h.json", b"{nope", "is not JSON"),
        ("h.json", b"[]", "holds no patient"),
        ("h.json", b'[{"visits":[{"codes":["1"]}]},{"visits":[]}]', "history 2: the history is empty"),
        (
            "h.json",
            b'[{"id":"a","visits":[{"codes":["1"]}]},{"id":"a","visits":[{"codes":["1"]}]}]',
            "share the id 'a'",
        ),
        ("h.json", b'{"visits":[{"codes":["1"],"time":"2999-01-01"}]}', "in the future"),
        ("t.parquet", b"PAR1 cut short", "damaged parquet"),
    ],
)
def test_faults_name_file_and_place(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        read(tmp_path / name, "table")
    assert name in str(error.value)


ROWS = [
    {"patient_id": "a", "visit": 0, "system": "ICD9", "code": "4280"},
    {"patient_id": "b", "visit": 0, "code": "I10"},
]


def test_a_time_with_a_zone_is_turned_into_utc(tmp_path):
    (tmp_path / "t.csv").write_text("patient_id,visit,system,code,time\na,0,ICD9,4280,2010-01-03T23:30:00-05:00\n")
    zoned = pa.array([datetime(2010, 1, 4, 4, 30, tzinfo=UTC)], pa.timestamp("us", "America/New_York"))
    row = {"patient_id": ["a"], "visit": [0], "system": ["ICD9"], "code": ["428.0"], "time": zoned}
    pq.write_table(pa.table(row), tmp_path / "t.parquet")
    times = [read(tmp_path / name).patients[0].visits[0].time for name in ("t.csv", "t.parquet")]
    assert times == [datetime(2010, 1, 4, 4, 30)] * 2


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


def test_a_folder_with_one_file_and_its_columns_named(tmp_path):
    (tmp_path / "mine.csv").write_text("PID,DX,ON\n1,I10,2020-01-01\n")
    assert read(tmp_path, columns={"patient_id": "PID", "code": "DX", "time": "ON"}).report.codes == 1
    (tmp_path / "mine.csv").write_text("patient_id,visit,code\n1,0,I10\n")
    with pytest.raises(InputError, match=r"mine\.csv has no column 'system'"):
        read(tmp_path)


def test_an_endless_code_is_refused_in_json_too(tmp_path):
    row = {"patient_id": "a", "visit": 0, "system": "ICD9", "code": "9" * 2_000_000}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError, match=r"t\.jsonl: line 1 is longer than 1,048,576 bytes"):
        read(tmp_path / "t.jsonl")
    (tmp_path / "t.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match=r"t\.json: row 1: a text is longer than 1,048,576 bytes"):
        read(tmp_path / "t.json")


def test_one_visit_id_with_two_dates_is_refused(tmp_path):
    named = {"patient_id": "pid", "visit_id": "vid", "time": "day", "code": "dx"}
    rows = "pid,vid,day,dx\na,7,2020-01-01,I10\na,7,,E11.9\nb,7,2020-03-01,I10\na,7,2020-01-02,I50.9\n"
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(
        InputError, match=r"t\.csv: line 5, column 'time': this visit has another time in an earlier row"
    ):
        read(tmp_path / "t.csv", columns=named)
    (tmp_path / "t.csv").write_text(rows.replace("01-02", "01-01"))  # a row without a date contradicts none
    assert [len(patient.visits) for patient in read(tmp_path / "t.csv", columns=named).patients] == [1, 1]


@pytest.mark.parametrize("written", ["1.23E+15", "1,23e+15", "1e+16"])
@pytest.mark.parametrize("column", ["pid", "vid"])
def test_ids_in_scientific_notation_are_refused(tmp_path, written, column):
    """Two ids that a spreadsheet rounded are one, and with them two patients."""
    row = {"pid": "1", "vid": "2", column: written}
    (tmp_path / "t.csv").write_text(f"pid;vid;dx\n7;7E10;I10\n{row['pid']};{row['vid']};I10\n")
    with pytest.raises(
        InputError, match=r"line 3, column '(patient|visit)_id': there is '1.*', a number that was rounded"
    ):
        read(tmp_path / "t.csv", columns={"patient_id": "pid", "visit_id": "vid", "code": "dx"})


def test_large_ids_that_stand_as_floats_are_refused(tmp_path):
    pq.write_table(
        pa.table(
            {"patient_id": [1.234567890123456e17, 5.0], "visit": [0, 0], "system": ["ICD10"] * 2, "code": ["I10"] * 2}
        ),
        tmp_path / "t.parquet",
    )
    with pytest.raises(
        InputError, match=r"row 1, column 'patient_id': there is '1\.23.*e\+17', a number that was rounded"
    ):
        read(tmp_path / "t.parquet")

"""The project's own files as a source: visits tables and histories."""

import gzip
import json

import pytest

from mera_core.errors import InputError
from mera_core.ontology import Code
from mera_core.readers import read
from mera_core.records import DEMO_PATIENTS, TABLE_SUFFIXES, demo_patients, to_table, write_table


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_demo_patients_come_back_from_every_kind_of_file(tmp_path, suffix):
    patients = [demo.patient for demo in demo_patients()]
    write_table(to_table(patients), tmp_path / f"t{suffix}")
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
        "code not in the code book": 1,
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


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(InputError, match="no visits table"):
        read(tmp_path, "table")

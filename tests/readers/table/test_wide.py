"""Tables of one row a stay, with numbered columns of diagnoses; what they share with tables of one row a diagnosis."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mera_core import __main__ as cli
from mera_core.common.errors import InputError
from mera_core.readers import read
from mera_core.readers.table.wide import WideTableError

WIDE = (
    "pid,day,Diag_1,Diag_1_desc,Diag_2,Diag_2_desc,Diag_10,Diag_10_desc\n"
    "a,2020-01-01,I10,hypertension,E11.9,diabetes,J44.9,COPD\n"
    "a,2020-05-01,I50.9,heart failure,,,I10,hypertension\n"
    "b,2020-02-01,,,,,,\n"
    "b,2020-03-01,Z92.4,anticoagulants,QQQ,?,N18.3,kidney\n"
)
LONG = (
    "patient_id,time,system,code,position\n"
    "a,2020-01-01,ICD10,I10,1\na,2020-01-01,ICD10,E11.9,2\na,2020-01-01,ICD10,J44.9,10\n"
    "a,2020-05-01,ICD10,I50.9,1\na,2020-05-01,ICD10,I10,10\nb,2020-02-01,,,\n"
    "b,2020-03-01,ICD10,Z92.4,1\nb,2020-03-01,ICD10,QQQ,2\nb,2020-03-01,ICD10,N18.3,10\n"
)
OURS = {name: name for name in ("patient_id", "time", "system", "code", "position")}
WIDE_NAMES = {"patient_id": "pid", "time": "day", "code": "DIAG*"}


def _said(report):
    return {key: value for key, value in report.to_dict().items() if key not in ("why", "remarks")}


def test_a_wide_table_gives_what_its_long_form_gives(tmp_path):
    (tmp_path / "wide.csv").write_text(WIDE)
    (tmp_path / "long.csv").write_text(LONG)
    wide = read(tmp_path / "wide.csv", columns=WIDE_NAMES, system="ICD10")
    long = read(tmp_path / "long.csv", columns=OURS)
    assert wide.patients == long.patients
    assert _said(wide.report) == _said(long.report)
    assert wide.report.rows == 8 and len(wide.patients[1].visits) == 2  # a stay without a code stays a visit
    assert wide.patients[0].visits[0].positions == (1, 2, 10)
    assert wide.report.remarks[0] == (
        "codes are those of 3 columns, Diag_1 to Diag_10; not read as codes: Diag_1_desc, Diag_2_desc, Diag_10_desc"
    )


def test_without_a_visit_or_its_time_each_row_is_a_stay(tmp_path, capsys):
    """By the command line, which names the columns as `read` does."""
    (tmp_path / "w.csv").write_text("pid,DX1,DX2\na,I10,E11.9\na,I50.9,\n")
    named = ["--column", "patient_id=pid", "--column", "code=DX*", "--option", "system=ICD10"]
    assert (
        cli.main(["convert", str(tmp_path / "w.csv"), "--format", "table", "--out", str(tmp_path / "o.csv"), *named])
        == 0
    )
    (patient,) = read(tmp_path / "o.csv").patients
    stays = [[str(code) for code in visit.codes] for visit in patient.visits]
    assert stays == [["ICD10:I10", "ICD10:E11.9"], ["ICD10:I50.9"]]


def test_wide_parquet_and_json_lines(tmp_path):
    table = {"pid": ["a", "b"], "DX2": ["E11.9", None], "DX1": ["I10", "I50.9"], "DX3": pa.nulls(2, pa.float64())}
    pq.write_table(pa.table(table), tmp_path / "w.parquet")
    (tmp_path / "w.jsonl").write_text('{"pid":"a","DX2":"E11.9","DX1":"I10"}\n{"pid":"b","DX1":"I50.9"}\n')
    named = {"patient_id": "pid", "code": "dx*"}
    read_ = [read(tmp_path / name, columns=named, system="10").patients for name in ("w.parquet", "w.jsonl")]
    assert read_[0] == read_[1]
    assert [str(code) for code in read_[0][0].visits[0].codes] == ["ICD10:I10", "ICD10:E11.9"]


def test_a_main_diagnosis_and_a_pattern_are_numbered_on(tmp_path):
    (tmp_path / "w.csv").write_text("pid,SEC_1,MAIN,SEC_2\na,E11.9,I10,I50.9\na,,J44.9,\n")
    named = {"patient_id": "pid", "code": "MAIN,SEC_*"}
    first, second = read(tmp_path / "w.csv", columns=named, system="ICD10").patients[0].visits
    assert [str(code) for code in first.codes] == ["ICD10:I10", "ICD10:E11.9", "ICD10:I50.9"]
    assert [str(code) for code in second.codes] == ["ICD10:J44.9"]


@pytest.mark.parametrize(
    ("header", "row", "columns", "said"),
    [
        ("pid,DX1,dx_01", "a,I10,I10", {}, r"columns 'DX1' and 'dx_01' have the same number"),
        (
            "pid,icd",
            "a,I10",
            {},
            r"no column such as 'DX\*', with a number for the star, which is to be read as 'code'",
        ),
        ("pid,DX1,n", "a,I10,1", {"position": "n"}, "so 'position' can't be another column"),
        ("pid,DX1", "a,I10", {"sex": "S*"}, r"has no column 's\*'"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(tmp_path, header, row, columns, said):
    (tmp_path / "w.csv").write_text(f"{header}\n{row}\n")
    with pytest.raises(InputError, match=said):
        read(tmp_path / "w.csv", columns={"patient_id": "pid", "code": "DX*", **columns}, system="ICD10")


def test_faults_of_a_wide_table_name_its_own_lines_and_columns(tmp_path):
    (tmp_path / "w.csv").write_text("pid,day,DX1,DX2\na,2020-01-01,I10,E11.9\na,never,I10,E11.9\n")
    with pytest.raises(InputError, match=r"line 3, column 'time'"):
        read(tmp_path / "w.csv", columns={"patient_id": "pid", "time": "day", "code": "DX*"}, system="ICD10")
    (tmp_path / "w.jsonl").write_text('{"pid":"a","DX1":"I10"}\n{"pid":"a","DX1":250.10}\n')
    with pytest.raises(InputError, match=r"line 2, column 'DX1': the code stands as a number"):
        read(tmp_path / "w.jsonl", columns={"patient_id": "pid", "code": "DX*"}, system="ICD9")
    pq.write_table(pa.table({"pid": ["a"], "DX1": [250.1]}), tmp_path / "w.parquet")
    with pytest.raises(InputError, match=r"column 'DX1' holds codes as a number"):
        read(tmp_path / "w.parquet", columns={"patient_id": "pid", "code": "DX*"}, system="ICD9")


def test_a_wide_table_whose_columns_are_not_named_says_how_to_name_them(tmp_path):
    (tmp_path / "wide.csv").write_text(WIDE)
    for format in ("auto", "table"):
        with pytest.raises(WideTableError, match=r'--column "code=Diag_\*" --option system=ICD10') as raised:
            read(tmp_path / "wide.csv", format)
    assert raised.value.patterns == ["Diag_*"]
    assert raised.value.names[:3] == ["pid", "day", "Diag_1"]
    pq.write_table(pa.table({"pid": ["a"], "ICD10_1": ["I10"], "ICD10_2": ["I11.0"]}), tmp_path / "w.parquet")
    with pytest.raises(WideTableError) as raised:
        read(tmp_path / "w.parquet")
    assert raised.value.patterns == ["ICD10_*"]


def test_one_system_for_all_codes(tmp_path):
    (tmp_path / "t.csv").write_text("patient_id,visit,code\na,0,V27.0\na,0,E11.9\n")
    with pytest.raises(InputError, match=r"no column 'system'; --option system=ICD10 names the one of all codes"):
        read(tmp_path / "t.csv")
    codes = read(tmp_path / "t.csv", system="ICD-10-GM").patients[0].visits[0].codes
    assert [str(code) for code in codes] == ["ICD10:V27.0", "ICD10:E11.9"]
    with pytest.raises(InputError, match="the option system must be ICD9 or ICD10, not 'ICD11'"):
        read(tmp_path / "t.csv", system="ICD11")
    (tmp_path / "t.csv").write_text("patient_id,visit,system,code\na,0,ICD9,V27.0\na,0,,V27.0\n")
    codes = read(tmp_path / "t.csv", system="ICD10").patients[0].visits[0].codes
    assert [str(code) for code in codes] == ["ICD9:V27.0", "ICD10:V27.0"]
    (tmp_path / "h.json").write_text('{"visits": [{"codes": ["I10"]}]}')
    with pytest.raises(InputError, match="no columns or system to name"):
        read(tmp_path / "h.json", system="ICD10")


@pytest.mark.parametrize(
    "name", ["ICD10GM", "CIM-10-FR", "KCD7", "ICD-10-GM-2021", "http://hl7.org/fhir/sid/icd-10-gm"]
)
def test_the_names_of_national_editions_are_read_in_tables(tmp_path, name):
    (tmp_path / "t.csv").write_text(f"patient_id,visit,system,code\na,0,{name},I10\n")
    assert str(read(tmp_path / "t.csv").patients[0].visits[0].codes[0]) == "ICD10:I10"

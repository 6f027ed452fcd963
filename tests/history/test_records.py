"""Records: values, the visits table and its files, HISTORY.json, and the invented patients."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mera_core.common.errors import InputError
from mera_core.history.columns import VisitColumns
from mera_core.history.history_json import DEMO_PATIENTS
from mera_core.history.records import (
    MAX_VISITS,
    VISITS_TABLE_COLUMNS,
    Patient,
    Visit,
    demo_patients,
    parse_json,
    patient_from_json,
    patient_to_json,
    resolve,
    write_visits,
)
from mera_core.icd.ontology import Code, Ontology
from sample_data import cohort_from_demo
from tests.writers import cohorts

NOW = datetime(2026, 6, 1)
ICD10_BEGINS = date(2015, 10, 1)  # the day US hospitals changed over


def history(**changes):
    return {"id": "a", "sex": "F", "age": 72, "visits": [{"codes": ["428.0"], "time": "2026-01-31"}], **changes}


# --- values


def test_visit_takes_any_iterable_and_many_kinds_of_time():
    assert Visit(iter(["428.0", "250.00"])).codes == ("428.0", "250.00")
    assert Visit(["1"], date(2020, 2, 3)).time == datetime(2020, 2, 3)
    assert Visit(["1"], pd.Timestamp("2020-02-03 04:05:06")).time == datetime(2020, 2, 3, 4, 5, 6)
    assert Visit(["1"], pd.NaT).time is None
    eastern = timezone(timedelta(hours=-5))
    assert Visit(["1"], datetime(2020, 1, 1, 22, tzinfo=eastern)).time == datetime(2020, 1, 2, 3)


def test_visit_keeps_positions_only_while_they_fit():
    assert Visit(["1", "2"], positions=[1, 2]) == Visit(["1", "2"])
    assert Visit(["1", "2"], positions=[2, 3]).positions == (2, 3)
    assert Visit(["1", "2"], positions=[2]).positions == ()
    with pytest.raises(InputError, match="must not fall"):
        Visit(["1", "2"], positions=[3, 2])


def test_values_leave_out_empty_words_and_unknown_ages_and_can_be_hashed():
    assert Visit(["1"], age=float("nan"), details={"stay": "", "source": "x"}) == Visit(["1"], details={"source": "x"})
    assert len({Patient([Visit(["1"], details={"a": "b"})]), Patient([Visit(["1"], details={"a": "b"})])}) == 1


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Visit("428.0"), "list of codes"),
        (lambda: Visit([428.0]), "must be text"),
        (lambda: Visit([" "]), "must be text"),
        (lambda: Visit(["1"], age=131), "between 0 and 130"),
        (lambda: Visit(["1"], age=True), "number of years"),
        (lambda: Visit(["1"], time="2020-01-01"), "date or a datetime"),
        (lambda: Visit(["1"], details={"stay": 3}), "details must be text"),
        (lambda: Patient([Visit(["1"])], sex="female"), "sex must be"),
        (lambda: Patient(["428.0"]), "Visit objects"),
    ],
)
def test_values_refuse_what_cannot_be(build, said):
    with pytest.raises(InputError, match=said):
        build()


def test_resolve_reads_codes_and_says_what_it_left_out():
    patient = Patient([Visit(["4280", "428.X5", Code("ICD9", "428.0"), "E8021", "i50.22"]), Visit(["nonsense"])])
    resolved, notes = resolve(patient, Ontology.load())
    assert resolved.visits[0].codes == (Code("ICD9", "428.0"), Code("ICD10", "I50.22"))
    assert resolved.visits[0].positions == (1, 5)
    assert resolved.visits[1].codes == ()
    assert [(note.kind, note.visit, note.code) for note in notes] == [
        ("unread", 0, "428.X5"),
        ("duplicate", 0, "ICD9:428.0"),
        ("ambiguous", 0, "E8021"),
        ("unread", 1, "nonsense"),
    ]
    assert "ICD9:428" in notes[0].message
    assert len(resolved.visits[0].codes) + sum(note.visit == 0 for note in notes) == 5


def test_resolve_strict_names_the_place():
    with pytest.raises(InputError, match=r"visits\[1\]\.codes\[0\].*428\.X5"):
        resolve(Patient([Visit(["428.0"]), Visit(["428.X5"])]), Ontology.load(), strict=True)


# --- the table


def test_table_schema():
    stay = Visit([Code("ICD9", "250.00"), "typed"], datetime(2020, 1, 2), 70.5, {"admission": "urgent"}, [2, 3])
    table = VisitColumns.named([Patient([Visit(), stay], "F", 71, "7", {"ethnicity": "white"})]).table()
    assert tuple(table.columns) == (*VISITS_TABLE_COLUMNS, "ethnicity", "visit.age", "visit.admission")
    assert table["visit"].tolist() == [0, 1, 1]
    assert table["code"].fillna("-").tolist() == ["-", "250.00", "typed"]
    assert table["system"].fillna("-").tolist() == ["-", "ICD9", "-"]
    assert table["position"].fillna(0).tolist() == [0, 2, 3]
    assert str(table["time"].dtype) == "datetime64[us]"


@pytest.mark.parametrize(
    ("cohort", "said"),
    [
        ([Patient([Visit(["1"])])], "needs an id"),
        ([Patient([Visit(["1"])], id="a")] * 2, "share the id 'a'"),
        ([Patient(id="a")], "no visits"),
        ([Patient([Visit(["1"])], id="a", details={"code": "x"})], "'code'"),
        ([Patient([Visit(["1"], details={"age": "x"})], id="a")], "'age'"),
    ],
)
def test_the_table_needs_named_patients_with_visits_and_names_of_its_own(tmp_path, cohort, said):
    with pytest.raises(InputError, match=said):
        write_visits(cohort, tmp_path / "v.csv")
    with pytest.raises(InputError, match="must end in"):
        write_visits(cohort, tmp_path / "visits.xlsx")
    assert list(tmp_path.iterdir()) == []


# --- HISTORY.json


@settings(max_examples=100, deadline=None)
@given(cohorts.patients("p", st.sampled_from(cohorts.CODES) | cohorts.text))
def test_history_json_gives_the_patient_back(patient):
    bare = replace(patient, visits=tuple(Visit(v.codes, v.time, v.age, v.details) for v in patient.visits))
    if not any(visit.codes for visit in bare.visits):
        with pytest.raises(InputError, match="no visit names a code"):
            patient_from_json(patient_to_json(bare), now=datetime.max)
        return
    decoded = parse_json(json.dumps(patient_to_json(bare)).encode(), "history")
    assert patient_from_json(decoded, now=datetime.max) == bare


def test_history_json_reads_the_contract():
    visit = {"codes": ["428.0", {"system": "ICD10", "code": "i5022"}], "time": "2026-01-31"}
    patient = patient_from_json({"visits": [visit], "sex": "female"}, now=NOW)
    assert patient == Patient([Visit(["428.0", Code("ICD10", "I50.22")], datetime(2026, 1, 31))], "F")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([], "must be a JSON object"),
        ({}, "visits is missing"),
        (history(visits=[]), "history is empty"),
        (history(visits=[{"codes": []}]), "no visit names a code"),
        (history(visits=["428.0"]), r"^visits\[0\] must be an object"),
        (history(visits=[{"codes": ["1"]}, {"codes": [428.0]}]), r"^visits\[1\]\.codes\[0\] must be text"),
        (history(visits=[{"codes": "428.0"}]), r"^visits\[0\]\.codes must be a list"),
        (history(visits=[{"codes": [{"system": "ICD11", "code": "1"}]}]), "system must be ICD9 or ICD10"),
        (history(visits=[{"codes": [{"system": "ICD9", "code": 428}]}]), r"codes\[0\]\.code must be text"),
        (history(visits=[{"codes": [{"system": "ICD9", "code": " "}]}]), r"codes\[0\]\.code must not be empty"),
        (history(visits=[{"codes": [{"code": "1", "text": "x"}]}]), r"codes\[0\]\.system is missing"),
        (history(visits=[{"codes": ["1"], "time": "2026-07-01"}]), r"^visits\[0\]\.time is .*future"),
        (history(visits=[{"codes": ["1"], "time": "31/01/2026"}]), r"visits\[0\]\.time must be a date"),
        (history(visits=[{"codes": ["1"], "time": f"2026-0{n}-01"} for n in (2, 1)]), r"^visits\[1\] is dated .*, before"),
        (history(sex="woman"), "sex must be F, M or U"),
        (history(age="72"), "age must be a number"),
        (history(age=-1), "age must be 0 or more"),
        (history(age=float("nan")), "age must be 130 or less"),
        (history(id=["a"]), "id must be text"),
        (history(vists=[]), "vists is not a known key; known are id, sex, .*visits"),
        (history(visits=[{"codes": ["1"], "date": "2026-01-01"}]), r"visits\[0\]\.date is not a known key; known are codes"),
        (history(visits=[{"codes": [{"system": "ICD9", "code": "1", "x": 1}]}]), r"codes\[0\]\.x is not .*known are system, code"),
        (history(details={"a": 1}), "details.a must be text"),
    ],
)  # fmt: skip
def test_history_errors_name_the_place(raw, said):
    with pytest.raises(InputError, match=said):
        patient_from_json(raw, now=NOW)


def test_the_limit_itself_is_allowed_and_the_future_has_time_zones():
    assert len(patient_from_json(history(visits=[{"codes": ["1"]}] * MAX_VISITS)).visits) == MAX_VISITS
    now = datetime.now(UTC)
    soon, later = ((now + timedelta(hours=hours)).isoformat() for hours in (13, 15))
    assert patient_from_json(history(visits=[{"codes": ["1"], "time": soon}]))
    with pytest.raises(InputError, match="in the future"):
        patient_from_json(history(visits=[{"codes": ["1"], "time": later}]))


def test_shifted_dates_are_read_where_the_history_says_so():
    """De-identified records lie in the years 2100 to 2200; what was saved from one is read again."""
    person = Patient((Visit(("428.0",), datetime(2150, 3, 4)), Visit(("I10",), datetime(2151, 1, 1))))
    saved = patient_to_json(person)
    assert saved["dates"] == "shifted"
    assert patient_from_json(saved) == person
    with pytest.raises(InputError, match=r'in the future .* says "dates": "shifted"'):
        patient_from_json({key: value for key, value in saved.items() if key != "dates"})
    assert "dates" not in patient_to_json(Patient((Visit(("428.0",), datetime(2020, 1, 1)),)))
    with pytest.raises(InputError, match="dates must be shifted"):
        patient_from_json(history(dates="2150"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"a": 1, "a": 2}', "'a' more than once"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "endless number"),
        (b'{"id": "\\ud800"}', "not UTF-8"),
    ],
)
def test_parse_json_says_what_is_wrong(content, said):
    with pytest.raises(InputError, match=said):
        parse_json(content, "h.json")


# --- invented patients

DEMOS = demo_patients()


def test_demo_patients_are_invented_and_of_both_systems():
    assert len(DEMOS) == len({demo.id for demo in DEMOS} - {""}) >= 14
    assert all(entry["invented"] is True for entry in json.loads(DEMO_PATIENTS.read_text(encoding="utf-8")))
    systems = [{code.system for visit in demo.patient.visits for code in visit.codes} for demo in DEMOS]
    assert {"ICD10"} in systems and {"ICD9", "ICD10"} in systems


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.id)
def test_demo_patient_is_plausible(demo):
    book = Ontology.load()
    assert 2 <= len(demo.patient.visits) <= 6
    for visit in demo.patient.visits:
        era = "ICD9" if visit.time.date() < ICD10_BEGINS else "ICD10"
        assert len(visit.codes) == len(set(visit.codes)) > 0
        for code in visit.codes:
            assert code.system == era
            assert book.is_billable(code), code
            if code.system == "ICD9" and "630" <= code.code < "680":
                assert demo.patient.sex == "F"
                assert 12 <= demo.patient.age <= 55
            if code.system == "ICD9" and "600" <= code.code < "609":
                assert demo.patient.sex == "M"
    dates = [visit.time for visit in demo.patient.visits]
    assert dates == sorted(set(dates))
    span = (dates[-1] - dates[0]).days / 365.25
    assert demo.patient.age >= span - 1  # nobody is admitted before birth


def test_the_invented_cohort_is_made_again_to_the_byte(tmp_path):
    cohort = cohort_from_demo.cohort()
    write_visits(cohort, tmp_path / "cohort.csv")
    assert (tmp_path / "cohort.csv").read_bytes() == cohort_from_demo.OUT.read_bytes()
    assert len(cohort) == 2 * len(DEMOS)
    assert all(len(patient.visits) >= 2 for patient in cohort)
    for patient in cohort:
        for visit in patient.visits:
            assert {code.system for code in visit.codes} == {"ICD9" if visit.time.date() < ICD10_BEGINS else "ICD10"}

"""The FHIR reader, on small resources in the forms that servers give them, and on Synthea's sample."""

import gzip
import json
from datetime import datetime

import pytest

from mera_core.common.errors import InputError
from mera_core.readers import detect, read

ICD10, ICD9 = "http://hl7.org/fhir/sid/icd-10-cm", "http://hl7.org/fhir/sid/icd-9-cm"
SNOMED = "http://snomed.info/sct"
STATUS = "http://terminology.hl7.org/CodeSystem/condition-ver-status"


def patient(identity="p", **more):
    return {"resourceType": "Patient", "id": identity, "gender": "female", "birthDate": "1950-06-01", **more}


def encounter(identity="e", start="2020-03-01T10:00:00Z", end="2020-03-04T09:00:00Z", subject="Patient/p", **more):
    period = {key: value for key, value in (("start", start), ("end", end)) if value}
    kind = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"}
    return {
        "resourceType": "Encounter",
        "id": identity,
        "status": "finished",
        "class": kind,
        "subject": {"reference": subject},
        **({"period": period} if period else {}),
        **more,
    }


def condition(identity="c", code="I50.22", system=ICD10, at="Encounter/e", subject="Patient/p", **more):
    return {
        "resourceType": "Condition",
        "id": identity,
        "subject": {"reference": subject},
        "code": {"coding": [{"system": system, "code": code}]},
        **({"encounter": {"reference": at}} if at else {}),
        **more,
    }


def status(code):
    return {"verificationStatus": {"coding": [{"system": STATUS, "code": code}]}}


def bundle(*resources, urls=None, type="collection"):
    entries = [{"resource": resource} for resource in resources]
    for entry, url in zip(entries, urls or (), strict=False):
        entry["fullUrl"] = url
    return {"resourceType": "Bundle", "type": type, "entry": entries}


def put(path, *values):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "\n".join(json.dumps(value) for value in values).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def codes(cohort):
    return [[str(code) for code in visit.codes] for person in cohort.patients for visit in person.visits]


def read_one(tmp_path, *resources, **options):
    return read(put(tmp_path / "bundle.json", bundle(*resources)), "fhir", **options)


ONE = (patient(), encounter(), condition())
RANKED = {"condition": {"reference": "Condition/c"}}


def test_a_bundle_becomes_a_history(tmp_path):
    cohort = read(put(tmp_path / "any.json", bundle(*ONE)))
    person = cohort.patients[0]
    assert cohort.report.format == "fhir"
    assert (person.id, person.sex, person.age) == ("p", "F", 69.75)
    assert person.visits[0].time == datetime(2020, 3, 1, 10)
    assert person.visits[0].details == {"admission": "inpatient", "stay": "2"}
    assert codes(cohort) == [["ICD10:I50.22"]]


OTHER = ({"resourceType": "Observation", "id": "o"}, "not read")
# In the second Bundle, the Encounter and the Condition have the ids of those in the first.
SECOND = bundle(patient("q"), encounter(subject="Patient/q"), condition(subject="Patient/q"))
FORMS = {  # source -> its files
    "a.ndjson": {"a.ndjson": ONE},
    "a.ndjson.gz": {"a.ndjson.gz": ONE},
    "a.json": {"a.json": [bundle(*ONE)]},
    "a.json.gz": {"a.json.gz": [bundle(*ONE)]},
    "Bundles": {"Bundles/1.json": [bundle(*ONE)], "Bundles/2.json.gz": [SECOND], "Bundles/LICENSE": ["no FHIR"]},
    "Bulk": {f"Bulk/Mimic{each['resourceType']}.ndjson.gz": [each] for each in ONE}
    | {"Bulk/MimicObservationLabevents.ndjson": OTHER},
    "Parts": {f"Parts/{each['resourceType']}/0.ndjson": [each] for each in ONE} | {"Parts/Observation/0.ndjson": OTHER},
    "output": {"output/fhir/a.json": [bundle(*ONE)], "output/metadata/run.json": [{"version": 1}]},
}


@pytest.mark.parametrize("name", FORMS)
def test_the_forms_in_which_resources_come(tmp_path, name):
    for path, values in FORMS[name].items():
        put(tmp_path / path, *values)
    cohort = read(tmp_path / name)
    assert detect(tmp_path / name)[0] == "fhir"
    assert codes(cohort) == [["ICD10:I50.22"]] * (2 if name == "Bundles" else 1)
    assert cohort.report.aside["files of other resources, not read"] == (name in ("Bulk", "Parts"))


@pytest.mark.parametrize(
    ("system", "code", "read_as"),
    [
        (ICD10, "I50.22", "ICD10:I50.22"),
        ("http://hl7.org/fhir/sid/icd-10-cm/", "I5022", "ICD10:I50.22"),
        ("http://hl7.org/fhir/sid/icd-10-cm|2024", "I50.22", "ICD10:I50.22"),
        ("urn:oid:2.16.840.1.113883.6.90", "E80.21", "ICD10:E80.21"),
        ("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "I10", "ICD10:I10"),
        ("http://hl7.org/fhir/sid/icd-9-cm/diagnosis", "428.0", "ICD9:428.0"),
        ("http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-diagnosis-icd9", "E8021", "ICD9:E802.1"),
        ("http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-diagnosis-icd10", "E8021 ", "ICD10:E80.21"),
        ("http://terminology.hl7.org/CodeSystem/ICD-9CM-diagnosiscodes", "E802.1", "ICD9:E802.1"),
        ("urn:oid:2.16.840.1.113883.6.103|2015", "E802.1", "ICD9:E802.1"),
        ("ICD-10-CM", "E80.21", "ICD10:E80.21"),
        ("http://hospital.example/fhir/CodeSystem/icd10cm", "E80.21", "ICD10:E80.21"),
        ("", "I50.22", "ICD10:I50.22"),
    ],
)
def test_code_systems(tmp_path, system, code, read_as):
    assert codes(read_one(tmp_path, patient(), encounter(), condition(code=code, system=system))) == [[read_as]]


ELSEWHERE = "code of a system other than ICD and SNOMED CT"


@pytest.mark.parametrize(
    ("system", "code", "reason"),
    [
        (SNOMED, "73211009", "SNOMED code, and no map given"),
        ("http://hl7.org/fhir/sid/icd-9-cm/procedure", "88.54", ELSEWHERE),
        ("http://mimic.mit.edu/fhir/CodeSystem/mimic-procedure-icd9", "8854", ELSEWHERE),
        ("http://terminology.hl7.org/CodeSystem/ICD-9CM-procedurecodes", "88.54", ELSEWHERE),
        ("http://hl7.org/fhir/sid/icd-11", "BD10", ELSEWHERE),
        (ICD10, "", "no code recorded"),
        (ICD10, "B24", "code not in the ICD code set"),
    ],
)
def test_codes_that_are_not_read_are_counted(tmp_path, system, code, reason):
    report = read_one(tmp_path, patient(), encounter(), condition(code=code, system=system)).report
    assert (report.rows, report.codes, dict(report.left_out)) == (1, 0, {reason: 1})


def test_a_diagnosis_named_in_several_systems_counts_once(tmp_path):
    both = [{"system": SNOMED, "code": "1"}, {"system": ICD9, "code": "401.9"}, {"system": ICD10, "code": "I10"}]
    resources = (patient(), encounter(), condition(code=None) | {"code": {"coding": both}})
    cohort = read_one(tmp_path, *resources)
    assert codes(cohort) == [["ICD10:I10"]]
    assert cohort.report.left_out == {"the same diagnosis in another code system": 1}
    assert codes(read_one(tmp_path, *resources, prefer="ICD9")) == [["ICD9:401.9"]]
    with pytest.raises(InputError, match="prefer must be ICD9 or ICD10"):
        read_one(tmp_path, *resources, prefer="ICD11")


def test_snomed_is_mapped_by_the_users_map(tmp_path):
    (tmp_path / "map.csv").write_text("snomed,system,code\n44054006,ICD10,E11.9\n")
    resources = [patient(), encounter(), condition("a", "44054006", SNOMED), condition("b", "38341003", SNOMED)]
    cohort = read_one(tmp_path, *resources, snomed_map=tmp_path / "map.csv")
    assert codes(cohort) == [["ICD10:E11.9"]]
    assert cohort.report.left_out == {"SNOMED code not in the map": 1}
    assert cohort.report.unknown_codes == {"SNOMED 38341003": 1}
    assert cohort.report.approximate == 1
    for content, message in [
        ("snomed,code\n1,I10\n", "system"),
        ("snomed,system,code\n1,ICD11,I10\n", "line 2 has system 'ICD11'"),
        ("snomed,system,code\nx,ICD10,I10\n", "line 2 needs a SNOMED CT number"),
        ("snomed,system,code\n", "maps no code"),
    ]:
        (tmp_path / "map.csv").write_text(content)
        with pytest.raises(InputError, match=message):
            read_one(tmp_path, *resources, snomed_map=tmp_path / "map.csv")
    with pytest.raises(InputError, match="no file"):
        read_one(tmp_path, *resources, snomed_map=tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("urls", "subject", "at"),
    [
        (("urn:uuid:1", "urn:uuid:2"), "urn:uuid:1", "urn:uuid:2"),
        (("urn:uuid:p", "urn:uuid:e"), "urn:uuid:p", "urn:uuid:e"),
        ((), "Patient/p", "Encounter/e"),
        (("https://x.org/fhir/Patient/p", "https://x.org/fhir/Encounter/e"), "Patient/p", "Encounter/e"),
        ((), "https://x.org/fhir/Patient/p", "https://x.org/fhir/Encounter/e/_history/3"),
        ((), "Patient?identifier=urn:x|12", "Encounter/e"),
    ],
)
def test_references(tmp_path, urls, subject, at):
    resources = (
        patient(identifier=[{"system": "urn:x", "value": "12"}]),
        encounter(subject=subject),
        condition(subject=subject, at=at),
    )
    cohort = read(put(tmp_path / "a.json", bundle(*resources, urls=urls)))
    assert [person.id for person in cohort.patients] == ["p"]
    assert codes(cohort) == [["ICD10:I50.22"]]
    assert cohort.patients[0].visits[0].time == datetime(2020, 3, 1, 10)


def test_contained_resources(tmp_path):
    within = condition(subject="#p", at="#e", contained=[patient(), encounter(subject="#p")])
    around = encounter("outer", contained=[condition("#c", at=None, subject="") | {"subject": {}}])
    around["contained"][0]["id"] = "c"
    cohort = read(put(tmp_path / "a.ndjson", within, patient("p"), around))
    assert codes(cohort) == [["ICD10:I50.22"], ["ICD10:I50.22"]]
    assert sorted(len(person.visits) for person in cohort.patients) == [1, 1]


@pytest.mark.parametrize("code", ["entered-in-error", "refuted", "provisional", "differential", "unconfirmed"])
def test_verification(tmp_path, code):
    resources = (patient(), encounter(), condition("a", **status(code)), condition("b", "I10", **status("confirmed")))
    cohort = read_one(tmp_path, *resources)
    assert codes(cohort) == [["ICD10:I10"]]
    assert (cohort.report.rows, cohort.report.left_out.total()) == (2, 1)
    kept = read_one(tmp_path, *resources, keep_unconfirmed="yes")
    assert len(codes(kept)[0]) == (1 if code in ("entered-in-error", "refuted") else 2)
    with pytest.raises(InputError, match="keep_unconfirmed must be yes or no"):
        read_one(tmp_path, *resources, keep_unconfirmed="maybe")


def test_problem_list_items_are_counted_and_left_out_if_asked(tmp_path):
    problem = {"category": [{"coding": [{"code": "health-concern"}]}, {"coding": [{"code": "problem-list-item"}]}]}
    diagnosed = {"category": [{"coding": [{"code": "encounter-diagnosis"}]}]}
    resources = (patient(), encounter(), condition("a", **problem), condition("b", "I10", **diagnosed))
    cohort = read_one(tmp_path, *resources)
    assert codes(cohort) == [["ICD10:I50.22", "ICD10:I10"]]
    assert "categories of the conditions: encounter-diagnosis 1, problem-list-item 1" in cohort.report.remarks
    without = read_one(tmp_path, *resources, problem_list=False)
    assert codes(without) == [["ICD10:I10"]]
    assert without.report.left_out == {"problem-list item": 1}


def test_conditions_without_an_encounter_go_by_their_date(tmp_path):
    cohort = read_one(
        tmp_path,
        patient(),
        encounter(),
        condition("a", at=None, recordedDate="2020-03-02"),  # within the Encounter's period
        condition("b", "I10", at=None, recordedDate="2021-01-01T08:00:00Z", onsetDateTime="2001-01-01"),
        condition("c", "E11.9", at=None, onsetDateTime="2021-01-01T07:00:00Z"),
        condition("d", "N18.3", at=None),
        condition("f", "J18.9", at="Encounter/elsewhere", recordedDate="2022"),
    )
    assert codes(cohort) == [["ICD10:I50.22"], ["ICD10:I10", "ICD10:E11.9"], ["ICD10:J18.9"]]
    assert [visit.time for visit in cohort.patients[0].visits][1:] == [datetime(2021, 1, 1, 7), datetime(2022, 1, 1)]
    assert cohort.report.left_out == {"no date": 1}


def test_a_negative_stay_is_told(tmp_path):
    cohort = read_one(
        tmp_path,
        patient(),
        encounter(end="2020-02-20"),
        condition(),
        condition("b", "I10", at=None, onsetDateTime="2020-03-01"),
    )
    assert codes(cohort) == [["ICD10:I50.22", "ICD10:I10"]]
    assert "stay" not in cohort.patients[0].visits[0].details
    assert any("1 encounters end before they begin (first: " in line for line in cohort.report.remarks)


def test_a_condition_of_a_day_belongs_to_the_visit_of_that_day_in_its_zone(tmp_path):
    late = encounter(start="2010-01-03T23:30:00-05:00", end="2010-01-03T23:50:00-05:00")
    cohort = read_one(tmp_path, patient(), late, condition(at=None, recordedDate="2010-01-03"))
    assert codes(cohort) == [["ICD10:I50.22"]]
    assert cohort.patients[0].visits[0].time == datetime(2010, 1, 4, 4, 30)
    said = condition(at=None, recordedDate="2010-01-04T04:40:00Z")
    assert codes(read_one(tmp_path, patient(), late, said)) == [["ICD10:I50.22"]]


def test_encounters_of_several_zones_stand_in_the_order_of_their_instants(tmp_path):
    cohort = read_one(
        tmp_path,
        patient(),
        encounter("e", "2015-03-01T23:30:00-05:00", "2015-03-02T05:30:00Z"),  # ends an hour after it begins
        encounter("f", "2015-03-02T02:00:00Z", "2015-03-02T03:00:00Z"),
        condition("a"),
        condition("b", "I10", at="Encounter/f"),
    )
    assert codes(cohort) == [["ICD10:I10"], ["ICD10:I50.22"]]
    assert [visit.time for visit in cohort.patients[0].visits] == [
        datetime(2015, 3, 2, 2),
        datetime(2015, 3, 2, 4, 30),
    ]
    assert not cohort.report.remarks


def test_an_encounter_without_a_period_takes_the_date_of_its_conditions(tmp_path):
    resources = [patient(), encounter(start=None, end=None), condition(recordedDate="2020-05-01")]
    assert read_one(tmp_path, *resources).patients[0].visits[0].time == datetime(2020, 5, 1)
    undated = read_one(tmp_path, patient(), encounter(start=None, end=None), condition())
    assert undated.patients[0].visits[0].time is None
    assert codes(undated) == [["ICD10:I50.22"]]


def test_rank_and_link_of_an_encounters_diagnoses(tmp_path):
    listed = {"diagnosis": [{"condition": {"reference": f"Condition/{c}"}, "rank": n} for n, c in ((2, "a"), (1, "b"))]}
    cohort = read_one(tmp_path, patient(), encounter(**listed), condition("a", at=None), condition("b", "I10", at=None))
    assert codes(cohort) == [["ICD10:I10", "ICD10:I50.22"]]


def test_parts_of_an_encounter_count_to_it(tmp_path):
    emergency = encounter("ed", "2020-03-01T02:00:00Z", partOf={"reference": "Encounter/e"})
    circle = [
        encounter("x", "2021-01-01", "2021-01-02", partOf={"reference": "Encounter/y"}),
        encounter("y", "2021-01-01", "2021-01-02", partOf={"reference": "Encounter/x"}),
    ]
    cohort = read_one(
        tmp_path, patient(), emergency, encounter(), *circle, condition("a", "R07.9", at="Encounter/ed"), condition("b")
    )
    assert codes(cohort) == [["ICD10:R07.9", "ICD10:I50.22"], []]
    assert cohort.patients[0].visits[0].time == datetime(2020, 3, 1, 10)
    assert cohort.report.aside["encounters that are part of another, and count to it"] == 2


def test_encounters_that_never_took_place_and_visits_without_codes(tmp_path):
    resources = (
        patient(),
        encounter("e", status="cancelled"),
        condition("a"),
        encounter("f", "2021-01-01", "2021-01-01"),
        encounter("unborn", "1940-01-01", "1940-01-02"),
        condition("b", at="Encounter/unborn"),
    )
    cohort = read_one(tmp_path, *resources)
    assert codes(cohort) == [[]]
    assert cohort.report.left_out == {"encounter planned, cancelled or entered in error": 1, "visit before birth": 1}
    assert cohort.report.aside["visits before birth"] == 1
    assert cohort.report.aside["visits kept without any code"] == 1
    assert codes(read_one(tmp_path, *resources, empty_visits=False)) == []


def test_the_same_resource_twice_is_counted_and_kept_once(tmp_path):
    cohort = read(put(tmp_path / "a.ndjson", *ONE, *ONE))
    assert codes(cohort) == [["ICD10:I50.22"]]
    assert (cohort.report.rows, dict(cohort.report.left_out)) == (2, {"row is repeated": 1})
    assert cohort.report.aside["encounters given twice"] == 1
    put(tmp_path / "b.ndjson", *ONE, patient(birthDate="1980-01-01"))
    with pytest.raises(InputError, match=r"b\.ndjson: line 4 and .*line 1 hold a Patient of the same id"):
        read(tmp_path / "b.ndjson")


def test_people_who_are_only_referred_to(tmp_path):
    cohort = read_one(tmp_path, encounter(subject="Patient/z"), condition(subject="https://x.org/fhir/Patient/z"))
    assert [(person.id, person.sex, person.age) for person in cohort.patients] == [("z", "U", None)]
    assert codes(cohort) == [["ICD10:I50.22"]]
    assert any("1 patients are referred to" in line for line in cohort.report.remarks)


@pytest.mark.parametrize(
    ("extension", "said"),
    [
        ("us-core-individual-sex", {"valueCoding": {"system": SNOMED, "code": "248152002"}}),
        ("us-core-individual-sex", {"valueCoding": {"code": "female"}}),
        ("us-core-sex", {"valueCode": "248152002"}),
        ("us-core-birthsex", {"valueCode": "F"}),
    ],
)
@pytest.mark.parametrize(("gender", "sex"), [(None, "F"), ("unknown", "F"), ("male", "M"), ("other", "U")])
def test_sex_where_only_us_core_tells_it(tmp_path, extension, said, gender, sex):
    told = {"url": f"http://hl7.org/fhir/us/core/StructureDefinition/{extension}", **said}
    who = patient(extension=[told], gender=gender)
    assert read_one(tmp_path, who, encounter(), condition()).patients[0].sex == sex


def test_the_first_and_last_days_of_the_calendar(tmp_path):
    assert codes(read_one(tmp_path, patient(birthDate="0001-01-01"), encounter(), condition())) == [["ICD10:I50.22"]]
    for beyond in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-05:00"):
        with pytest.raises(InputError, match=r"period\.start is no date of the calendar"):
            read_one(tmp_path, patient(), encounter(start=beyond), condition())


def test_who_a_patient_is(tmp_path):
    race = {
        "url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race",
        "extension": [{"url": "ombCategory", "valueCoding": {"display": "Black or African American"}}],
    }
    mimic = [{"system": "http://mimic.mit.edu/fhir/mimic/identifier/patient", "value": "10003400"}]
    who = patient("0fef54aa", gender="male", birthDate="1950", extension=[race], identifier=mimic)
    person = read_one(tmp_path, who, encounter(subject="Patient/0fef54aa")).patients[0]
    assert (person.id, person.sex) == ("10003400", "M")
    assert person.details == {"ethnicity": "black"}
    assert person.age == pytest.approx(69.67, abs=0.01)  # born in the middle of the year


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"resourceType": "Patient"}', "{broken"], r"a\.ndjson: line 2 is not JSON"),
        (['{"resourceType": "Patient"}', '{"resourceType": "Cond'], r"a\.ndjson: line 2 is not JSON"),
        (['{"resourceType": "Patient"}', "[]", '{"id": "x"}'], "line 3 is no FHIR resource: it names no resourceType"),
        ([condition(recordedDate="01/02/2020")], "line 1: recordedDate is no FHIR date"),
        ([condition(recordedDate="2020-02-31")], "line 1: recordedDate is no date of the calendar"),
        ([condition() | {"code": "I10"}], "line 1: code must be a CodeableConcept"),
        ([condition() | {"subject": "Patient/p"}], "line 1: subject must be a reference"),
        ([encounter() | {"period": "2020"}], "line 1: period must be an object"),
        ([encounter(diagnosis=[RANKED | {"rank": 99_999_999_999}])], "line 1: diagnosis.rank must be a whole"),
        ([encounter(diagnosis=[RANKED | {"rank": float("nan")}])], "line 1: diagnosis.rank must be a whole"),
        ([{"resourceType": "Bundle", "entry": "x"}], "line 1: the Bundle's entry must be a list"),
        ([{"resourceType": "Bundle", "entry": [{"resource": 5}]}], "line 1, entry 1 is no FHIR resource"),
        (['{"resourceType": "Condition", "x": ' + "[" * 100_000 + "]" * 100_000 + "}"], "nested too deeply"),
        (['{"resourceType": "Patient", "id": "\\ud800"}'], "line 1 is not UTF-8 text"),
    ],
)
def test_malformed_input_is_named(tmp_path, lines, message):
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    (tmp_path / "a.ndjson").write_text("\n".join(texts))
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.ndjson", "fhir")


def test_malformed_files_are_named(tmp_path):
    content = "\n".join(json.dumps(resource) for resource in ONE * 2000).encode()
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(content)[:-200])
    (tmp_path / "b.json").write_text(json.dumps(bundle(*ONE), indent=1)[:-40])
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml/c.xml").write_text("<Bundle xmlns='http://hl7.org/fhir'/>")
    for name, said in (
        ("a.ndjson.gz", r"a\.ndjson\.gz is damaged after line \d+"),
        ("b.json", r"b\.json is not JSON: .* at line \d+, column \d+"),
        ("xml/c.xml", r"c\.xml is XML"),
        ("xml", r"c\.xml is XML; FHIR is read as JSON or NDJSON"),
    ):
        with pytest.raises(InputError, match=said):
            read(tmp_path / name, "fhir" if name.endswith("gz") else "auto")
    put(tmp_path / "xml/a.json", bundle(*ONE))
    assert read(tmp_path / "xml").report.aside["FHIR files as XML, not read"] == 1
    (tmp_path / "d.ndjson").write_bytes(b"\xef\xbb\xbf" + content[:2000].rsplit(b"\n", 1)[0].replace(b"\n", b"\r\n"))
    assert codes(read(tmp_path / "d.ndjson"))[0] == ["ICD10:I50.22"]

"""The MEDS reader, on small datasets in the shape of each public converter, and on the MIMIC-IV demo."""

from datetime import date, datetime, timedelta
from itertools import permutations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mera_core.common.errors import InputError
from mera_core.readers import detect, read
from mera_core.readers.meds.codes import Kind, event_of

ADMITTED, LEFT = datetime(2150, 3, 1, 10), datetime(2150, 3, 4, 9)
AGAIN = datetime(2150, 9, 1, 8)
MIMIC = [  # subject_id, time, code, hadm_id, race, insurance: as MIMIC_IV_MEDS writes them
    (7, None, "GENDER//F", None, None, None),
    (7, datetime(2080, 1, 1), "MEDS_BIRTH", None, None, None),
    (7, ADMITTED, "HOSPITAL_ADMISSION//URGENT//PHYSICIAN REFERRAL", 70, "WHITE", "Medicare"),
    (7, ADMITTED, "LAB//51006//mg/dL", 70, None, None),
    (7, LEFT, "DIAGNOSIS//ICD//9//4280", 70, None, None),
    (7, LEFT, "DIAGNOSIS//ICD//9//E8021", 70, None, None),
    (7, LEFT, "DIAGNOSIS//ICD//9//4280", 70, None, None),
    (7, LEFT, "PROCEDURE//ICD//9//8854", 70, None, None),
    (7, LEFT, "HOSPITAL_DISCHARGE//HOME HEALTH CARE", 70, None, None),
    (7, AGAIN, "HOSPITAL_ADMISSION//EW EMER.//UNK", 71, "UNKNOWN", None),
    (7, AGAIN, "DIAGNOSIS//ICD//10//E8021", 71, None, None),
    (7, AGAIN, "DIAGNOSIS//ICD//10//XXXX", 71, None, None),
    (7, AGAIN, "DIAGNOSIS//ICD//10//UNK", 71, None, None),
    (7, datetime(2151, 1, 1), "MEDS_DEATH", None, None, None),
    (8, None, "GENDER//M", None, None, None),
    (8, datetime(2100, 1, 1), "MEDS_BIRTH", None, None, None),
    (8, datetime(2099, 1, 1), "DIAGNOSIS//ICD//9//4019", 80, None, None),
    (8, datetime(2130, 1, 1), "HOSPITAL_ADMISSION//URGENT//UNK", 81, None, None),
]
COLUMNS = ("subject_id", "time", "code", "hadm_id", "race", "insurance")


def table(rows, columns=COLUMNS, **types):
    known = {"subject_id": pa.int64(), "patient_id": pa.int64(), "time": pa.timestamp("us"), "code": pa.string()}
    known |= {"hadm_id": pa.int64(), "race": pa.large_string(), "insurance": pa.large_string(), **types}
    arrays = {name: pa.array([row[at] for row in rows], known.get(name)) for at, name in enumerate(columns)}
    return pa.table({**arrays, "numeric_value": pa.nulls(len(rows), pa.float32())})


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)
    return path


def dataset(folder, *shards):
    for split, content in zip(("held_out", "train", "tuning"), shards, strict=False):
        put(folder / "data" / split / "0.parquet", content)
    return folder


def events(*rows):
    """(time, code) rows of subject 1, without any visit."""
    return table([(1, *row) for row in rows], ("subject_id", "time", "code"))


def codes(cohort):
    return [[str(code) for code in visit.codes] for patient in cohort.patients for visit in patient.visits]


def test_visits_births_and_words_of_the_mimic_converter(tmp_path):
    cohort = read(dataset(tmp_path, table(MIMIC[:14]), table(MIMIC[14:])))
    first, second = cohort.patients
    assert (first.id, first.sex, first.details) == ("7", "F", {"ethnicity": "white"})
    assert codes(cohort) == [["ICD9:428.0", "ICD9:E802.1"], ["ICD10:E80.21"], []]
    visit = first.visits[0]
    assert visit.time == ADMITTED  # not the discharge, at which its diagnoses are dated
    assert visit.age == 70.0  # of a birth at New Year only the year is known: whole years, as MIMIC-IV itself counts
    assert visit.details == {
        "admission": "urgent",
        "source": "physician referral",
        "discharge": "home health care",
        "stay": "2",
        "payer": "medicare",
    }
    assert [visit.time for visit in second.visits] == [datetime(2130, 1, 1)]
    report = cohort.report
    assert report.format == "meds"
    assert (report.patients, report.visits, report.codes, report.rows) == (2, 3, 3, 7)
    assert dict(report.left_out) == {
        "named twice in one visit": 1,
        "code not in the ICD code set": 1,
        "no code recorded": 1,
        "visit before birth": 1,
    }
    assert report.unknown_codes == {"XXXX": 1}
    assert report.aside["events that tell no diagnosis, birth, death, sex, ethnicity or visit"] == 2
    assert report.aside["visits before birth"] == 1
    assert any("1 deaths are recorded" in line for line in report.remarks)


def test_without_visits_a_gap_of_time_parts_them(tmp_path):
    path = put(
        tmp_path / "shard.parquet",
        events(
            (datetime(2020, 1, 1, 0), "ICD10CM/I10"),
            (datetime(2020, 1, 1, 20), "ICD10CM/I50.22"),
            (datetime(2020, 1, 2, 20), "ICD10CM/E11.9"),  # 24 hours later: the same visit
            (datetime(2020, 1, 3, 21), "ICD10CM/I10"),  # 25 hours later: another
            (None, "ICD10CM/N18.3"),
        ),
    )
    cohort = read(path)
    assert codes(cohort) == [["ICD10:I10", "ICD10:I50.22", "ICD10:E11.9"], ["ICD10:I10"]]
    assert [visit.time.day for visit in cohort.patients[0].visits] == [1, 3]
    assert cohort.report.left_out == {"no date": 1}
    assert any("a new one after 24 hours" in line for line in cohort.report.remarks)
    assert len(codes(read(path, "meds", gap_hours=22))) == 3
    for gap in (0, float("inf"), float("nan"), 1e12):
        with pytest.raises(InputError, match="gap_hours must be above 0 and at most 1,000,000"):
            read(path, "meds", gap_hours=gap)


def test_diagnoses_without_a_visit_count_to_the_admission_that_holds_their_date(tmp_path):
    rows = [
        (1, ADMITTED, "HOSPITAL_ADMISSION//URGENT//UNK", 70),
        (1, LEFT, "ICD10CM/I10", None),  # at discharge
        (1, LEFT, "HOSPITAL_DISCHARGE//HOME", 70),
        (1, AGAIN, "ICD10CM/I50.22", None),  # in no admission
        (2, LEFT, "ICD10CM/E11.9", None),  # another person
        (2, AGAIN, "HOSPITAL_ADMISSION//URGENT//UNK", 80),
    ]
    cohort = read(put(tmp_path / "a.parquet", table(rows, COLUMNS[:4])))
    assert codes(cohort) == [["ICD10:I10"], ["ICD10:I50.22"], ["ICD10:E11.9"], []]
    assert [visit.time for visit in cohort.patients[0].visits] == [ADMITTED, AGAIN]
    assert any("1 diagnoses name no visit, and count to the admission" in line for line in cohort.report.remarks)
    assert any("2 visits are grouped by time" in line for line in cohort.report.remarks)


def test_admissions_and_discharges_that_name_no_visit_make_one(tmp_path):
    """The same dataset without hadm_id: the same visits at the same times, and what makes none is counted."""
    rows = [(*row[:3], None, *row[4:]) for row in MIMIC]
    rows += [
        (9, None, "HOSPITAL_ADMISSION//URGENT//UNK", None, None, None),
        (9, LEFT, "HOSPITAL_DISCHARGE//HOME", None, None, None),
        (9, AGAIN, "HOSPITAL_ADMISSION//URGENT//UNK", None, None, None),
    ]
    with_names, cohort = read(dataset(tmp_path / "a", table(MIMIC))), read(dataset(tmp_path / "b", table(rows)))
    assert cohort.patients[:2] == with_names.patients
    assert [visit.time for visit in cohort.patients[2].visits] == [AGAIN]
    assert cohort.report.aside["admissions and discharges without a date, that name no visit"] == 1
    assert cohort.report.aside["discharges without an admission, that name no visit"] == 1
    assert any("4 visits are told by an admission that names none" in line for line in cohort.report.remarks)
    flat = put(tmp_path / "c.parquet", table([row[:3] for row in rows], COLUMNS[:3]))
    assert codes(read(flat)) == codes(cohort)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_a_code_at_discharge_belongs_to_the_stay_that_ends(tmp_path, named, order):
    """Also where the next stay begins the same minute, however the events of that minute are written."""
    first, second = (70, 71) if named else (None, None)
    minute = [
        (1, LEFT, "ICD10CM/I10", None),
        (1, LEFT, "HOSPITAL_DISCHARGE//REHAB", first),
        (1, LEFT, "HOSPITAL_ADMISSION//ELECTIVE//UNK", second),
    ]
    rows = [
        (1, ADMITTED, "HOSPITAL_ADMISSION//URGENT//UNK", first),
        *(minute[at] for at in order),
        (1, AGAIN, "ICD10CM/E11.9", None),
        (1, AGAIN, "HOSPITAL_DISCHARGE//HOME", second),
    ]
    cohort = read(put(tmp_path / "a.parquet", table(rows, COLUMNS[:4])))
    assert codes(cohort) == [["ICD10:I10"], ["ICD10:E11.9"]]
    assert [visit.time for visit in cohort.patients[0].visits] == [ADMITTED, LEFT]
    assert [visit.details["discharge"] for visit in cohort.patients[0].visits] == ["rehabilitation", "home"]


def test_a_stay_of_no_length_and_one_without_discharge_keep_their_codes(tmp_path):
    day = [datetime(2150, 3, day) for day in (1, 2, 3)]
    rows = [
        (1, day[0], "Visit//IP//start"),  # holds what is dated within 24 hours, and ends at no moment
        (1, day[1], "Visit//OP//end"),
        (1, day[1], "Visit//OP//start"),
        (1, day[1], "ICD10CM/E11.9"),
    ]
    cohort = read(put(tmp_path / "a.parquet", table(rows[:1] + rows[2:], COLUMNS[:3])))
    assert codes(cohort) == [[], ["ICD10:E11.9"]]
    rows[0] = (1, day[0], "Visit//IP//end")
    cohort = read(put(tmp_path / "b.parquet", table(rows, COLUMNS[:3])))
    assert codes(cohort) == [["ICD10:E11.9"]]
    assert cohort.report.aside == {"discharges without an admission, that name no visit": 1}


def test_an_admission_without_discharge_holds_what_is_near(tmp_path):
    rows = [
        (1, ADMITTED, "Visit/IP"),
        (1, ADMITTED + timedelta(hours=5), "ICD10CM/I10"),
        (1, ADMITTED + timedelta(hours=30), "ICD10CM/I50.22"),
    ]
    path = put(tmp_path / "a.parquet", table(rows, COLUMNS[:3]))
    assert codes(read(path)) == [["ICD10:I10"], ["ICD10:I50.22"]]
    assert codes(read(path, "meds", gap_hours=48)) == [["ICD10:I10", "ICD10:I50.22"]]


def test_a_negative_stay_is_told(tmp_path):
    rows = [
        (1, LEFT, "HOSPITAL_ADMISSION//URGENT//UNK", 70),
        (1, LEFT, "ICD10CM/I10", 70),
        (1, ADMITTED, "HOSPITAL_DISCHARGE//HOME", 70),
    ]
    cohort = read(put(tmp_path / "a.parquet", table(rows, COLUMNS[:4])))
    assert "stay" not in cohort.patients[0].visits[0].details
    assert "1 visits end before they begin; they are kept, the length of stay is not" in cohort.report.remarks


@pytest.mark.parametrize(
    ("text", "system", "code"),
    [
        ("DIAGNOSIS//ICD//10//I5022", "ICD10", "I5022"),
        ("DIAGNOSIS//ICD//9//E8021", "ICD9", "E8021"),
        ("ICD10CM/I50.22", "ICD10", "I50.22"),
        ("ICD9CM/428.0", "ICD9", "428.0"),
        ("ICD10CM//I50.22//start", "ICD10", "I50.22"),
        ("DIAGNOSIS//ICD10CM//I214", "ICD10", "I214"),
        ("ICD10/I50.9", "ICD10", "I50.9"),
        ("ICD10GM/I50.9", "ICD10", "I50.9"),
        ("site//diagnoses//ICD//9//4280", "ICD9", "4280"),
        ("MIMIC-DIAGNOSIS-ICD9//4280", "ICD9", "4280"),
        ("DIAGNOSIS//I50.22", None, "I50.22"),
        ("DIAGNOSIS//ICD//9//486, J18.9", "ICD9", "486"),
        ("DIAGNOSIS//ICD//9//J18.9", None, "J18.9"),
        ("SNOMED/73211009", "SNOMED", "73211009"),
    ],
)
def test_codes_of_public_converters(text, system, code):
    assert event_of(text).entries == ((system, code),)


@pytest.mark.parametrize(
    "text",
    [
        "PROCEDURE//ICD//10//02703ZZ",
        "ICD9Proc/88.54",
        "ICD10PCS/02703ZZ",
        "LAB//51006//mg/dL",
        "DRG//APR//123//HEART FAILURE",
        "ICD10CM//I50.22//end",
        "ICD10CM",
        "",
        "//",
        "ICU_ADMISSION//MICU",
    ],
)
def test_what_is_no_diagnosis_is_not_read(text):
    assert event_of(text).kind == Kind.OTHER


def test_a_folder_without_shards_is_told(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="holds no MEDS data"):
        read(tmp_path, "meds")


def test_a_diagnosis_in_words_and_one_named_in_both_systems_are_counted(tmp_path):
    day = datetime(2020, 1, 1)
    told = events((day, "DIAGNOSIS//Sepsis"), (day, "DIAGNOSIS//ICD//9//486, J18.9"), (day, "DIAGNOSIS//ICD//9//"))
    report = read(put(tmp_path / "a.parquet", told)).report
    assert (report.rows, report.codes) == (4, 1)
    assert dict(report.left_out) == {
        "diagnosis in words, without a code": 1,
        "the same diagnosis in another code system": 1,
        "no code recorded": 1,
    }


def test_meds_etl_of_omop_names_visits_tables_and_ranks(tmp_path):
    columns = ("subject_id", "time", "code", "visit_id", "seq_num", "table")
    day = datetime(2020, 1, 1)
    rows = [
        (5, None, "Gender/F", None, None, "person"),
        (5, day, "Visit/IP", 9, None, "visit"),
        (5, day, "ICD10CM/I10", 9, 2, "condition"),
        (5, day, "ICD10CM/I50.22", 9, 1, "condition"),
        (5, day, "SNOMED/73211009", 9, None, "condition"),
        (5, day, "SNOMED/73211009", 9, None, "observation"),
        (5, day, "SNOMED/73211009", 9, None, "condition_era"),
    ]
    source = dataset(tmp_path / "omop", table(rows, columns))
    cohort = read(source)
    assert codes(cohort) == [["ICD10:I50.22", "ICD10:I10"]]
    assert cohort.patients[0].sex == "F"
    assert cohort.report.left_out == {"SNOMED code, and no map given": 1}
    assert cohort.report.unknown_codes == {"SNOMED 73211009": 1}

    (tmp_path / "map.csv").write_text("snomed,system,code\n73211009,ICD10CM,E11.9\n73211009,ICD10,E11.65\n")
    mapped = read(source, "meds", snomed_map=tmp_path / "map.csv")
    assert codes(mapped) == [["ICD10:I50.22", "ICD10:I10", "ICD10:E11.9", "ICD10:E11.65"]]
    assert (mapped.report.rows, mapped.report.codes, mapped.report.approximate) == (4, 4, 2)


def test_a_local_code_is_read_by_its_icd_parent(tmp_path):
    source = dataset(tmp_path, events((datetime(2020, 1, 1), "LOCAL//77"), (datetime(2020, 1, 1), "LOCAL//78")))
    parents = [["ICD10CM/I50.22", "OTHER/1"], ["ICD10CM/I10", "ICD10CM/I11.0"]]  # of two, none is meant
    put(tmp_path / "metadata/codes.parquet", pa.table({"code": ["LOCAL//77", "LOCAL//78"], "parent_codes": parents}))
    cohort = read(source)
    assert codes(cohort) == [["ICD10:I50.22"]]
    assert any("1 codes are read through parent_codes" in line for line in cohort.report.remarks)


def test_other_types_and_layouts_of_the_same_events(tmp_path):
    """0.3.0 names the column patient_id; pandas holds whole numbers beside missing ones as floats; polars has categories."""
    plain = table(MIMIC)
    facts = codes(read(put(tmp_path / "a/flat.parquet", plain).parent))
    assert facts == [["ICD9:428.0", "ICD9:E802.1"], ["ICD10:E80.21"], []]

    def changed(name, values):
        return plain.set_column(plain.schema.get_field_index(name), name, values)

    zoned = plain.column("time").cast(pa.timestamp("ns")).cast(pa.timestamp("ns", "UTC"))
    for number, other in enumerate(
        [
            plain.rename_columns(["patient_id", *plain.column_names[1:]]),
            changed("hadm_id", plain.column("hadm_id").cast(pa.float64())),
            changed("hadm_id", plain.column("hadm_id").cast(pa.string())),
            changed("code", plain.column("code").dictionary_encode()),
            changed("code", plain.column("code").cast(pa.large_string())),
            changed("subject_id", plain.column("subject_id").cast(pa.string())),
            changed("time", zoned),
        ]
    ):
        assert codes(read(put(tmp_path / f"{number}/data/deep/er/x.parquet", other).parents[3])) == facts
        assert detect(tmp_path / f"{number}")[0] == "meds"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["time"]), "x.parquet has no column 'time'"),
        (lambda t: t.set_column(0, "subject_id", pa.nulls(len(t), pa.int64())), "an event without a subject_id"),
        (lambda t: t.set_column(0, "subject_id", pa.array([date(2020, 1, 1)] * len(t))), "must be a whole number"),
        (lambda t: t.set_column(3, "hadm_id", pa.array([0.5] * len(t))), "a hadm_id that is no whole number"),
        (lambda t: t.append_column("seq_num", pa.array([1.5] * len(t))), "a seq_num that is no whole number up to"),
        (lambda t: t.append_column("events", pa.nulls(len(t))), "MEDS 0.2 with events nested"),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path, change, message):
    put(tmp_path / "data/x.parquet", change(table(MIMIC)))
    with pytest.raises(InputError, match=message):
        read(tmp_path, "meds")

"""The OMOP reader: source concepts, source values, SNOMED taken back to ICD, and conditions without a visit."""
# ruff: noqa: E501 (the rows of a source are as wide as they are)

import csv
import re
from datetime import datetime

import pandas as pd
import pytest

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Code
from mera_core.readers import read

PERSON = """person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth,race_concept_id,ethnicity_concept_id
1,8532,1950,6,1,8527,0
2,8507,1990,,,0,38003563
"""
VISITS = """visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_start_datetime,visit_end_date,admitted_from_source_value
10,1,9201,2012-03-01,2012-03-01 08:00:00,2012-03-05,HOME
11,1,9202,2010-01-01,,2010-01-01,
12,2,9203,1980-01-01,,1980-01-01,
"""
CONDITIONS = """condition_occurrence_id,person_id,condition_concept_id,condition_start_date,visit_occurrence_id,condition_source_value,condition_source_concept_id
1,1,316139,2012-03-01,10,anything,501
2,1,316139,2012-03-01,10,401.9   ,0
3,1,320128,2012-03-01,10,59621000,600
4,1,201826,2012-03-01,10,,0
5,1,0,2012-03-01,10,,0
6,1,4000,2010-01-01,11,,0
7,1,0,2012-03-04,,ICD10CM:I50.9,0
8,1,0,2014-07-01,0,V27.0,0
9,1,0,2014-07-01,,E11.9,0
10,1,0,,,E11.9,0
11,2,0,1980-01-01,12,E11.9,0
12,3,0,2012-01-01,10,E11.9,0
13,2,0,2012-01-01,10,E11.9,0
14,2,0,2012-01-01,99,E11.9,0
15,1,0,2012-03-01,10,99.15,502
16,1,0,2012-03-01,10,E8021,0
"""
CONCEPT = """concept_id\tconcept_name\tvocabulary_id\tconcept_code
501\tCongestive heart failure, unspecified\tICD9CM\t428.0
502\tParenteral infusion "of" nutrients\tICD9Proc\t99.15
600\tEssential hypertension\tSNOMED\t59621000
316139\tHeart failure\tSNOMED\t84114007
320128\tEssential hypertension\tSNOMED\t59621000
201826\tType 2 diabetes mellitus\tSNOMED\t44054006
4000\tRare thing\tSNOMED\t1234567
700\tEssential (primary) hypertension\tICD10CM\tI10
701\tType 2 diabetes mellitus without complications\tICD10CM\tE11.9
702\tType 2 diabetes mellitus with unspecified complications\tICD10CM\tE11.8
"""
LINKS = """concept_id_1\tconcept_id_2\trelationship_id\tinvalid_reason
700\t320128\tMaps to\t
700\t600\tMaps to\t
701\t201826\tMaps to\t
702\t201826\tMaps to\t
702\t4000\tMaps to\tD
320128\t700\tMapped from\t
"""


def folder(path, **changes):
    tables = {"PERSON": PERSON, "VISIT_OCCURRENCE": VISITS, "CONDITION_OCCURRENCE": CONDITIONS}
    tables |= {"CONCEPT": CONCEPT, "CONCEPT_RELATIONSHIP": LINKS}
    for name, content in {**tables, **changes}.items():
        if content is not None:
            (path / f"{name}.csv").write_text(content)
    return path


def codes(patient):
    return [(visit.time, [str(code) for code in visit.codes]) for visit in patient.visits]


def test_codes_by_source_concept_value_and_back_from_snomed(tmp_path):
    cohort = read(folder(tmp_path))
    assert cohort.report.format == "omop"
    (patient,) = cohort.patients
    assert (patient.sex, patient.details) == ("F", {"ethnicity": "white"})
    assert codes(patient) == [
        (datetime(2010, 1, 1), []),
        # By concept, by value, by the one ICD code of a SNOMED concept, by the heading that two share, and by date.
        (datetime(2012, 3, 1, 8), ["ICD9:428.0", "ICD9:401.9", "ICD10:I10", "ICD10:E11", "ICD10:I50.9"]),
        (datetime(2014, 7, 1), ["ICD9:V27.0", "ICD10:E11.9"]),
    ]
    assert [visit.age for visit in patient.visits] == [59.59, 61.75, 64.08]
    assert patient.visits[1].details == {"admission": "inpatient", "source": "home", "stay": "4"}


def test_a_condition_of_a_day_belongs_to_the_visit_of_that_day_in_its_zone(tmp_path):
    late = VISITS.replace("2012-03-01 08:00:00,2012-03-05", "2012-03-01 23:30:00-05:00,2012-03-01")
    told = CONDITIONS.splitlines()[0] + "\n1,1,0,2012-03-01,,I10,0\n"
    visit = read(folder(tmp_path, VISIT_OCCURRENCE=late, CONDITION_OCCURRENCE=told)).patients[0].visits[1]
    assert (visit.time, str(visit.codes[0])) == (datetime(2012, 3, 2, 4, 30), "ICD10:I10")
    assert visit.details["stay"] == "0"


def test_every_condition_is_accounted_for(tmp_path):
    report = read(folder(tmp_path)).report
    assert (report.rows, report.codes, report.approximate) == (16, 7, 2)
    assert report.left_out == {
        "no code recorded": 1,
        "SNOMED code that no ICD code maps to": 1,
        "no date": 1,
        "visit before birth": 1,
        "person not in person": 1,
        "visit belongs to another person": 1,
        "visit not in visit_occurrence": 1,
        "procedure code": 1,
        "code in both systems, and no system given": 1,
    }
    assert report.unknown_codes == {"SNOMED 1234567": 1, "E8021": 1}
    assert report.aside["visits: visit before birth"] == 1
    assert any("1 visits are made of conditions that name no visit" in said for said in report.remarks)


def test_without_vocabulary_the_source_value_speaks(tmp_path):
    report = read(folder(tmp_path, CONCEPT=None, CONCEPT_RELATIONSHIP=None)).report
    assert report.left_out["SNOMED code, and no map given"] == 1
    assert report.left_out["no ICD code, and the vocabulary doesn't hold its concept"] == 2
    assert report.unknown_codes["concept 201826"] == 1
    assert any("there is no table concept" in said for said in report.remarks)
    (tmp_path / "b").mkdir()
    unmapped = read(folder(tmp_path / "b", CONCEPT_RELATIONSHIP=None)).report
    assert unmapped.left_out["SNOMED code, and no map given"] == 3
    assert unmapped.unknown_codes["SNOMED 44054006"] == 1


def test_version_5_3_and_the_preferred_system(tmp_path):
    older = VISITS.replace("admitted_from_source_value", "admitting_source_value")
    concept = CONCEPT + "703\tUnspecified essential hypertension\tICD9CM\t401.9\n"
    links = LINKS + "703\t600\tMaps to\t\n703\t320128\tMaps to\t\n"
    folder(tmp_path, VISIT_OCCURRENCE=older, CONCEPT=concept, CONCEPT_RELATIONSHIP=links)
    assert Code("ICD10", "I10") in read(tmp_path).patients[0].visits[1].codes
    visit = read(tmp_path, prefer="ICD9").patients[0].visits[1]
    assert Code("ICD10", "I10") not in visit.codes
    assert visit.details["source"] == "home"
    with pytest.raises(InputError, match="prefer must be ICD9 or ICD10"):
        read(tmp_path, prefer="SNOMED")


def test_values_that_are_padded_in_parquet_are_the_same(tmp_path):
    plain = read(folder(tmp_path)).patients
    (tmp_path / "b").mkdir()
    for path in tmp_path.glob("*.csv"):
        separator = "\t" if path.name.startswith("CONCEPT") else ","
        table = pd.read_csv(path, sep=separator, dtype=str, quoting=csv.QUOTE_NONE)
        padded = table.map(lambda text: f"{text}  " if isinstance(text, str) else text)
        padded.to_parquet(tmp_path / "b" / f"{path.stem.lower()}.parquet")
    assert read(tmp_path / "b").patients == plain


def test_ids_as_pandas_writes_them_beside_missing_ones_are_the_same(tmp_path):
    plain = read(folder(tmp_path)).patients
    floats = "\n".join(
        ",".join(f"{cell}.0" if at in (4, 6) and cell.isdecimal() else cell for at, cell in enumerate(line.split(",")))
        for line in CONDITIONS.splitlines()
    )
    assert "2012-03-01,10.0,anything,501.0" in floats
    assert read(folder(tmp_path, CONDITION_OCCURRENCE=floats)).patients == plain
    concept = re.sub(r"^(\d+)", r"\1.0", CONCEPT, flags=re.MULTILINE)
    assert read(folder(tmp_path, CONDITION_OCCURRENCE=floats, CONCEPT=concept)).patients == plain


def test_a_map_told_from_the_other_end_is_the_same_map(tmp_path):
    plain = read(folder(tmp_path)).patients
    rows = [line.split("\t") for line in LINKS.splitlines()[1:-1]]
    turned = "".join(f"{second}\t{first}\tMapped from\t{ended}\n" for first, second, _, ended in rows)
    head = LINKS.splitlines(keepends=True)[0]
    assert read(folder(tmp_path, CONCEPT_RELATIONSHIP=head + turned)).patients == plain
    assert read(folder(tmp_path, CONCEPT_RELATIONSHIP=LINKS + turned)).patients == plain


def test_a_missing_table_is_told(tmp_path):
    with pytest.raises(InputError, match="no table visit_occurrence"):
        read(folder(tmp_path, VISIT_OCCURRENCE=None), "omop")


def test_national_editions_are_read_by_their_source_concepts(tmp_path):
    """One table of names for all readers: what FHIR and MEDS take as an edition of ICD, OMOP does too."""
    named = {"ICD10GM": "I10", "ICD10CN": "E11.9", "KCD7": "I50.9", "CIM10": "J44.9", "ICD9CMCN": "428.0"}
    concept = "concept_id,concept_name,vocabulary_id,concept_code\n" + "".join(
        f"{row},x,{name},{code}\n" for row, (name, code) in enumerate([*named.items(), ("ICD9ProcCN", "99.15")], 900)
    )
    conditions = CONDITIONS.split("\n")[0] + "\n"
    conditions += "".join(f"{row},1,0,2012-03-01,10,local,{row}\n" for row in range(900, 906))
    cohort = read(folder(tmp_path, CONDITION_OCCURRENCE=conditions, CONCEPT=concept, CONCEPT_RELATIONSHIP=None))
    kept = [str(code) for code in cohort.patients[0].visits[-1].codes]
    assert kept == ["ICD10:I10", "ICD10:E11.9", "ICD10:I50.9", "ICD10:J44.9", "ICD9:428.0"]
    assert (dict(cohort.report.left_out), cohort.report.approximate) == ({"procedure code": 1}, 5)

"""The MEDS writer, against the schemas of the `meds` package itself."""

import json
from datetime import datetime

import meds
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from mera_core.history.records import Patient, Visit
from mera_core.icd.ontology import Code
from mera_core.readers import Cohort, ImportReport
from mera_core.writers import write
from mera_core.writers.subjects import meds_split, subject_number
from tests.writers.cohorts import cohorts, small


def shards(folder):
    return {path: pq.read_table(path) for path in sorted((folder / meds.data_subdirectory).rglob("*.parquet"))}


def events(folder):
    return pa.concat_tables(shards(folder).values()).to_pylist()


def check(folder):
    """What MEDS asks of a dataset; returns its codes."""
    met, codes = set(), set()
    for path, table in shards(folder).items():
        meds.DataSchema.validate(table)
        subject = table.column("subject_id").to_numpy()
        time = table.column("time").to_numpy().astype("datetime64[us]").astype(np.int64)  # NaT is the least number
        changes = np.flatnonzero(np.diff(subject)) + 1
        groups = np.split(np.arange(len(subject)), changes)
        assert len(groups) == len(set(subject.tolist())), "a subject is contiguous"
        assert all((time[group][1:] >= time[group][:-1]).all() for group in groups), "and sorted by time"
        assert not met & set(subject.tolist()), "and in one shard"
        met |= set(subject.tolist())
        codes |= set(table.column("code").to_pylist())
        assert path.parent.name in (meds.train_split, meds.tuning_split, meds.held_out_split)
    splits = pq.read_table(folder / meds.subject_splits_filepath)
    meds.SubjectSplitSchema.validate(splits)
    assert set(splits.column("subject_id").to_pylist()) == met
    described = pq.read_table(folder / meds.code_metadata_filepath)
    meds.CodeMetadataSchema.validate(described)
    assert sorted(described.column("code").to_pylist()) == sorted(codes)
    meds.DatasetMetadataSchema.validate(json.loads((folder / meds.dataset_metadata_filepath).read_text()))
    return codes


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cohort=cohorts().filter(lambda cohort: cohort.patients))
def test_any_cohort_is_a_valid_dataset(tmp_path_factory, cohort):
    folder = tmp_path_factory.mktemp("meds") / "out"
    write(cohort, folder, "meds", subjects_a_shard=2)
    check(folder)


def test_the_codes_are_those_of_public_converters(tmp_path):
    write(small(), tmp_path / "out", "meds")
    codes = check(tmp_path / "out")
    assert {"DIAGNOSIS//ICD//9//4280", "DIAGNOSIS//ICD//9//E8021", "DIAGNOSIS//ICD//10//E8021"} <= codes
    assert {"GENDER//F", "GENDER//M", "MEDS_BIRTH", "ETHNICITY//white"} <= codes
    described = pq.read_table(tmp_path / "out/metadata/codes.parquet").to_pylist()
    row = next(row for row in described if row["code"] == "DIAGNOSIS//ICD//10//I5022")
    assert row["parent_codes"] == ["ICD10CM/I50.22"]
    assert row["description"] == "Chronic systolic (congestive) heart failure"


def test_a_diagnosis_is_dated_when_its_visit_was_complete(tmp_path):
    write(small(), tmp_path / "out", "meds")
    of_first = [row for row in events(tmp_path / "out") if row["subject_id"] == 10]
    times = {row["code"]: row["time"] for row in of_first}
    assert times["DIAGNOSIS//ICD//9//4280"] == datetime(2010, 1, 4, 8)  # admitted on the first, for three days
    assert times["DIAGNOSIS//ICD//10//I5022"] == datetime(2016, 3, 1)
    assert times["MEDS_BIRTH"] == datetime(2010, 1, 1, 8) - np.timedelta64(round(70 * 365.2425), "D").item()
    ranks = {row["code"]: row["seq_num"] for row in of_first if row["code"].startswith("DIAGNOSIS")}
    assert ranks == {"DIAGNOSIS//ICD//9//4280": 1, "DIAGNOSIS//ICD//9//E8021": 4, "DIAGNOSIS//ICD//10//I5022": 1}


def test_no_fact_of_a_visit_is_a_static_measurement(tmp_path):
    """A row without a time is known at all times to MEDS tools: a diagnosis there would be a leak of the future."""
    write(small(), tmp_path / "out", "meds")
    static = {row["code"].split("//")[0] for row in events(tmp_path / "out") if row["time"] is None}
    assert static <= {"GENDER", "ETHNICITY", "PROFILE", "AGE_AT_LAST_VISIT"}
    undated = [row for row in events(tmp_path / "out") if row["subject_id"] == 11 and row["time"] is not None]
    assert undated
    assert all(row["time_invented"] for row in undated)


def test_ages_that_disagree_give_no_birth(tmp_path):
    visits = (Visit([Code("ICD10", "I10")], datetime(2010, 1, 1), 91.4), Visit([], datetime(2015, 1, 1), 91.4))
    report = write(Cohort([Patient(visits, id="1")], ImportReport("invented")), tmp_path / "out", "meds")
    assert "MEDS_BIRTH" not in {row["code"] for row in events(tmp_path / "out")}
    assert any("1 patients have no birth event" in line for line in report.lines())


@pytest.mark.parametrize("identity", ["007", "-7", "7.0", "seven", "9223372036854775808", "٧", " 7"])
def test_an_id_that_is_no_whole_number_becomes_one(identity):
    number = subject_number(identity)
    assert 0 <= number < 2**63
    assert number == subject_number(identity) != 7


def test_splits_are_those_that_checkpoints_are_trained_by():
    # bytes 49, 53 and 194 of the rule in readers.uci_diabetes130
    assert [meds_split(each) for each in ("8222157", "86047875", "55629189")] == ["held_out", "tuning", "train"]
    assert subject_number("8222157") == 8222157

"""One cohort, written in the shape of each source, is read as the same visits: generated cohorts, no example."""

import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mera_core.history.records import TABLE_SUFFIXES, Patient, Visit
from mera_core.history.visits_file import write_visits
from mera_core.icd.ontology import Code
from mera_core.readers import read
from tests.readers import foreign_shapes, shapes

ICD9 = [Code("ICD9", c) for c in ("428.0", "250.00", "E802.1", "V58.61", "008.45", "038.9", "401.9", "003.0", "V30.00")]
ICD10 = [Code("ICD10", c) for c in ("I50.22", "E80.21", "I10", "E11.9", "V00.01XA", "Z99.2", "S72.001A", "A00.0")]
THREE_DIGITS = [Code("ICD9", c) for c in ("428", "008", "V58", "E880", "250.83", "038", "401")]


def cohorts(codes: list[Code], most: int, hours: bool = True) -> st.SearchStrategy[list[Patient]]:
    """Patients with distinct numbers, visits at distinct times from oldest on, each code once a visit."""
    start = datetime(2005, 1, 1)
    step = st.integers(1, 24 * 300 if hours else 300)

    @st.composite
    def patient(draw: st.DrawFn, number: int) -> Patient:
        time, visits = start, []
        for _ in range(draw(st.integers(1, 4))):
            time += timedelta(hours=draw(step)) if hours else timedelta(days=draw(step))
            visits.append(Visit(tuple(draw(st.lists(st.sampled_from(codes), unique=True, max_size=most))), time))
        return Patient(tuple(visits), sex=draw(st.sampled_from("FMU")), id=str(number))

    numbers = st.lists(st.integers(1, 10**8), unique=True, min_size=1, max_size=5)
    return numbers.flatmap(lambda ids: st.tuples(*(patient(number) for number in ids)).map(list))


def facts(patients: list[Patient], times: bool = True) -> dict[str, tuple]:
    """What every source tells: sex, times and codes in order."""
    return {
        patient.id: (patient.sex, [(visit.time if times else None, visit.codes) for visit in patient.visits])
        for patient in patients
    }


quick = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
SHAPES = {
    "mimic3": (shapes.mimic3, ICD9, 9, True),
    "mimic4": (shapes.mimic4, ICD9 + ICD10, 12, True),
    "eicu": (shapes.eicu, [code for code in ICD9 + ICD10 if code.code != "V00.01XA"], 12, False),
    "synpuf": (shapes.synpuf, ICD9, 9, True),
    "uci_diabetes130": (shapes.uci, THREE_DIGITS, 3, False),
    "omop": (shapes.omop, ICD9 + ICD10, 12, True),
}


@pytest.mark.parametrize("format", SHAPES)
@quick
@given(data=st.data())
def test_a_cohort_comes_back_from_the_shape_of_each_source(format, data):
    write, codes, most, times = SHAPES[format]
    patients = data.draw(cohorts(codes, most, hours=format not in ("synpuf",)))
    with tempfile.TemporaryDirectory() as folder:
        cohort = read(write(patients, Path(folder) / "source"))
    assert cohort.report.format == format
    assert facts(cohort.patients, times) == facts(patients, times)
    assert cohort.report.rows == cohort.report.codes + cohort.report.left_out.total()
    assert cohort.report.codes == sum(len(visit.codes) for patient in patients for visit in patient.visits)


@quick
@given(patients=cohorts(ICD9 + ICD10, 12))
def test_omop_as_parquet_is_the_same_as_omop_as_csv(patients):
    if not any(visit.codes for patient in patients for visit in patient.visits):
        return  # parquet without a row has no types to read
    with tempfile.TemporaryDirectory() as folder:
        cohort = read(shapes.omop(patients, Path(folder) / "source", packed=True))
    assert facts(cohort.patients) == facts(patients)


FOREIGN = {
    "meds, visits named": ("meds", foreign_shapes.meds, {}),
    "meds, no visit named": ("meds", lambda patients, folder: foreign_shapes.meds(patients, folder, named=False), {}),
    "fhir as of MIMIC": ("fhir", foreign_shapes.fhir_of_mimic, {}),
    "fhir as of Synthea": ("fhir", foreign_shapes.fhir_of_synthea, {"snomed_map": "map.csv"}),
    "omop in SNOMED": ("omop", foreign_shapes.omop_in_snomed, {}),
    "HISTORY.json": ("table", foreign_shapes.histories, {}),
    **{
        f"a table of one's own, {suffix}": (
            "table",
            lambda patients, folder, suffix=suffix: foreign_shapes.own_table(patients, folder, suffix),
            {"columns": foreign_shapes.MAP},
        )
        for suffix in (".csv", ".json", ".parquet")
    },
}


MAPPED = ("fhir as of Synthea", "omop in SNOMED")  # approximate: SNOMED taken to ICD


@pytest.mark.parametrize("shape", FOREIGN)
@quick
@given(patients=cohorts(ICD9 + ICD10, 12))
def test_a_cohort_comes_back_from_what_others_write_in_any_zones(shape, patients):
    format, write, options = FOREIGN[shape]
    if shape == "HISTORY.json":  # which can't hold a patient without a code
        patients = [patient for patient in patients if any(visit.codes for visit in patient.visits)]
        if not patients:
            return
    coded = sum(len(visit.codes) for patient in patients for visit in patient.visits)
    if "snomed_map" in options and not coded:
        return  # a map of nothing is refused
    with tempfile.TemporaryDirectory() as folder:
        source = write(patients, Path(folder) / "source")
        beside = {name: Path(folder) / value if name == "snomed_map" else value for name, value in options.items()}
        cohort = read(source, **beside)
    assert cohort.report.format == format
    assert facts(cohort.patients) == facts(patients)
    assert (cohort.report.rows, cohort.report.codes) == (coded, coded)
    assert cohort.report.approximate == (coded if shape in MAPPED else 0)


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
@quick
@given(patients=cohorts(ICD9 + ICD10, 12))
def test_the_visits_table_comes_back_whole(suffix, patients):
    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder) / f"one{suffix}", Path(folder) / f"other{suffix}"
        write_visits(patients, one)
        first = read(one)
        write_visits(first.columns, other)
        second = read(other)
    assert first.patients == patients
    assert second.patients == patients

"""Whatever cohort is written, in any form, is read as the same patients and visits: generated cohorts, no example."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from mera_core.common.errors import InputError
from mera_core.readers import read
from mera_core.writers import write
from tests.writers.cohorts import cohorts

FORMS = [
    ("meds", "cohort"),
    ("fhir", "cohort"),
    ("fhir", "cohort.json"),
    ("fhir", "cohort.json.gz"),
    ("fhir", "cohort.ndjson"),
    ("fhir", "cohort.ndjson.gz"),
]


@pytest.mark.parametrize(("format", "name"), FORMS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cohort=cohorts())
def test_a_cohort_that_is_written_is_read_as_it_was(format, name, cohort):
    with tempfile.TemporaryDirectory() as folder:
        written = write(cohort, Path(folder) / name, format)
        if not cohort.patients:
            with pytest.raises(InputError):
                read(Path(folder) / name, format)
            return
        again = read(Path(folder) / name)
    by_id = {patient.id: patient for patient in again.patients}
    for patient in cohort.patients:
        assert by_id.pop(patient.id) == patient
    assert not by_id
    report = again.report
    assert report.format == format
    assert (report.patients, report.visits, report.codes) == (written.patients, written.visits, written.codes)
    assert report.rows == report.codes
    assert report.left_out.total() == 0

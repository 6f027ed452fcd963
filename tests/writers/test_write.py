"""writers.write: whole or not at all, never over something else, and what it refuses."""

import pytest

from mera_core import writers
from mera_core.common.errors import InputError
from mera_core.history.records import Patient, Visit
from mera_core.readers import Cohort, ImportReport
from mera_core.writers import write
from tests.writers.cohorts import small


def test_the_report_counts_what_was_written(tmp_path):
    report = write(small(), tmp_path / "out", "meds")
    assert (report.patients, report.visits, report.codes) == (3, 5, 6)
    assert report.to_dict()["out"] == str(tmp_path / "out")
    assert report.lines()[0].endswith("3 patients, 5 visits, 6 codes")
    assert any("1 visits have no date" in line for line in report.lines())


@pytest.mark.parametrize(("format", "name"), [("meds", "out"), ("fhir", "out"), ("fhir", "out.json")])
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, format, name):
    def fail(what, done, total):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=f"{name} can't be written: No space left on device"):
        write(small(), tmp_path / name, format, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_not_written_over(tmp_path):
    (tmp_path / "out").mkdir()
    write(small(), tmp_path / "out", "meds")  # an empty one is taken
    with pytest.raises(InputError, match="holds something already"):
        write(small(), tmp_path / "out", "fhir")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        write(small(), tmp_path / "file", "meds")
    with pytest.raises(InputError, match="there is no folder"):
        write(small(), tmp_path / "nowhere" / "out", "meds")


def test_a_file_is_replaced(tmp_path):
    (tmp_path / "out.json").write_text("old")
    write(small(), tmp_path / "out.json", "fhir")
    assert (tmp_path / "out.json").read_text().startswith('{"resourceType": "Bundle"')


def test_what_can_not_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="as meds, fhir, not as 'excel'"):
        write(small(), tmp_path / "out", "excel")
    typed = Cohort([Patient((Visit(["428.0"]),), id="1")], ImportReport("invented"))
    with pytest.raises(InputError, match="still text"):
        write(typed, tmp_path / "out", "meds")
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told(tmp_path):
    told = []
    write(small(), tmp_path / "out", "meds", progress=lambda what, done, total: told.append((done, total)))
    assert told[-1] == (3, 3)
    assert set(writers.WRITERS) == {"meds", "fhir"}

"""A cohort in headless Chromium: a scoring that is stopped and goes on, held-out visits measured, files taken along."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pyarrow.parquet as pq
from playwright.sync_api import Page, expect

from mera_core.export.tables import history_csv
from mera_core.history.records import Patient, demo_patients
from tests.browser.app_server import TIMEOUT, downloaded, go_to, send_file, settle

MANY = 1600  # so many that Cancel can be pressed long before the last is scored


def _rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def _upload(page: Page, people: list[Patient], path: Path) -> None:
    """Send a table of these patients, and wait until it is read: a click while the page still runs is lost."""
    path.write_text(history_csv(people), encoding="utf-8")
    send_file(page, path)
    expect(page.get_by_role("button", name=f"Score {len(people):,} patients")).to_be_visible()
    settle(page)


def test_a_file_above_five_megabytes_is_taken(visit, tmp_path):
    page = visit("/Cohort")
    visits = demo_patients()[0].patient.visits
    rows = sum(len(each.codes) for each in visits)  # each repeats the patient's remark
    people = [Patient(visits, id=f"p{n}", details={"remark": "x" * 9000}) for n in range(1 + 600 // rows)]
    _upload(page, people, tmp_path / "large.csv")
    assert (tmp_path / "large.csv").stat().st_size > 5 * 1024 * 1024
    expect(page.get_by_text(re.compile("413|too large", re.I))).to_have_count(0)


def test_a_scoring_is_cancelled_keeps_what_it_has_and_goes_on(visit, tmp_path):
    demos = [demo.patient for demo in demo_patients()]
    many = [
        Patient(demos[number % len(demos)].visits, demos[number % len(demos)].sex, 70, f"=p{number}")
        for number in range(MANY)
    ]
    page = visit("/Cohort")
    _upload(page, many, tmp_path / "many.csv")
    page.get_by_role("button", name=f"Score {MANY:,} patients").click()
    expect(page.get_by_text(re.compile(rf"^[1-9][\d,]* of {MANY:,} patients"))).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    stopped = page.get_by_text(re.compile(rf"Stopped after [\d,]+ of {MANY:,} patients"))
    expect(stopped).to_be_visible()
    settle(page)
    done = int(re.search(r"after ([\d,]+)", stopped.inner_text())[1].replace(",", ""))
    assert 0 < done < MANY
    expect(page.locator(".stPlotlyChart").first).to_be_visible()
    go_to(page, "Recall")
    go_to(page, "Cohort")
    page.get_by_role("button", name=f"Go on with the other {MANY - done:,}").click()
    expect(page.get_by_role("button", name=f"Predictions of {MANY:,} patients (CSV)")).to_be_visible(
        timeout=3 * TIMEOUT
    )
    settle(page)
    rows = _rows(downloaded(page, "(CSV)"))
    assert len({row["patient_id"] for row in rows}) == MANY
    assert all(row["patient_id"].startswith("'") for row in rows)


def test_held_out_visits_are_measured_and_taken_along(visit):
    page = visit("/Cohort")
    page.get_by_role("button", name="Use the invented sample cohort").click()
    settle(page)
    page.get_by_role("radio", name="Hold out the last visit").click()
    settle(page)
    page.get_by_role("button", name=re.compile(r"^Score \d+ patients")).click()
    measured = page.get_by_role("cell", name=re.compile("^Recall at 20"))
    expect(measured).to_be_visible()
    settle(page)
    rows = _rows(downloaded(page, "(CSV)"))
    assert {row["came_true"] for row in rows} == {"True", "False"}
    table = pq.read_table(io.BytesIO(downloaded(page, "(Parquet)"))).to_pandas()
    assert table["concept"].tolist() == [row["concept"] for row in rows]
    assert table["came_true"].sum() == sum(row["came_true"] == "True" for row in rows)

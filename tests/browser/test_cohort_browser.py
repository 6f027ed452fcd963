"""A cohort in headless Chromium: a scoring that is stopped and goes on, held-out visits measured, files taken along."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
from playwright.sync_api import Page, expect

from mera_core.export import history_csv
from mera_core.records import Patient, demo_patients
from tests.browser.app_server import PATIENCE, settle


def _downloaded(page: Page, name: str) -> bytes:
    with page.expect_download() as saved:
        page.get_by_role("button", name=name).click()
    return Path(saved.value.path()).read_bytes()


def _rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_a_scoring_is_cancelled_keeps_what_it_has_and_goes_on(visit, tmp_path):
    demos = [demo.patient for demo in demo_patients()]
    many = [
        Patient(demos[number % len(demos)].visits, demos[number % len(demos)].sex, 70, f"=p{number}")
        for number in range(800)
    ]
    path = tmp_path / "many.csv"
    path.write_text(history_csv(many), encoding="utf-8")
    page = visit("/Cohort")
    page.locator("[data-testid=stFileUploaderDropzoneInput]").set_input_files(path)
    page.get_by_role("button", name="Score 800 patients").click(timeout=PATIENCE)
    expect(page.get_by_text(re.compile(r"^[1-9][\d,]* of 800 patients"))).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Cancel").click()
    stopped = page.get_by_text(re.compile(r"Stopped after [\d,]+ of 800 patients"))
    expect(stopped).to_be_visible(timeout=PATIENCE)
    settle(page)
    done = int(re.search(r"after ([\d,]+)", stopped.inner_text())[1].replace(",", ""))
    assert 0 < done < 800
    expect(page.locator(".stPlotlyChart").first).to_be_visible()
    page.get_by_role("link", name="Recall").first.click()
    page.wait_for_url("**/Recall")
    settle(page)
    page.get_by_role("link", name="Cohort").first.click()
    page.wait_for_url("**/Cohort")
    settle(page)
    page.get_by_role("button", name=f"Go on with the other {800 - done:,}").click()
    expect(page.get_by_role("button", name="Predictions of 800 patients (CSV)")).to_be_visible(timeout=3 * PATIENCE)
    settle(page)
    rows = _rows(_downloaded(page, "(CSV)"))
    assert len({row["patient_id"] for row in rows}) == 800
    assert all(row["patient_id"].startswith("'") for row in rows)


def test_held_out_visits_are_measured_and_taken_along(visit):
    page = visit("/Cohort")
    page.get_by_role("button", name="Use the invented sample cohort").click()
    settle(page)
    page.get_by_role("radio", name="Hold out the last visit").click()
    settle(page)
    page.get_by_role("button", name=re.compile(r"^Score \d+ patients")).click()
    measured = page.get_by_role("cell", name=re.compile("^Recall at 20"))
    expect(measured).to_be_visible(timeout=PATIENCE)
    settle(page)
    rows = _rows(_downloaded(page, "(CSV)"))
    assert {row["came_true"] for row in rows} == {"True", "False"}
    table = pq.read_table(io.BytesIO(_downloaded(page, "(Parquet)"))).to_pandas()
    assert table["concept"].tolist() == [row["concept"] for row in rows]
    assert table["came_true"].sum() == sum(row["came_true"] == "True" for row in rows)
    with zipfile.ZipFile(io.BytesIO(_downloaded(page, "(MEDS)"))) as archive:
        judged = pq.read_table(io.BytesIO(archive.read("predictions/heart_failure/0.parquet")))
    assert 0 < judged.num_rows <= table["patient_id"].nunique()

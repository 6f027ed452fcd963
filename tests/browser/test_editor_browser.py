"""The editor by keyboard and with files, and how the newer pages fit a phone, in headless Chromium."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from mera_core.export.tables import history_json
from mera_core.history.records import Patient, Visit, patient_from_json
from tests.browser.app_server import PATIENCE, PHONE, settle

CHIPS = '[class*="st-key-chip_"] button:visible'
RESULTS = '[class*="st-key-found_"] button:visible'


def _search(page: Page):
    return page.get_by_role("searchbox", name="Find a diagnosis by code or words")


def _no_sideways_scroll(page: Page) -> None:
    widths = page.evaluate(
        "() => [document.documentElement, document.querySelector('[data-testid=stMain]')]"
        ".map(e => [e.scrollWidth, e.clientWidth])"
    )
    for content, frame in widths:
        assert content <= frame, f"the page is {content} pixels wide in a frame of {frame}"


def test_enter_takes_the_first_result_however_fast_one_types(visit):
    page = visit("/Predict")
    _search(page).click()
    page.keyboard.type("428.0")
    page.keyboard.press("Enter")  # before any result can have come
    chips = page.locator(CHIPS)
    expect(chips).to_have_count(1, timeout=PATIENCE)
    expect(chips.first).to_contain_text("428.0 Congestive heart failure, unspecified")
    settle(page)
    expect(_search(page)).to_be_focused()
    expect(_search(page)).to_have_value("")

    page.keyboard.type("heart fail", delay=20)
    expect(page.locator(RESULTS)).to_have_count(10)
    settle(page)
    first = page.locator(RESULTS).first.inner_text().split()[0]
    page.keyboard.press("Enter")
    expect(chips).to_have_count(2)
    expect(chips.nth(1)).to_contain_text(first)
    settle(page)

    page.keyboard.type("E11", delay=20)
    expect(page.locator(RESULTS).first).to_contain_text("E11")
    settle(page)
    page.keyboard.press("ArrowDown")
    expect(page.locator(RESULTS).first).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator(RESULTS).last).to_be_focused()
    page.keyboard.press("Escape")
    expect(_search(page)).to_be_focused()
    expect(chips).to_have_count(2)


def test_results_are_announced_and_marked(visit):
    page = visit("/Predict")
    _search(page).click()
    page.keyboard.type("heart fail", delay=20)
    expect(page.get_by_role("status").filter(has_text="first 10 results")).to_be_visible()
    marked = page.locator(RESULTS).first.locator("strong").all_inner_texts()
    assert [text.lower() for text in marked] == ["heart", "fail"]


def test_a_history_goes_out_and_comes_in_again(visit, tmp_path):
    page = visit("/Predict")
    typed = Patient((Visit(("428.0", "foo")), Visit(("I10",))), "F", 72, "mine")
    path = tmp_path / "mine.json"
    path.write_text(history_json(typed), encoding="utf-8")
    page.get_by_role("tab", name="Open or save").click()
    page.locator("[data-testid=stFileUploaderDropzoneInput]").set_input_files(path)
    expect(page.locator(CHIPS)).to_have_count(3, timeout=PATIENCE)
    settle(page)
    with page.expect_download() as saved:
        page.get_by_role("button", name="JSON", exact=True).click()
    assert patient_from_json(json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))) == typed


def test_a_visit_is_dated_by_keyboard_and_goes_to_its_place(visit):
    page = visit("/Predict?demo=demo-heart-failure")
    titles = page.locator('[class*="st-key-visit_"] strong').all_inner_texts()
    page.get_by_role("button", name="Date and moving codes (visit 2)").click()
    settle(page)
    expect(page.locator('[class*="st-key-panel_of_visit"]')).to_be_visible()
    page.get_by_role("button", name="Move later (visit 2)").click()
    settle(page)
    page.get_by_role("button", name="Undo").click()
    settle(page)
    page.get_by_role("button", name="Redo").click()
    settle(page)
    assert len(page.locator('[class*="st-key-visit_"] strong').all_inner_texts()) == len(titles)


def test_the_new_pages_fit_a_phone_in_the_dark(visit):
    page = visit("/Cohort", PHONE, "dark")
    page.get_by_role("button", name="Use the invented sample cohort").click()
    settle(page)
    page.get_by_role("button", name=re.compile(r"^.*Score \d+ patients")).click()
    expect(page.locator(".stPlotlyChart").nth(2)).to_be_visible(timeout=PATIENCE)
    settle(page)
    _no_sideways_scroll(page)
    page = visit("/Model_Card", PHONE, "dark")
    expect(page.locator(".stPlotlyChart").first).to_be_visible(timeout=PATIENCE)
    _no_sideways_scroll(page)

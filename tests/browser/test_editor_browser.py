"""The editor by keyboard and with files, in headless Chromium."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect

from mera_core.export.tables import history_json
from mera_core.history.records import Patient, Visit, patient_from_json
from tests.browser.app_server import downloaded, send_file, settle

CHIPS = '[class*="st-key-chip_"] button:visible'
RESULTS = '[class*="st-key-found_"] button:visible'


def _search(page: Page):
    return page.get_by_role("searchbox", name="Find a diagnosis by code or words")


def test_enter_takes_the_first_result_however_fast_one_types(visit):
    page = visit("/Predict")
    _search(page).click()
    page.keyboard.type("428.0")
    page.keyboard.press("Enter")  # before any result can have come
    chips = page.locator(CHIPS)
    expect(chips).to_have_count(1)
    expect(chips.first).to_contain_text("428.0 Congestive heart failure, unspecified")
    settle(page)
    expect(_search(page)).to_be_focused()
    expect(_search(page)).to_have_value("")

    page.keyboard.type("heart fail", delay=20)
    expect(page.locator(RESULTS)).to_have_count(10)
    expect(page.get_by_role("status").filter(has_text="first 10 results")).to_be_visible()
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


def test_a_history_goes_out_and_comes_in_again(visit, tmp_path):
    page = visit("/Predict")
    typed = Patient((Visit(("428.0", "foo")), Visit(("I10",))), "F", 72, "mine")
    path = tmp_path / "mine.json"
    path.write_text(history_json(typed), encoding="utf-8")
    page.get_by_role("tab", name="Open or save").click()
    send_file(page, path)
    expect(page.locator(CHIPS)).to_have_count(3)
    settle(page)
    assert patient_from_json(json.loads(downloaded(page, "JSON", exact=True))) == typed

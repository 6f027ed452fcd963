"""Drives the app in a real headless Chromium as a new user would. Fails, with a sentence, where there is no browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from mera_core.audit.file import from_sqlite
from tests.browser.app_server import DESKTOP, PATIENCE, PHONE, settle


def _rows(page: Page) -> list[str]:
    return page.locator(".mera-list tbody tr:not(.cut) td.code").all_inner_texts()


def _map(page: Page) -> None:
    expect(page.locator(".stPlotlyChart .treemaplayer .slice").first).to_be_visible(timeout=PATIENCE)


def _no_sideways_scroll(page: Page) -> None:
    widths = page.evaluate(
        "() => [document.documentElement, document.querySelector('[data-testid=stMain]')]"
        ".map(e => [e.scrollWidth, e.clientWidth])"
    )
    for content, frame in widths:
        assert content <= frame, f"the page is {content} pixels wide in a frame of {frame}"


def test_a_demo_patient_gives_a_ranking_and_charts(visit):
    page = visit("/")
    page.get_by_role("link", name="Heart failure after a heart attack").click()
    expect(page.locator(".mera-list")).to_be_visible(timeout=PATIENCE)
    settle(page)
    _map(page)
    assert page.url.endswith("/Predict?demo=demo-heart-failure")
    assert len(_rows(page)) >= 10
    cut = int(re.search(r"(\d+) predicted", page.locator(".mera-list tr.cut").inner_text())[1])
    assert page.locator(".mera-list tr.above").count() == cut
    expect(page.get_by_role("heading", name=re.compile(rf"^Next visit: {cut} codes? predicted"))).to_be_visible()

    page.get_by_text("Show codes below the cut").click()
    expect(page.locator(".mera-list tbody tr:not(.cut)")).to_have_count(cut)
    assert page.locator(".mera-list tr.cut").count() == 1


def test_choosing_another_demo_patient_changes_ranking_and_address(visit):
    page = visit("/Predict")
    expect(page.get_by_text("No diagnoses yet.")).to_be_visible()
    box = page.get_by_role("combobox", name=re.compile("Demo patient"))
    box.click()
    page.get_by_role("option", name="COPD with repeated exacerbations").click()
    expect(page.locator(".mera-list")).to_be_visible(timeout=PATIENCE)
    settle(page)
    first = _rows(page)
    assert page.url.endswith("?demo=demo-copd")
    box.click()
    page.get_by_role("option", name="Alcoholic cirrhosis decompensating").click()
    page.wait_for_url("**/Predict?demo=demo-cirrhosis")
    settle(page)
    assert _rows(page) != first


def test_recall_shows_the_model_beside_the_book(visit):
    page = visit("/Recall")
    page.get_by_role("button", name="428.0").click()
    expect(page.locator(".mera-answer").nth(1)).to_contain_text("Congestive heart failure, unspecified")
    verdict = page.locator("[data-testid=stAlert]").inner_text()
    assert ("Right" in verdict) != ("Wrong" in verdict)
    expect(page.locator("[data-testid=stTable]").first.locator("tbody tr")).to_have_count(5)
    expect(page.locator("[data-testid=stTable]").nth(1)).to_contain_text("Circulatory")


def test_the_quiz_is_played_by_mouse(visit):
    page = visit("/Recall")
    page.get_by_role("radio", name="Quiz").click()
    page.get_by_role("button", name="Start the quiz").click()
    expect(page.get_by_text("Question 1 of 10")).to_be_visible(timeout=PATIENCE)
    settle(page)
    page.locator("[data-testid=stRadio] label").nth(2).click()
    settle(page)
    page.get_by_role("button", name="Answer").click()
    expect(page.get_by_text("The model's memory:")).to_be_visible()
    settle(page)
    page.get_by_role("button", name="Next code").click()
    expect(page.get_by_text("Question 2 of 10")).to_be_visible()
    settle(page)


def test_a_tile_of_the_map_opens_and_the_bar_above_leads_back(visit):
    page = visit("/Predict?demo=demo-heart-failure")
    tiles = page.locator(".stPlotlyChart .treemaplayer .slice")
    expect(tiles.first).to_be_visible(timeout=PATIENCE)
    page.wait_for_timeout(1500)
    whole = tiles.count()
    circulatory = tiles.filter(has_text="Circulatory").first
    circulatory.scroll_into_view_if_needed()
    box = circulatory.bounding_box()
    page.mouse.click(box["x"] + 40, box["y"] + 8)
    page.wait_for_timeout(1500)
    assert tiles.count() < whole
    assert page.locator(".stPlotlyChart .pathbar").count() > 0


def test_a_group_of_the_tree_is_judged_and_saved(visit):
    page = visit("/Audit")
    page.get_by_role("textbox", name="Your name or initials").fill("ann")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Which code does not belong to the others?")).to_be_visible()
    settle(page)
    page.locator("[data-testid=stRadio] label").nth(1).click()
    settle(page)
    page.get_by_role("button", name="Show what the tree says").click()
    expect(page.get_by_text("Does the tree group what belongs together here?")).to_be_visible()
    settle(page)
    page.get_by_role("button", name="Disagree").click()
    expect(page.get_by_text("1 of 30 groups of this level judged")).to_be_visible()
    settle(page)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save my 1 verdict").click()
    assert saved.value.suggested_filename == "mera-hierarchy-audit.sqlite"
    (kept,) = from_sqlite(Path(saved.value.path()).read_bytes(), "saved")
    assert (kept.reader, kept.verdict) == ("ann", "disagree")


@pytest.mark.parametrize(("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_pages_fit_the_screen_in_either_theme(visit, viewport, scheme):
    for path in ("/", "/Predict?demo=demo-heart-kidney-icd10", "/Recall", "/Compare?demo=demo-copd", "/Audit"):
        page = visit(path, viewport, scheme)
        if "Predict" in path:
            _map(page)
            for panel in ("Why", "What if", "Download"):
                page.get_by_role("radio", name=panel).click()
                settle(page)
                _no_sideways_scroll(page)
        _no_sideways_scroll(page)
        lightness = page.evaluate(
            "() => { const c = getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
            ".match(/[0-9.]+/g).map(Number); return (c[0] + c[1] + c[2]) / 765; }"
        )
        assert (lightness > 0.5) == (scheme == "light")

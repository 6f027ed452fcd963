"""A new user's way through the app in a real headless Chromium: type, pick, paste, ask, change, export, compare."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Page, expect

from tests.browser.app_server import downloaded, go_to, settle

CHIPS = '[class*="st-key-chip_"] button:visible'


def _rows(page: Page) -> list[str]:
    return page.locator(".mera-list tbody tr:not(.cut) td.code").all_inner_texts()


def test_a_new_user_from_the_first_letters_to_the_second_page(visit):
    page = visit("/Predict")
    expect(page.get_by_text("No diagnoses yet.")).to_be_visible()

    # types "heart fail" and picks a code with the keyboard
    search = page.get_by_role("searchbox", name="Find a diagnosis by code or words")
    search.click()
    page.keyboard.type("heart fail", delay=30)
    options = page.locator('[class*="st-key-found_"] button:visible')
    expect(options.first).to_be_visible()
    settle(page)
    assert all("heart fail" in text.lower() for text in options.all_inner_texts()[:3])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.evaluate("() => document.activeElement.innerText")
    assert second.strip() == options.nth(1).inner_text().strip()
    page.keyboard.press("Enter")
    chips = page.locator(CHIPS)
    expect(chips).to_have_count(1)
    picked = chips.first.inner_text().split()[0]
    assert second.startswith(picked)
    expect(page.locator(".mera-list")).to_be_visible()
    settle(page)
    first_ranking = _rows(page)

    # adds a second visit by pasting a list, and sees what could not be read
    page.get_by_role("combobox", name=re.compile("Add codes to")).click()
    page.get_by_role("option", name="A new visit").click()
    settle(page)
    page.get_by_role("tab", name="Paste a list").click()
    page.get_by_role("textbox", name=re.compile("Codes separated by")).fill("250.00; 585.9 | I10, foo")
    page.get_by_role("button", name="Add the list").click()
    expect(page.get_by_text("Not read, and kept as typed: foo")).to_be_visible()
    settle(page)
    expect(chips).to_have_count(5)
    expect(page.locator('[class*="st-key-chip_unread"]').first).to_contain_text("foo")
    expect(page.get_by_text("Visit 2: 'foo' is not a code of ICD-9-CM or ICD-10-CM.").first).to_be_visible()
    assert _rows(page) != first_ranking

    # gets a ranking and asks why for its third line
    third = _rows(page)[2]
    page.get_by_role("button", name=f"Why is {third} on the list?").click()
    settle(page)
    expect(page.get_by_role("heading", name="Why is it on the list?")).to_be_in_viewport()
    expect(page.get_by_role("combobox", name=re.compile("Diagnosis"))).to_have_value(
        re.compile(rf"^3 · {re.escape(third)} ")
    )
    expect(page.get_by_text(f"Points of score that each entry adds to {third}")).to_be_visible()
    expect(page.locator(".stPlotlyChart .barlayer .point").first).to_be_visible()
    assert page.locator(".stPlotlyChart .barlayer .point").count() == 7  # 2 visits, 5 entries

    # removes a code and sees that ranks and scores change
    page.locator(CHIPS, has_text="585.9").click()
    expect(chips).to_have_count(4)
    settle(page)
    assert page.locator(".mera-list .mera-change").count() == len(_rows(page))

    # exports FHIR
    page.get_by_role("radio", name="Download").click()
    settle(page)
    bundle = json.loads(downloaded(page, "FHIR"))
    assert bundle["resourceType"] == "Bundle"
    assert any(entry["resource"]["resourceType"] == "RiskAssessment" for entry in bundle["entry"])

    # finds the same history on page Compare
    go_to(page, "Compare")
    main = page.locator("[data-testid=stMain]")
    expect(main).to_contain_text(f"Visit 1: {picked}")
    expect(main).to_contain_text("Visit 2: 250.00, I10, foo")
    page.get_by_role("button", name="Take a demo patient").click()
    expect(page.locator(".mera-pairs")).to_be_visible()
    settle(page)

    # and back: nothing typed is lost, nothing of it stood in an address
    go_to(page, "Predict")
    expect(chips).to_have_count(4)
    settle(page)
    (watch,) = visit.watches()
    assert any(address.endswith("/Compare") for address in watch.addresses)
    assert not re.search(r"foo|250\.00|585\.9|heart.?fail|428", " ".join(watch.addresses))


def test_why_is_asked_with_the_keyboard_alone(visit):
    page = visit("/Predict?demo=demo-copd")
    fifth = page.locator(".mera-list button.mera-why").nth(4)
    code = _rows(page)[4]
    fifth.focus()
    page.keyboard.press("Enter")
    settle(page)
    expect(page.get_by_text(f"Points of score that each entry adds to {code}")).to_be_visible()


def test_a_reload_asks_before_an_edited_history_is_lost(visit):
    page = visit("/Predict?demo=demo-copd")
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.get_by_role("heading", name="History").click()  # a browser asks only those who have touched the page
    page.reload()
    settle(page)
    assert asked == []  # a demo patient is there again
    page.locator(CHIPS).last.click()
    settle(page)
    go_to(page, "Recall")
    assert asked == []
    page.reload()
    settle(page)
    assert asked == ["beforeunload"]


def test_a_demo_patient_of_the_home_page_is_ranked_and_a_tile_of_its_map_opens(visit):
    page = visit("/")
    page.get_by_role("link", name="Heart failure after a heart attack").click()
    tiles = page.locator(".stPlotlyChart .treemaplayer .slice")
    expect(tiles.first).to_be_visible()
    settle(page)
    assert page.url.endswith("/Predict?demo=demo-heart-failure")
    assert len(_rows(page)) >= 10
    whole = tiles.count()
    circulatory = tiles.filter(has_text="Circulatory").first
    circulatory.scroll_into_view_if_needed()
    box = circulatory.bounding_box()
    page.mouse.click(box["x"] + 40, box["y"] + 8)
    expect(page.locator(".stPlotlyChart .pathbar")).not_to_have_count(0)
    expect(tiles).not_to_have_count(whole)
    assert tiles.count() < whole

"""axe-core in a real headless Chromium on every page, light and dark: no WCAG 2.2 A or AA violation that is ours.

Violations of Streamlit's own widgets are listed in STREAMLITS_OWN, each with the element it is about; a new one fails
the test until someone has looked whose it is.
"""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.app_server import DESKTOP, PHONE, settle
from tests.browser.pages_to_show import PAGES, choose, prepare

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# (rule of axe-core, what its HTML matches): elements that Streamlit 1.67 or Plotly draws and no setting of ours reaches.
# docs/accessibility.md says what each means for a reader.
STREAMLITS_OWN: tuple[tuple[str, str], ...] = (
    # the frame that st.table scrolls sideways in, where it is narrow
    ("scrollable-region-focusable", r'^<div class="st-emotion-cache-\w+ \w+">$'),
)
SCHEMES = ("light", "dark")


def violations(page: Page) -> list[str]:
    """'rule: HTML of the element' for every violation that is not known to be Streamlit's."""
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": WCAG}}).response
    return [
        f"{rule['id']}: {node['html'][:300]} | {node.get('failureSummary', '')[:200]}"
        for rule in found["violations"]
        for node in rule["nodes"]
        if not any(rule["id"] == known and re.search(shape, node["html"]) for known, shape in STREAMLITS_OWN)
    ]


def _assert_none(found: list[str]) -> None:
    assert not found, "\n".join(found)


def _in_both_schemes(page: Page, label: str) -> list[str]:
    """Violations in light and dark colours; the page follows the system's choice while it is open."""
    found = []
    page.add_style_tag(content="* { transition: none !important; }")  # colours that fade
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            "light => { const c = getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
            ".match(/[0-9.]+/g).map(Number); return (c[0] + c[1] + c[2] > 380) === light; }",
            arg=scheme == "light",
        )
        found += [f"{label}, {scheme}: {each}" for each in violations(page)]
    return found


def _on_a_phone(page: Page, label: str) -> list[str]:
    """Violations at phone width, where nothing but a wide table scrolls sideways."""
    page.set_viewport_size(PHONE)
    settle(page)
    widths = page.evaluate(
        "() => [document.documentElement, document.querySelector('[data-testid=stMain]')]"
        ".map(e => [e.scrollWidth, e.clientWidth])"
    )
    too_wide = [f"{label}, phone: {content} pixels wide in {frame}" for content, frame in widths if content > frame]
    return too_wide + [f"{label}, phone: {each}" for each in violations(page)]


@pytest.mark.parametrize("name", PAGES)
def test_no_violation_of_ours(visit, name):
    page = visit(PAGES[name], DESKTOP)
    prepare(page, name)
    _assert_none(_in_both_schemes(page, name) + _on_a_phone(page, name))


def test_every_panel_of_predict(visit):
    page = visit(PAGES["predict"], DESKTOP)
    found = []
    for panel in ("Why", "What if", "Download"):
        choose(page, panel)
        found += _in_both_schemes(page, panel) + _on_a_phone(page, panel)
        page.set_viewport_size(DESKTOP)
    page.locator('[class*="st-key-chip_"] button:visible').last.click()
    settle(page)
    choose(page, "What if")
    _assert_none(found + _in_both_schemes(page, "changed"))


def test_the_editor_at_work(visit):
    page = visit("/Predict", DESKTOP)
    page.get_by_role("searchbox", name="Find a diagnosis by code or words").click()
    page.keyboard.type("heart fail", delay=20)
    expect(page.locator('[class*="st-key-found_"] button').first).to_be_visible()
    settle(page)
    found = _in_both_schemes(page, "results")
    page.get_by_role("tab", name="Paste a list").click()
    page.get_by_role("textbox", name="Codes separated by").fill("428.0, E8021; foo")
    page.get_by_role("button", name="Add the list").click()
    expect(page.get_by_text("Not read, and kept as typed")).to_be_visible()
    settle(page)
    page.get_by_role("button", name="Date and moving codes (visit 1)").click()
    settle(page)
    found += _in_both_schemes(page, "pasted")
    page.get_by_role("tab", name="Open or save").click()
    settle(page)
    _assert_none(found + _in_both_schemes(page, "files"))


def test_every_view_of_recall(visit):
    page = visit(PAGES["recall"], DESKTOP)
    found = []
    choose(page, "Definition →")
    page.get_by_role("textbox", name="Definition").fill("Congestive heart failure, unspecified")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Which code is that?")).to_be_visible()
    settle(page)
    found += _in_both_schemes(page, "definition")
    choose(page, "Recall by chapter")
    found += _in_both_schemes(page, "chapters")
    _assert_none(found)


def test_a_quiz_from_its_start_to_an_answer(visit):
    page = visit(PAGES["recall"], DESKTOP)
    choose(page, "Quiz")
    found = _in_both_schemes(page, "start")
    page.get_by_role("button", name="Start the quiz").click()
    expect(page.get_by_text("Question 1 of")).to_be_visible()
    settle(page)
    found += _in_both_schemes(page, "question")
    page.locator("[data-testid=stRadio] label").nth(2).click()
    settle(page)
    page.get_by_role("button", name="Answer").click()
    expect(page.get_by_role("button", name="Next code")).to_be_visible()
    settle(page)
    _assert_none(found + _in_both_schemes(page, "answer"))


def test_one_history_under_two_models(visit):
    page = visit(PAGES["compare"], DESKTOP)
    choose(page, "One history, two models")
    expect(page.locator(".mera-pairs")).to_be_visible()
    settle(page)
    _assert_none(_in_both_schemes(page, "two models"))


def test_a_group_of_the_audit_before_and_after_its_verdict(visit):
    page = visit(PAGES["audit"], DESKTOP)
    found = _in_both_schemes(page, "no name")
    page.get_by_role("textbox", name="Your name or initials").fill("A reader")
    page.keyboard.press("Enter")
    settle(page)
    found += _in_both_schemes(page, "a group")
    page.locator("[data-testid=stRadio] label").nth(1).click()
    settle(page)
    page.get_by_role("button", name="Show what the tree says").click()
    settle(page)
    page.get_by_role("button", name="Disagree").click()
    expect(page.locator(".stPlotlyChart .main-svg").first).to_be_visible()
    settle(page)
    _assert_none(found + _in_both_schemes(page, "a verdict"))


def test_a_cohort_with_its_last_visits_held_out(visit):
    page = visit(PAGES["cohort"], DESKTOP)
    page.get_by_role("button", name="Use the invented sample cohort").click()
    settle(page)
    choose(page, "Hold out the last visit")
    page.get_by_role("button", name=re.compile(r"^Score [\d,]+ patients")).click()
    expect(page.get_by_role("cell", name=re.compile("^Recall at 20"))).to_be_visible()
    settle(page)
    _assert_none(_in_both_schemes(page, "held out"))


def test_the_check_finds_what_is_wrong(visit):
    page = visit("/")
    page.evaluate("() => document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\"><button></button>')")
    assert {each.split(":")[0] for each in violations(page)} >= {"image-alt", "button-name"}

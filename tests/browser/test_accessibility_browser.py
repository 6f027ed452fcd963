"""axe-core in a real headless Chromium on every page, light and dark: no WCAG 2.2 A or AA violation that is ours.

Violations of Streamlit's own widgets are listed in STREAMLITS_OWN, each with the element it is about; a new one fails
the test until someone has looked whose it is.
"""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.app_server import DESKTOP, PHONE, settle
from tests.browser.pages_to_show import PAGES, choose, prepare

pytestmark = pytest.mark.slow  # two minutes, and not yet free of violations in dark colours: run on demand

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# (rule of axe-core, what its HTML matches): elements that Streamlit 1.67 or Plotly draws and no setting of ours reaches.
STREAMLITS_OWN: tuple[tuple[str, str], ...] = ()


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_no_violation_of_ours(visit, name, scheme):
    page = visit(PAGES[name], DESKTOP, scheme)
    prepare(page, name)
    _assert_none(violations(page))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_panel_and_view(visit, scheme):
    page = visit(PAGES["predict"], DESKTOP, scheme)
    found = []
    for panel in ("Why", "What if", "Download"):
        choose(page, panel)
        page.wait_for_timeout(1000)
        found += [f"{panel}: {each}" for each in violations(page)]
    page.locator('[class*="st-key-chip_"] button:visible').last.click()
    settle(page)
    choose(page, "What if")
    found += [f"changed: {each}" for each in violations(page)]
    page = visit(PAGES["recall"], DESKTOP, scheme)
    for view in ("Definition", "How well", "Quiz"):
        choose(page, view)
        page.wait_for_timeout(1000)
        found += [f"{view}: {each}" for each in violations(page)]
    _assert_none(found)


def test_on_a_phone(visit):
    found = []
    for name, path in PAGES.items():
        page = visit(path, PHONE)
        prepare(page, name)
        found += [f"{name}: {each}" for each in violations(page)]
    _assert_none(found)


def test_the_check_finds_what_is_wrong(visit):
    page = visit("/")
    page.evaluate("() => document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\"><button></button>')")
    assert {each.split(":")[0] for each in violations(page)} >= {"image-alt", "button-name"}

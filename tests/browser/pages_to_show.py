"""Every page with something on it: where it is, and what a reader would do first there."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.app_server import settle

PAGES = {
    "home": "/",
    "predict": "/Predict?demo=demo-heart-failure",
    "compare": "/Compare?demo=demo-heart-failure",
    "recall": "/Recall",
    "cohort": "/Cohort",
    "model-card": "/Model_Card",
    "audit": "/Audit",
}


def prepare(page: Page, name: str) -> None:
    """Do what a reader would do first on a page, and wait until it is done."""
    _FIRST.get(name, lambda page: None)(page)
    settle(page)


def choose(page: Page, option: str) -> None:
    """Press one of a row of choices. option: a part of its name that no other choice on the page has."""
    page.get_by_role("radio", name=option).click()
    settle(page)


def _compare(page: Page) -> None:
    page.get_by_role("button", name="Take a demo patient").click()
    expect(page.locator(".mera-pairs")).to_be_visible()
    settle(page)
    for switch in page.get_by_text("Look at it and edit it").all():
        box = switch.locator("xpath=ancestor::label").locator("input")
        if box.is_checked():
            switch.click()
            settle(page)


def _recall(page: Page) -> None:
    page.get_by_role("button", name="428.0").click()


def _audit(page: Page) -> None:
    page.get_by_role("textbox", name="Your name or initials").fill("A reader")
    page.keyboard.press("Enter")
    settle(page)
    page.locator("[data-testid=stRadio] label").nth(1).click()
    settle(page)
    page.get_by_role("button", name="Show what the tree says").click()


def _cohort(page: Page) -> None:
    page.get_by_role("button", name="Use the invented sample cohort").click()
    settle(page)
    page.get_by_role("button", name=re.compile(r"^Score [\d,]+ patients")).click()
    expect(page.locator(".stPlotlyChart .main-svg").first).to_be_visible()


_FIRST: dict[str, Callable[[Page], None]] = {
    "compare": _compare,
    "recall": _recall,
    "cohort": _cohort,
    "audit": _audit,
}

"""The audit in headless Chromium: verdicts are asked about until they are saved, and the file is one that goes on."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from mera_core.audit.file import from_json
from tests.browser.app_server import downloaded, settle
from tests.browser.pages_to_show import PAGES, prepare


def _asks(page: Page) -> bool:
    """Whether the browser would ask before the tab is closed."""
    return page.evaluate(
        "() => { const leaving = new Event('beforeunload', { cancelable: true });"
        " window.dispatchEvent(leaving); return leaving.defaultPrevented; }"
    )


def test_a_verdict_is_asked_about_until_it_is_saved(visit):
    page = visit(PAGES["audit"])
    prepare(page, "audit")
    assert not _asks(page)
    page.get_by_role("button", name="Unsure").click()
    expect(page.get_by_text("1 of ")).to_be_visible()
    settle(page)
    assert _asks(page)
    (kept,) = from_json(downloaded(page, "Save my 1 verdict"), "saved")
    settle(page)
    assert not _asks(page)
    assert (kept.reader, kept.verdict) == ("A reader", "unsure")
    page.get_by_role("button", name="Take back the last verdict").click()
    expect(page.get_by_text("0 of ")).to_be_visible()

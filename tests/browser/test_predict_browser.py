"""Drives the app in a real headless Chromium as a new user would. Fails, with a sentence, where there is no browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.app_server import DESKTOP, PATIENCE, PHONE, open_browser, running_app, settle

# On a deep link such as /Predict, Streamlit's own client first asks /Predict for the server's health and settings,
# is told 404, and asks again at the root. Chromium logs that as two errors; they are not the app's.
_STREAMLIT_PROBE = re.compile(r"/[A-Z]\w*/_stcore/(health|host-config)$")


class Watch:
    """What a page complained of and what it asked for."""

    def __init__(self, context: BrowserContext, app: str):
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.requests: list[str] = []
        self._own = (app + "/", app.replace("http", "ws") + "/", "data:", f"blob:{app}/")
        context.on("request", lambda request: self._asked(request.url))
        context.on("console", self._logged)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("page", lambda page: page.on("websocket", lambda socket: self._asked(socket.url)))

    def _asked(self, url: str) -> None:
        self.requests.append(url)
        if not url.startswith(self._own):
            self.foreign.append(url)

    def _logged(self, message) -> None:
        if message.type == "error" and not _STREAMLIT_PROBE.search(message.location.get("url", "")):
            self.errors.append(f"{message.text} ({message.location.get('url')})")

    def check(self) -> None:
        assert self.errors == []
        assert self.foreign == []
        assert any("_stcore/stream" in url for url in self.requests), "the watch saw no traffic at all"


@pytest.fixture(scope="module")
def app() -> Iterator[str]:
    with running_app() as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = open_browser(playwright)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(app: str, browser: Browser):
    """Opens a path of the app in a fresh session: (path, viewport, scheme) -> page. Checks the watch at the end."""
    opened: list[tuple[BrowserContext, Watch]] = []

    def go(path: str = "/", viewport: dict = DESKTOP, scheme: str = "light") -> Page:
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        context.set_default_timeout(PATIENCE)
        opened.append((context, Watch(context, app)))
        page = context.new_page()
        page.goto(app + path)
        page.wait_for_selector("[data-testid=stApp]")
        settle(page)
        return page

    yield go
    for context, watch in opened:
        context.close()
        watch.check()


def _rows(page: Page) -> list[str]:
    return page.locator(".mera-list tbody tr:not(.cut) td.code").all_inner_texts()


def _charts(page: Page) -> None:
    expect(page.locator(".stPlotlyChart .treemaplayer .slice").first).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".stPlotlyChart .barlayer .point").first).to_be_visible(timeout=PATIENCE)


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
    _charts(page)
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


def test_search_paste_undo_and_page_change(visit):
    page = visit("/Predict")
    search = page.get_by_role("searchbox", name="Find a diagnosis by code or words")
    search.press_sequentially("heart fail", delay=30)
    options = page.locator('[class*="st-key-found_"] button:visible')
    expect(options.first).to_be_visible()
    settle(page)
    assert all("heart fail" in text.lower() for text in options.all_inner_texts()[:3])
    options.filter(has_text="428.9").click()
    chips = page.locator('[class*="st-key-chip_"] button:visible')
    expect(chips).to_have_count(1)
    expect(chips.first).to_contain_text("428.9 Heart failure, unspecified")
    expect(page.locator(".mera-list")).to_be_visible(timeout=PATIENCE)
    settle(page)
    assert search.input_value() == ""
    before = _rows(page)

    page.get_by_role("combobox", name=re.compile("Add codes to")).click()
    page.get_by_role("option", name="A new visit").click()
    settle(page)
    page.get_by_role("tab", name="Paste a list").click()
    field = page.get_by_role("textbox", name=re.compile("Codes parted by"))
    field.fill("250.00; 585.9 | I10, foo")
    page.get_by_role("button", name="Add the list").click()
    expect(page.get_by_text("Not read, and kept as typed: foo")).to_be_visible()
    settle(page)
    expect(chips).to_have_count(5)
    expect(page.locator('[class*="st-key-chip_unread"]')).to_contain_text("foo")
    expect(page.get_by_text("Visit 2: 'foo' is not a code of ICD-9-CM or ICD-10-CM.").first).to_be_visible()
    pieces = page.locator(".mera-pieces tr").all_inner_texts()
    assert [text.split()[0] for text in pieces] == ["250.00", "585.9", "I10", "foo"]
    assert "ICD-10-CM I10" in pieces[2]
    assert "not read" in pieces[3]
    assert _rows(page) != before
    assert "?" not in page.url

    page.get_by_role("link", name="Recall").first.click()
    page.wait_for_url("**/Recall")
    settle(page)
    page.get_by_role("link", name="Predict").first.click()
    page.wait_for_url("**/Predict")
    expect(chips).to_have_count(5)
    settle(page)

    page.locator('[class*="st-key-chip_unread"] button:visible').click()
    expect(chips).to_have_count(4)
    settle(page)
    page.get_by_role("button", name="Undo").click()
    expect(chips).to_have_count(5)
    settle(page)


def test_recall_shows_the_model_beside_the_book(visit):
    page = visit("/Recall")
    page.get_by_role("button", name="428.0").click()
    expect(page.locator(".mera-answer").nth(1)).to_contain_text("Congestive heart failure, unspecified")
    verdict = page.locator("[data-testid=stAlert]").inner_text()
    assert ("Right" in verdict) != ("Wrong" in verdict)
    expect(page.locator("[data-testid=stTable] tbody tr")).to_have_count(5)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_fit_the_screen_in_either_theme(visit, viewport, scheme):
    for path in ("/", "/Predict?demo=demo-heart-kidney-icd10", "/Recall"):
        page = visit(path, viewport, scheme)
        if "Predict" in path:
            _charts(page)
        _no_sideways_scroll(page)
        lightness = page.evaluate(
            "() => { const c = getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
            ".match(/[0-9.]+/g).map(Number); return (c[0] + c[1] + c[2]) / 765; }"
        )
        assert (lightness > 0.5) == (scheme == "light")

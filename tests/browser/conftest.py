"""What the browser tests share: the running app, Chromium, and a watch over all that a page asks for and complains of."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.app_server import DESKTOP, PATIENCE, open_browser, running_app, settle

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


@pytest.fixture(scope="session")
def app() -> Iterator[str]:
    with running_app() as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = open_browser(playwright)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(app: str, browser: Browser):
    """Opens a path of the app in a fresh session: (path, viewport, scheme) -> page. Checks the watch at the end.

    `visit.watches` has the watch of each page opened.
    """
    opened: list[tuple[BrowserContext, Watch]] = []

    def go(path: str = "/", viewport: dict = DESKTOP, scheme: str = "light") -> Page:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, accept_downloads=True)
        context.set_default_timeout(PATIENCE)
        opened.append((context, Watch(context, app)))
        page = context.new_page()
        page.goto(app + path)
        page.wait_for_selector("[data-testid=stApp]")
        settle(page)
        return page

    go.watches = lambda: [watch for _, watch in opened]
    yield go
    for context, watch in opened:
        context.close()
        watch.check()

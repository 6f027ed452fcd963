"""What the browser tests share: the running app, Chromium, and a watch over all that a page asks for and complains of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.app_server import DESKTOP, TIMEOUT, Running, open_browser, running_app, settle

# On a deep link such as /Predict, Streamlit's own client first asks /Predict for the server's health and settings,
# is told 404, and asks again at the root. Chromium logs that as two errors; they are not the app's.
_STREAMLIT_PROBE = re.compile(r"/[A-Z]\w*/_stcore/(health|host-config)$")
# Parts of an address that hold digits by chance: the port, identities of sessions and uploads, hashes of Streamlit's files.
_CHANCE = re.compile(
    r"//127\.0\.0\.1:\d+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,}|\.[\w-]{8}(?=\.(?:js|css|woff2)\b)"
)


class Watch:
    """What a page complained of and what it asked for. said: all that its console showed."""

    def __init__(self, context: BrowserContext, app: str):
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.requests: list[str] = []
        self.shown: list[str] = []
        self.said: list[str] = []
        self._own = (app + "/", app.replace("http", "ws") + "/", "data:", f"blob:{app}/")
        context.on("request", lambda request: self._asked(request.url))
        context.on("console", self._logged)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("page", self._opened)

    @property
    def addresses(self) -> list[str]:
        """Every address asked for or shown in the address bar, without the parts that hold digits by chance."""
        return [_CHANCE.sub("", unquote(url)) for url in (*self.requests, *self.shown)]

    def _opened(self, page: Page) -> None:
        page.on("websocket", lambda socket: self._asked(socket.url))
        page.on("framenavigated", lambda frame: self.shown.append(frame.url))

    def _asked(self, url: str) -> None:
        self.requests.append(url)
        if not url.startswith(self._own):
            self.foreign.append(url)

    def _logged(self, message) -> None:
        self.said.append(message.text)
        if message.type == "error" and not _STREAMLIT_PROBE.search(message.location.get("url", "")):
            self.errors.append(f"{message.text} ({message.location.get('url')})")

    def check(self) -> None:
        assert self.errors == []
        assert self.foreign == []
        assert any("_stcore/stream" in url for url in self.requests), "the watch saw no traffic at all"


@pytest.fixture(scope="session")
def served() -> Iterator[Running]:
    with running_app() as running:
        yield running


@pytest.fixture(scope="session")
def app(served: Running) -> str:
    return served.address


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
        context.set_default_timeout(TIMEOUT)
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

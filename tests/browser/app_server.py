"""Starts the app as its users do and opens it in headless Chromium. Shared by the browser tests and the screenshots."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright, expect

from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DEADLINE = 90  # seconds for the server to answer
TIMEOUT = 60_000  # milliseconds for something to appear: the first page loads the model
expect.set_options(timeout=TIMEOUT)


class NoBrowserError(RuntimeError):
    """No Chromium on this machine."""


@dataclass(frozen=True)
class Running:
    """A served app. address: of its home page. folder: its home and temporary folder, and `output`: all that it printed."""

    address: str
    folder: Path
    process: int = 0

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"


@contextmanager
def running_app() -> Iterator[Running]:
    """The app, served with the repository's own settings on a free port until the block ends.

    Its home and temporary folder are empty ones of its own: no user's settings are read, and what it writes is seen.
    """
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
    with tempfile.TemporaryDirectory(prefix="mera-app-", ignore_cleanup_errors=True) as folder:
        running = Running(f"http://127.0.0.1:{port}", Path(folder))
        places = {"HOME": running.folder / "home", "TMPDIR": running.folder / "tmp"}
        for place in places.values():
            place.mkdir()
        with running.output.open("w") as output:
            server = subprocess.Popen(
                [*command, "--server.port", str(port)],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    **{name: str(place) for name, place in places.items()},
                    "PYTHONUSERBASE": site.getuserbase(),  # packages installed for the user alone lie under the real home
                    "PYTHONUNBUFFERED": "1",
                    "OMP_NUM_THREADS": "1",
                },
            )
        try:
            await_answer(running.address, server)
            yield replace(running, process=server.pid)
        except BaseException:
            print(running.output.read_text(errors="replace")[-4000:], file=sys.stderr)
            raise
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def await_answer(address: str, server: subprocess.Popen) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"The app ended with status {server.returncode} before it answered.")
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"The app did not answer within {DEADLINE} seconds.")


def open_browser(playwright: Playwright) -> Browser:
    """Headless Chromium: the system's where there is one, else Playwright's own. Raises NoBrowserError."""
    installed = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        None,
    )
    own = Path(playwright.chromium.executable_path)
    if installed is None and not own.exists():
        raise NoBrowserError(
            "The browser tests need Chromium and found none: install the package chromium, or run "
            "`python -m playwright install chromium`."
        )
    # A profile of Chromium's own in a temporary folder, so that it never meets a user's browser.
    return playwright.chromium.launch(
        executable_path=installed, args=CHROMIUM_FLAGS, env={**os.environ, "HOME": tempfile.mkdtemp()}
    )


def settle(page: Page) -> None:
    """Wait until the app has stood idle for a moment: a click reaches the server a little after it was made."""
    page.evaluate("window.meraIdleSince = null")
    page.wait_for_function(
        "() => { const app = document.querySelector('[data-testid=stApp]');"
        " const idle = app && app.getAttribute('data-test-script-state') === 'notRunning'"
        " && !document.querySelector('[data-testid=stSkeleton]');"
        " window.meraIdleSince = idle ? window.meraIdleSince ?? performance.now() : null;"
        " return idle && performance.now() - window.meraIdleSince > 300; }",
        timeout=TIMEOUT,
    )


def go_to(page: Page, name: str) -> None:
    """Change to another page by its link in the sidebar."""
    page.get_by_role("link", name=name).first.click()
    page.wait_for_url(f"**/{name}*")
    settle(page)


def send_file(page: Page, path: Path) -> None:
    """Put a file into the page's field for files."""
    page.locator("[data-testid=stFileUploaderDropzoneInput]").set_input_files(path)


def downloaded(page: Page, name: str, exact: bool = False) -> bytes:
    """Click a download button and return the file's bytes."""
    with page.expect_download() as saved:
        page.get_by_role("button", name=name, exact=exact).click()
    return Path(saved.value.path()).read_bytes()

"""Takes the pictures of the documentation from the running app.

python -m tests.browser.screenshots                the picture of the README, docs/images/predict.png
python -m tests.browser.screenshots --all FOLDER   every page, at desk and on a phone, light and dark
"""

from __future__ import annotations

import argparse
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.app_server import DESKTOP, PATIENCE, PHONE, ROOT, open_browser, running_app, settle

FOLDER = ROOT / "docs" / "images"
PAGES = {"home": "/", "predict": "/Predict?demo=demo-heart-failure", "recall": "/Recall"}
SIZES = {"desktop": DESKTOP, "phone": PHONE}
README = {"width": 1280, "height": 1500}  # the list and the first chart
DRAWN = 1500  # milliseconds for Plotly's transitions and the fonts


def main() -> None:
    """Write the pictures asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="write a picture of every page to FOLDER")
    folder = parser.parse_args().all
    with running_app() as address, sync_playwright() as playwright:
        browser = open_browser(playwright)
        if folder is None:
            take(browser, address, "predict", README, "light", FOLDER / "predict.png")
        else:
            for name in PAGES:
                for size, viewport in SIZES.items():
                    for scheme in ("light", "dark"):
                        take(browser, address, name, viewport, scheme, folder / f"{name}-{size}-{scheme}.png")
        browser.close()


def take(browser: Browser, address: str, name: str, viewport: dict, scheme: str, target: Path) -> None:
    """Open a page, do what a reader would do first, and write what is seen then."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(address + PAGES[name])
    page.wait_for_selector("[data-testid=stApp]")
    settle(page)
    prepare(page, name)
    page.wait_for_timeout(DRAWN)
    target.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=target)
    context.close()
    print(f"{target} ({target.stat().st_size // 1000} kB)")


def prepare(page: Page, name: str) -> None:
    """What a reader would do first on that page."""
    if name == "recall":
        page.get_by_role("button", name="428.0").click()
        settle(page)


if __name__ == "__main__":
    main()

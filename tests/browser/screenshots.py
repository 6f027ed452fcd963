"""Takes the pictures of the documentation from the running app.

python -m tests.browser.screenshots                 every page, at desk and on a phone, light and dark, into docs/images,
                                                    and docs/screens.md, which shows them
python -m tests.browser.screenshots --only predict  the picture of the README, docs/images/predict.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.browser.app_server import DESKTOP, PHONE, ROOT, TIMEOUT, open_browser, running_app, settle
from tests.browser.pages_to_show import PAGES, prepare

FOLDER = ROOT / "docs" / "images"
SIZES = {
    "desktop": DESKTOP | {"height": 1300},
    "phone": PHONE | {"height": 1300},
}  # tall: what one sees after scrolling, too
SCHEMES = ("light", "dark")
README = {"width": 1280, "height": 1500}  # the list and the first chart
SHOWN = {
    "home": "Links to the pages, the loaded checkpoint, invented patients to start from.",
    "predict": "The history on the left; on the right the ranked diagnoses with the cut-off, and under them their chapters, "
    "why, what if and downloads.",
    "compare": "Two histories, or one history under two checkpoints: what differs stands first.",
    "recall": "What the model recalls of the ICD codes, beside the official definitions.",
    "cohort": "Many patients scored at once, with a summary of their likely next visits.",
    "model-card": "The checkpoint's data, limits, and figures with intervals.",
    "audit": "Does the tree group what a clinician would group? A group with an intruder, and the reader's verdict.",
}
DRAWN = 1500  # milliseconds for Plotly's transitions and the fonts
QUALITY = 78  # of the JPEGs: small, and text stays crisp


def main() -> None:
    """Write the pictures asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots")
    parser.add_argument("--only", choices=["predict"], help="the picture of the README alone")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write (docs/images)")
    given = parser.parse_args()
    with running_app() as running, sync_playwright() as playwright:
        browser = open_browser(playwright)
        take(browser, running.address, "predict", README, {"light": given.folder / "predict.png"})
        if given.only is None:
            for name in PAGES:
                for size, viewport in SIZES.items():
                    targets = {scheme: given.folder / picture(name, size, scheme) for scheme in SCHEMES}
                    take(browser, running.address, name, viewport, targets)
            (given.folder.parent / "screens.md").write_text(gallery(given.folder.name), encoding="utf-8")
        browser.close()


def picture(name: str, size: str, scheme: str) -> str:
    """The file name of a picture."""
    return f"{name}-{size}-{scheme}.jpg"


def gallery(folder: str) -> str:
    """Markdown that shows every picture."""
    parts = [
        "# Screens\n",
        "Every page with content, in light and dark colours, at desktop and phone width; written by `python -m "
        "tests.browser.screenshots`. The patients are invented. Research use, not for clinical decisions.\n",
    ]
    for name in PAGES:
        title = name.replace("-", " ").capitalize()
        parts += [f"## {title}\n", f"{SHOWN[name]}\n"]
        for size in SIZES:
            width = 420 if size == "desktop" else 200
            cells = [
                f'<img src="{folder}/{picture(name, size, scheme)}" width="{width}" alt="{title}, {size}, {scheme} theme">'
                for scheme in SCHEMES
            ]
            parts.append(" ".join(cells) + "\n")
    return "\n".join(parts)


def take(browser: Browser, address: str, name: str, viewport: dict, targets: dict[str, Path]) -> None:
    """Open a page, do what a reader would do first, and write what is seen then. targets: colour scheme -> file."""
    context = browser.new_context(viewport=viewport, color_scheme=next(iter(targets)))
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    page.goto(address + PAGES[name])
    page.wait_for_selector("[data-testid=stApp]")
    settle(page)
    prepare(page, name)
    page.mouse.move(0, 0)
    page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
    for scheme, target in targets.items():
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(DRAWN)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".png":
            page.screenshot(path=target)
        else:
            page.screenshot(path=target, type="jpeg", quality=QUALITY)
        print(f"{target} ({target.stat().st_size // 1000} kB)", flush=True)
    context.close()


if __name__ == "__main__":
    main()

"""Nothing of a patient leaves the session unasked: no address, log, storage of the browser or file holds what was typed.

The words and codes typed here stand nowhere else, so that any trace of them is a leak.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.app_server import ROOT, Running, go_to, send_file, settle

# a word to search for, pasted codes and an unread piece, a profile word, names and ids of files and their patients
SECRETS = (
    "kwashiorkor", "w56.22x", "w5622x", "zyqxophilia", "quorbish", "zorblax", "wibbleton", "v91.07x", "v9107x", "grumplethwaite",
)  # fmt: skip
HISTORY = {"id": "Wibbleton", "sex": "F", "age": 61, "visits": [{"codes": ["V91.07XD", "zyqxophilia-2"]}]}
BROKEN = "patient_id,visit,system,code\nWibbleton,first,ICD10,V91.07XD\n"
COHORT = "patient_id,visit,system,code\nGrumplethwaite,0,ICD10,V91.07XD\nGrumplethwaite,1,ICD9,428.0\nWibbleton,0,ICD9,401.9\n"
_STORED = """async () => JSON.stringify([
  {...localStorage}, {...sessionStorage}, document.cookie, document.title, window.name, history.state,
  window.indexedDB.databases ? await indexedDB.databases() : [], window.caches ? await caches.keys() : [],
])"""


def _leaks(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text.lower()]


def _type_a_history(page: Page) -> None:
    page.get_by_role("searchbox", name="Find a diagnosis by code or words").click()
    page.keyboard.type("kwashiorkor", delay=10)
    page.keyboard.press("Enter")
    chips = page.locator('[class*="st-key-chip_"] button:visible')
    expect(chips).to_have_count(1)
    settle(page)
    page.get_by_role("tab", name="Paste a list").click()
    page.get_by_role("textbox", name="Codes separated by").fill("W56.22XA; I10 | zyqxophilia")
    page.get_by_role("button", name="Add the list").click()
    expect(page.get_by_text("Not read, and kept as typed: zyqxophilia")).to_be_visible()
    settle(page)
    detail = page.get_by_role("textbox", name="Ethnicity")
    if detail.count():
        detail.fill("Quorbish")
        detail.press("Enter")
        settle(page)
    page.get_by_role("button", name="Why is").first.click()
    settle(page)
    page.get_by_role("radio", name="What if").click()
    page.get_by_role("button", name="Pin this history").click()
    settle(page)


def _open_files(page: Page, folder: Path) -> None:
    page.get_by_role("tab", name="Open or save").click()
    for name, content in (("zorblax-broken.csv", BROKEN), ("zorblax.json", json.dumps(HISTORY))):
        (folder / name).write_text(content, encoding="utf-8")
    send_file(page, folder / "zorblax-broken.csv")
    expect(page.get_by_role("alert").filter(has_text="orblax-broken")).to_be_visible()
    settle(page)
    send_file(page, folder / "zorblax.json")
    expect(page.locator('[class*="st-key-chip_"]').filter(has_text="V91.07XD")).to_be_visible()


def _score_a_cohort(page: Page, folder: Path) -> None:
    go_to(page, "Cohort")
    (folder / "zorblax-cohort.csv").write_text(COHORT, encoding="utf-8")
    send_file(page, folder / "zorblax-cohort.csv")
    score = page.get_by_role("button", name="Score 2 patients")
    expect(score).to_be_visible()
    settle(page)
    score.click()
    expect(page.get_by_role("cell", name="Grumplethwaite").first).to_be_visible()
    settle(page)


def test_what_is_typed_stays_in_the_session(visit, served: Running, tmp_path: Path):
    began = time.time()
    page = visit("/Predict")
    _type_a_history(page)
    _open_files(page, tmp_path)
    stored = page.evaluate(_STORED)
    _score_a_cohort(page, tmp_path)
    go_to(page, "Compare")
    expect(page.locator("[data-testid=stMain]")).to_contain_text("V91.07XD")
    stored += page.evaluate(_STORED)
    page.reload()
    settle(page)
    stored += page.evaluate(_STORED) + json.dumps(page.context.storage_state(indexed_db=True))

    (watch,) = visit.watches()
    assert any(address.endswith("/Compare") for address in watch.addresses)
    assert _leaks(" ".join(watch.addresses)) == []
    assert _leaks(" ".join(watch.said)) == []
    assert _leaks(stored) == []
    assert "http" in served.output.read_text(errors="replace"), "nothing at all was printed, not even the address"
    written = [path for path in served.folder.rglob("*") if path.is_file()]
    assert served.output in written
    written += [
        path
        for folder in ("mera_core", "pages", "sample_data", ".streamlit", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.stat().st_mtime >= began
    ]
    assert {str(path): found for path in written if (found := _leaks(path.read_bytes().decode("latin-1")))} == {}

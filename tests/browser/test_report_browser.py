"""The printable report in headless Chromium: it asks for nothing beside itself and prints on one page."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from playwright.sync_api import Browser

from mera_core.export.report import ranking_report
from tests.export.test_export import BOOK, PERSON, SOURCE, ranking
from tests.export.test_export_report import long_history


@pytest.mark.parametrize("person", [PERSON, long_history()], ids=["short", "60 visits"])
def test_it_prints_on_one_page(browser: Browser, person):
    codes = tuple(sorted(BOOK.billable("ICD9"), key=lambda code: -len(BOOK.definition(code)))[:60])
    scores = np.linspace(9, -9, 60)
    wide = replace(
        ranking(), codes=codes, scores=scores, cut=0.0, share=np.full(60, 1 / 60), recurrent=np.zeros(60, bool),
        notes=ranking().notes * 40,
    )  # fmt: skip
    dated = replace(person, visits=tuple(replace(visit, time=datetime(2020, 1, 1)) for visit in person.visits))
    sheet = browser.new_page()
    asked = []
    sheet.on("request", lambda request: asked.append(request.url))
    sheet.set_content(ranking_report(wide, dated, SOURCE))
    printed = sheet.pdf(prefer_css_page_size=True)
    sheet.close()
    assert asked == []
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) == 1

"""Every page alone, as the first one of a session: with nothing typed, with a long history, and with ICD-10 codes."""

from __future__ import annotations

import pytest

from pages.shared.app.session import NOTICE, page_files
from tests.pages.apps import every_history, open_page

PAGES = [path.name for path in page_files()]


def test_no_page_is_missed():
    assert len(PAGES) == 6


@every_history
@pytest.mark.parametrize("file", PAGES)
def test_opens_alone_with_its_notice_and_leaves_the_history_as_it_is(file, patient):
    app = open_page(file, patient)
    assert len(app.title) == 1
    assert not app.error
    assert any(NOTICE in element.proto.body for element in app.get("html"))
    if patient is not None:
        assert app.session_state["patient"] == patient
        assert not dict(app.query_params)

"""The report of an import on a page: sentences, and every count as a table."""

from streamlit.testing.v1 import AppTest


def _page():
    from collections import Counter

    from mera_core.readers import ImportReport
    from pages.shared.widgets.upload_view import show_report

    left_out = Counter({"code not in the code book": 1_200})
    report = ImportReport("table", "as asked", 2, 3, 4, 1_204, left_out, unknown_codes=Counter({"<b>*x*": 1_200}))
    show_report("two.csv", report)


def test_the_report_is_a_table_whose_words_are_shown_as_they_stand():
    app = AppTest.from_function(_page).run(timeout=30)
    assert not app.exception
    assert app.expander[0].table[0].value.values.tolist() == [
        ["source", "diagnosis entries", "1,204"],
        ["kept", "patients", "2"],
        ["kept", "visits", "3"],
        ["kept", "codes", "4"],
        ["left out", "code not in the code book", "1,200"],
        ["unknown code", r"\<b\>\*x\*", "1,200"],
    ]
    assert "left out: 1,200 entries" in app.expander[0].markdown[0].value.replace("\\", "")

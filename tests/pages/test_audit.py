"""Audit, run by itself as Streamlit runs it."""

from __future__ import annotations

import json
from datetime import datetime

from mera_core.audit.file import from_sqlite, to_sqlite
from mera_core.audit.groups import draw_groups, judge, levels_to_judge
from pages.shared.about import audit_view
from pages.shared.app import session
from tests.pages.apps import alts, button, charts, every_history, html_of, open_page

PAGE = "6_Audit.py"


@every_history
def test_histories_do_not_matter_here(patient):
    app = open_page(PAGE, patient)
    assert any("name or initials to begin" in info.value for info in app.info)
    assert any("No verdicts yet" in text for text in html_of(app, "mera-empty"))
    assert charts(app) == []


def groups():
    engine = session.engine()
    levels = levels_to_judge(engine.label_space, engine.ontology)
    level = max(levels, key=levels.get)
    return draw_groups(engine.label_space, engine.ontology, level, audit_view.A_LEVEL)


def test_a_group_is_judged_and_the_next_one_comes():
    app = open_page(PAGE)
    app.text_input(key="audit_reader").set_value("ann").run()
    first, second = groups()[:2]
    pick = app.radio(key=f"audit_pick_{first.id}")
    assert len(pick.options) == len(first.shown) + 1
    assert button(app, "audit_show").disabled
    pick.set_value(first.intruder).run()
    button(app, "audit_show").click().run()
    assert not app.exception
    said = " ".join(element.value for element in app.markdown)
    assert f"The tree keeps **{session.plain(first.intruder.code)}** apart" in said
    assert "You picked the same code." in said
    button(app, "audit_disagree").click().run()
    assert not app.exception
    (kept,) = app.session_state["audit"]
    assert (kept.verdict, kept.found, kept.reader, kept.group) == ("disagree", True, "ann", first.id)
    assert kept.checkpoint == session.engine().name
    assert app.radio(key=f"audit_pick_{second.id}").value is None
    assert len(charts(app)) == 1
    assert alts(app)[0].endswith("the intruder was found 1 time.")


def test_nothing_stands_out_is_an_answer():
    app = open_page(PAGE, audit_reader="ann")
    first = groups()[0]
    app.radio(key=f"audit_pick_{first.id}").set_value("none").run()
    button(app, "audit_show").click().run()
    button(app, "audit_unsure").click().run()
    (kept,) = app.session_state["audit"]
    assert (kept.picked, kept.found, kept.verdict) == ("", False, "unsure")


def verdicts(reader: str, words: str):
    engine = session.engine()
    return [
        judge(group, engine.ontology, group.intruder, verdict, reader, engine.name, datetime(2026, 5, 1))
        for group, verdict in zip(groups(), words.split(), strict=False)
    ]


def test_files_of_two_readers_give_a_kappa():
    own = verdicts("ann", "agree disagree agree unsure")
    other = verdicts("bob", "agree disagree disagree unsure")
    app = open_page(PAGE, audit=own)
    assert from_sqlite(to_sqlite(own), "x") == own
    app.file_uploader(key="audit_files").set_value([("bob.sqlite", to_sqlite(other), "application/vnd.sqlite3")]).run()
    assert not app.exception
    assert "kappa 0.64 on 4 groups" in " ".join(element.value for element in app.markdown).replace("\\", "")


def test_a_file_of_something_else_is_refused_in_a_sentence():
    app = open_page(PAGE)
    app.file_uploader(key="audit_files").set_value([("x.sqlite", b"no database", "application/vnd.sqlite3")]).run()
    assert not app.exception
    assert app.error[0].value == "X.sqlite is not a file of the hierarchy audit: it is no SQLite database."


def test_ones_own_file_is_gone_on_with():
    own = verdicts("ann", "agree disagree")
    app = open_page(PAGE, audit_reader="ann")
    app.file_uploader(key="audit_files").set_value([("ann.sqlite", to_sqlite(own), "application/vnd.sqlite3")]).run()
    assert not app.exception
    assert app.session_state["audit"] == own
    assert app.radio[0].key == f"audit_pick_{groups()[2].id}"  # the first two are judged
    assert not has_unsaved(app)


def test_the_last_verdict_is_taken_back():
    own = verdicts("ann", "agree disagree")
    app = open_page(PAGE, audit_reader="ann", audit=own)
    assert has_unsaved(app)
    button(app, "audit_undo").click().run()
    assert not app.exception
    assert app.session_state["audit"] == own[:1]
    assert app.radio[0].key == f"audit_pick_{groups()[1].id}"
    button(app, "audit_undo").click().run()
    assert not any(each.key == "audit_undo" for each in app.button)


def has_unsaved(app) -> bool:
    """What the page tells the browser: whether it asks before the tab is closed."""
    (listener,) = [each.proto for each in app.get("bidi_component") if each.proto.component_name == "mera_leaving"]
    return json.loads(listener.json)["edited"]

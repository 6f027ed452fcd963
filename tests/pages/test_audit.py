"""Audit, run by itself as Streamlit runs it."""

from __future__ import annotations

import json
from datetime import datetime

from mera_core.audit.file import from_json, to_json
from mera_core.audit.groups import draw_groups, judge, levels_to_judge
from pages.shared.about import audit_view
from pages.shared.app import engines
from tests.pages.apps import alts, button, charts, open_page, press, send, words

PAGE = "6_Audit.py"


def groups():
    engine = engines.engine()
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
    press(app, "audit_show")
    assert f"The tree keeps **{first.intruder.code}** apart" in words(app)
    press(app, "audit_disagree")
    (kept,) = app.session_state["audit"]
    assert (kept.verdict, kept.found, kept.reader, kept.group) == ("disagree", True, "ann", first.id)
    assert kept.checkpoint == engines.engine().name
    assert app.radio(key=f"audit_pick_{second.id}").value is None
    assert len(charts(app)) == 1
    assert alts(app)[0].endswith("the intruder was found 1 time.")


def test_nothing_stands_out_is_an_answer():
    app = open_page(PAGE, audit_reader="ann")
    first = groups()[0]
    app.radio(key=f"audit_pick_{first.id}").set_value("none").run()
    press(press(app, "audit_show"), "audit_unsure")
    (kept,) = app.session_state["audit"]
    assert (kept.picked, kept.found, kept.verdict) == ("", False, "unsure")


def verdicts(reader: str, words: str):
    engine = engines.engine()
    return [
        judge(group, engine.ontology, group.intruder, verdict, reader, engine.name, datetime(2026, 5, 1))
        for group, verdict in zip(groups(), words.split(), strict=False)
    ]


def test_files_of_two_readers_give_a_kappa():
    own = verdicts("ann", "agree disagree agree unsure")
    other = verdicts("bob", "agree disagree disagree unsure")
    app = open_page(PAGE, audit=own)
    assert from_json(to_json(own), "x") == own
    send(app, "audit_files", "bob.json", to_json(other))
    assert "kappa 0.64 on 4 groups" in words(app)


def test_a_file_of_something_else_is_refused_in_a_sentence():
    (error,) = send(open_page(PAGE), "audit_files", "x.json", b"no database").error
    assert error.value.startswith("X.json is not a file of the hierarchy audit")


def test_ones_own_file_is_gone_on_with():
    own = verdicts("ann", "agree disagree")
    app = open_page(PAGE, audit_reader="ann")
    send(app, "audit_files", "ann.json", to_json(own))
    assert app.session_state["audit"] == own
    assert app.radio[0].key == f"audit_pick_{groups()[2].id}"  # the first two are judged
    assert not has_unsaved(app)


def test_the_last_verdict_is_taken_back():
    own = verdicts("ann", "agree disagree")
    app = open_page(PAGE, audit_reader="ann", audit=own)
    assert has_unsaved(app)
    press(app, "audit_undo")
    assert app.session_state["audit"] == own[:1]
    assert app.radio[0].key == f"audit_pick_{groups()[1].id}"
    press(app, "audit_undo")
    assert not any(each.key == "audit_undo" for each in app.button)


def has_unsaved(app) -> bool:
    """What the page tells the browser: whether it asks before the tab is closed."""
    (listener,) = [each.proto for each in app.get("bidi_component") if each.proto.component_name == "mera_leaving"]
    return json.loads(listener.json)["edited"]

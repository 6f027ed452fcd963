"""The hierarchy audit on the screen: a group with an intruder, the reader's verdict, and what all verdicts add up to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import streamlit as st

from mera_core.audit.file import from_json, to_json
from mera_core.audit.groups import (
    LONGEST_NAME,
    VERDICTS,
    Group,
    Judgement,
    agreement,
    draw_groups,
    judge,
    levels_to_judge,
)
from mera_core.common.errors import InputError
from mera_core.common.formatting import counted
from mera_core.figures.audit import agreement_bars, agreement_frame, describe_agreement
from mera_core.icd.ontology import SYSTEM_NAMES, Code, Ontology
from pages.shared.app.layout import empty
from pages.shared.app.markdown import plain, sentence
from pages.shared.widgets.charts import draw, show_table
from pages.shared.widgets.controls import choose

if TYPE_CHECKING:
    from mera_core.engine import Engine

A_LEVEL = 30  # groups to judge at a level; every reader of a checkpoint gets the same, in the same order
_ICONS = {
    "agree": ":material/thumb_up:",
    "disagree": ":material/thumb_down:",
    "unsure": ":material/question_mark:",
}
_NONE = "none"


def judgements() -> list[Judgement]:
    """What this session's reader has judged."""
    return st.session_state.setdefault("audit", [])


def _saved() -> list[Judgement]:
    """Those of them that stand in a file."""
    return st.session_state.setdefault("audit_saved", [])


def show_groups(loaded: Engine) -> None:
    """Reader, level, and the next group to judge. loaded: the engine whose label space is grouped."""
    ontology: Ontology = loaded.ontology
    levels = levels_to_judge(loaded.label_space, ontology)
    if not levels:
        st.info("This model's label space has no groups to judge.", icon=":material/info:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        reader = st.text_input(
            "Your name or initials",
            key="audit_reader",
            max_chars=LONGEST_NAME,
            width=230,
            persist_state="session",
            help="Tells readers apart in the file; it stays in this session until you save the file",
        )
        names = {number: level_name(number, loaded.label_space, ontology) for number in levels}
        level = choose("Level of the tree", names, "audit_level", default=max(levels, key=levels.get))
    if not (reader or "").strip():
        st.info("Write your name or initials to begin.", icon=":material/arrow_upward:")
        return
    _resume(reader.strip())
    groups = draw_groups(loaded.label_space, ontology, level, A_LEVEL)
    own = [each for each in judgements() if each.reader == reader.strip()]
    judged = {each.group for each in own}
    waiting = [group for group in groups if group.id not in judged]
    done = len(groups) - len(waiting)
    st.progress(done / len(groups), text=f"{done} of {counted(len(groups), 'group')} of this level judged")
    if waiting:
        _show_group(waiting[0], reader, loaded)
    else:
        st.success(
            "Every group of this level is judged. Choose another level, or save the file.", icon=":material/check:"
        )
    if own:
        st.button(
            "Take back the last verdict",
            key="audit_undo",
            icon=":material/undo:",
            type="tertiary",
            on_click=_take_back,
            args=(own[-1],),
        )


def level_name(level: int, labels: Sequence[Code], ontology: Ontology) -> str:
    """'block', or 'subcategory / code' where the code systems of a label space differ."""
    systems = sorted({label.system for label in labels})
    names = [ontology.level_names(system) for system in systems]
    return " / ".join(dict.fromkeys(each[min(level, len(each)) - 1] for each in names))


def _show_group(group: Group, reader: str, loaded: Engine) -> None:
    ontology: Ontology = loaded.ontology
    st.subheader("Which code does not belong to the others?", anchor=False)
    if st.session_state.get("audit_open") != group.id:
        picked = st.radio(
            "Codes",
            [*group.shown, _NONE],
            format_func=lambda code: "None of them stands out" if code == _NONE else _named(code, ontology),
            index=None,
            key=f"audit_pick_{group.id}",
            label_visibility="collapsed",
        )
        st.button(
            "Show what the tree says",
            type="primary",
            key="audit_show",
            on_click=lambda: st.session_state.update(audit_open=group.id, audit_picked=picked),
            disabled=picked is None,
        )
        return
    picked = st.session_state["audit_picked"]
    marks = {picked: "your pick", group.intruder: "the tree's intruder"}
    if picked == group.intruder:
        marks[picked] = "your pick, and the tree's intruder"
    st.markdown(
        "\n".join(
            f"- {_named(code, ontology)}" + (f" ← *{marks[code]}*" if code in marks else "") for code in group.shown
        )
    )
    found = "You picked the same code." if picked == group.intruder else "You picked otherwise."
    st.markdown(
        f"The tree keeps **{plain(group.intruder.code)}** apart, under {_place(group.neighbour, ontology)}. The others stand "
        f"under {_place(group.node, ontology)}, which holds {counted(group.size, 'code')} of this model. {found}"
    )
    st.markdown("**Does the tree group what belongs together here?**")
    with st.container(horizontal=True):
        for verdict in VERDICTS:
            st.button(
                verdict.capitalize(),
                icon=_ICONS[verdict],
                key=f"audit_{verdict}",
                on_click=_record,
                args=(group, loaded, None if picked == _NONE else picked, verdict, reader),
            )


def _record(group: Group, loaded: Engine, picked: Code | None, verdict: str, reader: str) -> None:
    time = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    judgements().append(judge(group, loaded.ontology, picked, verdict, reader, loaded.name, time))
    st.session_state["audit_open"] = None


def _take_back(last: Judgement) -> None:
    """Forget a verdict; its group, at its level, is the next one to judge."""
    st.session_state["audit"] = [each for each in judgements() if each is not last]
    st.session_state["audit_open"] = None
    st.session_state["audit_level"] = last.level


def _resume(reader: str) -> None:
    """The reader's own verdicts in the files that are open become this session's: nothing is judged twice."""
    others: list[Judgement] = []
    for each in st.session_state.get("audit_read", []):
        if each.reader != reader:
            others.append(each)
        elif each not in judgements():
            judgements().append(each)
            _saved().append(each)
    st.session_state["audit_read"] = others


def _named(code: Code, ontology: Ontology) -> str:
    return f"**{plain(code.code)}** {plain(ontology.definition(code))}"


def _place(node: Code, ontology: Ontology) -> str:
    return (
        f"*{plain(ontology.definition(node))}* ({SYSTEM_NAMES[node.system]} {ontology.kind(node)} {plain(node.code)})"
    )


def show_files() -> None:
    """Save one's own verdicts, and open those of other readers to compute the agreement between readers."""
    own = judgements()
    st.download_button(
        f"Save my {counted(len(own), 'verdict')}" if own else "Nothing to save yet",
        data=lambda: to_json(own),
        file_name="mera-hierarchy-audit.json",
        mime="application/json",
        key="audit_save",
        icon=":material/save:",
        disabled=not own,
        on_click=lambda: st.session_state.update(audit_saved=list(own)),
        help="A JSON file. Until you save it, your verdicts are in this browser session only.",
    )
    st.file_uploader(
        "Open files of verdicts",
        type=["json"],
        accept_multiple_files=True,
        key="audit_files",
        help="Files saved on this page: those of other readers, and your own, with which you go on where you stopped. They "
        "are read in this session and kept nowhere.",
        on_change=_open_files,
    )
    for refusal in st.session_state.get("audit_refused", []):
        st.error(refusal, icon=":material/error:")


def _open_files() -> None:
    """Read the files in the field, before the page is drawn with what they hold."""
    read, refused = [], []
    for upload in st.session_state.get("audit_files") or ():
        try:
            read += from_json(upload.getvalue(), upload.name)
        except InputError as error:
            refused.append(sentence(str(error)))
    st.session_state.update(audit_read=read, audit_refused=refused)


def show_agreement(ontology: Ontology) -> None:
    """Agreement with the tree and between readers, per level and chapter."""
    rows = agreement([*st.session_state.get("audit_read", []), *judgements()])
    st.subheader("Agreement", anchor=False)
    if not rows:
        empty("No verdicts yet.", "Judge a group, or open a file of another reader.")
        return
    words = describe_agreement(rows)
    st.markdown(plain(words))
    draw(agreement_bars(rows, ontology), "agreement", words)
    show_table(agreement_frame(rows, ontology))
    st.caption(
        "Kappa: agreement between readers beyond chance, on the groups that all of them judged; Cohen's for two readers, "
        "Fleiss' for more. 1 is perfect, 0 is chance."
    )

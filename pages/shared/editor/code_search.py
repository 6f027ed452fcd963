"""Search as you type over ICD-9-CM and ICD-10-CM: a field, and a short list of codes to click or to walk through by keyboard.

Results are Streamlit's own buttons. A few lines of JavaScript (`code_search.js`) add the keys: Enter takes the first
result, the arrow keys walk, Escape goes back to the field. Without them Tab and Enter do the same.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import cache
from pathlib import Path

import streamlit as st

from mera_core.icd.chapters import field_of
from mera_core.icd.ontology import SYSTEM_NAMES, Code
from mera_core.icd.search import Match, search
from pages.shared.app.markdown import plain
from pages.shared.widgets.controls import button

SHOWN = 10
_KEYS = Path(__file__).with_name("code_search.js")


@cache
def _keyboard():
    """The component that listens to the keys; it draws nothing."""
    return st.components.v2.component("mera_search_keys", js=_KEYS.read_text(encoding="utf-8"))


@st.fragment
def code_search(
    key: str, label: str, on_pick: Callable[[Code], None], system: str | None = None, why_only: str = ""
) -> None:
    """A search field whose results appear while one types; a click or a key hands the code to `on_pick`.

    key: names the widgets. system: search this code system only; why_only: said, with its name in place of {}, where only
    the other one holds what is typed. The page runs anew after a pick.
    """
    picked = f"{key}_picked"
    if st.session_state.pop(picked, False):
        st.session_state[f"{key}_picks"] = st.session_state.get(f"{key}_picks", 0) + 1
        st.rerun()

    def pick(code: Code) -> None:
        st.session_state[f"{key}_query"] = ""
        st.session_state[picked] = True
        on_pick(code)

    with st.container(gap="xxsmall", key=f"{key}_search"):
        query = st.text_input(
            label,
            key=f"{key}_query",
            type="search",
            live="300ms",
            placeholder="a code or words, e.g. 428.0 or heart fail",
            persist_state="session",
        )
        query = query or ""
        found = search(query, system=system, limit=SHOWN) if query else []
        status = _status(query, found)
        if query and system and not found and search(query, limit=1):
            status = f"Nothing found in {SYSTEM_NAMES[system]}. {why_only.format(SYSTEM_NAMES[system])}"
        st.html(f'<p class="mera-found" role="status">{html.escape(status)}</p>')
        for match in found:
            button(
                label_of(match),
                # named by its code: a click on a list that is just changing never picks another code
                f"found_{field_of(match.code)}_{key}_{match.code}",
                "",
                pick,
                match.code,
                width="stretch",
                wrap=True,
            )
        _keyboard()(
            key=f"{key}_keys",
            data={
                "scope": f"st-key-{key}_search",
                "query": query,
                "found": len(found),
                "picks": st.session_state.get(f"{key}_picks", 0),
            },
        )


def _status(query: str, found: list[Match]) -> str:
    """What a screen reader says, and all may read, of the results."""
    if not query:
        return ""
    if not found:
        return "Nothing found. Try other words, or fewer letters."
    count = (
        "1 result" if len(found) == 1 else f"{len(found)} results" if len(found) < SHOWN else f"first {SHOWN} results"
    )
    return f"{count}: Enter takes the first, ↓ and ↑ walk through them"


def label_of(match: Match) -> str:
    """A result as a Markdown label, matched parts in bold."""
    kind = "" if match.billable else " · heading"
    code = _marked(match.code.code, match.code_spans)
    title = _marked(match.definition, match.definition_spans)
    return f"{code}  {title}  :gray[{SYSTEM_NAMES[match.code.system]}{kind}]"


def _marked(text: str, spans: tuple[tuple[int, int], ...]) -> str:
    parts, end = [], 0
    for first, last in spans:
        parts += [plain(text[end:first]), f"**{plain(text[first:last])}**"]
        end = last
    return "".join([*parts, plain(text[end:])])

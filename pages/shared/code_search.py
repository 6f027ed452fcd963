"""Search as you type over both code books: a field and a short list of codes to click."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from mera_core.chapters import field_of
from mera_core.ontology import SYSTEM_NAMES, Code
from mera_core.search import Match, search
from pages.shared.session import plain

SHOWN = 10


@st.fragment
def code_search(key: str, label: str, on_pick: Callable[[Code], None], system: str | None = None) -> None:
    """A search field whose results appear while one types; a click hands the code to `on_pick`.

    key: names the widgets. system: search this code book only. The page runs anew after a click.
    """
    picked = f"{key}_picked"
    if st.session_state.pop(picked, False):
        st.rerun()
    query = st.text_input(
        label,
        key=f"{key}_query",
        type="search",
        live="300ms",
        placeholder="a code or words, e.g. 428.0 or heart fail",
        persist_state="session",
    )
    if not query:
        return
    found = search(query, system=system, limit=SHOWN)
    if not found:
        st.caption("Nothing found. Try other words, or fewer letters.")

    def pick(code: Code) -> None:
        st.session_state[f"{key}_query"] = ""
        st.session_state[picked] = True
        on_pick(code)

    with st.container(gap="xxsmall"):
        for place, match in enumerate(found):
            st.button(
                label_of(match),
                key=f"found_{field_of(match.code)}_{key}_{place}",
                on_click=pick,
                args=(match.code,),
                width="stretch",
                wrap=True,
            )


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

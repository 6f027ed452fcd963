"""Asks before a tab with work in it is closed or loaded anew: histories and verdicts live in the session alone, on purpose.

The browser is told yes or no, and nothing of the work. Pages of the app are changed without being asked.
"""

from __future__ import annotations

import streamlit as st

_SCRIPT = """
export default function ({ data }) {
  window.meraAsk ??= (event) => { event.preventDefault(); event.returnValue = true; };
  window.removeEventListener("beforeunload", window.meraAsk);
  if (data.edited) window.addEventListener("beforeunload", window.meraAsk);
}
"""
_listener = st.components.v2.component("mera_leaving", js=_SCRIPT)


def has_unsaved_verdicts() -> bool:
    """Whether there are judgements of the page Audit that no file holds."""
    saved = st.session_state.get("audit_saved", [])
    return any(each not in saved for each in st.session_state.get("audit", []))


def ask_before_leaving(edited: bool) -> None:
    """Whether the browser asks "Leave this page?" from now on."""
    _listener(key="leaving", data={"edited": edited}, height=1)

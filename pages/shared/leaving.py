"""Asks before a tab with an edited history is closed or loaded anew: histories live in the session alone, on purpose.

The browser is told yes or no, and nothing of the history. Pages of the app are changed without being asked.
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


def ask_before_leaving(edited: bool) -> None:
    """Whether the browser asks "Leave this page?" from now on."""
    _listener(key="leaving", data={"edited": edited}, height=1)

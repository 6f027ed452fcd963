"""The "Why?" buttons inside the ranked list: a list is one HTML table, and this reports which row was pressed."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

BUTTON_CLASS = "mera-why"

# One listener for the whole page, replaced when the component is drawn again. After a press the answer, which comes
# with the next drawing, is brought into view.
_SCRIPT = f"""
export default function ({{ setTriggerValue }}) {{
  const pressed = (event) => {{
    const button = event.target.closest?.("button.{BUTTON_CLASS}");
    if (!button) return;
    setTriggerValue("asked", button.dataset.code);
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    let patience = 25;
    const show = () => {{
      const answer = document.getElementById("why");
      if (answer) answer.scrollIntoView({{ block: "start", behavior: calm ? "auto" : "smooth" }});
      else if (patience--) setTimeout(show, 200);
    }};
    setTimeout(show, 300);
  }};
  if (window.meraRowPressed) document.removeEventListener("click", window.meraRowPressed);
  window.meraRowPressed = pressed;
  document.addEventListener("click", pressed);
  return () => document.removeEventListener("click", pressed);
}}
"""
_listener = st.components.v2.component("mera_row_buttons", js=_SCRIPT)


def button_html(code: str, label: str, title: str) -> str:
    """A button for a row; all three texts must be escaped already. title: what a screen reader says."""
    return f'<button type="button" class="{BUTTON_CLASS}" data-code="{code}" aria-label="{title}">{label}</button>'


def listen(key: str, on_ask: Callable[[str], None]) -> None:
    """Hand the code of a pressed button, as text, to `on_ask` before the page runs anew."""

    def asked() -> None:
        value = getattr(st.session_state.get(key), "asked", None)
        if isinstance(value, str):
            on_ask(value)

    _listener(key=key, on_asked_change=asked, height=1)

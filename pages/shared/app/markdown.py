"""Text of others inside Streamlit's Markdown, and messages as sentences."""

from __future__ import annotations


def plain(text: str) -> str:
    """Text for a Markdown label, shown as it stands."""
    return "".join(f"\\{character}" if character in r"\`*_{}[]()#+-.!|<>~$:^" else character for character in text)


def sentence(text: str) -> str:
    """A message with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")

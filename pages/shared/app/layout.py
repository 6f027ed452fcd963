"""What every page opens and ends with: page settings, login, sidebar, title, notice, the model behind it."""

from __future__ import annotations

import html
from pathlib import Path

import streamlit as st

from mera_core.ranking.ranking import NOTICE
from pages.shared.app.engines import engine
from pages.shared.app.histories import SLOTS, history
from pages.shared.app.leaving import ask_before_leaving, has_unsaved_verdicts
from pages.shared.app.links import choose_model
from pages.shared.app.login import require_login
from pages.shared.app.markdown import plain
from pages.shared.app.private_process import keep_private
from pages.shared.app.style import stylesheet

PAGES_FOLDER = Path(__file__).resolve().parents[2]
ICONS = {
    "Predict": ":material/format_list_numbered:",
    "Compare": ":material/compare_arrows:",
    "Recall": ":material/menu_book:",
    "Cohort": ":material/groups:",
    "Model Card": ":material/assignment:",
    "Audit": ":material/fact_check:",
}
SIDEBAR_WIDTH = 210  # pixels; folds away on a phone


def open_session(title: str) -> None:
    """First line of every page. title: of the browser's tab and of the page."""
    keep_private()
    icon = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")
    st.set_page_config(page_title=f"{title} · MERA", page_icon=icon, layout="wide", initial_sidebar_state=SIDEBAR_WIDTH)
    require_login()
    st.html(f"<style>{stylesheet()}</style>")
    st.session_state["busy"] = st.empty()  # first, so that what follows keeps its place when it is filled
    st.session_state["came_from"], st.session_state["page"] = st.session_state.get("page"), title
    with st.sidebar:
        st.markdown("### MERA")
        st.page_link("app.py", label="Home", icon=":material/home:")
        for path in page_files():
            page_link(path, page_name(path))
        choose_model()
        ask_before_leaving(any(history(slot).is_edited for slot in SLOTS) or has_unsaved_verdicts())


def heading(title: str, lead: str = "") -> None:
    """The page's title with the notice under it, and a sentence in Markdown on what the page is for."""
    st.title(title, anchor=False)
    st.html(f'<p class="mera-notice">{NOTICE}</p>')
    if lead:
        st.markdown(lead)


def footer() -> None:
    """The model behind the page, in one line."""
    st.caption(f"Model {plain(engine().name)} · {plain(engine().scope)} · {NOTICE}")


def empty(title: str, words: str) -> None:
    """What to do where there is nothing to show yet."""
    st.html(f'<div class="mera-empty"><b>{html.escape(title)}</b><br>{html.escape(words)}</div>')


def page_files() -> list[Path]:
    """The page files in the order of their numbers."""
    return sorted(PAGES_FOLDER.glob("[0-9]*_*.py"), key=lambda path: int(path.name.split("_")[0]))


def page_name(path: Path) -> str:
    """'3_Model_Card.py' -> 'Model Card'."""
    return path.stem.split("_", 1)[1].replace("_", " ")


def page_link(path: Path, label: str) -> None:
    """A link to a page, with its icon."""
    st.page_link(f"pages/{path.name}", label=label, icon=ICONS.get(page_name(path), ":material/article:"))

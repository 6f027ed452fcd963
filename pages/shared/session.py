"""What every page opens with: page settings, the cached engine, and the history of this browser session.

A patient lives in the session state only: never in a URL, a cache shared between users, a log or a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import streamlit as st

from mera_core.errors import InputError
from mera_core.records import DemoPatient, Patient, demo_patients
from mera_core.search import search
from pages.shared.style import stylesheet

NOTICE = "Research use, not for clinical decisions."
CHECKPOINT_VARIABLE = "MERA_CHECKPOINT"  # a checkpoint folder to serve in place of the bundled one
PAGES_FOLDER = Path(__file__).resolve().parent.parent
ICONS = {"Predict": ":material/format_list_numbered:", "Recall": ":material/menu_book:"}
SIDEBAR_WIDTH = 210  # pixels; folds away on a phone
_UNDO_DEPTH = 50

Result = TypeVar("Result")


def open_session(title: str) -> None:
    """First line of every page; any number of calls do as much as one.

    title: of the browser's tab and of the page.
    """
    icon = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")
    st.set_page_config(page_title=f"{title} · MERA", page_icon=icon, layout="wide", initial_sidebar_state=SIDEBAR_WIDTH)
    st.html(f"<style>{stylesheet()}</style>")
    st.session_state.setdefault("patient", Patient())
    st.session_state.setdefault("undo", [])
    st.session_state.setdefault("demo", None)  # id of the demo patient shown, None once it is edited
    st.session_state.setdefault("started_from", "")  # its title, kept after edits
    with st.sidebar:
        st.markdown("### MERA")
        st.page_link("app.py", label="Home", icon=":material/home:")
        for path in page_files():
            name = page_name(path)
            st.page_link(f"pages/{path.name}", label=name, icon=ICONS.get(name, ":material/article:"))
        st.caption(NOTICE)


def page_files() -> list[Path]:
    """The page files in the order of their numbers."""
    return sorted(PAGES_FOLDER.glob("[0-9]*_*.py"), key=lambda path: int(path.name.split("_")[0]))


def page_name(path: Path) -> str:
    """'3_Model_Card.py' -> 'Model Card'."""
    return path.stem.split("_", 1)[1].replace("_", " ")


def engine() -> Any:
    """The loaded checkpoint, shared by all sessions. Where it can't be loaded, says why and stops."""
    folder = os.environ.get(CHECKPOINT_VARIABLE) or None
    return or_stop(lambda: _load(folder))


@st.cache_resource(show_spinner="Loading the model: a few seconds, once …")
def _load(folder: str | None) -> Any:
    from mera_core.engine import Engine  # brings in torch: only when a page needs the model

    loaded = Engine.load(folder)
    Thread(target=search, args=("a",), daemon=True).start()  # builds the search index before someone types
    return loaded


def or_stop(call: Callable[[], Result]) -> Result:
    """The result of `call`; an InputError is shown as it stands and ends the page."""
    try:
        return call()
    except InputError as error:
        st.error(sentence(str(error)), icon=":material/error:")
        st.stop()


@st.cache_data(show_spinner=False)
def demos() -> dict[str, DemoPatient]:
    """The invented demo patients by id, in the order of their file."""
    return {demo.id: demo for demo in demo_patients()}


def patient() -> Patient:
    """The history on the screen; unread pieces stand in it as text."""
    return st.session_state["patient"]


def change(edited: Patient) -> None:
    """Put an edited history on the screen; `undo` brings the old one back."""
    _remember()
    st.session_state["patient"] = edited
    st.session_state["demo"] = None


def undo() -> None:
    """Take back the last change, whatever it was."""
    if st.session_state["undo"]:
        for key, value in st.session_state["undo"].pop().items():
            st.session_state[key] = value


def open_demo(identity: str | None) -> None:
    """Put a demo patient on the screen, or with None an empty history."""
    if st.session_state["patient"] != Patient():
        _remember()
    demo = demos()[identity] if identity else None
    st.session_state["patient"] = demo.patient if demo else Patient()
    st.session_state["demo"] = identity
    st.session_state["started_from"] = demo.title if demo else ""


def follow_link() -> None:
    """Open the demo patient that a link names (?demo=ID), and keep the address in step with the screen.

    The id of a demo patient is the only thing that this app writes to or reads from an address.
    """
    asked = st.query_params.get("demo")
    if asked and asked != st.session_state.get("linked"):
        if asked in demos():
            open_demo(asked)
        else:
            st.warning("The link names a demo patient that is not here; choose one below.")
    shown = st.session_state["demo"]
    if shown and asked != shown:
        st.query_params["demo"] = shown
    elif asked and not shown:
        del st.query_params["demo"]
    st.session_state["linked"] = shown


def footer() -> None:
    """The model behind the page, in one line."""
    loaded = engine()
    st.caption(f"Model {loaded.name} · {len(loaded.label_space):,} codes ranked · {NOTICE}")


def sentence(text: str) -> str:
    """A message with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def plain(text: str) -> str:
    """Text for a Markdown label, shown as it stands."""
    return "".join(f"\\{character}" if character in r"\`*_{}[]()#+-.!|<>~$:^" else character for character in text)


def _remember() -> None:
    kept = {key: st.session_state[key] for key in ("patient", "demo", "started_from")}
    st.session_state["undo"] = [*st.session_state["undo"], kept][-_UNDO_DEPTH:]

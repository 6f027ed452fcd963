"""What every page opens with: page settings, the cached engine, and the histories of this browser session.

A patient lives in the session state only: never in a URL, a cache shared between users, a log or a file.
A page that shows two histories keeps the second in a slot of its own (`slot="b"`); the first slot is "".
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import streamlit as st

from mera_core.common.errors import InputError
from mera_core.common.faults import describe_system_error
from mera_core.history.records import DemoPatient, Patient, demo_patients
from mera_core.icd.search import search
from mera_core.ranking.ranking import NOTICE
from pages.shared.app import checkpoints
from pages.shared.app.checkpoints import models
from pages.shared.app.leaving import ask_before_leaving, has_unsaved_verdicts
from pages.shared.app.login import require_login
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
SLOTS = ("", "b")
HOME = "Home"
_UNDO_DEPTH = 50
_RANKINGS_KEPT = 8
_MODELS_KEPT = 3  # loaded at once, for all sessions together

Result = TypeVar("Result")


def open_session(title: str) -> None:
    """First line of every page; any number of calls do as much as one.

    title: of the browser's tab and of the page.
    """
    keep_private()
    icon = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")
    st.set_page_config(page_title=f"{title} · MERA", page_icon=icon, layout="wide", initial_sidebar_state=SIDEBAR_WIDTH)
    require_login()
    st.html(f"<style>{stylesheet()}</style>")
    st.session_state["busy"] = st.empty()  # first, so that what follows keeps its place when it is filled
    _open_slot("")
    st.session_state["came_from"], st.session_state["page"] = st.session_state.get("page"), title
    with st.sidebar:
        st.markdown("### MERA")
        st.page_link("app.py", label="Home", icon=":material/home:")
        for path in page_files():
            name = page_name(path)
            st.page_link(f"pages/{path.name}", label=name, icon=ICONS.get(name, ":material/article:"))
        _choose_model()
        st.caption(NOTICE)
        ask_before_leaving(any(is_edited(slot) for slot in SLOTS) or has_unsaved_verdicts())


def heading(title: str, lead: str = "") -> None:
    """The page's title with the notice under it, and a sentence in Markdown on what the page is for."""
    st.title(title, anchor=False)
    st.html(f'<p class="mera-notice">{NOTICE}</p>')
    if lead:
        st.markdown(lead)


def page_files() -> list[Path]:
    """The page files in the order of their numbers."""
    return sorted(PAGES_FOLDER.glob("[0-9]*_*.py"), key=lambda path: int(path.name.split("_")[0]))


def page_name(path: Path) -> str:
    """'3_Model_Card.py' -> 'Model Card'."""
    return path.stem.split("_", 1)[1].replace("_", " ")


def model_id() -> str:
    """The id of the checkpoint that this session uses."""
    known = models()
    chosen = st.session_state.get("model")
    return chosen if chosen in known else next(iter(known))


def engine(model: str | None = None, quantize: str | None = None) -> Any:
    """A loaded checkpoint, shared by all sessions: the session's own, or `model`. Where it can't be loaded, says why.

    quantize: by default what the environment asks for (`checkpoints.quantize`).
    """
    folder = models()[model_id() if model is None else model]
    quantize = quantize or checkpoints.quantize()
    return or_stop(lambda: _load(None if folder is None else str(folder), quantize)[0])


def ranking_engine() -> Any:
    """The session's checkpoint, on a page that is about rankings; one that knows the code book only is told, and ends the page."""
    loaded = engine()
    if not loaded.label_space:
        name = plain(loaded.name.rpartition(" ")[0])
        st.info(
            f"The model {name} has memorized the code book and does not rank the next visit: ask it on page Recall, or "
            "choose another model.",
            icon=":material/menu_book:",
        )
        if others := [name for name in checkpoints.ranking_models() if name != model_id()]:
            st.button(f"Go on with {plain(others[0])}", on_click=st.session_state.update, kwargs={"model": others[0]})
        footer()
        st.stop()
    return loaded


def _is_current(loaded: tuple[Any, str | None, Any]) -> bool:
    """Whether a loaded checkpoint is the one in its folder; one whose folder is gone is kept."""
    _, folder, version = loaded
    return checkpoints.version(folder) in (None, version)


@st.cache_resource(
    max_entries=_MODELS_KEPT, validate=_is_current, show_spinner="Loading the model: a few seconds, once …"
)
def _load(folder: str | None, quantize: str | None = None) -> tuple[Any, str | None, Any]:
    """An engine for all sessions, its folder, and the version that was loaded."""
    from mera_core.engine import Engine  # brings in torch: only when a page needs the model
    from mera_core.serving.shared_engine import SharedEngine

    version = checkpoints.version(folder)
    loaded = Engine.load(folder, quantize)
    loaded.warm_up()
    Thread(target=_settle, daemon=True).start()
    return SharedEngine(loaded, _queue(), _tell_place), folder, version


def _settle() -> None:
    """Build the search index before someone types; then take what is loaded, and stays, out of what is searched for garbage.

    Streamlit has all of it searched at the end of every run of a page: the code books alone would hold up all sessions
    for a tenth of a second each time. A model that was given up since the last time goes.
    """
    search("a")
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@st.cache_resource(show_spinner=False, on_release=lambda queue: queue.close())
def _queue() -> Any:
    """The queue that the sessions of all models wait in: one model works at a time."""
    from mera_core.serving.turn_queue import TurnQueue

    return TurnQueue()


def _tell_place(place: int) -> None:
    """Say how long the line is, over whatever is on the screen. Raises out of the script where the page is run again or left."""
    where = st.session_state.get("busy")
    if where is None:
        return
    if place:
        where.html(f'<div class="mera-busy" role="status">Busy: you are number {place} in line …</div>')
    else:
        where.empty()


def ranking_of(person: Patient, model: str | None = None, quantize: str | None = None) -> Any:
    """The ranking of a history; the newest few are kept for this session. Raises InputError as `Engine.rank` does."""
    loaded = engine(model, quantize)
    kept: list = st.session_state.setdefault("rankings", [])
    for known, by, ranking in kept:
        if by() is loaded and known == person:
            return ranking
    ranking = loaded.rank(person)
    by = weakref.ref(loaded)  # a model that nobody uses any longer must go
    st.session_state["rankings"] = [*kept, (person, by, ranking)][-_RANKINGS_KEPT:]
    return ranking


def or_stop(call: Callable[[], Result]) -> Result:
    """The result of `call`; an InputError is shown as it stands, a lack of memory or disk in words, and either ends the page."""
    try:
        return call()
    except InputError as error:
        words = str(error)
    except (MemoryError, OSError, RuntimeError) as error:
        words = describe_system_error(error) or ""
        if not words:
            raise
    st.error(sentence(words), icon=":material/error:")
    st.stop()


@cache
def demos() -> dict[str, DemoPatient]:
    """The invented demo patients by id, in the order of their file: values that nothing changes, so every session has them."""
    return {demo.id: demo for demo in demo_patients()}


def slot_key(name: str, slot: str = "") -> str:
    """The session key of something that each slot has its own of: ("patient", "b") -> 'patient_b'."""
    return f"{name}_{slot}" if slot else name


def patient(slot: str = "") -> Patient:
    """The history on the screen; unread pieces stand in it as text."""
    _open_slot(slot)
    return st.session_state[slot_key("patient", slot)]


def shown_demo(slot: str = "") -> str | None:
    """The id of the demo patient on the screen; None once it is edited."""
    _open_slot(slot)
    return st.session_state[slot_key("demo", slot)]


def started_from(slot: str = "") -> str:
    """The title of the demo patient that the history began as; "" where there was none."""
    _open_slot(slot)
    return st.session_state[slot_key("started_from", slot)]


def can_undo(slot: str = "") -> bool:
    """Whether there is a change to take back."""
    _open_slot(slot)
    return bool(st.session_state[slot_key("undo", slot)])


def before_change(slot: str = "") -> Patient | None:
    """The history as it was before the last change; None where it was opened and not changed since."""
    _open_slot(slot)
    return st.session_state[slot_key("before", slot)]


def is_edited(slot: str = "") -> bool:
    """Whether the history holds work of the user's own: it was changed, and is neither empty nor a demo patient."""
    return before_change(slot) is not None and patient(slot) != Patient() and shown_demo(slot) is None


def change(edited: Patient, slot: str = "") -> None:
    """Put an edited history on the screen; `undo` brings the old one back."""
    _open_slot(slot)
    _remember(slot)
    st.session_state[slot_key("before", slot)] = st.session_state[slot_key("patient", slot)]
    st.session_state[slot_key("patient", slot)] = edited
    st.session_state[slot_key("demo", slot)] = None


def undo(slot: str = "") -> None:
    """Take back the last change, whatever it was."""
    if can_undo(slot):
        for name, value in st.session_state[slot_key("undo", slot)].pop().items():
            st.session_state[slot_key(name, slot)] = value


def open_demo(identity: str | None, slot: str = "") -> None:
    """Put a demo patient on the screen, or with None an empty history."""
    demo = demos()[identity] if identity else None
    open_history(demo.patient if demo else Patient(), demo.title if demo else "", identity, slot)


def open_history(person: Patient, title: str = "", demo: str | None = None, slot: str = "") -> None:
    """Put another history on the screen; nothing before it is compared with it. `undo` brings the old one back."""
    if patient(slot) != Patient():
        _remember(slot)
    values = {"patient": person, "demo": demo, "started_from": title, "before": None}
    for name, value in values.items():
        st.session_state[slot_key(name, slot)] = value
    st.session_state.pop(slot_key("add_target", slot), None)  # codes go to this history's latest visit


def follow_link() -> None:
    """Open the demo patient that a link names (?demo=ID), and keep the address in step with the screen.

    Links stand on the home page and come from other people. An address that the browser goes back to is none: it would put
    the demo patient over what was made of it. The ids of a demo patient and of a model are the only things that this app
    writes to or reads from an address.
    """
    asked = st.query_params.get("demo")
    if asked and asked != st.session_state.get("linked"):
        if is_edited() and st.session_state["came_from"] not in (None, HOME):
            st.toast("Your edited history stays. To begin anew, choose the demo patient in the list.")
        elif asked in demos():
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
    st.caption(f"Model {plain(loaded.name)} · {plain(loaded.scope)} · {NOTICE}")


def sentence(text: str) -> str:
    """A message with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def plain(text: str) -> str:
    """Text for a Markdown label, shown as it stands."""
    return "".join(f"\\{character}" if character in r"\`*_{}[]()#+-.!|<>~$:^" else character for character in text)


def _choose_model() -> None:
    """The choice of a checkpoint where there are several; a link may name one (?model=ID), and only one that is here."""
    known = models()
    asked = st.query_params.get("model")
    if asked and asked != st.session_state.get("linked_model"):
        if asked in known:
            st.session_state["model"] = asked
        else:
            st.warning("The link names a model that is not here; the usual one answers.")
    if len(known) > 1:
        st.session_state["model_choice"] = model_id()
        st.selectbox(
            "Model",
            list(known),
            key="model_choice",
            on_change=lambda: st.session_state.update(model=st.session_state["model_choice"]),
        )
    shown = model_id() if model_id() != next(iter(known)) else None
    if shown and asked != shown:
        st.query_params["model"] = shown
    elif asked and not shown:
        del st.query_params["model"]
    st.session_state["linked_model"] = shown


def _open_slot(slot: str) -> None:
    defaults = {"patient": Patient(), "undo": [], "demo": None, "started_from": "", "before": None}
    for name, value in defaults.items():
        st.session_state.setdefault(slot_key(name, slot), value)


def _remember(slot: str) -> None:
    names = ("patient", "demo", "started_from", "before")
    kept = {name: st.session_state[slot_key(name, slot)] for name in names}
    steps = st.session_state[slot_key("undo", slot)]
    st.session_state[slot_key("undo", slot)] = [*steps, kept][-_UNDO_DEPTH:]

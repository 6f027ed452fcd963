"""The loaded checkpoints, shared by all sessions, and the one that this session uses."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

import streamlit as st

from mera_core.common.errors import InputError
from mera_core.common.faults import describe_system_error
from mera_core.history.records import Patient
from mera_core.icd.search import search
from mera_core.ranking.ranking import Ranking
from pages.shared.app import checkpoints
from pages.shared.app.checkpoints import models
from pages.shared.app.markdown import plain, sentence

if TYPE_CHECKING:  # they bring in torch: only when a page needs the model
    from mera_core.serving.shared_engine import SharedEngine
    from mera_core.serving.turn_queue import TurnQueue

_RANKINGS_KEPT = 8
_MODELS_KEPT = 3  # loaded at once, for all sessions together

Result = TypeVar("Result")


def model_id() -> str:
    """The id of the checkpoint that this session uses."""
    known = models()
    chosen = st.session_state.get("model")
    return chosen if chosen in known else next(iter(known))


def engine(model: str | None = None, quantize: str | None = None) -> SharedEngine:
    """A loaded checkpoint: the session's own, or `model`. Where it can't be loaded, says why and ends the page.

    quantize: by default what the environment asks for (`checkpoints.quantize`).
    """
    folder = models()[model_id() if model is None else model]
    quantize = quantize or checkpoints.quantize()
    return or_stop(lambda: _load(None if folder is None else str(folder), quantize)[0])


def ranking_engine() -> SharedEngine:
    """The session's checkpoint, on a page about rankings; ends the page where that one does not rank."""
    loaded = engine()
    if not loaded.label_space:
        name = plain(loaded.name.rpartition(" ")[0])
        st.info(
            f"The model {name} has memorized the ICD codes and does not rank the next visit: ask it on page Recall, or "
            "choose another model.",
            icon=":material/menu_book:",
        )
        if others := [name for name in checkpoints.ranking_models() if name != model_id()]:
            st.button(f"Go on with {plain(others[0])}", on_click=st.session_state.update, kwargs={"model": others[0]})
        st.stop()
    return loaded


def ranking_of(person: Patient, model: str | None = None, quantize: str | None = None) -> Ranking:
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
    """The result of `call`; an InputError or a lack of memory or disk is shown in words and ends the page."""
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


def _is_current(loaded: tuple[SharedEngine, str | None, object]) -> bool:
    """Whether a loaded checkpoint is the one in its folder; one whose folder is gone is kept."""
    _, folder, version = loaded
    return checkpoints.version(folder) in (None, version)


@st.cache_resource(
    max_entries=_MODELS_KEPT, validate=_is_current, show_spinner="Loading the model: a few seconds, once …"
)
def _load(folder: str | None, quantize: str | None = None) -> tuple[SharedEngine, str | None, object]:
    """An engine for all sessions, its folder, and the version that was loaded."""
    from mera_core.engine import Engine
    from mera_core.serving.shared_engine import SharedEngine

    version = checkpoints.version(folder)
    loaded = Engine.load(folder, quantize)
    loaded.warm_up()
    Thread(target=_settle, daemon=True).start()
    return SharedEngine(loaded, _queue(), _tell_place), folder, version


def _settle() -> None:
    """Build the search index before someone types, and keep what stays loaded out of garbage collection (`gc.freeze`).

    Streamlit collects at the end of every run of a page: the code tables alone would hold up all sessions for a tenth of
    a second each time. A model that was given up since the last time goes.
    """
    search("a")
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@st.cache_resource(show_spinner=False, on_release=lambda queue: queue.close())
def _queue() -> TurnQueue:
    """The queue that the sessions of all models wait in: one model works at a time."""
    from mera_core.serving.turn_queue import TurnQueue

    return TurnQueue()


def _tell_place(place: int) -> None:
    """Say how long the queue is, over whatever is on the screen. Raises out of the script where the page is run again or left."""
    where = st.session_state.get("busy")
    if where is None:
        return
    if place:
        where.html(f'<div class="mera-busy" role="status">Busy: you are number {place} in line …</div>')
    else:
        where.empty()

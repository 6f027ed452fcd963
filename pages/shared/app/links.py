"""What an address may hold: the id of a demo patient (?demo=ID) and of a model (?model=ID), and nothing else of a session."""

from __future__ import annotations

import streamlit as st

from pages.shared.app.checkpoints import models
from pages.shared.app.engines import model_id
from pages.shared.app.histories import demos, history, open_demo

HOME = "Home"


def follow_demo_link() -> None:
    """Open the demo patient that a link names, and keep the address in step with the screen.

    An address that the browser goes back to is no link: it would put the demo patient over what was made of it.
    """
    asked = st.query_params.get("demo")
    if asked and asked != st.session_state.get("linked"):
        if history().is_edited and st.session_state["came_from"] not in (None, HOME):
            st.toast("Your edited history stays. To begin anew, choose the demo patient in the list.")
        elif asked in demos():
            open_demo(asked)
        else:
            st.warning("The link names a demo patient that is not here; choose one below.")
    shown = history().now.demo
    if shown and asked != shown:
        st.query_params["demo"] = shown
    elif asked and not shown:
        del st.query_params["demo"]
    st.session_state["linked"] = shown


def choose_model() -> None:
    """The choice of a checkpoint where there are several; a link may name one that is here."""
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

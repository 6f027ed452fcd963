"""Streamlit's login by OpenID Connect, in front of every page where MERA_LOGIN=required says so; see docs/deploy.md.

Off by default, because a proxy usually asks who is there. Once asked for it fails closed: without a working `[auth]` in
.streamlit/secrets.toml nobody gets in.
"""

from __future__ import annotations

import os

import streamlit as st

VARIABLE = "MERA_LOGIN"
REQUIRED = "required"


def require_login() -> None:
    """Show a login and end the page, unless nobody asks for one or the visitor has logged in."""
    asked = os.environ.get(VARIABLE, "")
    if not asked:
        return
    if asked == REQUIRED and _is_logged_in():
        return
    st.title("MERA", anchor=False)
    if asked != REQUIRED:
        st.error(f"{VARIABLE} must be {REQUIRED} or absent.", icon=":material/error:")
    elif not _is_set_up():
        st.error("A login is required, and none is set up: see docs/deploy.md.", icon=":material/error:")
    else:
        st.button("Log in", on_click=st.login, type="primary", key="login")
    st.stop()


def _is_logged_in() -> bool:
    return _is_set_up() and bool(st.user.get("is_logged_in", False))


def _is_set_up() -> bool:
    """Whether secrets.toml has a section [auth]; a missing or broken file has none."""
    try:
        return bool(st.secrets.load_if_toml_exists()) and "auth" in st.secrets
    except Exception:  # Streamlit's own errors of a file that is no TOML
        return False

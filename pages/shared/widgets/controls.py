"""Fields that several pages draw in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import streamlit as st


def choose(label: str, options: Sequence[Any] | Mapping[Any, str], key: str, **others: Any) -> Any:
    """A row of buttons, one of which is always chosen, kept over pages; the first, unless the session or `others` say else.

    options: a mapping gives their names. others: as `st.segmented_control` takes them.
    """
    first = others.pop("default", next(iter(options)))
    others["default"] = None if key in st.session_state else first  # Streamlit complains of a default beside a value
    if isinstance(options, Mapping):
        others.setdefault("format_func", options.get)
    return st.segmented_control(label, list(options), key=key, required=True, persist_state="session", **others)


def button(label: str, key: str, icon: str, do: Callable[..., object], *args: object, **others: Any) -> None:
    """A button: a click calls `do(*args)`. icon: of Material, "" for none. others: as `st.button` takes them."""
    st.button(label, key=key, icon=f":material/{icon}:" if icon else None, on_click=do, args=args, **others)


class File(NamedTuple):
    """A file to download. make: called when its button is clicked. stem: its name without the ending."""

    label: str
    ending: str
    media: str
    make: Callable[[], str | bytes]
    help: str | None = None
    icon: str = "download"


def download(stem: str, files: Sequence[File], key: str, disabled: bool = False) -> None:
    """A button for each file, in a row."""
    with st.container(horizontal=True, gap="xsmall"):
        for file in files:
            st.download_button(
                file.label,
                data=file.make,
                file_name=f"{stem}.{file.ending}",
                mime=file.media,
                key=f"{key}_{file.ending}",
                icon=f":material/{file.icon}:",
                help=file.help,
                on_click="ignore",
                disabled=disabled,
            )

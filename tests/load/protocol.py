"""One session of the app, spoken by Streamlit's websocket protocol: what a browser tab sends and gets, without the drawing.

Knows widgets by their keys and labels, and nothing of what they mean.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Element_pb2 import Element
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect

OVER = (ForwardMsg.FINISHED_SUCCESSFULLY, ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY)
TIMEOUT = 60.0  # seconds
_TAGS = re.compile(r"<[^>]+>")


class PageError(RuntimeError):
    """The page showed an exception or an error, or did not compile."""


class Session:
    """An open connection. elements: what stands on the page, by its place. received: every message of this session, raw."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.elements: dict[tuple[int, ...], Element] = {}
        self.received: list[bytes] = []
        self.page = ""

    @classmethod
    async def open(cls, address: str) -> Session:
        """A new session of the app at an address such as http://127.0.0.1:8501."""
        socket = address.replace("http", "ws", 1) + "/_stcore/stream"
        return cls(await connect(socket, subprotocols=["streamlit"], max_size=None, ping_interval=None))

    async def close(self) -> None:
        """Leave, as a closed tab does."""
        await self._connection.close()

    async def run(self, *widgets: WidgetState, page: str | None = None) -> float:
        """Run a page, the present one by default, after widgets were changed; seconds until the last element was there.

        Raises PageError for what the page shows as an error, TimeoutError where it takes longer than `TIMEOUT`.
        """
        if page is not None:
            self.page = page
        asked = BackMsg()
        asked.rerun_script.page_name = self.page
        asked.rerun_script.widget_states.widgets.extend(widgets)
        began = time.perf_counter()
        await self._connection.send(asked.SerializeToString())
        async with asyncio.timeout(TIMEOUT):
            while not self._take(await self._connection.recv()):
                pass
        took = time.perf_counter() - began
        for element in self.elements.values():
            kind = element.WhichOneof("type")
            if kind == "exception" or (kind == "alert" and element.alert.format == element.alert.ERROR):
                raise PageError(element.exception.message if kind == "exception" else element.alert.body)
        return took

    def _take(self, payload: bytes | str) -> bool:
        """Take a message in; whether it was the last of a run."""
        raw = payload if isinstance(payload, bytes) else payload.encode()
        self.received.append(raw)
        message = ForwardMsg.FromString(raw)
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self.elements.clear()
        elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
            self.elements[tuple(message.metadata.delta_path)] = message.delta.new_element
        elif kind == "script_finished":
            if message.script_finished == ForwardMsg.FINISHED_WITH_COMPILE_ERROR:
                raise PageError("the page does not compile")
            return message.script_finished in OVER
        return False

    # --- what stands on the page

    def of_kind(self, kind: str) -> Iterator:
        """Every element of a kind, such as 'button'."""
        return (getattr(each, kind) for each in self.elements.values() if each.WhichOneof("type") == kind)

    def keyed(self, kind: str, key: str) -> list[str]:
        """The ids of widgets of a kind whose key begins so."""
        return [each.id for each in self.of_kind(kind) if f"-{key}" in each.id]

    def html(self, begins: str) -> str:
        """The first HTML block that holds `begins` near its start; "" where there is none."""
        return next((each.body for each in self.of_kind("html") if begins in each.body[:80]), "")

    def text(self) -> str:
        """All words on the page, without tags."""
        parts = [each.body for kind in ("html", "markdown", "alert") for each in self.of_kind(kind)]
        parts += [each.label for each in self.of_kind("button")]
        return " ".join(_TAGS.sub(" ", part) for part in parts)


def pressed(identity: str) -> WidgetState:
    """A click on a button."""
    return WidgetState(id=identity, trigger_value=True)


def typed(identity: str, text: str) -> WidgetState:
    """A text in a field."""
    return WidgetState(id=identity, string_value=text)


def chosen(identity: str, option: str) -> WidgetState:
    """A segment of a segmented control."""
    return WidgetState(id=identity, string_array_value={"data": [option]})

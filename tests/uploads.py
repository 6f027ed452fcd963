"""Files as a browser sends them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping


class Sent:
    """A file as the browser sends it."""

    def __init__(self, name: str, content: bytes | str) -> None:
        self.name, self._content = name, content.encode() if isinstance(content, str) else content

    def getvalue(self) -> bytes:
        return self._content


def zipped(members: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP archive. members: name -> content."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()

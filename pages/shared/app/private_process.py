"""What the server's process keeps of what users type and send: no words of an error in a log, no upload spooled to disk.

No screen. Streamlit logs an unforeseen error with its message, which may quote a patient's code, and its web server lays uploads
above a megabyte down in a temporary file. Both are settings of the process, not of a page.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from importlib import import_module
from types import TracebackType
from typing import Any

from mera_core.common.limits import in_force

_FRAMES = 12  # the innermost are where the fault is
_installed = False


def keep_private() -> None:
    """Make it so; any number of calls do as much as one."""
    global _installed
    if _installed:
        return
    make = logging.getLogRecordFactory()

    def without_message(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            record.msg, record.args = f"{_without_words(record.getMessage(), error)}\n{places(error)}", ()
            record.exc_info = None
        elif errors := [each for each in _arguments(record) if isinstance(each, BaseException)]:
            record.msg, record.args = record.getMessage(), ()
            for error in errors:  # log.error("failed: %s", error)
                record.msg = _without_words(record.msg, error)
        return record

    if make.__name__ != without_message.__name__:
        logging.setLogRecordFactory(without_message)
    threading.excepthook = _of_thread
    warnings.showwarning = _warned
    sys.unraisablehook = _of_nobody
    # last, because a limit that can't be read ends it: what is logged of that must be private already
    parser = import_module("starlette.formparsers").MultiPartParser  # of Streamlit's own server, in Streamlit's version
    parser.spool_max_size = max(parser.spool_max_size, in_force().upload_bytes + 1)
    _installed = True


def places(error: BaseException) -> str:
    """Kinds of an error and of what caused it, and the lines of code they passed: all but their words and values."""
    told: list[str] = []
    for current in _chain(error):
        frames = traceback.extract_tb(current.__traceback__)[-_FRAMES:]
        told += [f"{type(current).__name__}, its words left out: they may hold what a user typed"]
        told += [f"  {frame.filename}, line {frame.lineno}, in {frame.name}" for frame in frames]
    return "\n".join(told)


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what it came from."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def _without_words(message: str, error: BaseException) -> str:
    """A message without the words of an error, which asyncio's own messages repeat."""
    for each in _chain(error):
        for words in (repr(each), str(each)):
            if words:
                message = message.replace(words, type(each).__name__)
    return message


def _arguments(record: logging.LogRecord) -> list[Any]:
    return list(record.args.values() if isinstance(record.args, Mapping) else record.args or ())


def _warned(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    """A library's warning, which may quote the value that it warns of."""
    print(f"{filename}:{lineno}: {category.__name__}, its words left out", file=sys.stderr)


def _of_nobody(told: Any) -> None:
    """An error where nobody can catch it, as when an object is thrown away."""
    if told.exc_value is not None:
        print(f"An error that nobody could catch: {places(told.exc_value)}", file=sys.stderr)


def _of_thread(told: threading.ExceptHookArgs) -> None:
    error: BaseException | None = told.exc_value
    trace: TracebackType | None = told.exc_traceback
    if error is not None and told.exc_type is not SystemExit:
        print(f"A thread ended early: {places(error.with_traceback(trace))}", file=sys.stderr)

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
from collections.abc import Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from typing import Any

from mera_core.common.limits import current_limits

_FRAMES = 12  # the innermost are where the fault is


def keep_private() -> None:
    """Make it so; any number of calls do as much as one. Raises InputError for a limit that can't be read."""
    _without_words()
    parser = import_module("starlette.formparsers").MultiPartParser  # of Streamlit's own server, in Streamlit's version
    parser.spool_max_size = max(parser.spool_max_size, current_limits().upload_bytes + 1)


@cache
def _without_words() -> None:
    """All that a process says of errors and warnings by itself: their kinds and places, never their words."""
    logging.setLogRecordFactory(partial(_record, logging.getLogRecordFactory()))
    threading.excepthook = sys.unraisablehook = _unseen
    warnings.showwarning = _warned


def places(error: BaseException) -> str:
    """Kinds of an error and of what caused it, and the lines of code they passed: all but their words and values."""
    told: list[str] = []
    for each in _chain(error):
        told += [f"{type(each).__name__}, its words left out: they may hold what a user typed\n"]
        told += traceback.format_tb(each.__traceback__, -_FRAMES)
    return "".join(told)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


def _record(make: Any, *args: Any, **kwargs: Any) -> logging.LogRecord:
    """A log record; of an error that comes with it or is an argument of it, the words are gone from the message as well."""
    record = make(*args, **kwargs)
    raised = record.exc_info[1] if record.exc_info else None
    given = record.args.values() if isinstance(record.args, Mapping) else record.args or ()
    if errors := [each for each in (raised, *given) if isinstance(each, BaseException)]:
        message = record.getMessage()
        for each in (each for error in errors for each in _chain(error)):
            for words in filter(None, (repr(each), str(each))):  # asyncio's own messages repeat them
                message = message.replace(words, type(each).__name__)
        record.msg, record.args, record.exc_info = message + ("" if raised is None else f"\n{places(raised)}"), (), None
    return record


def _warned(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    print(f"{filename}:{lineno}: {category.__name__}, its words left out", file=sys.stderr)


def _unseen(told: Any) -> None:
    """An error that ended a thread, or was raised where nobody can catch it, as when an object is thrown away."""
    if told.exc_value is not None and told.exc_type is not SystemExit:
        print(f"An error that nobody caught: {places(told.exc_value)}", file=sys.stderr)

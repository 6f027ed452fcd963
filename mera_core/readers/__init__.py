"""One entry point for every source format: `read(path, format)`.

A format is a module of this folder with a `READER`; its name in READERS is all that joins it. Modules are
imported when a source needs them, so a format's libraries cost nothing until then.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from mera_core.errors import InputError
from mera_core.readers.base import Cohort, ImportReport, Reader, Source

__all__ = ["FORMATS", "READERS", "Cohort", "ImportReport", "Reader", "Source", "detect", "read"]

# Tried in this order by detection; 'table' comes last because its JSON check is the widest.
READERS: dict[str, str] = {
    "uci_diabetes130": "mera_core.readers.uci_diabetes130",
    "mimic3": "mera_core.readers.mimic3",
    "table": "mera_core.readers.table",
}
FORMATS = ("mimic3", "mimic4", "eicu", "meds", "omop", "fhir", "uci_diabetes130", "synpuf", "table")


def read(source: str | Path, format: str = "auto", **options: Any) -> Cohort:
    """Read patients from a file or folder, plain or gzipped.

    format: one of FORMATS, or 'auto' to recognise it; the report says which and why.
    Raises InputError for a source that is missing, damaged, unrecognised, or not of the format named.
    """
    where = Source(source)
    if format == "auto":
        name, why = detect(where)
    else:
        name, why = format, "as asked"
    cohort = _reader(name).read(where, **options)
    cohort.report.why = why
    return cohort


def detect(source: str | Path | Source) -> tuple[str, str]:
    """The format of a source and why it is taken for it; InputError when no reader knows it."""
    where = source if isinstance(source, Source) else Source(source)
    for name in READERS:
        why = _reader(name).detect(where)
        if why:
            return name, why
    raise InputError(
        f"{where.path} is in no format that is known here ({', '.join(READERS)}); "
        "name the format if it is one of these."
    )


def _reader(name: str) -> Reader:
    if name in READERS:
        return import_module(READERS[name]).READER
    if name in FORMATS:
        raise InputError(f"the reader for {name} isn't there yet; there are {', '.join(READERS)}.")
    raise InputError(f"there is no format {name!r}; formats are auto, {', '.join(FORMATS)}.")

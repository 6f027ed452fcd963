"""One entry point for every source format: `read(path, format)`.

A format is a module with `FORMAT`, `detect(source)` and `read(source, report, ontology, **options)`; its
line in READERS is all that joins it. It may have `expects(source)`: why a source that no `detect` knows must be meant
for this format, so that its `read` can say what is wrong with it. Modules are imported when a source needs them, so a
format's libraries cost nothing until then.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from mera_core.common.errors import InputError
from mera_core.icd.ontology import Ontology
from mera_core.readers.common.base import Cohort, ImportReport, Progress, Source, refuse_damaged, yes

__all__ = ["FORMATS", "READERS", "Cohort", "ImportReport", "Progress", "Source", "detect", "options_of", "read"]

# A file is asked in this order; 'table' comes last because its JSON check is the widest.
READERS: dict[str, str] = {
    "uci_diabetes130": "mera_core.readers.uci_diabetes130",
    "synpuf": "mera_core.readers.synpuf",
    "mimic3": "mera_core.readers.mimic.mimic3",
    "mimic4": "mera_core.readers.mimic.mimic4",
    "eicu": "mera_core.readers.eicu",
    "meds": "mera_core.readers.meds.reader",
    "omop": "mera_core.readers.omop.reader",
    "fhir": "mera_core.readers.fhir.reader",
    "table": "mera_core.readers.table.reader",
}
FORMATS = tuple(READERS)
AS_CATEGORY = "as_category"  # an option of every format


def read(
    source: str | Path,
    format: str = "auto",
    ontology: Ontology | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Cohort:
    """Read patients from a file or folder, plain or gzipped.

    format: one of FORMATS, or 'auto' to recognise it; the report says which and why. progress: told what is read and
    how far. options: those of the format's own `read` (see its page in docs/data), and of every format as_category:
    whether a code of another edition is read as its nearest ancestor.
    Raises InputError for a source that is missing, damaged, unrecognised, or not of the format named.
    """
    where = Source(source, progress)
    if format != "auto":
        name, why = format, "as asked"
    elif options.get("columns"):
        name, why = "table", "its columns are named by the user"
    else:
        name, why = detect(where)
    reader = _reader(name)
    unknown = sorted(set(options) - set(options_of(name)))
    if unknown:
        known = ", ".join(options_of(name))
        raise InputError(f"the format {name} has no option {unknown[0]!r}; it has {known}.")
    if AS_CATEGORY in options:
        ontology = Ontology(yes(options.pop(AS_CATEGORY), AS_CATEGORY))
    cohort = reader.read(where, ImportReport(name, why), ontology, **options)
    cohort.report.remarks += _beside(where, name)
    return cohort


def detect(source: str | Path | Source) -> tuple[str, str]:
    """The format of a source and why it is taken for it.

    Raises InputError when no reader knows it (naming a file that is damaged, if one is), or a folder holds several formats.
    """
    where = source if isinstance(source, Source) else Source(source)
    found = []
    for name in READERS:
        why = _reader(name).detect(where)
        if why:
            found.append((name, why))
            if where.path.is_file():
                break
    if len(found) > 1 and found[-1][0] == "table":  # such as what was written beside the records; see `_beside`
        found.pop()
    if len(found) > 1:
        named = "; ".join(f"{name}: {why}" for name, why in found)
        raise InputError(f"{where.path} holds more than one format ({named}); name the one to read.")
    if found:
        return found[0]
    for name in READERS:
        if (expects := getattr(_reader(name), "expects", None)) and (why := expects(where)):
            return name, why
    refuse_damaged(where)
    raise InputError(
        f"{where.path} is in no format that is known here ({', '.join(READERS)}); "
        "name the format if it is one of these."
    )


def _beside(source: Source, read: str) -> list[str]:
    """What a folder holds beside the records that were read, in a sentence, so that nothing is passed over in silence."""
    if source.path.is_file():
        return []
    others = [(name, why) for name in READERS if name != read and (why := _seen(name, source))]
    return [f"beside what was read the folder holds records as {name}, not read: {why}" for name, why in others]


def _seen(name: str, source: Source) -> str | None:
    """Why a source would be taken for a format; None too where a part of it can't be looked at, which spoils no reading."""
    try:
        return _reader(name).detect(source)
    except InputError:
        return None


def options_of(format: str) -> dict[str, Any]:
    """The options that a format's reader takes beside the source, with their defaults."""
    parameters = signature(_reader(format).read).parameters.values()
    own = {each.name: each.default for each in parameters if each.name not in ("source", "report", "ontology")}
    return {**own, AS_CATEGORY: True}


def _reader(name: str) -> ModuleType:
    if name in READERS:
        return import_module(READERS[name])
    raise InputError(f"there is no format {name!r}; formats are auto, {', '.join(FORMATS)}.")

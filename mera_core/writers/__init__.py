"""One exit for every format that a cohort can be written in: `write(cohort, out, format)`.

A format is a module of this folder with `write(columns, part, ...)`; what is written stands under a temporary name until it is
whole, and is then renamed, so that nothing half-written is ever found under the name asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from mera_core.common.errors import InputError
from mera_core.common.files import Report, written_whole
from mera_core.icd.ontology import Ontology
from mera_core.readers.common.base import Cohort

__all__ = ["WRITERS", "Report", "write"]

WRITERS: dict[str, str] = {"meds": "mera_core.writers.meds", "fhir": "mera_core.writers.fhir"}
Progress = Callable[[str, int, int], None]


def write(
    cohort: Cohort,
    out: str | Path,
    format: str,
    ontology: Ontology | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Write a cohort as 'meds' (a folder) or 'fhir' (.json: one Bundle, .ndjson: one resource a line, else a bulk folder).

    The visits table has its own writer (`mera_core.history.records`). options: those of the module's `write`.
    Raises InputError where the format is unknown, `out` exists as a folder with something in it, its parent is missing or
    can't be written to, or a code of the cohort is still text.
    """
    if format not in WRITERS:
        raise InputError(f"a cohort can be written as {', '.join(WRITERS)}, not as {format!r}.")
    module = import_module(WRITERS[format])
    columns = cohort.columns
    if any(isinstance(code, str) for code in columns.codes):
        raise InputError(
            "the cohort holds a code that is still text, so its system is unknown; read it by a reader first."
        )
    target = Path(out)
    with written_whole(target, folder=module.is_folder(target)) as part:
        report = module.write(columns, part, ontology or Ontology.load(), progress or _nobody, **options)
    report.path = target
    return report


def _nobody(what: str, done: int, total: int) -> None:
    """Who listens when nobody does."""

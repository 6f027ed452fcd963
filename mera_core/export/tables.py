"""A ranking and its history as files to take away: CSV that a spreadsheet can't run, and JSON; with provenance.

Boundary: makes text and writes nothing; knows rankings, histories and ICD codes, no screen and no model. FHIR is in
`fhir`, the printable page in `report`; all four carry the same `Provenance`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from mera_core.common.errors import InputError
from mera_core.history.columns import VisitColumns
from mera_core.history.history_json import patient_to_json
from mera_core.history.records import Patient
from mera_core.icd.ontology import SYSTEM_NAMES, Ontology
from mera_core.ranking.ranking import NOTICE, Ranking

_FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")  # full-width ones count for spreadsheets


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an export comes from.

    checkpoint: name and fingerprint, as `Engine.name`. code_release: code system -> release of its tables, in words.
    software: fingerprint of this engine's source. trained_at: the commit that trained the checkpoint, "" where its
    manifest holds none. time: of the export, UTC. notice: what the numbers are not for.
    Raises InputError for a checkpoint without a name or a time without a zone.
    """

    checkpoint: str
    code_release: Mapping[str, str]
    software: str
    time: datetime
    trained_at: str = ""
    notice: str = NOTICE

    def __post_init__(self) -> None:
        if not self.checkpoint.strip():
            raise InputError("An export must name the checkpoint it comes from.")
        if self.time.tzinfo is None:
            raise InputError("The time of an export needs a time zone.")
        object.__setattr__(self, "time", self.time.astimezone(UTC).replace(microsecond=0))

    @classmethod
    def now(cls, checkpoint: str, manifest: Mapping[str, Any], ontology: Ontology) -> Provenance:
        """Of an export made at this moment.

        manifest: what `mera.json` says of the checkpoint. Code systems it does not name, in which a history may be
        written all the same, come from the tables at hand.
        """
        releases = {system: ontology.release(system) for system in SYSTEM_NAMES} | dict(manifest["icd_release"])
        trained_at = str(manifest.get("data", {}).get("commit", ""))
        return cls(checkpoint, releases, source_fingerprint(), datetime.now(UTC), trained_at)

    @property
    def fingerprint(self) -> str:
        """The hash part of the checkpoint's name."""
        return self.checkpoint.split()[-1]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("checkpoint", "code_release", "software", "trained_at", "time", "notice")
        return {name: getattr(self, name) for name in names} | {"time": self.time.isoformat()}

    def cells(self) -> dict[str, str]:
        """One text per column of a table whose rows each carry their provenance."""
        return {
            "checkpoint": self.checkpoint,
            "code_release": "; ".join(self.code_release.values()),
            "software": self.software,
            "exported": self.time.isoformat(),
            "notice": self.notice,
        }


@cache
def source_fingerprint() -> str:
    """'MERA ' and 12 digits of a SHA-256 over the engine's own source files: which code made a number."""
    folder = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return f"MERA {digest.hexdigest()[:12]}"


def formula_safe(text: str) -> str:
    """Text that a spreadsheet shows and does not run: an apostrophe before a sign that begins a formula.

    Spreadsheets pass over leading blanks. Source: OWASP, CSV Injection.

    >>> formula_safe("=1+1"), formula_safe(" @SUM(A1)"), formula_safe("428.0")
    ("'=1+1", "' @SUM(A1)", '428.0')
    """
    return f"'{text}" if text.lstrip(' \u00a0"').startswith(_FORMULA_STARTS) else text


def to_csv(table: pd.DataFrame) -> str:
    """A table as CSV, every text cell and column name formula-safe; numbers and booleans as they are."""
    safe = table.copy()
    for place, column in enumerate(safe.columns):
        cells = table.iloc[:, place]
        if not (pd.api.types.is_numeric_dtype(cells) or pd.api.types.is_bool_dtype(cells)):
            safe.isetitem(place, [None if pd.isna(cell) else formula_safe(str(cell)) for cell in cells])
        safe = safe.rename(columns={column: formula_safe(str(column))})
    return safe.to_csv(index=False, lineterminator="\r\n")  # RFC 4180


def ranking_csv(ranking: Ranking, provenance: Provenance) -> str:
    """The whole label space, best first, one row a code; each row names its provenance.

    `concept` repeats the code with its system ("ICD9:428.0"), because a spreadsheet takes "428.0" for a number and
    drops its zero.
    """
    frame = ranking.to_frame()
    frame.insert(1, "concept", [str(code) for code in ranking.codes])
    return to_csv(frame.assign(**provenance.cells()))


def ranking_json(ranking: Ranking, patient: Patient, provenance: Provenance) -> str:
    """What `python -m mera_core rank --json` prints, with the history as typed and the provenance."""
    whole = ranking.to_json() | {"history": patient_to_json(patient), "provenance": provenance.to_json()}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def history_json(patient: Patient) -> str:
    """The history as typed, unread text included: HISTORY.json, which every tool of this project reads back."""
    return json.dumps(patient_to_json(patient), indent=2, ensure_ascii=False) + "\n"


def history_csv(patients: Patient | Sequence[Patient]) -> str:
    """Histories as a visits table, formula-safe. A single history without an id is named "history".

    Raises InputError for a history without visits, or two of one id.
    """
    if isinstance(patients, Patient):
        patients = [patients]
    if len(patients) == 1 and not patients[0].id:
        patients = [replace(patients[0], id="history")]
    table = VisitColumns.named(patients).table()
    table["time"] = [None if pd.isna(time) else time.isoformat() for time in table["time"]]
    return to_csv(table)


def file_stem(kind: str, provenance: Provenance) -> str:
    """'mera-ranking-1f0c9a2b7d3e-20261130T101500Z': a file name without a word from the patient."""
    return f"mera-{kind}-{provenance.fingerprint}-{provenance.time:%Y%m%dT%H%M%SZ}"

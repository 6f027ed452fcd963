"""The one place to import records from: patients, visits, HISTORY.json, and the visits table's columns and files."""

from __future__ import annotations

from mera_core.history.columns import VISITS_TABLE_COLUMNS
from mera_core.history.history_json import (
    DEMO_PATIENTS,
    MAX_CODES,
    MAX_VISITS,
    DemoPatient,
    demo_patients,
    parse_json,
    patient_from_json,
    patient_to_json,
)
from mera_core.history.patient import Note, Patient, Visit, resolve, with_visits
from mera_core.history.visits_file import TABLE_SUFFIXES, write_visits

__all__ = [
    "DEMO_PATIENTS", "MAX_CODES", "MAX_VISITS", "TABLE_SUFFIXES", "VISITS_TABLE_COLUMNS", "DemoPatient",
    "Note", "Patient", "Visit", "demo_patients", "parse_json", "patient_from_json",
    "patient_to_json", "resolve", "with_visits", "write_visits",
]  # fmt: skip

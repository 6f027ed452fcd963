"""The downloads of a ranking: CSV, JSON, FHIR and the printable page, each made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from mera_core.export.fhir import ranking_fhir
from mera_core.export.report import ranking_report
from mera_core.export.tables import Provenance, file_stem, ranking_csv, ranking_json
from mera_core.history.records import Patient
from mera_core.ranking.ranking import NOTICE, Ranking
from pages.shared.app.session import engine

# Label, icon, ending, media type, maker and what it is for.
_KINDS: tuple[tuple[str, str, str, str, Callable[[Ranking, Patient, Provenance], str], str], ...] = (
    (
        "Printable page",
        ":material/print:",
        "html",
        "text/html",
        ranking_report,
        "One page with history, list and charts; open it and print it, or save it as PDF.",
    ),
    (
        "CSV",
        ":material/table:",
        "csv",
        "text/csv",
        lambda ranking, patient, provenance: "\ufeff" + ranking_csv(ranking, provenance),  # for Excel: it is UTF-8
        "The whole ranked list as a table; nothing in it can run as a formula.",
    ),
    (
        "JSON",
        ":material/data_object:",
        "json",
        "application/json",
        ranking_json,
        "The whole ranked list with the history as typed.",
    ),
    (
        "FHIR",
        ":material/local_hospital:",
        "fhir.json",
        "application/fhir+json",
        ranking_fhir,
        "A FHIR R4 Bundle with a RiskAssessment and the conditions it rests on.",
    ),
)


def downloads(ranking: Ranking, patient: Patient, loaded: Any = None, key: str = "export") -> None:
    """One button for each kind of file; the file is made when its button is clicked.

    loaded: the engine that ranked, the session's by default. key: names the widgets, where a page shows two rankings.
    """
    loaded = loaded or engine()
    with st.container(key=f"{key}_downloads", gap="xsmall"):
        st.markdown("**Take it along**")
        with st.container(horizontal=True, gap="xsmall"):
            provenance = Provenance.now(ranking.checkpoint, loaded.manifest, ranking.ontology)
            for label, icon, ending, media, make, help_text in _KINDS:
                st.download_button(
                    label,
                    # the file is made after this run, by whichever maker stands here now
                    data=lambda make=make: make(ranking, patient, provenance).encode("utf-8"),
                    file_name=f"{file_stem('ranking', provenance)}.{ending}",
                    mime=media,
                    key=f"{key}_{ending}",
                    icon=icon,
                    help=help_text,
                    on_click="ignore",
                )
        st.caption(f"Every file names the checkpoint, the code books and the time. {NOTICE}")

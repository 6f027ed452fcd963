"""The downloads of a ranking: CSV, JSON, FHIR and the printable page, each made when it is asked for."""

from __future__ import annotations

import streamlit as st

from mera_core.export.fhir import ranking_fhir
from mera_core.export.report import ranking_report
from mera_core.export.tables import Provenance, file_stem, ranking_csv, ranking_json
from mera_core.history.records import Patient
from mera_core.ranking.ranking import NOTICE, Ranking
from pages.shared.app.engines import engine
from pages.shared.widgets.controls import File, download


def downloads(ranking: Ranking, patient: Patient) -> None:
    """One button for each kind of file."""
    source = Provenance.now(ranking.checkpoint, engine().manifest, ranking.ontology)
    files = (
        File(
            "Printable page",
            "html",
            "text/html",
            lambda: ranking_report(ranking, patient, source),
            "One page with history, list and charts; open it and print it, or save it as PDF.",
            "print",
        ),
        File(
            "CSV",
            "csv",
            "text/csv",
            lambda: "\ufeff" + ranking_csv(ranking, source),  # for Excel: it is UTF-8
            "The whole ranked list as a table; nothing in it can run as a formula.",
            "table",
        ),
        File(
            "JSON",
            "json",
            "application/json",
            lambda: ranking_json(ranking, patient, source),
            "The whole ranked list with the history as typed.",
            "data_object",
        ),
        File(
            "FHIR",
            "fhir.json",
            "application/fhir+json",
            lambda: ranking_fhir(ranking, patient, source),
            "A FHIR R4 Bundle with a RiskAssessment and the conditions it rests on.",
            "local_hospital",
        ),
    )
    with st.container(key="export_downloads", gap="xsmall"):
        st.markdown("**Download this prediction**")
        download(file_stem("ranking", source), files, "export")
        st.caption(f"Every file names the model, the ICD releases and the time. {NOTICE}")

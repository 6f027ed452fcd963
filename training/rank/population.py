"""Whom a checkpoint learned from: fits the score of how usual a history is, from training patients alone."""

from __future__ import annotations

from collections.abc import Iterable

from mera_core.checkpoint.folder import Manifest
from mera_core.engine import Engine
from mera_core.history.records import Patient
from mera_core.ranking.population import Population


def fit_population(engine: Engine, manifest: Manifest, patients: Iterable[Patient], format: str | None = None) -> None:
    """Put the description of the training patients into a manifest that has none; too few patients leave it empty.

    format: of the records that the patients are from, where these may be other ones than those of training: nothing is fitted
        then, for the network learned from other people.
    """
    if manifest.population or (format is not None and format != manifest.data.get("format")):
        return
    if fitted := Population.fit([engine.read_history(patient) for patient in patients]):
        manifest.population.update(fitted.to_dict(manifest.input_codes))

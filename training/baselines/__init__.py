"""The models to beat, each fitted on training patients and scoring the label space of a MERA model: one interface for all."""

from __future__ import annotations

from collections.abc import Sequence

from mera_core.icd.ontology import Code
from training.baselines.record_features import Told
from training.baselines.regression import HistoryRegression, RecordRegression
from training.baselines.samples import Baseline, truth_of
from training.baselines.simple import CodeFrequency, CopyThePast

__all__ = [
    "Baseline",
    "CodeFrequency",
    "CopyThePast",
    "HistoryRegression",
    "RecordRegression",
    "Told",
    "all_baselines",
    "truth_of",
]


def all_baselines(labels: Sequence[Code], told: Told) -> tuple[Baseline, ...]:
    """Those that `evaluate` fits each time, being quick; `compare` adds the slow ones. Not yet fitted.

    told: what the last one is told of a patient.
    """
    return (CodeFrequency(labels), CopyThePast(labels), HistoryRegression(labels), RecordRegression(labels, told))

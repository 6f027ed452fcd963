"""Which patients of some records a checkpoint may be judged on: those that it was not trained on. Measures nothing."""

from __future__ import annotations

from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history import cohort_rules
from mera_core.history.records import Patient
from mera_core.readers import Cohort
from training.common.split import PARTS, SPLIT_RULE, split_of

CARRIERS = ("table", "meds", "omop", "fhir")
"""Formats that records of any source can be brought into, so that the format does not tell the source."""


def choose_part(patients: list[Patient], engine: Engine, format: str, part: str) -> tuple[list[Patient], str]:
    """The patients to evaluate, and in words which they are and why.

    part: "auto" takes all where the records are of another source than those of training, and the test part by the split
    rule where they are of the same, or where nothing tells the two apart (`another_source`).
    """
    if part not in ("auto", "all", "paper", *PARTS):
        raise InputError(f'--part is "{part}"; it can be auto, all, {", ".join(PARTS)} or paper.')
    if part == "all":
        return patients, "all"
    why = ""
    if part == "auto":
        known = engine.manifest["data"].get("format")
        if told := another_source(patients, engine, format):
            return patients, f"all; {told}"
        if format != known:
            why = (
                f"; records of the format {format} may be those of training ({known or 'format not recorded'}) in another "
                "form, so that only patients are taken whom this rule keeps out of training: --part all takes everybody"
            )
        part = "test"
    return [p for p in patients if split_of(p.id) == part], f"{part} part ({SPLIT_RULE}){why}"


def another_source(patients: list[Patient], engine: Engine, format: str) -> str:
    """In words, what tells that the records are not those of training; "" where they may be.

    A format that only one source has (`CARRIERS` are the others) tells it. So do the codes: the checkpoint knows every
    code of its training patients, so that a patient with another code was none of them. Half of the patients whom the
    split rule would have trained on are asked to be such, since a conversion may spell a few codes anew.
    """
    known = engine.manifest["data"].get("format")
    if format == known:
        return ""
    if known and not {format, known} & set(CARRIERS):
        return f"the format {format} is that of another source than {known}, the one of training"
    trained = [patient for patient in patients if split_of(patient.id) == "train"]
    strange = sum(
        any(code not in engine.input_codes for v in patient.visits for code in v.codes) for patient in trained
    )
    if trained and 2 * strange >= len(trained):
        return (
            f"{strange:,} of the {len(trained):,} patients whom the split rule would have trained on have codes that no "
            "training patient had, so that the records are of another source"
        )
    return ""


def paper_test_part(cohort: Cohort, engine: Engine) -> tuple[list[Patient], str]:
    """The test part of the paper's own cohort and split, and in words how it came about."""
    columns, flow, parts = cohort_rules.published(cohort.columns, cohort.report.format)
    test = frozenset(parts["test"])
    left = f"cohort rules {flow.rules.name} left {len(columns.ids):,} of {flow.steps[0].patients:,} patients"
    rule = cohort_rules.PUBLISHED_RULE
    trained_so = engine.manifest["data"].get("split_rule") == rule
    warning = "" if trained_so else "; the checkpoint was NOT trained on that split, and may have seen them"
    return [p for p in columns.patients() if p.id in test], f"test part of the paper's split ({rule}); {left}{warning}"

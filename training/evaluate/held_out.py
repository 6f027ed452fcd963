"""Which patients of some records a checkpoint may be judged on: those that it was not trained on. Measures nothing."""

from __future__ import annotations

from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history import cohort_rules
from mera_core.history.history_json import has_shifted_dates
from mera_core.history.records import Patient
from mera_core.readers import Cohort
from training.common.split import PARTS, SPLIT_RULE, split_of

CARRIERS = ("table", "meds", "omop", "fhir")
"""Formats that records of any source can be brought into, so that the format does not tell the source."""

MIMIC = ("mimic3", "mimic4")
SHARED = "MIMIC-III and MIMIC-IV both hold patients of 2008 to 2012, under other ids"


def choose_part(patients: list[Patient], engine: Engine, format: str, part: str) -> tuple[list[Patient], str]:
    """The patients to evaluate, and in words which they are and why.

    part: "auto" takes all where the records are of another source than those of training (but see `not_shared`), and the
    test part by the split rule where they are of the same, or where nothing tells the two apart (`another_source`).
    """
    if part not in ("auto", "all", "paper", *PARTS):
        raise InputError(f'--part is "{part}"; it can be auto, all, {", ".join(PARTS)} or paper.')
    if part == "all":
        return patients, "all"
    why = ""
    if part == "auto":
        known = engine.manifest["data"].get("format")
        if told := another_source(patients, engine, format):
            taken, left_out = not_shared(patients, known, format)
            return taken, f"{left_out or 'all'}; {told}"
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


def not_shared(patients: list[Patient], known: str | None, format: str) -> tuple[list[Patient], str]:
    """The patients of one release of MIMIC whom the other can't hold, and in words who was left out; all of another source.

    known: the format of the training records. Records that were brought into another form are taken for MIMIC's where
    their dates are shifted into the future. Raises InputError where no patient's admissions are all told to be after 2012.
    """
    shifted = format in CARRIERS and any(map(has_shifted_dates, patients))
    if format == known or known not in (*MIMIC, *CARRIERS, None) or not (format in MIMIC or shifted):
        return patients, ""
    new = [p for p in patients if all("2012" < visit.details.get("year", "") <= "9999" for visit in p.visits)]
    if not new:
        raise InputError(
            f"{SHARED}, and these records tell of no patient that every admission was after 2012 ('visit.year'), so that "
            "patients of training may be among them: --part all takes everybody."
        )
    return new, f"{len(new):,} of {len(patients):,} patients, those with all admissions after 2012, as {SHARED}"


def paper_test_part(cohort: Cohort, engine: Engine) -> tuple[list[Patient], str]:
    """The test part of the paper's own cohort and split, and in words how it came about."""
    columns, flow, parts = cohort_rules.published(cohort.columns, cohort.report.format)
    test = frozenset(parts["test"])
    left = f"cohort rules {flow.rules.name} left {len(columns.ids):,} of {flow.steps[0].patients:,} patients"
    rule = cohort_rules.PUBLISHED_RULE
    trained_so = engine.manifest["data"].get("split_rule") == rule
    warning = "" if trained_so else "; the checkpoint was NOT trained on that split, and may have seen them"
    return [p for p in columns.patients() if p.id in test], f"test part of the paper's split ({rule}); {left}{warning}"

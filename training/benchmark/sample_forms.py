"""All targets of a history in one pass, beside one sample a (history, next visit): patients trained on in a second.

Both learn from the same targets and give the same loss for the same weights; only the work differs. "Like lengths" puts
samples of like length into a batch in both; "mixed" is what a sample a prefix usually gets: batches as they come, padded
to the longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mera_core.history.records import Patient
from mera_core.icd.ontology import Code, Ontology
from training.benchmark.invented import patients
from training.benchmark.rows import Row, Setting, paired, row
from training.benchmark.train_step import HCL, Steps, model_over

TITLE = "Training: T - 1 targets in one pass, beside a sample for each prefix"


def measure(setting: Setting) -> Iterator[Row]:
    """Patients a second: T - 1 targets of one pass beside a sample for each prefix, in three kinds of batches."""
    ontology = Ontology.load()
    cohort = patients(32 if setting.quick else 192, ontology.billable("ICD9"))
    small = replace(HCL, batch_size=16)  # as varied in length, among so few patients, as 64 among all of a data set
    kinds = (
        ("like lengths together in both", small, replace(small, prefix_samples=True)),
        (
            "a sample a prefix in mixed batches, as is usual",
            small,
            replace(small, prefix_samples=True, batches="mixed"),
        ),
    )
    with_five = [patient for patient in patients(2000, ontology.billable("ICD9"), seed=2) if len(patient.visits) >= 5]
    cohorts = [(*kind, cohort, "all histories") for kind in kinds]
    cohorts.append((*kinds[0], with_five[: len(cohort) // 4], "histories of five visits and more"))
    for name, one_pass, prefixes, people, which in cohorts:
        labels = labels_of(people)
        ours, theirs = (
            Steps(model_over(setting.checkpoint, ontology, labels), ontology, config, people)
            for config in (one_pass, prefixes)
        )
        assert ours.targets == theirs.targets
        took = paired(ours.one_pass, theirs.one_pass, setting.times(3, 1))
        yield row(
            f"patients trained on, all targets in one pass: {which}, {name}",
            [len(people) / one for one in took[0]],
            "patients/s",
            against="a sample for each prefix",
            theirs=[len(people) / one for one in took[1]],
            targets=ours.targets,
            batch_size=16,
            labels=len(labels),
            visits_a_patient=round(sum(len(p.visits) for p in people) / len(people), 2),
            tokens=tokens_of(ours),
            tokens_with_prefixes=tokens_of(theirs),
        )


def labels_of(people: Sequence[Patient]) -> list[Code]:
    """Every code of the patients, sorted."""
    return sorted({code for patient in people for visit in patient.visits for code in visit.codes})


def tokens_of(steps: Steps) -> int:
    """Tokens of a pass, padding included."""
    return sum(batch["input_ids"].numel() for batch in steps.batches)

"""All targets of a history in one pass, beside one sample a (history, next visit): patients trained on in a second.

Both learn from the same targets and give the same loss for the same weights; only the work differs. "Like lengths" puts
samples of like length into a batch in both; "mixed" is what a sample a prefix usually gets: batches as they come, padded
to the longest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mera_core.icd.ontology import Ontology
from training.benchmark.invented import patients
from training.benchmark.rows import Row, Setting, paired, rates, row
from training.benchmark.train_step import HCL, Steps, model_over

TITLE = "Training: T - 1 targets in one pass, beside a sample for each prefix"
ONE_PASS = replace(HCL, batch_size=16)  # as varied in length, among so few patients, as 64 among all of a data set
PREFIXES = replace(ONE_PASS, prefix_samples=True)


def measure(setting: Setting) -> Iterator[Row]:
    """Patients a second: T - 1 targets of one pass beside a sample for each prefix, in three kinds of batches."""
    ontology = Ontology.load()
    everybody = patients(32 if setting.quick else 192, ontology.billable("ICD9"))
    long = [p for p in patients(2000, ontology.billable("ICD9"), seed=2) if len(p.visits) >= 5][: len(everybody) // 4]
    alike, mixed = "like lengths together in both", "a sample a prefix in mixed batches, as is usual"
    for people, which, name, config in (
        (everybody, "all histories", alike, PREFIXES),
        (everybody, "all histories", mixed, replace(PREFIXES, batches="mixed")),
        (long, "histories of five visits and more", alike, PREFIXES),
    ):
        labels = sorted({code for patient in people for visit in patient.visits for code in visit.codes})
        ours, theirs = (
            Steps(model_over(setting.checkpoint, ontology, labels), ontology, each, people)
            for each in (ONE_PASS, config)
        )
        assert ours.targets == theirs.targets
        took = paired(ours.one_pass, theirs.one_pass, setting.times(3))
        yield row(
            f"patients trained on, all targets in one pass: {which}, {name}",
            "patients/s",
            "a sample for each prefix",
            *rates(len(people), took),
            targets=ours.targets,
            batch_size=ONE_PASS.batch_size,
            labels=len(labels),
            visits_a_patient=round(sum(len(p.visits) for p in people) / len(people), 2),
            tokens=sum(ours.tokens),
            tokens_with_prefixes=sum(theirs.tokens),
        )

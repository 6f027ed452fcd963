"""Question 4: does a checkpoint travel? Ranked untouched on other sources, beside its home patients, at one common level.

Every label and every true code is rolled up to its ICD-9-CM category (a true ICD-10-CM code by way of the equivalence
maps, all targets), so that sources that code finer can be compared. Nothing is fitted on the other sources; the two
baselines are fitted at home too. Trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mera_core.cohort.targets import before_last
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap, Estimate, paired_differences
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Patient, Visit, resolve
from mera_core.history.translate import CATEGORY, translate
from mera_core.icd.ontology import Code, Ontology
from mera_core.ranking.ranking import NOTICE
from mera_core.readers import read
from training.ablate.results import figures_of
from training.baselines import Baseline, CodeFrequency, CopyThePast
from training.common.split import split_of, with_codes
from training.evaluate.held_out import not_shared
from training.evaluate.run import load
from training.evaluate.scored import Scored
from training.evaluate.table import without_nan

KS = (10, 20)


@dataclass(frozen=True)
class Source:
    """Records to test on. home: those of the checkpoint's own source, of which only the test part is taken."""

    name: str
    path: str
    format: str
    home: bool = False

    @classmethod
    def parse(cls, text: str) -> Source:
        """From NAME=FORMAT:PATH; InputError for what is not written so."""
        name, equals, rest = text.partition("=")
        format, colon, path = rest.partition(":")
        if not (equals and colon and name and format and path):
            raise InputError(f'A source is NAME=FORMAT:PATH, not "{text}".')
        return cls(name, path, format)


def run(checkpoint: Path, sources: Sequence[Source], draws: int = 1000) -> dict[str, Any]:
    """Figures of the checkpoint and of both baselines on each source; a source that can't be read says why."""
    home = next((source for source in sources if source.home), None)
    if home is None:
        raise InputError("One of the sources must be the checkpoint's own, to fit the baselines on.")
    engine = load(checkpoint)
    train = [p for p in with_codes(read(home.path, home.format).patients) if split_of(p.id) == "train"]
    categories = common_labels(engine)
    baselines: list[Baseline] = [CodeFrequency(categories), CopyThePast(categories)]
    rolled = [rolled_up(patient, engine.ontology, set(categories)) for patient in train]
    fitted = [baseline.fit([patient for patient in rolled if patient.visits]) for baseline in baselines]
    rows = []
    for source in sources:
        try:
            rows.append(one_source(engine, source, categories, fitted, draws))
        except InputError as error:
            rows.append({"source": source.name, "format": source.format, "not_run": str(error)})
    return without_nan(
        {
            "notice": NOTICE,
            "question": "Does it travel: trained on one source, tested on others with no tuning?",
            "checkpoint": engine.name,
            "level": f"ICD-9-CM categories ({len(categories)})",
            "rows": rows,
        }
    )


def category(code: Code, ontology: Ontology) -> Code:
    """The three-character category of a code; the code itself where it stands above that level."""
    return ontology.ancestor_at(code, CATEGORY) or code


def common_labels(engine: Engine) -> tuple[Code, ...]:
    """The categories of the label space, sorted."""
    return tuple(sorted({category(code, engine.ontology) for code in engine.label_space}))


def rolled_up(patient: Patient, ontology: Ontology, known: set[Code]) -> Patient:
    """The patient in terms of the categories `known`; codes without one are left out, and visits left without codes."""
    resolved, _ = resolve(patient, ontology)
    rolled, _ = translate(resolved, known, ontology)
    return rolled


def one_source(
    engine: Engine, source: Source, categories: Sequence[Code], baselines: Sequence[Any], draws: int
) -> dict[str, Any]:
    """One row: how many patients, how much of what is true lies within the categories, and the figures of each model."""
    cohort = read(source.path, source.format)
    patients, left_out = with_codes(cohort.patients), ""
    if not source.home:
        patients, left_out = not_shared(patients, engine.manifest["data"].get("format"), cohort.report.format)
    patients = [p for p in patients if len(p.visits) > 1 and (not source.home or split_of(p.id) == "test")]
    patients = [p for p in patients if resolve(p, engine.ontology)[0].visits[-1].codes]
    if not patients:
        raise InputError(f"{source.name} holds no patient with two visits.")
    ours = Scored.of(engine, patients)
    truth = truth_at(ours.patients, categories, engine.ontology)
    scores, sets = at_categories(ours, categories)
    bootstrap = Bootstrap(len(truth), draws)
    known = set(categories)
    asked = [as_asked(patient, engine.ontology, known) for patient in ours.patients]
    models = {"MERA": figures(scores, truth, bootstrap, sets)}
    models |= {one.name: figures(one.scores(asked), truth, bootstrap) for one in baselines}
    mine = models["MERA"]
    return {
        "source": source.name,
        "format": source.format,
        "home": source.home,
        **({"taken": left_out} if left_out else {}),
        "patients": len(truth),
        "unreadable": len(patients) - len(ours.patients),
        "true_codes_a_visit": float(truth.size.mean()),
        "true_codes_within": float(1 - truth.missing.sum() / truth.size.sum()),
        "recurrent": float(truth.recurrent.size.sum() / truth.size.sum()),
        "models": [
            {"name": name, "metrics": each}
            | ({} if name == "MERA" else {"mera_minus_this": paired_differences(mine, each)})
            for name, each in models.items()
        ],
    }


def as_asked(patient: Patient, ontology: Ontology, known: set[Code]) -> Patient:
    """What a baseline is shown: the history rolled up, and an empty visit in the place of the next one."""
    history = rolled_up(before_last(patient), ontology, known)
    return replace(history, visits=(*(history.visits or (Visit(()),)), Visit(())))


def truth_at(patients: Sequence[Patient], categories: Sequence[Code], ontology: Ontology) -> Truth:
    """What each last visit held, as categories; a true code that has none counts as missed."""
    index = {code: label for label, code in enumerate(categories)}
    known = set(categories)
    targets, seen, missing, missing_seen = [], [], [], []
    for patient in patients:
        resolved, _ = resolve(patient, ontology)
        true = [(code, rolled_code(code, ontology, known)) for code in resolved.visits[-1].codes]
        held = {code for visit in resolved.visits[:-1] for code in visit.codes}
        lost = {code for code, labels in true if not labels}
        targets.append({index[label] for _, labels in true for label in labels})
        seen.append({index[label] for code in held for label in rolled_code(code, ontology, known)})
        missing.append(len(lost))
        missing_seen.append(len(lost & held))
    return Truth.from_sets(targets, seen, len(index), missing, missing_seen)


def rolled_code(code: Code, ontology: Ontology, known: set[Code]) -> tuple[Code, ...]:
    """One code in terms of `known`, by ancestors or by the equivalence maps; none where there is no way."""
    rolled, _ = translate(Patient((Visit((code,)),)), known, ontology)
    return rolled.visits[0].codes if rolled.visits else ()


def at_categories(ours: Scored, categories: Sequence[Code]) -> tuple[np.ndarray, Any]:
    """Scores [N, categories], the best of each category's labels over EOV, and the sets that the cut-off predicts."""
    index = {code: label for label, code in enumerate(categories)}
    column = np.array([index[category(code, ours.engine.ontology)] for code in ours.engine.label_space])
    spare = ours.ranked - ours.eov[:, None]
    scores = np.full((len(spare), len(categories)), -np.inf)
    np.maximum.at(scores.T, column, spare.T)
    return scores, metrics.above_cut(scores, 0.0)


def figures(scores: np.ndarray, truth: Truth, bootstrap: Bootstrap, sets: Any = None) -> dict[str, Estimate]:
    """Recall, weighted F1, and recall of recurrent and new codes apart."""
    found = figures_of(scores, truth, bootstrap, sets, KS)
    cut = ("weighted_f1_cut", "cut_size_mean") if sets is not None else ()
    shown = ("recall@10", "recall@20", "weighted_f1_oracle", *cut, "recurrent_recall@20", "new_onset_recall@20")
    return {name: found[name] for name in shown}

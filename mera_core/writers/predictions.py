"""Rankings of next visits as MEDS label and prediction tables, which MEDS evaluation tools read.

Boundary: patients and their rankings in, parquet tables out; runs no model. A task is boolean: does the next visit hold any
code of a group? Its tables are

    labels/<task>/0.parquet        subject_id, prediction_time, boolean_value        (the LabelSchema of `meds` 0.4)
    predictions/<task>/0.parquet   the same, and predicted_boolean_value, predicted_boolean_probability
                                   (the PredictionSchema of meds-evaluation)
    labels/next_visit_codes/0.parquet   a row for each true code: categorical_value, as 'ICD10CM/I50.22'

`prediction_time` is the end of the last visit that the ranking was made from, as `writers.meds` dates it: all that was known
then may be used. subject_id is that of `writers.meds`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mera_core.common.errors import InputError
from mera_core.common.files import Report, written_whole
from mera_core.history.columns import VisitColumns
from mera_core.history.records import Patient
from mera_core.icd.ontology import Code, Ontology
from mera_core.ranking.ranking import NOTICE, Ranking
from mera_core.writers.subjects import completed, subject_number

LABEL = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("prediction_time", pa.timestamp("us"), nullable=False),
        pa.field("boolean_value", pa.bool_(), nullable=False),
    ]
)
PREDICTION = LABEL.append(pa.field("predicted_boolean_value", pa.bool_())).append(
    pa.field("predicted_boolean_probability", pa.float32())
)
CODES_LABEL = pa.schema([LABEL.field(0), LABEL.field(1), pa.field("categorical_value", pa.string(), nullable=False)])
NEXT_VISIT_CODES = "next_visit_codes"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Task:
    """Whether the next visit holds any of `codes`, or a code below one of them. name: of its folder."""

    name: str
    codes: tuple[Code, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or set(self.name) == {"."} or self.name == NEXT_VISIT_CODES:
            raise InputError(f"a task can't be called {self.name!r}: use letters, digits, '_', '-' and '.'.")
        if not self.codes:
            raise InputError(f"the task {self.name!r} names no code.")


HEART_FAILURE = Task("heart_failure", (Code("ICD9", "428"), Code("ICD10", "I50")))


def task_of(code: Code) -> Task:
    """The task of one code: `task_of(Code("ICD9", "428.0")).name` is 'ICD9-428.0'."""
    return Task(f"{code.system}-{code.code}", (code,))


@dataclass(frozen=True)
class Sample:
    """A patient who is ranked for the visit after `history`; target: the codes of that visit."""

    history: Patient
    target: frozenset[Code]
    ranking: Ranking


def write_predictions(samples: Iterable[Sample], out: str | Path, tasks: Sequence[Task] = (HEART_FAILURE,)) -> Report:
    """Write labels and predictions of each task into the folder `out`, whole or not at all.

    The probability of a task is that of its likeliest code: the calibrated one where the checkpoint has it, else
    sigma(s - s_EOV), which is a score in [0, 1] and no probability; README.md in the folder says which.
    Raises InputError where no sample has a dated history, or two tasks share a name.
    """
    samples = list(samples)
    dated = [sample for sample in samples if sample.history.visits and sample.history.visits[-1].time is not None]
    if not dated:
        raise InputError("no patient has a dated last visit, and MEDS tables need a prediction_time.")
    ranking = dated[0].ranking
    table = judged(dated, tasks, ranking.ontology)
    report = write_judged([table], out, tasks, ranking.checkpoint, ranking.probability is not None)
    if len(dated) < len(samples):
        told = f"{len(samples) - len(dated):,} patients have no dated last visit and are left out"
        report.remarks.insert(0, told)
    return report


def judged(samples: Sequence[Sample], tasks: Sequence[Task], ontology: Ontology) -> pa.Table:
    """One row a sample, all with a dated last visit: what `write_judged` writes.

    Columns: subject_id, prediction_time, codes (the true ones, as 'ICD10CM/I50.22'), and of each task NAME the truth, whether
    any of its codes is above the cut-off, and the score of the likeliest: 'NAME true', 'NAME above', 'NAME score'.
    """
    distinct(tasks)
    columns: dict[str, Any] = {
        "subject_id": np.array([subject_number(sample.history.id) for sample in samples], dtype=np.int64),
        "prediction_time": _ends([sample.history for sample in samples]),
        "codes": [[f"{code.system}CM/{code.code}" for code in sorted(sample.target)] for sample in samples],
    }
    for task in tasks:
        columns |= zip(_columns(task), _judged(samples, task, ontology), strict=True)
    return pa.table(columns, schema=_judged_schema(tasks))


def write_judged(
    tables: Iterable[pa.Table], out: str | Path, tasks: Sequence[Task], checkpoint: str, calibrated: bool
) -> Report:
    """Write tables of `judged`, which may come one by one, into the folder `out`, whole or not at all.

    Raises InputError where they hold no row, or two tasks share a name.
    """
    distinct(tasks)
    report = Report("meds predictions", files=2 * len(tasks) + 2, path=Path(out))
    subjects: set[int] = set()
    with written_whole(Path(out), folder=True) as part, ExitStack() as files:
        writers = {
            (kind, task.name): files.enter_context(_writer(part / kind / task.name, shape))
            for kind, shape in (("labels", LABEL), ("predictions", PREDICTION))
            for task in tasks
        }
        truths = files.enter_context(_writer(part / "labels" / NEXT_VISIT_CODES, CODES_LABEL))
        for table in tables:
            if not len(table):
                continue
            who = [table["subject_id"], table["prediction_time"]]
            for task in tasks:
                found = [table[name] for name in _columns(task)]
                writers["labels", task.name].write_table(pa.table([*who, found[0]], schema=LABEL))
                writers["predictions", task.name].write_table(pa.table([*who, *found], schema=PREDICTION))
            rows = pc.list_parent_indices(table["codes"])
            named = [column.take(rows) for column in who]
            truths.write_table(pa.table([*named, pc.list_flatten(table["codes"])], schema=CODES_LABEL))
            subjects.update(table["subject_id"].to_pylist())
            report.visits += len(table)
            report.codes += len(rows)
        if not report.visits:
            raise InputError("no patient has a dated last visit and a true one, so there is no MEDS table to write.")
        told = _told(report.visits, tasks, checkpoint, calibrated)
        (part / "README.md").write_text(told, encoding="utf-8")
    report.patients = len(subjects)
    report.remarks.append(NOTICE)
    return report


def distinct(tasks: Sequence[Task]) -> None:
    """Raise InputError where two tasks share a name."""
    if len({task.name for task in tasks}) != len(tasks):
        raise InputError("two tasks share a name.")


def _judged(samples: Sequence[Sample], task: Task, ontology: Ontology) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, whether any code of the task is above the cut-off, and the score of its likeliest code; each [samples]."""
    truth, above, score = np.zeros(len(samples), bool), np.zeros(len(samples), bool), np.zeros(len(samples), np.float32)
    members: dict[Code, bool] = {}
    for row, sample in enumerate(samples):
        ranking = sample.ranking
        truth[row] = any(_belongs(code, task, ontology, members) for code in sample.target)
        own = np.array([_belongs(code, task, ontology, members) for code in ranking.codes])
        if own.any():
            above[row] = (ranking.scores[own] > ranking.cut).any()
            score[row] = _likelihood(ranking)[own].max()
    return truth, above, score


def _belongs(code: Code, task: Task, ontology: Ontology, members: dict[Code, bool]) -> bool:
    if code not in members:
        above = ontology.ancestors(code) if code in ontology else ()
        members[code] = code in task.codes or any(node in task.codes for node in above)
    return members[code]


def _likelihood(ranking: Ranking) -> np.ndarray:
    """[C] the calibrated probability, else sigma(s - s_EOV)."""
    if ranking.probability is not None:
        return ranking.probability
    return 1.0 / (1.0 + np.exp(-np.clip(ranking.scores - ranking.cut, -60.0, 60.0)))


def _ends(histories: list[Patient]) -> np.ndarray:
    columns = VisitColumns.of(histories)
    return completed(columns.time, columns.visit_words.get("stay"))[columns.visits_of[1:] - 1]


def _columns(task: Task) -> tuple[str, str, str]:
    return f"{task.name} true", f"{task.name} above", f"{task.name} score"


def _judged_schema(tasks: Sequence[Task]) -> pa.Schema:
    kinds = (pa.bool_(), pa.bool_(), pa.float32())
    fields = [pa.field(name, kind) for task in tasks for name, kind in zip(_columns(task), kinds, strict=True)]
    return pa.schema([LABEL.field(0), LABEL.field(1), pa.field("codes", pa.list_(pa.string())), *fields])


def _writer(folder: Path, shape: pa.Schema) -> pq.ParquetWriter:
    folder.mkdir(parents=True)
    return pq.ParquetWriter(folder / "0.parquet", shape)


def _told(samples: int, tasks: Sequence[Task], checkpoint: str, calibrated: bool) -> str:
    kind = "a calibrated probability" if calibrated else "sigma(s - s_EOV), a score, not a probability"
    lines = [f"- {task.name}: any of {', '.join(map(str, task.codes))}, or a code below" for task in tasks]
    return (
        f"# Predictions of the next visit's diagnoses\n\n{NOTICE}\n\nCheckpoint: {checkpoint}. "
        f"Samples: {samples:,}.\npredicted_boolean_probability is {kind}, of the likeliest code of the task;\n"
        "predicted_boolean_value says whether any of them is above the cut-off.\n\n" + "\n".join(lines) + "\n"
    )

"""Many patients scored chunk by chunk, and what they add up to: chapters, new predictions, figures on a held-out visit.

Boundary: patients and an engine in, tables and figures out; no screen and no files. Of each ranking only its head is
kept, so that a cohort of thousands fits in memory. Definitions of the figures: docs/method.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mera_core.cohort.targets import LeftOut, Ready, Target, Targets, truth_of
from mera_core.common.errors import InputError
from mera_core.evaluation import metrics
from mera_core.evaluation.bootstrap import Bootstrap, Estimate
from mera_core.evaluation.truth import Truth, rows_of_labels
from mera_core.history.records import Patient, resolve
from mera_core.icd.chapters import FIELDS, field_of
from mera_core.icd.ontology import Code
from mera_core.ranking.ranking import Ranking

if TYPE_CHECKING:
    from mera_core.engine import Engine

HEAD = 50  # best codes kept of a ranking; more where more are predicted or true
KS = (10, 20)
CHUNK = 32  # patients between two looks at the progress


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The head of one patient's ranking: K best labels as indices into the label space, best first.

    history: what was ranked, so without a held-out visit. scores, share, probability, recurrent: [K], as in `Ranking`;
    probability None where not calibrated. cut: the end-of-visit score. predicted: codes above it. mass, past: [fields]
    share of ranking mass, and count of codes of the history, by medical field in the order of `chapters.FIELDS`. notes:
    kind of a note -> times.
    """

    history: Patient
    labels: np.ndarray
    scores: np.ndarray
    share: np.ndarray
    recurrent: np.ndarray
    probability: np.ndarray | None
    cut: float
    predicted: int
    mass: np.ndarray
    past: np.ndarray
    notes: Counter[str]
    target: Target | None = None

    @property
    def patient_id(self) -> str:
        return self.history.id

    @property
    def visits(self) -> int:
        """How many visits were read."""
        return len(self.history.visits)


@dataclass(eq=False)
class CohortScoring:
    """A cohort on its way through an engine; `step` takes the next few patients, as often as one likes.

    hold_out: predict each patient's last visit from those before it, and compare. scored, left_out: results so far, and
    reason -> patients that could not be scored.
    Raises InputError for an engine that does not rank, or a cohort without patients.
    """

    engine: Engine
    patients: Sequence[Patient]
    hold_out: bool = False
    done: int = 0
    scored: list[Scored] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if not self.patients:
            raise InputError("There is no patient to score.")
        self._targets, self._stepping = Targets(self.engine), Lock()
        self._field_names = list(FIELDS)
        fields = {name: i for i, name in enumerate(self._field_names)}
        self._fields = np.array([fields[field_of(code)] for code in self.engine.label_space])

    @property
    def finished(self) -> bool:
        """Whether every patient has been taken."""
        return self.done >= len(self.patients)

    def step(self, size: int = CHUNK) -> None:
        """Score the next `size` patients; those that can't be are counted by reason.

        One thread at a time, and a step that is broken off changes nothing: whoever goes on repeats it.
        """
        with self._stepping:
            chunk = self.patients[self.done : self.done + size]
            found = [self._targets.ready(patient, self.hold_out) for patient in chunk]
            ready = [one for one in found if isinstance(one, Ready)]
            rankings = self.engine.rank_many([one.asked for one in ready]) if ready else []
            self.scored += [
                self._head(one.asked, ranking, one.target) for one, ranking in zip(ready, rankings, strict=True)
            ]
            self.left_out.update(one.reason for one in found if isinstance(one, LeftOut))
            self.done += len(chunk)

    def settle(self) -> None:
        """Wait until no step is under way, so that what is read next belongs together."""
        with self._stepping:
            pass

    def _head(self, history: Patient, ranking: Ranking, target: Target | None) -> Scored:
        order = np.array([self._targets.index[code] for code in ranking.codes])
        true = len(target.labels) + target.missing if target else 0
        size = min(max(HEAD, ranking.predicted, true), len(order))
        past = np.zeros(len(FIELDS))
        for visit in resolve(history, self.engine.ontology)[0].visits:
            for code in visit.codes:
                past[self._field_names.index(field_of(code))] += 1
        return Scored(
            history=history,
            labels=order[:size].copy(),  # a slice would keep the whole label space in memory
            scores=np.array(ranking.scores[:size]),
            share=np.array(ranking.share[:size]),
            recurrent=np.array(ranking.recurrent[:size]),
            probability=None if ranking.probability is None else np.array(ranking.probability[:size]),
            cut=ranking.cut,
            predicted=ranking.predicted,
            mass=np.bincount(self._fields[order], weights=ranking.share, minlength=len(FIELDS)),
            past=past,
            notes=Counter(note.kind for note in ranking.notes),
            target=target,
        )

    # --- what the patients scored so far add up to

    def chapters(self) -> pd.DataFrame:
        """A row per medical field with anything in it: field, name, and three shares that each sum to 1.

        past: of the codes of all histories. mass: of the ranking mass, each patient counting alike. predicted: of the
        codes above the cut-off. Sorted by mass; empty before anything is scored.
        """
        columns = ["field", "name", "past", "mass", "predicted"]
        if not self.scored:
            return pd.DataFrame(columns=columns)
        above = np.concatenate([one.labels[: one.predicted] for one in self.scored])
        shares = {
            "past": np.sum([one.past for one in self.scored], axis=0),
            "mass": np.sum([one.mass for one in self.scored], axis=0),
            "predicted": np.bincount(self._fields[above], minlength=len(FIELDS)).astype(float),
        }
        rows = pd.DataFrame({name: value / value.sum() if value.sum() else value for name, value in shares.items()})
        rows.insert(0, "field", self._field_names)
        rows.insert(1, "name", [name for name, _ in FIELDS.values()])
        return rows[rows[["past", "mass", "predicted"]].sum(axis=1) > 0].sort_values("mass", ascending=False)[columns]

    def new_predictions(self, top: int = 15) -> pd.DataFrame:
        """Codes predicted for patients whose history does not hold them: code, definition, patients, share of them."""
        counts: Counter[int] = Counter()
        for one in self.scored:
            counts.update(one.labels[: one.predicted][~one.recurrent[: one.predicted]].tolist())
        best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]
        labels = [self.engine.label_space[label] for label, _ in best]
        return pd.DataFrame(
            {
                "code": labels,
                "definition": [self.engine.ontology.definition(code) for code in labels],
                "patients": [count for _, count in best],
                "share": [count / len(self.scored) for _, count in best],
            }
        )

    def sizes(self) -> np.ndarray:
        """How many codes are predicted for each patient, int [patients scored]."""
        return np.array([one.predicted for one in self.scored], np.int64)

    def notes(self) -> Counter[str]:
        """Kind of a note -> how many there are over all patients scored."""
        return sum((one.notes for one in self.scored), Counter())

    def figures(self, draws: int = 1000) -> dict[str, dict[str, Estimate]]:
        """Recall and F1 on the held-out visits, with 95 % intervals over patients: all, recurrent, new onset.

        Raises InputError unless visits were held out and someone was scored.
        """
        if not self.hold_out or not self.scored:
            raise InputError("There are no held-out visits to measure on.")
        targets = [one.target for one in self.scored]
        n = len(self.engine.label_space)
        truth, bootstrap = truth_of(targets, n), Bootstrap(len(targets), draws)
        top = np.stack([one.labels[: min(HEAD, n)] for one in self.scored])
        best = rows_of_labels([one.labels[:size] for one, size in zip(self.scored, truth.size, strict=True)], n)
        above = rows_of_labels([one.labels[: one.predicted] for one in self.scored], n)

        def recalls(of: Truth) -> dict[str, Estimate]:
            return {f"recall@{k}": bootstrap.mean(metrics.recall_at(top, of, k)) for k in KS}

        overall = recalls(truth) | {"weighted_f1_oracle": metrics.weighted_f1(best, truth, bootstrap)}
        overall |= metrics.cut_figures(above, truth, bootstrap)
        overall["true_size_mean"] = bootstrap.mean(truth.size.astype(float))
        return {"all": overall, "recurrent": recalls(truth.recurrent), "new onset": recalls(truth.new_onset)}

    def predictions(self, top: int = 20) -> pd.DataFrame:
        """A row per patient and code, best first: the `top` codes of each, and all above the cut-off where they are more.

        Columns as in `Ranking.to_frame`, with patient_id and the number of visits read; `came_true` where the last visit
        was held out.
        """
        rows: list[dict] = []
        for one in self.scored:
            rows.extend(self._rows(one, top))
        return pd.DataFrame(rows)

    def _rows(self, one: Scored, top: int) -> Iterator[dict]:
        for place in range(min(max(top, one.predicted), len(one.labels))):
            code: Code = self.engine.label_space[one.labels[place]]
            row = {
                "patient_id": one.patient_id,
                "visits_read": one.visits,
                "rank": place + 1,
                "concept": str(code),
                "code": code.code,
                "system": code.system,
                "definition": self.engine.ontology.definition(code),
                "score": float(one.scores[place]),
                "share": float(one.share[place]),
                "above_cut": place < one.predicted,
                "recurrent": bool(one.recurrent[place]),
            }
            if one.probability is not None:
                row["probability"] = float(one.probability[place])
            if one.target is not None:
                row["came_true"] = int(one.labels[place]) in one.target.labels
            yield row

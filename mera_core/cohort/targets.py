"""Each patient's history beside what the next visit held, or why there is none: one rule for the screen, `score` and training.

Boundary: asks an engine how it reads a history; scores nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mera_core.checkpoint.folder import refuse_unranked
from mera_core.engine import Engine
from mera_core.evaluation.truth import Truth
from mera_core.history.records import Note, Patient, Visit, resolve, with_visits
from mera_core.history.translate import nearest
from mera_core.icd.ontology import Code

NO_CODE = "no visit with a code"
NO_READABLE_CODE = "no code that this model can read"
ONE_VISIT = "fewer than two visits with codes, so none can be held out"
NO_TRUTH = "the held-out visit has no code that can be read"


@dataclass(frozen=True, slots=True)
class Target:
    """What a held-out visit held, as label indices, and what the history before it held.

    labels: a code outside the label space counts at its nearest ancestor there. codes: of the visit. missing: true codes
    that no label stands for; missing_seen: those of them that the history held.
    """

    labels: frozenset[int]
    seen: frozenset[int]
    codes: frozenset[Code]
    missing: int
    missing_seen: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A history to rank. asked: as recorded, without a held-out visit. read: in the checkpoint's terms, with `notes`."""

    asked: Patient
    read: Patient
    notes: tuple[Note, ...]
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why a patient is not ranked, and what is known of it."""

    reason: str
    message: str = ""


class Targets:
    """Makes histories ready for one engine. Raises InputError for an engine that does not rank."""

    def __init__(self, engine: Engine) -> None:
        refuse_unranked(engine.name, engine.label_space)
        self._engine = engine
        self.index = {code: place for place, code in enumerate(engine.label_space)}

    def ready(self, patient: Patient, hold_out: bool) -> Ready | LeftOut:
        """The history to rank, without the last visit with codes where that is held out; or why there is none."""
        coded = with_visits(patient, coded_visits(patient))
        if not coded.visits:
            return LeftOut(NO_CODE)
        if not hold_out:
            return self._read(coded)
        if len(coded.visits) < 2:
            return LeftOut(ONE_VISIT)
        resolved, _ = resolve(coded, self._engine.ontology)
        if not resolved.visits[-1].codes:
            return LeftOut(NO_TRUTH, ", ".join(map(str, coded.visits[-1].codes)))
        found = self._read(before_last(coded))
        return replace(found, target=self._target(resolved, found.read)) if isinstance(found, Ready) else found

    def labels_in(self, history: Patient) -> frozenset[int]:
        """The labels among the codes of a history that is in the checkpoint's terms."""
        return frozenset(self.index[code] for visit in history.visits for code in visit.codes if code in self.index)

    def _read(self, asked: Patient) -> Ready | LeftOut:
        read, notes = self._engine.read_history(asked)
        if not read.visits:
            return LeftOut(NO_READABLE_CODE, " ".join(note.message for note in notes))
        return Ready(asked, read, notes)

    def _target(self, resolved: Patient, read: Patient) -> Target:
        true = resolved.visits[-1].codes
        labels = {code: nearest(code, self.index, self._engine.ontology) for code in true}
        missed = {code for code, label in labels.items() if label is None}
        held = {code for visit in resolved.visits[:-1] for code in visit.codes}
        return Target(
            labels=frozenset(self.index[label] for label in labels.values() if label is not None),
            seen=self.labels_in(read),
            codes=frozenset(true),
            missing=len(missed),
            missing_seen=len(missed & held),
        )


def coded_visits(patient: Patient) -> tuple[Visit, ...]:
    """The visits that hold a code."""
    return tuple(visit for visit in patient.visits if visit.codes)


def before_last(patient: Patient) -> Patient:
    """The history from which the last visit is predicted: nothing of that visit is left in it."""
    visits = patient.visits[:-1]
    return replace(patient, visits=visits, age=visits[-1].age)


def truth_of(targets: Sequence[Target], n_labels: int) -> Truth:
    """Targets as the matrices that figures are taken of."""
    return Truth.from_sets(
        [target.labels for target in targets],
        [target.seen for target in targets],
        n_labels,
        [target.missing for target in targets],
        [target.missing_seen for target in targets],
    )

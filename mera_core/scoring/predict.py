"""A part of a population through an engine: patients in, rows of predictions out. Knows no files and no processes.

The batches of a part depend on its patients and settings alone, so that a part scored twice is the same to the last bit (on
one kind of machine, with one number of torch threads).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mera_core.cohort.targets import LeftOut, Ready, Targets
from mera_core.common.errors import InputError
from mera_core.engine import Engine
from mera_core.history.columns import VisitColumns
from mera_core.history.records import Patient
from mera_core.model.forward import TOKENS
from mera_core.model.precision import refuse_unknown
from mera_core.model.sequence import Encoded, Encoder, SequenceConfig
from mera_core.ranking.ranking import NOTICE
from mera_core.scoring.lists import best

LEFT_OUT = ("patient_id", "order_key", "reason", "message")
NO_VISIT = "no visit"

AT_ONCE = 1 << 18  # scores put in order at once: what they come to stays in a core's cache
BLOCK = 4_000_000  # scores held at once: whole parts of a small label space, fewer patients of a large one
_LABEL = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Settings:
    """What the figures depend on, beside patients and checkpoint. Raises InputError for what can't be."""

    top: int = 20
    """Codes of each patient, best first; all above the cut-off where these are more."""
    hold_out: bool = False
    """Rank the last visit of each patient from those before it, and say what came true."""
    part: int = 4_096
    """Patients in a part: what is scored, written and resumed at once."""
    rows: int = 64
    """Histories in a forward pass."""
    tokens: int = TOKENS
    """Tokens in a forward pass, with padding."""
    threads: int = 1
    """Threads of torch in each worker."""
    quantize: str | None = None
    """None, or one of `precision.QUANTIZE`."""

    def __post_init__(self) -> None:
        for name in ("top", "part", "rows", "tokens", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        refuse_unknown(self.quantize)


@dataclass(frozen=True)
class Part:
    """Some patients of a population, in its order. first: place of the first in the population, 0-based.

    columns: of people without visits as well, who are left out by name.
    """

    number: int
    first: int
    columns: VisitColumns


@dataclass
class Scored:
    """What a part came to.

    table: rows of `schema`. left_out: (patient_id, order_key, reason, message) of everyone who is not in it. notes: kind of a
    note -> times, over all patients in it. unread: code as recorded -> times it was left out.
    """

    number: int
    table: pa.Table
    patients: int
    left_out: list[tuple[str, int, str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Ready:
    """A history to rank, its tokens, and its place in the population."""

    place: int
    history: Ready
    encoded: Encoded


def schema(hold_out: bool) -> pa.Schema:
    """Columns of the predictions: one row a patient and code, sorted by (order_key, rank).

    order_key: the patient's place in the source, 0-based. score, share, probability: as in `Ranking`; probability is null
    where the checkpoint is not calibrated. above_cut: the code is predicted. came_true: it was in the held-out visit.
    """
    fields = [
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("order_key", pa.int64(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("system", _LABEL, nullable=False),
        pa.field("code", _LABEL, nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("share", pa.float32(), nullable=False),
        pa.field("probability", pa.float32()),
        pa.field("above_cut", pa.bool_(), nullable=False),
        pa.field("recurrent", pa.bool_(), nullable=False),
    ]
    fields += [pa.field("came_true", pa.bool_(), nullable=False)] if hold_out else []
    fields += [pa.field(name, _LABEL, nullable=False) for name in ("checkpoint", "notice")]
    return pa.schema(fields)


class Scorer:
    """An engine made ready for many patients; not to be shared between threads, nor kept longer than its population."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings, self._targets = engine, settings, Targets(engine)
        sequence = SequenceConfig(**engine.manifest["sequence"])
        # words of a profile come back with every other patient: their tokens are looked up once
        self._encoder = Encoder(engine.model.vocabulary, sequence, remember=True)
        self._systems = pa.array([code.system for code in engine.label_space])
        self._codes = pa.array([code.code for code in engine.label_space])

    def score(self, part: Part) -> Scored:
        """Everyone of a part, either in the table or left out with a reason."""
        empty = schema(self.settings.hold_out).empty_table()
        scored = Scored(part.number, empty, len(part.columns.ids))
        ready: list[_Ready] = []
        for place, (identity, patient) in enumerate(_everyone(part.columns), start=part.first):
            found = self._ready(patient)
            if isinstance(found, LeftOut):
                scored.left_out.append((identity, place, found.reason, found.message))
                continue
            encoded = self._encoder.encode(found.read)
            for note in (*found.notes, *encoded.notes):
                scored.notes[note.kind] += 1
                if note.kind in ("unread", "ambiguous") and note.code:
                    scored.unread[note.code] += 1
            ready.append(_Ready(place, found, encoded))
        block = max(self.settings.rows, BLOCK // len(self.engine.label_space))
        tables = [self._rows(ready[begin : begin + block]) for begin in range(0, len(ready), block)]
        if tables:
            scored.table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        return scored

    def _ready(self, patient: Patient | None) -> Ready | LeftOut:
        if patient is None:
            return LeftOut(NO_VISIT)
        return self._targets.ready(patient, self.settings.hold_out)

    def _rows(self, ready: Sequence[_Ready]) -> pa.Table:
        """The best codes of each history, as `Engine.rank` gives them."""
        read = [(one.history.read, one.encoded) for one in ready]
        scores, eov = self.engine.scores(read, self.settings.rows, self.settings.tokens)
        size = max(1, AT_ONCE // scores.shape[1])
        pieces = (slice(begin, begin + size) for begin in range(0, len(ready), size))
        return pa.concat_tables([self._listed(ready[piece], scores[piece], eov[piece]) for piece in pieces])

    def _listed(self, ready: Sequence[_Ready], scores: np.ndarray, eov: np.ndarray) -> pa.Table:
        held = self.engine.held([one.history.read for one in ready])
        ranked, probability = self.engine.ranked(scores, eov, held), self.engine.probability(scores, eov, held)
        lists = best(scores, eov, ranked, probability, self.settings.top)
        row, label = lists.row, lists.label
        codes, count = pa.array(label), len(row)
        columns = {
            "patient_id": pa.array([one.history.asked.id for one in ready], pa.string()).take(pa.array(row)),
            "order_key": np.array([one.place for one in ready], np.int64)[row],
            "rank": (lists.place + 1).astype(np.int32),
            "system": self._systems.take(codes).dictionary_encode(),
            "code": self._codes.take(codes).dictionary_encode(),
            "score": lists.score.astype(np.float32),
            "share": lists.share.astype(np.float32),
            "probability": pa.nulls(count, pa.float32())
            if lists.probability is None
            else lists.probability.astype(np.float32),
            "above_cut": lists.above,
            "recurrent": held[row, label],
            "checkpoint": _same(self.engine.name, count),
            "notice": _same(NOTICE, count),
        }
        if self.settings.hold_out:
            columns["came_true"] = self._marked([one.history.target.labels for one in ready])[row, label]
        shape = schema(self.settings.hold_out)
        return pa.table({name: columns[name] for name in shape.names}, schema=shape)

    def _marked(self, labels: Sequence[frozenset[int]]) -> np.ndarray:
        """Which labels [N, C] are among those of each of N."""
        marked = np.zeros((len(labels), len(self.engine.label_space)), bool)
        for own, some in zip(marked, labels, strict=True):
            own[list(some)] = True
        return marked


def _everyone(columns: VisitColumns) -> list[tuple[str, Patient | None]]:
    """(id, history) of each person in order; None for those without a visit."""
    patients = iter(columns.patients())
    return [
        (identity, next(patients) if visits else None)
        for identity, visits in zip(columns.ids, columns.visits_a_person.tolist(), strict=True)
    ]


def _same(text: str, count: int) -> pa.DictionaryArray:
    """One text so many times."""
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [text])

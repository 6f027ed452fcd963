"""The parquet shards of a MEDS dataset, gathered into columns of the events that are read.

Boundary: files, columns and their types. Each distinct code is classified once (`meds_codes`) and events that are not read
are only counted, so that a table of a hundred million events costs the memory of its diagnoses. Visits are for
`readers.meds`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mera_core.common.errors import InputError
from mera_core.history.columns import LARGEST_POSITION
from mera_core.readers.common.code_systems import NO_MAP, NOT_MAPPED, SnomedMap
from mera_core.readers.common.parquet import damage_told, refuse_large, schema_of, sound
from mera_core.readers.meds.codes import AGE_COLUMN, INVENTED_COLUMN, NAME_COLUMN, RANK_COLUMN, Event, Kind, event_of

SUBJECTS = ("subject_id", "patient_id")  # 0.3.1 and later, 0.3.0
VISIT_COLUMNS = ("hadm_id", "visit_id", "visit_occurrence_id", "encounter_id", "admission_id")
TABLES = ("table", "table_name")
NONE = np.iinfo(np.int64).min  # no visit, no rank
_TEXTS = ("race", "insurance", "text_value")  # the first two are what MIMIC's converter puts beside an admission
_SPLITS = ("train", "tuning", "held_out")
_BATCH = 500_000  # rows read at once
_TEXT_TYPES = (pa.string(), pa.large_string(), pa.null())


def shards(path: Path) -> list[Path]:
    """The parquet files with events: those of data/, however deep, or of a folder of shards, or the file itself."""
    if path.is_file():
        with path.open("rb") as stream:
            return [path] if stream.read(4) == b"PAR1" else []
    if (path / "data").is_dir():
        return sorted(found for found in (path / "data").rglob("*.parquet") if found.is_file())
    found = [each for name in _SPLITS for each in sorted((path / name).glob("*.parquet"))]
    return found or sorted(each for each in path.glob("*.parquet") if each.is_file())


@dataclass
class Book:
    """Distinct codes met, and what each means; number n stands for the n-th met.

    parents: code -> its one ICD parent. targets: (system, code) of every ICD code named, those of code n being the
    `sizes[n]` from `firsts[n]` on. through_parent: whether n is read by its parent's name.
    """

    parents: dict[str, str]
    snomed: SnomedMap
    numbers: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    through_parent: list[bool] = field(default_factory=list)
    targets: list[tuple[str | None, str]] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def number(self, text: str) -> int:
        """The number of a code, which is classified when it is first met."""
        if text not in self.numbers:
            event = event_of(text)
            lacking = event.kind == Kind.OTHER or (event.kind == Kind.DIAGNOSIS and not event.entries)
            parent = event_of(self.parents[text]) if lacking and text in self.parents else event
            through = parent is not event and bool(parent.entries)
            event = parent if through else event
            named = self.snomed.get(event.entries[0][1], ()) if event.kind == Kind.SNOMED else event.entries
            self.numbers[text] = len(self.events)
            self.events.append(event)
            self.kinds.append(int(event.kind))
            self.through_parent.append(through)
            self.firsts.append(len(self.targets))
            self.sizes.append(len(named))
            self.targets.extend(named)
        return self.numbers[text]

    def left_out(self, number: int) -> tuple[str, ...]:
        """The reasons of the diagnosis entries that each event with this code loses."""
        if self.kinds[number] == Kind.SNOMED and not self.sizes[number]:
            return (NOT_MAPPED if self.snomed else NO_MAP,)
        return self.events[number].left_out

    def said(self, name: str) -> np.ndarray:
        """[codes] the word of that name in each code, None where it says none."""
        return np.array([dict(event.words).get(name) for event in self.events], dtype=object)


@dataclass
class Gathered:
    """n people and every event that is read, as columns of one length, in the order of the files.

    person: index into ids. time: NaT for what has none. code: number in the book. visit, rank: NONE where none is named.
    age, invented: as our own writer put them, NaN and False elsewhere. is_condition: the source's table holds diagnoses.
    other: events that are not read. own: the dataset is of our own writing. has_tables: a column names the tables.
    """

    book: Book
    ids: list[str]
    person: np.ndarray
    time: np.ndarray
    code: np.ndarray
    visit: np.ndarray
    rank: np.ndarray
    age: np.ndarray
    invented: np.ndarray
    is_condition: np.ndarray
    texts: dict[str, pa.ChunkedArray]
    other: int
    own: bool
    has_tables: bool

    @cached_property
    def kinds(self) -> np.ndarray:
        """The Kind of each event, int8."""
        return np.array(self.book.kinds, dtype=np.int8)[self.code]

    def text(self, name: str, rows: np.ndarray) -> list[str | None]:
        """A text column at some rows; nothing but None where the dataset has no such column."""
        column = self.texts[name]
        if column.null_count == len(column):
            return [None] * len(rows)
        return column.take(pa.array(rows, pa.int64())).to_pylist()


class Events:
    """Collects what is read of each batch."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._columns: dict[str, list] = {}
        self._subjects: list[np.ndarray] = []
        self._texts: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._seen: set[str] = set()
        self._kinds_of: set[bool] = set()
        self._other = 0

    def add(self, batch: pa.RecordBatch, path: Path) -> None:
        """Take in a batch of one file."""
        names = batch.schema.names
        self._seen.update(names)
        key = _present(SUBJECTS, names) or SUBJECTS[0]
        subject = self._keys(batch.column(key), path, key)
        if (subject == NONE).any():
            raise InputError(f"{path} has an event without a {key}.")
        self._subjects.append(pd.unique(subject))
        coded = self._coded(batch.column("code"))
        kept = np.array(self._book.kinds, dtype=np.int8)[coded] != Kind.OTHER
        self._other += int((~kept).sum())
        rows = batch.filter(pa.array(kept))
        size, visit = rows.num_rows, _present(VISIT_COLUMNS, names)
        self._put("subject", subject[kept])
        self._put("code", coded[kept])
        self._put("time", _times(rows.column("time"), path))
        self._put("visit", self._keys(rows.column(visit), path, visit) if visit else np.full(size, NONE))
        rank = _numbers(rows, RANK_COLUMN)
        if (~np.isnan(rank) & ((np.abs(rank) > LARGEST_POSITION) | (rank != np.floor(rank)))).any():
            raise InputError(f"{path} has a {RANK_COLUMN} that is no whole number up to {LARGEST_POSITION:,}.")
        self._put("rank", np.where(np.isnan(rank), NONE, np.nan_to_num(rank).astype(np.int64)))
        self._put("age", _numbers(rows, AGE_COLUMN))
        self._put("invented", _flags(rows, INVENTED_COLUMN))
        self._put("is_condition", _conditions(rows, _present(TABLES, names)))
        for name in _TEXTS:
            known = name in names
            self._put(name, rows.column(name).cast(pa.large_string()) if known else pa.nulls(size, pa.large_string()))
        if NAME_COLUMN in names:
            told = zip(subject[kept].tolist(), rows.column(NAME_COLUMN).cast(pa.string()).to_pylist(), strict=True)
            self._names.update({number: name for number, name in told if name})

    def gathered(self) -> Gathered:
        """All batches together."""
        subjects = pd.unique(np.concatenate([*self._subjects, np.empty(0, np.int64)]))
        return Gathered(
            book=self._book,
            ids=[self._names.get(number, str(number)) for number in subjects.tolist()],
            person=pd.Index(subjects).get_indexer(self._column("subject", np.int64)).astype(np.int64),
            time=self._column("time", "datetime64[us]"),
            code=self._column("code", np.int32),
            visit=self._column("visit", np.int64),
            rank=self._column("rank", np.int64),
            age=self._column("age", float),
            invented=self._column("invented", bool),
            is_condition=self._column("is_condition", bool),
            texts={name: pa.chunked_array(self._columns.get(name, []), pa.large_string()) for name in _TEXTS},
            other=self._other,
            own=INVENTED_COLUMN in self._seen,
            has_tables=bool(self._seen & set(TABLES)),
        )

    def _put(self, name: str, values: np.ndarray | pa.Array) -> None:
        self._columns.setdefault(name, []).append(values)

    def _column(self, name: str, dtype: type | str) -> np.ndarray:
        return np.concatenate([*self._columns.pop(name, []), np.empty(0, dtype)])

    def _coded(self, column: pa.Array) -> np.ndarray:
        """The book's number of each code; a code that is null counts as an empty one."""
        column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        numbers = [self._book.number(text or "") for text in column.dictionary.to_pylist()]
        return np.array([*numbers, self._book.number("")], dtype=np.int32)[_indices(column)]

    def _keys(self, column: pa.Array, path: Path, name: str) -> np.ndarray:
        """Whole numbers as they are, texts numbered as they are met, null as NONE."""
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_null(kind):
            return np.full(len(column), NONE)
        texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if name in SUBJECTS:
            self._kinds_of.add(texts)
            if len(self._kinds_of) > 1:
                raise InputError(f"{path} has {name} as {kind}, unlike the shards before it.")
        if texts:
            coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
            words = coded.dictionary.to_pylist()
            numbers = [self._texts.setdefault(word, len(self._texts)) for word in words]
            if name in SUBJECTS:
                self._names.update(zip(numbers, words, strict=True))
            return np.array([*numbers, NONE], dtype=np.int64)[_indices(coded)]
        if pa.types.is_floating(kind):  # whole numbers beside missing ones, as pandas holds them
            values = column.to_numpy(zero_copy_only=False).astype(float)
            whole = np.nan_to_num(values, nan=0.0)
            if (whole != np.floor(whole)).any() or (np.abs(whole) > 2**53).any():
                raise InputError(f"{path} has a {name} that is no whole number.")
            return np.where(np.isnan(values), NONE, whole.astype(np.int64))
        if not pa.types.is_integer(kind):
            raise InputError(f"{path} has {name} as {kind}; it must be a whole number.")
        try:
            return column.cast(pa.int64()).fill_null(NONE).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path} has a {name} above 2^63, which is no id.") from error


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The columns that are read of one shard, piece by piece; InputError naming the file and the column."""
    schema = schema_of(path)
    with damage_told(path):
        file = pq.ParquetFile(path, read_dictionary=["code"] if _is_text(schema, "code") else None)
        refuse_large(path, file.metadata)
    names = schema.names
    if "events" in names:
        raise InputError(f"{path} is MEDS 0.2 with events nested in patients; 0.3 and 0.4 are read.")
    missing = [name for name in (_present(SUBJECTS, names) or SUBJECTS[0], "time", "code") if name not in names]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}.")
    own = [NAME_COLUMN, "text_value"] if INVENTED_COLUMN in names else []  # elsewhere free text is large, and not read
    for name in ("code", *own):
        if name in names and not _is_text(schema, name):
            raise InputError(f"{path} has {name} as {_plain(schema, name)}; it must be text.")
    if own and not pa.types.is_boolean(_plain(schema, INVENTED_COLUMN)):
        raise InputError(
            f"{path} has {INVENTED_COLUMN} as {_plain(schema, INVENTED_COLUMN)}; it must be true or false."
        )
    texts = [name for name in (*TABLES, "race", "insurance") if _is_text(schema, name)]
    wanted = [*SUBJECTS, "time", "code", RANK_COLUMN, *texts, *own]
    wanted.append(_present(VISIT_COLUMNS, names) or "")
    wanted += [INVENTED_COLUMN, AGE_COLUMN] if own else []
    with damage_told(path):
        for rows in file.iter_batches(_BATCH, columns=[name for name in wanted if name in names]):
            yield sound(rows)


def icd_parents(path: Path) -> dict[str, str]:
    """Code -> its one ICD parent, of metadata/codes.parquet; {} where the file is absent or names none."""
    where = path / "metadata" / "codes.parquet"
    if not where.is_file():
        return {}
    with damage_told(where):
        schema = schema_of(where)
        if not {"code", "parent_codes"} <= set(schema.names):
            return {}
        kind = schema.field("parent_codes").type
        parents_are_text = pa.types.is_null(kind) or (hasattr(kind, "value_type") and kind.value_type in _TEXT_TYPES)
        if not _is_text(schema, "code") or not parents_are_text:
            raise InputError(f"{where} has code as {_plain(schema, 'code')} and parent_codes as {kind}, not as text.")
        table = sound(pq.read_table(where, columns=["code", "parent_codes"])).to_pydict()
    found: dict[str, str] = {}
    for code, parents in zip(table["code"], table["parent_codes"], strict=True):
        named = [parent for parent in parents or [] if parent and event_of(parent).kind == Kind.DIAGNOSIS]
        if code and len(named) == 1:
            found[code] = named[0]
    return found


def _present(names: tuple[str, ...], columns: list[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _indices(column: pa.DictionaryArray) -> np.ndarray:
    return column.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)


def _plain(schema: pa.Schema, name: str) -> pa.DataType:
    """The type of a column's values."""
    kind = schema.field(name).type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(schema: pa.Schema, name: str) -> bool:
    """Whether a column is there and holds text, or nothing at all (but for the codes)."""
    kind = _plain(schema, name) if name in schema.names else None
    nothing = kind is not None and name != "code" and pa.types.is_null(kind)
    return kind is not None and (nothing or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _times(column: pa.Array, path: Path) -> np.ndarray:
    kind = column.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_null(kind)):
        raise InputError(f"{path} has time as {kind}; it must be a timestamp.")
    if pa.types.is_timestamp(kind) and kind.tz:
        column = column.cast(pa.timestamp(kind.unit))  # arrow stores these in UTC
    try:
        plain = column.cast(pa.timestamp("us"), safe=pa.types.is_null(kind) or kind != pa.timestamp("ns"))
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} has a time outside the calendar.") from error
    return plain.to_numpy(zero_copy_only=False).astype("datetime64[us]")


def _numbers(rows: pa.RecordBatch, name: str) -> np.ndarray:
    if name not in rows.schema.names:
        return np.full(rows.num_rows, np.nan)
    column = rows.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.full(rows.num_rows, np.nan)
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(float)


def _flags(rows: pa.RecordBatch, name: str) -> np.ndarray:
    if name not in rows.schema.names:
        return np.zeros(rows.num_rows, dtype=bool)
    return rows.column(name).fill_null(False).to_numpy(zero_copy_only=False)


def _conditions(rows: pa.RecordBatch, name: str | None) -> np.ndarray:
    """Whether the source's table holds diagnoses; era tables say again what others have said."""
    if name is None:
        return np.zeros(rows.num_rows, dtype=bool)
    table = pc.utf8_lower(rows.column(name).cast(pa.string()))
    held = pc.and_(pc.starts_with(table, "condition"), pc.invert(pc.starts_with(table, "condition_era")))
    return held.fill_null(False).to_numpy(zero_copy_only=False)

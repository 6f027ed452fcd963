"""A folder of finished parts beside the result: what makes a scoring resumable, and its result the same bytes each time.

Knows parts and files; runs no model. A part stands under its name only when it is whole and on the disk, the folder says which
run it belongs to, and the result is put together from all parts under a temporary name and then renamed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mera_core.common.errors import InputError
from mera_core.export.tables import formula_safe
from mera_core.history.columns import VisitColumns
from mera_core.scoring.predict import LEFT_OUT, Scored

try:
    import fcntl
except ImportError:  # Windows: no lock, see `_hold`
    fcntl = None  # type: ignore[assignment]

JOB = "job.json"
_BUSY = "lock"
_KEY = b"mera.part"
_WORDS = {
    "patients": "other patients",
    "checkpoint": "another checkpoint",
    "settings": "other settings",
    "software": "another version of this program",
    "libraries": "other versions of its libraries",
}


class Store:
    """The parts of one run. Made by `opened`."""

    def __init__(self, folder: Path, job: Mapping[str, Any], parts: int) -> None:
        self.folder, self.parts = folder, parts
        self._mark = hashlib.sha256(_text(job)).hexdigest()

    def has(self, number: int) -> bool:
        """Whether a part is there, whole, and of this run; one that is damaged is taken away."""
        path = self._path(number)
        try:
            facts = self._facts(path)
            return (facts["job"], facts["number"]) == (self._mark, number)
        except FileNotFoundError:
            return False
        except (pa.ArrowInvalid, OSError, KeyError, ValueError):
            path.unlink(missing_ok=True)
            return False

    def put(self, scored: Scored) -> None:
        """Keep a part. Raises InputError where the disk refuses."""
        facts = {
            "job": self._mark,
            "number": scored.number,
            "patients": scored.patients,
            "left_out": scored.left_out,
            "notes": dict(scored.notes),
            "unread": dict(scored.unread),
        }
        table = scored.table.replace_schema_metadata({_KEY: _text(facts)})
        with _renamed(self._path(scored.number)) as aside:
            pq.write_table(table, aside)

    def get(self, number: int) -> Scored:
        """A part as it was put."""
        facts = self._facts(self._path(number))
        table = pq.read_table(self._path(number)).replace_schema_metadata(None)
        left_out = [tuple(row) for row in facts["left_out"]]
        return Scored(number, table, facts["patients"], left_out, Counter(facts["notes"]), Counter(facts["unread"]))

    def each(self) -> Iterator[Scored]:
        """Every part in order."""
        return (self.get(number) for number in range(self.parts))

    def remove(self) -> None:
        """Take the folder away, the file that names the run last: cut short, what is left is still of this run."""
        for path in self.folder.iterdir():
            if path.name not in (JOB, _BUSY):
                path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def write_parquet(self, tables: Iterable[pa.Table], shape: pa.Schema, about: Mapping[str, str], out: Path) -> None:
        """The tables as one file, a row group each; `about` stands in its metadata."""
        whole = shape.with_metadata({f"mera.{name}": text for name, text in about.items()})
        with _renamed(out, self.folder) as aside, pq.ParquetWriter(aside, whole) as writer:
            for table in tables:
                writer.write_table(table.cast(whole))

    def write_csv(self, tables: Iterable[pa.Table], shape: pa.Schema, out: Path) -> None:
        """The tables as one CSV file; a text that a spreadsheet would run stands behind an apostrophe."""
        plain = pa.schema([pa.field(f.name, pa.string()) if _is_text(f.type) else f for f in shape])
        options = pa_csv.WriteOptions(quoting_style="needed")
        with _renamed(out, self.folder) as aside, pa_csv.CSVWriter(aside, plain, write_options=options) as writer:
            for table in tables:
                columns = [_safe(column) if _is_text(column.type) else column for column in table.columns]
                writer.write_table(pa.table(columns, schema=plain))

    def write_left_out(self, out: Path) -> None:
        """Who is not in the result, and why; written even where there is nobody, so that no older one is taken for it."""
        with _renamed(out, self.folder) as aside, aside.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(LEFT_OUT)
            for part in self.each():
                for identity, place, reason, message in part.left_out:
                    rows.writerow([formula_safe(identity), place, reason, formula_safe(message)])

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    @staticmethod
    def _facts(path: Path) -> dict[str, Any]:
        with pq.ParquetFile(path) as file:  # its end is read, which a file cut short lacks
            return json.loads(file.schema_arrow.metadata[_KEY])


@contextmanager
def opened(out: Path, job: Mapping[str, Any], parts: int, restart: bool = False) -> Iterator[Store]:
    """The store of a run that writes `out`, held by this process alone until the block ends.

    job: what the run's figures depend on, JSON-ready. restart: throw away what an earlier run left.
    Raises InputError where another process holds it, what is there belongs to another run, or the disk refuses.
    """
    folder = parts_folder(out)
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / _BUSY).open("w")
    except OSError as error:
        raise InputError(f"{folder} can't be written: {error.strerror or error}.") from error
    with lock:
        _hold(lock, out)
        if restart and (folder / JOB).exists():
            for path in folder.glob("part-*.parquet"):
                path.unlink()
            (folder / JOB).unlink(missing_ok=True)
        _tidy(folder)
        _same_run(folder, job)
        yield Store(folder, job, parts)


def parts_folder(out: Path) -> Path:
    """Where the parts of a result stand until it is whole: 'predictions.parquet.parts'."""
    return out.with_name(f"{out.name}.parts")


def left_out_file(out: Path) -> Path:
    """Where those are named who are not in a result: 'predictions.parquet.left_out.csv'."""
    return out.with_name(f"{out.name}.left_out.csv")


def columns_hash(columns: VisitColumns) -> str:
    """SHA-256 over everyone's history: what a run is told to be the same by, whatever file it was read from."""
    digest = hashlib.sha256(_text(columns.ids))

    def numbers(array: np.ndarray) -> None:
        digest.update(f"{array.dtype} {len(array)} ".encode() + np.ascontiguousarray(array).tobytes())

    def words(texts: Sequence[str], rows: np.ndarray) -> None:
        order = sorted(range(len(texts)), key=texts.__getitem__)  # in which order a reader met them means nothing
        place = np.empty(len(order) + 1, np.int64)
        place[order] = np.arange(len(order))
        place[-1] = -1  # the row of a text that is missing is -1
        digest.update(_text([texts[row] for row in order]))
        numbers(place[rows])

    for array in (columns.age, columns.person, columns.time, columns.visit_age, columns.visit, columns.position):
        numbers(array)
    words([str(code) for code in columns.codes], columns.code)
    for group in ({"sex": columns.sex}, columns.person_words, columns.visit_words):
        for name in sorted(group):
            digest.update(_text(name))
            rows = group[name].indices.fill_null(-1).to_numpy(zero_copy_only=False)
            words(group[name].dictionary.to_pylist(), rows)
    return digest.hexdigest()


def _tidy(folder: Path) -> None:
    """Take away what a run left that was stopped in the middle of a file."""
    for path in folder.glob(".*.aside"):
        path.unlink(missing_ok=True)


def _hold(lock: IO[str], out: Path) -> None:
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"another process is writing {out}; let it end first.") from error
    except OSError:  # a file system without locks: parts are whole and the same whoever writes them
        pass


def _same_run(folder: Path, job: Mapping[str, Any]) -> None:
    """Write down what run this is, or see that it is the one that began here. Without a part nothing could be lost."""
    path, now = folder / JOB, json.loads(_text(job))
    strange = sorted(each.name for each in folder.iterdir() if each.name != _BUSY)
    earlier: dict[str, Any] = {}
    if path.exists():
        with suppress(ValueError):
            earlier = json.loads(path.read_bytes())
        if earlier != now and any(folder.glob("part-*")):
            changed = [words for name, words in _WORDS.items() if earlier.get(name) != now.get(name)]
            raise InputError(
                f"{folder} holds parts of a run with {' and '.join(changed) or 'another form of parts'}, so it can't go on; "
                f"--restart throws them away, another --out keeps them."
            )
    elif strange:
        raise InputError(f"{folder} holds {strange[0]}, which is no part of a scoring; name another --out.")
    if earlier != now:
        with _renamed(path) as aside:
            aside.write_bytes(_text(job))


@contextmanager
def _renamed(path: Path, through: Path | None = None) -> Iterator[Path]:
    """A name to write to; what is there when the block ends is on the disk, and then becomes `path` in one step.

    through: a folder of the same file system for the name; that of `path` by default. Raises InputError where the disk refuses.
    """
    aside = (through or path.parent) / f".{path.name}.{os.getpid()}.aside"
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync(path.parent)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror or error}.") from error
    finally:
        aside.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Put a folder's names on the disk, so that a rename in it outlives a power cut; where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        opened_folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened_folder)
        finally:
            os.close(opened_folder)


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) or pa.types.is_string(kind)


def _safe(column: pa.ChunkedArray) -> pa.ChunkedArray:
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunks = []
    for chunk in coded.chunks:
        texts = pa.array([formula_safe(text) for text in chunk.dictionary.to_pylist()], pa.string())
        chunks.append(texts.take(chunk.indices))
    return pa.chunked_array(chunks, pa.string())

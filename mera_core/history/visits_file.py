"""A cohort -> a visits-table file (parquet, CSV, JSON lines), piece by piece, whole or not at all.

What the table holds: `history.columns`. `mera_core.readers.read(path, "table")` reads it back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mera_core.common.errors import InputError
from mera_core.common.files import written_whole
from mera_core.history.columns import VISITS_TABLE_COLUMNS, VisitColumns
from mera_core.history.patient import Patient


def write_visits(
    cohort: VisitColumns | Sequence[Patient],
    path: str | Path,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Write the visits table of a cohort as .parquet, .csv or .jsonl.

    Raises InputError for another suffix, a folder that can't be written to, a patient without an id of their own or
    without visits, or a detail whose name the table uses; then nothing is left behind.
    """
    target = Path(path)
    write = _WRITERS.get(target.suffix.lower())
    if write is None:
        raise InputError(f"{target.name} must end in {', '.join(TABLE_SUFFIXES)} to be written.")
    columns = cohort if isinstance(cohort, VisitColumns) else VisitColumns.named(cohort)
    with written_whole(target, folder=False) as aside:
        write(_told(columns, target.name, progress), columns.schema(), aside)


def _told(
    columns: VisitColumns, name: str, progress: Callable[[str, int, int], None] | None
) -> Iterator[pa.RecordBatch]:
    total, done = len(columns.code) + int((columns.codes_a_visit == 0).sum()), 0
    for batch in columns.batches():
        yield batch
        done += len(batch)
        if progress is not None:
            progress(f"writing {name}", done, total)


def _write_parquet(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_csv(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> None:
    place = schema.get_field_index("time")
    as_text = schema.set(place, pa.field("time", pa.string()))
    with pa_csv.CSVWriter(path, as_text, write_options=pa_csv.WriteOptions(quoting_style="needed")) as writer:
        for batch in batches:
            writer.write_batch(batch.set_column(place, as_text.field(place), _iso(batch.column(place))))


def _iso(times: pa.Array) -> pa.Array:
    """Times as ISO text, without fractions of a second where there are none."""
    try:
        return times.cast(pa.timestamp("s")).cast(pa.string())
    except pa.ArrowInvalid:
        return times.cast(pa.string())


def _write_json_lines(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> None:
    place = schema.get_field_index("time")
    with path.open("w", encoding="utf-8") as file:
        for batch in batches:
            columns = [(_iso(column) if at == place else column).to_pylist() for at, column in enumerate(batch.columns)]
            for row in zip(*columns, strict=True):
                cells = {
                    name: cell
                    for name, cell in zip(schema.names, row, strict=True)
                    if cell is not None or name in VISITS_TABLE_COLUMNS
                }
                file.write(json.dumps(cells, ensure_ascii=False) + "\n")


_WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_json_lines}
TABLE_SUFFIXES = tuple(_WRITERS)

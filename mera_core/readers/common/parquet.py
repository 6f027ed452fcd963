"""Parquet files of others, read so that whatever is wrong with their bytes is one sentence. Knows no format's columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mera_core.common.errors import InputError
from mera_core.common.limits import current_limits

Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what arrow raises over bad bytes, text that is not UTF-8 included, into one InputError; nothing else of ours."""
    try:
        yield
    except InputError:
        raise
    except pa.ArrowMemoryError as error:  # a damaged length asks for as much as it says
        raise InputError(f"{path} needs more memory than there is, or is a damaged parquet file.") from error
    except (pa.ArrowException, OSError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{path} is a damaged parquet file, or none.") from error


def schema_of(path: Path, content: Any = None) -> pa.Schema:
    """The schema, its names readable; `content`: where to read it from, if not from the file. Raises InputError."""
    with damage_told(path):
        schema = pq.read_schema(path if content is None else content)
        _ = schema.names, str(schema)  # these are decoded when asked for
        return schema


def sound(rows: Rows) -> Rows:
    """The same rows; raises a pa.ArrowException where an index or a text is not sound, which arrow else finds much later."""
    rows.validate(full=True)
    return rows


def refuse_large(path: Path, described: pq.FileMetaData) -> None:
    """Raise InputError where a file's own account is above the limits of rows or unpacked bytes."""
    limits = current_limits()
    limits.refuse_above("rows", described.num_rows, f"{path} with {described.num_rows:,} rows")
    unpacked = sum(described.row_group(number).total_byte_size for number in range(described.num_row_groups))
    limits.refuse_above("unpacked_bytes", unpacked, f"{path}, unpacked,")

"""Tables of the OMOP CDM, as CSV, parquet or a folder of parquet parts -> columns of texts. Knows no meaning of a column."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mera_core.common.errors import InputError
from mera_core.readers.common.base import ImportReport, Source
from mera_core.readers.common.delimited import Delimited, Keep, read_delimited
from mera_core.readers.common.keyed import plain_id, replaced
from mera_core.readers.common.parquet import damage_told, refuse_large, sound
from mera_core.readers.common.table import Table

_SUFFIXES = ("", ".csv", ".tsv", ".txt", ".parquet")
_ID = re.compile(r"_id(_[12])?$")  # columns of ids
_DELIMITERS = ",\t|;"
_NOTHING = ("\\N", "NULL", "null", "NA", "None", "nan", "NaN")


def find_table(source: Source, name: str) -> Path | None:
    """The file of a table, or the folder of its parquet parts, in any case."""
    for suffix in _SUFFIXES[1:]:
        if name + suffix in source.files:
            return source.files[name + suffix]
    folders = {path.name.lower(): path for path in source.path.iterdir() if path.is_dir()}
    for suffix in ("", ".parquet"):
        if name + suffix in folders:
            return folders[name + suffix]
    return None


def read_table(
    source: Source,
    name: str,
    required: tuple[str, ...],
    optional: tuple[str, ...],
    report: ImportReport,
    keep: Keep | None = None,
) -> Delimited:
    """One table of the CDM, as texts; '' where it says that there is nothing, ids without a decimal point."""
    path = find_table(source, name)
    if path is None:
        raise InputError(f"{source.path} has no table {name} (as .csv, .csv.gz or .parquet).")
    if path.is_dir() or path.suffix.lower() == ".parquet":
        table = _parquet(path, required, optional, keep)
        source.progress(path.name, 1, 1)
    else:
        table = read_delimited(source.within(path), required, optional, report, _DELIMITERS, keep)
    return replace(table, columns={column: _plain(column, texts) for column, texts in table.columns.items()})


def _plain(name: str, column: pa.DictionaryArray) -> pa.DictionaryArray:
    texts = column.dictionary.to_pylist()
    plain = {text: "" if text in _NOTHING else plain_id(text) if _ID.search(name) else text for text in texts}
    if all(text == its for text, its in plain.items()):
        return column
    return replaced(column, plain.get).cast(pa.string()).fill_null("").dictionary_encode()


def _parquet(path: Path, required: tuple[str, ...], optional: tuple[str, ...], keep: Keep | None) -> Delimited:
    with damage_told(path):
        dataset = pq.ParquetDataset(path)
        for part in dataset.files:
            refuse_large(path, pq.read_metadata(part))
        names = {name.lower(): name for name in dataset.schema.names}
        missing = [name for name in required if name not in names]
        if missing:
            raise InputError(f"{path} has no column {missing[0]!r}.")
        wanted = [names[name] for name in (*required, *optional) if name in names]
        whole = sound(pq.read_table(path, columns=wanted))
    table = Table(path, {name.lower(): whole.column(name) for name in wanted})
    columns = {name: _trimmed(table.text(name)) for name in table.columns}
    if keep is not None:
        mask = pa.array(keep(columns))
        columns = {name: column.filter(mask) for name, column in columns.items()}
    return Table(path, columns)


def _trimmed(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """Without the white space that databases pad a value with, as delimited text is read."""
    return pc.utf8_trim_whitespace(column.cast(pa.string()).fill_null("")).dictionary_encode()

"""A table whose columns have types, from parquet or JSON: asked for as texts, as delimited files give them. Knows no format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mera_core.common.errors import InputError
from mera_core.history.columns import words
from mera_core.readers.common.delimited import Delimited


@dataclass
class Table(Delimited):
    """Named columns of any type. unit, first, place: how its rows are counted in messages; by `place` where it is given."""

    unit: str = "row"
    first: int = 1
    place: Callable[[int], int] | None = None

    def renamed(self, names: Mapping[str, str]) -> Table:
        """Only the columns that a map of our names to the file's gives, in our names, whatever their case."""
        theirs = {name.lower(): name for name in self.columns}
        for ours, name in names.items():
            if name.lower() not in theirs:
                raise InputError(f"{self.path} has no column {name!r}, which is to be read as {ours!r}.")
        columns = {ours: self.columns[theirs[name.lower()]] for ours, name in names.items()}
        return Table(self.path, columns, unit=self.unit, first=self.first, place=self.line)

    def line(self, row: int) -> int:
        """How a row is counted in messages."""
        row = int(row if self.rows is None else self.rows[row])
        return self.place(row) if self.place else row + self.first

    def fault(self, row: int, column: str, what: str) -> InputError:
        """The error that names the file, the place and the column."""
        return InputError(f"{self.path}: {self.unit} {self.line(row)}, column {column!r}: {what}.")

    def get(self, name: str) -> pa.DictionaryArray:
        """A column as texts, '' where empty or absent; whole numbers without a decimal point, times in UTC."""
        if name not in self.columns:
            return super().get(name)
        column = self._as_text(name)
        return column if not column.null_count else column.cast(pa.string()).fill_null("").dictionary_encode()

    def text(self, name: str) -> pa.DictionaryArray:
        """The same, null where empty or absent."""
        return words(self._as_text(name) if name in self.columns else [None] * len(self))

    def codes(self, name: str) -> pa.DictionaryArray:
        """A column of codes as texts. A number is refused: it has lost its zeros, and 428.0 and 428 are two codes."""
        column = self.columns[name]
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) and column.null_count < len(column):
            raise InputError(f"{self.path}: column {name!r} holds codes as a number; codes must be text.")
        return self.text(name)

    def _as_text(self, name: str) -> pa.DictionaryArray:
        column = self.columns[name]
        if isinstance(column, pa.ChunkedArray):
            column = column.unify_dictionaries()
            column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if pa.types.is_nested(column.type):
            raise self.fault(0, name, "there are lists or objects where single values belong")
        if pa.types.is_dictionary(column.type):
            return column
        if pa.types.is_floating(column.type):
            column = _whole_floats(column)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us"), safe=False)
        try:
            return column.cast(pa.string()).dictionary_encode()
        except pa.ArrowInvalid as error:
            raise self.fault(_first_not_text(column), name, "there is no UTF-8 text") from error
        except pa.ArrowNotImplementedError as error:
            raise self.fault(0, name, f"values of the type {column.type} can't be read") from error


def _whole_floats(column: pa.Array) -> pa.Array:
    """Floats as whole numbers where all are; NaN, which tables write where nothing is known, as null."""
    values = np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    unknown = np.isnan(values)
    column = pa.array(values, mask=unknown)
    known = values[~unknown]
    return column.cast(pa.int64()) if (np.floor(known) == known).all() and (np.abs(known) < 2**53).all() else column


def _first_not_text(column: pa.Array) -> int:
    for row, value in enumerate(column):
        try:
            value.cast(pa.string())
        except pa.ArrowInvalid:
            return row
    return 0

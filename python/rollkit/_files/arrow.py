"""Arrow IPC and Parquet: to columns, and columns to them. Needs `pyarrow` (extra `arrow`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

import numpy as np

from rollkit._errors import at, refusal
from rollkit._extras import extra
from rollkit._files.source import BLOCK, MARK, Saved, Source
from rollkit._files.storable import check_dtype, json_texts
from rollkit._rollouts.arrow import columns_from_arrow
from rollkit._rollouts.columns import Column
from rollkit._rows.ragged import Ragged

Wanted = Callable[[Sequence[str]], list[str]]
"""Of the names of a file's columns, those to read; refuses a file that lacks one."""
OfLists = Callable[[str], bool]
"""Whether each element of a file's column is a list."""

_DTYPES: Final = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)
_LISTS: Final = "lists"
"""The mark of a list of its own length for each token."""
_BATCH: Final = 256 << 20
"""About the bytes of a record batch or row group: one is in memory when a file is read in pieces."""
_PART: Final = 64 << 20
"""Likewise where a file is written in pieces, which are in memory until there are so many bytes."""
_PARQUET: Final = {"compression": "zstd", "use_dictionary": False}


def parquet(source: Source, rows: int | None, wanted: Wanted, of_lists: OfLists) -> Iterator[dict[str, Any]]:
    """The wanted columns of a file, `rows` rows at a time; all at once for None."""
    opened = extra("pyarrow.parquet", "arrow").ParquetFile
    with source.arrow(extra("pyarrow", "arrow")) as raw:
        # Read ahead, all row groups would be in memory, as they are in the file, before the first is done.
        file = opened(raw) if rows is None else opened(raw, pre_buffer=False, buffer_size=BLOCK)
        schema = file.schema_arrow
        names = wanted(schema.names)
        tables = [file.read(names)] if rows is None else file.iter_batches(batch_size=rows, columns=names)
        for table in tables:
            yield _columns(table, schema, of_lists)


def ipc(source: Source, rows: int | None, wanted: Wanted, of_lists: OfLists) -> Iterator[dict[str, Any]]:
    """The wanted columns of a file or stream, batch by batch: what is not wanted, or not yet, is not read."""
    pa = extra("pyarrow", "arrow")
    extra("pyarrow.ipc", "arrow")
    with source.arrow(pa) as raw:
        try:
            schema = _opened(pa, raw, []).schema
        except pa.ArrowInvalid as error:
            raise refusal(ValueError, f"no Arrow IPC file or stream: {error}", path=source) from None
        names = wanted(schema.names)
        reader = _opened(pa, raw, [schema.names.index(name) for name in names])
        if rows is None:
            yield _columns(reader.read_all().select(names), schema, of_lists)
            return
        at_once = hasattr(reader, "get_batch")
        batches = map(reader.get_batch, range(reader.num_record_batches)) if at_once else reader
        for batch in batches:
            for first in range(0, len(batch), rows):
                yield _columns(batch.slice(first, rows).select(names), schema, of_lists)


def _opened(pa: Any, raw: Any, fields: Sequence[int]) -> Any:
    """Open an Arrow IPC file, or else a stream, of these fields (all if there are none)."""
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    raw.seek(0)
    try:
        return pa.ipc.open_file(raw, options=options)
    except pa.ArrowInvalid:
        raw.seek(0)
        return pa.ipc.open_stream(raw, options=options)


# What a column is that Arrow has no type for is in the metadata of its field.


def _columns(table: Any, schema: Any, of_lists: OfLists) -> dict[str, Any]:
    names = table.schema.names
    lists = [name for name in names if of_lists(name)]
    if MARK.encode() not in (schema.metadata or {}):
        return columns_from_arrow(table, lists)
    marks = {name: (schema.field(name).metadata or {}).get(MARK.encode()) for name in names}
    lists += [name for name, mark in marks.items() if mark == _LISTS.encode()]
    found = columns_from_arrow(table, lists)
    return Saved({name: _restored(column, marks[name]) for name, column in found.items()})


def _restored(column: Any, mark: bytes | None) -> Any:
    if mark is None or mark == _LISTS.encode():
        return column
    if mark == b"json":
        return list(map(json.loads, column))
    return column.flat.reshape(len(column), *json.loads(mark))  # an array of inner dimensions


class Parts:
    """Writes columns part by part: of what they are, a sample of all rows tells before.

    Args:
        file: to be written to.
        sample: columns of a few rows, not as many in each, with every kind of entry that there is.
    """

    def __init__(self, file: Any, sample: Mapping[str, Column]) -> None:
        self._schema = _schema_of(sample)
        self._tables: list[Any] = []  # not written yet
        self._writer = self._opened(file)

    def _opened(self, file: Any) -> Any:
        raise NotImplementedError

    def _put(self, table: Any) -> None:
        raise NotImplementedError

    def write(self, columns: Mapping[str, Column]) -> None:
        """Write rows, when there are enough for a batch."""
        self._tables.append(_table(columns, self._schema))
        if sum(table.nbytes for table in self._tables) >= _PART:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        tables, self._tables = self._tables, []
        if tables:
            self._put(extra("pyarrow", "arrow").concat_tables(tables))


class IpcParts(Parts):
    """An Arrow IPC file, a record batch for a part."""

    def _opened(self, file: Any) -> Any:
        pa = extra("pyarrow", "arrow")
        return extra("pyarrow.ipc", "arrow").new_file(pa.PythonFile(file, "w"), self._schema)

    def _put(self, table: Any) -> None:
        self._writer.write_table(table.combine_chunks(), max_chunksize=_rows_at_once(table))


class ParquetParts(Parts):
    """A Parquet file, a row group for a part."""

    def _opened(self, file: Any) -> Any:
        return extra("pyarrow.parquet", "arrow").ParquetWriter(file, self._schema, **_PARQUET)

    def _put(self, table: Any) -> None:
        self._writer.write_table(table, row_group_size=_rows_at_once(table))


def write_ipc(file: Any, columns: Mapping[str, Column]) -> None:
    """Write columns as an Arrow IPC file."""
    pa, table = extra("pyarrow", "arrow"), _table(columns)
    with extra("pyarrow.ipc", "arrow").new_file(pa.PythonFile(file, "w"), table.schema) as writer:
        writer.write_table(table, max_chunksize=_rows_at_once(table))


def write_parquet(file: Any, columns: Mapping[str, Column]) -> None:
    """Write columns as a Parquet file."""
    parquet, table = extra("pyarrow.parquet", "arrow"), _table(columns)
    parquet.write_table(table, file, row_group_size=_rows_at_once(table), **_PARQUET)


def _rows_at_once(table: Any) -> int:
    return max(1, len(table) * _BATCH // max(int(table.nbytes), _BATCH))


def _table(columns: Mapping[str, Column], schema: Any = None) -> Any:
    """Columns as Arrow has them, of a schema if there is one."""
    pa = extra("pyarrow", "arrow")
    arrays, fields = [], []
    for name, column in columns.items():
        with at(column=name):
            if schema is not None and isinstance(column, list):
                array, field = _entries_of(pa, name, column, schema.field(name)), schema.field(name)
            else:
                array, mark = _array(pa, name, column)
                field = _field(pa, name, array.type, mark)
        arrays.append(array)
        fields.append(field)
    return pa.table(arrays, pa.schema(fields, metadata={MARK: "1"}))


def _schema_of(sample: Mapping[str, Column]) -> Any:
    """The schema of columns, by a sample of them; entries that are refused are so where they are written."""
    pa = extra("pyarrow", "arrow")
    fields = []
    for name, column in sample.items():
        if isinstance(column, list):
            native = _natively(pa, column)
            json_text = pa.large_string(), "json"
            fields.append(_field(pa, name, *(json_text if native is None else (native.type, None))))
        else:
            fields.append(_table({name: column}).schema.field(name))
    return pa.schema(fields, metadata={MARK: "1"})


def _field(pa: Any, name: str, kind: Any, mark: str | None) -> Any:
    return pa.field(name, kind, metadata=None if mark is None else {MARK: mark})


def _array(pa: Any, name: str, column: Column) -> tuple[Any, str | None]:
    """A column as Arrow has it, and the mark that says how it is more than that."""
    if isinstance(column, list):
        return _entries(pa, name, column)
    check_dtype(column.dtype, _DTYPES, "Arrow")
    if isinstance(column, Ragged):
        own = Ragged(column.flat, column.offsets - column.offsets[0])  # without what a slice leaves out
        return own.to_arrow(), _LISTS if own.of_lists else None
    if column.ndim == 1:
        return pa.array(column), None
    offsets = np.arange(len(column) + 1) * column.shape[1]
    nested = Ragged(column.reshape(-1, *column.shape[2:]), offsets)
    return nested.to_arrow(), json.dumps(column.shape[1:])


def _entries(pa: Any, name: str, column: list[Any]) -> tuple[Any, str | None]:
    """Entries as Arrow's own where they come back as they are; else as JSON text."""
    native = _natively(pa, column)
    if native is not None:
        return native, None
    return pa.array(json_texts(name, column), pa.large_string()), "json"


def _natively(pa: Any, column: list[Any]) -> Any:
    """Entries of one kind as Arrow's own; None where they would not come back as they are."""
    kinds = {type(entry) for entry in column} - {type(None)}
    natives: dict[type, Any] = {str: pa.large_string(), bytes: pa.large_binary()}
    if any(entry is None for entry in column):  # else they would come back as an array
        natives |= {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    if not kinds:
        return pa.array(column, pa.null() if column else pa.large_string())
    if len(kinds) == 1 and (native := natives.get(kinds.pop())) is not None:
        with suppress(OverflowError, UnicodeEncodeError):  # beyond int64, half a surrogate pair
            return pa.array(column, native)
    return None


def _entries_of(pa: Any, name: str, column: list[Any], field: Any) -> Any:
    """Entries as a field has them."""
    return pa.array(json_texts(name, column) if field.metadata else column, field.type)

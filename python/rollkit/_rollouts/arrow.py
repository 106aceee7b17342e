"""Arrow tables to columns and back, without a copy. Needs `pyarrow` (extra `arrow`)."""

from collections.abc import Mapping
from typing import Any

from rollkit._errors import at
from rollkit._extras import extra
from rollkit._rows.arrow import is_list, rows_to_arrow, stored_type
from rollkit._rows.ragged import Ragged


def is_arrow(found: Any) -> bool:
    """Whether an object speaks Arrow's C interface: arrays, tables, streams and data frames do."""
    return hasattr(found, "__arrow_c_stream__") or hasattr(found, "__arrow_c_array__")


def columns_from_arrow(table: Any) -> dict[str, Any]:
    """See `Rollouts.from_arrow`."""
    pa = extra("pyarrow", "arrow")
    if not isinstance(table, pa.Table | pa.RecordBatch):
        if not is_arrow(table):
            raise TypeError(f"table must be an Arrow table, got {type(table).__name__}")
        table = pa.table(table)
    return {name: column_from_arrow(name, table.column(name)) for name in table.schema.names}


def columns_to_arrow(columns: Mapping[str, Any]) -> Any:
    """See `Rollouts.to_arrow`."""
    pa = extra("pyarrow", "arrow")
    return pa.table(
        {
            name: rows_to_arrow(column.values, column.offsets)
            if isinstance(column, Ragged)
            else pa.array(column)
            for name, column in columns.items()
        }
    )


def column_from_arrow(name: str, column: Any) -> Any:
    """A column of an Arrow array: rows of numbers as `Ragged`, numbers as an array, else a list."""
    pa = extra("pyarrow", "arrow")
    if not isinstance(column, pa.Array | pa.ChunkedArray):
        column = pa.chunked_array(column) if hasattr(column, "__arrow_c_stream__") else pa.array(column)
    with at(column=name):
        kind = leaf = stored_type(pa, column.type)
        while is_list(pa, leaf):
            leaf = stored_type(pa, leaf.value_type)
    number = pa.types.is_integer(leaf) or pa.types.is_floating(leaf) or pa.types.is_boolean(leaf)
    with at(column=name):
        if number and is_list(pa, kind):
            return Ragged.from_arrow(column)
        if number and not column.null_count:
            return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(False)
    return column.to_pylist()

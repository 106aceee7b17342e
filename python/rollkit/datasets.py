"""For Hugging Face datasets and other Arrow tables: `pack_table`."""

from __future__ import annotations

from typing import Any

from rollkit._rows import tables

__all__ = ["pack_table"]


def pack_table(table: Any, seq_length: int, strategy: str = "bfd", *, lengths: str = "seq_lengths") -> Any:
    """Pack the rows of an Arrow table into rows of at most `seq_length` elements.

    What `trl.pack_dataset` does to a batch, row for row; needs pyarrow and no other package.
    `dataset.map(pack_table, batched=True, fn_kwargs={"seq_length": 4096})` of a `datasets.Dataset` in the
    format `"arrow"` is all that `rollkit.compat.trl.pack_dataset` adds. To pack rollouts, with prompts and
    responses, use `rollkit.pack`.

    | strategy | a row longer than `seq_length` | rows end |
    |---|---|---|
    | `"bfd"` | loses what is beyond | where they ended |
    | `"bfd_split"` | becomes several | where they ended, or after `seq_length` |
    | `"wrapped"` | is cut anywhere | anywhere |

    The first two are best fit decreasing: longest first, each into the fullest row with room; of equally full
    ones into the one that has been so for the longest time, as in TRL. (`plan_bins` takes the one that was
    opened first.)

    Args:
        table: anything that speaks Arrow: a table of pyarrow, a data frame of polars, a `datasets.Dataset`.
            All columns are `list` or `large_list`, and of one length in each row. Elements may be anything;
            numbers without nulls are moved by Rust, all others by Arrow.
        seq_length: the elements that a row may have.
        strategy: see above.
        lengths: the name of the column that is added, of the lengths of the rows that each row is made of;
            `"wrapped"` adds none.

    Returns:
        A `pyarrow.Table` of the same columns, in the lists that they came in. Empty rows and nulls are gone.
        `"wrapped"` copies nothing, but for tables of several chunks. A `list` of more elements than its
        offsets count is of several chunks.

    Raises:
        TypeError: no Arrow table, or a column is not of lists.
        ValueError: columns differ in a row; no strategy; there is a column `lengths`; two of one name.
        OverflowError: `seq_length` is beyond the offsets of a `list`, and a row is as long.

    Source: `trl.pack_dataset`, TRL 1.16.

    Example:
        >>> import pyarrow as pa
        >>> table = pa.table({"input_ids": [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10], [11]]})
        >>> pack_table(table, 4).to_pydict()
        {'input_ids': [[1, 2, 3, 4], [8, 9, 10, 11], [6, 7]], 'seq_lengths': [[4], [3, 1], [2]]}
        >>> pack_table(table, 4, "bfd_split").to_pydict()
        {'input_ids': [[1, 2, 3, 4], [8, 9, 10, 5], [6, 7, 11]], 'seq_lengths': [[4], [3, 1], [2, 1]]}
        >>> pack_table(table, 4, "wrapped").to_pydict()
        {'input_ids': [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]}

    References:
        H. Ding, Z. Wang, G. Paolini, V. Kumar, A. Deoras, D. Roth, S. Soatto, "Fewer truncations improve
        language modeling", ICML 2024.
    """
    return tables.packed(table, seq_length, strategy, lengths)

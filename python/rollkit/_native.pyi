"""Kernels. Private: the functions of `rollkit` check what their arguments mean; these what is sound."""

from collections.abc import Sequence
from typing import Any, Final, Self, final

import numpy as np
from numpy.typing import NDArray

__version__: Final[str]
build_profile: Final[str]

_Int64s = NDArray[np.int64]
_Parts = Sequence[NDArray[Any] | tuple[NDArray[Any], _Int64s]]
# Level, parts, row lengths, fill, out, zeroed; of "tokens", parts and lengths are of prompts and responses.
_Column = (
    tuple[str, _Parts, _Int64s | None, NDArray[Any], NDArray[Any], bool]
    | tuple[
        str,
        tuple[_Parts, _Parts],
        tuple[_Int64s | None, _Int64s | None] | None,
        NDArray[Any],
        NDArray[Any],
        bool,
    ]
)
_Rows = list[NDArray[Any]] | tuple[NDArray[Any], ...]

@final
class Decompressor:
    """Reads a gzip or zstd file, of one or several members or frames.

    `file` is a binary file of Python's. A truncated or corrupt stream is a ValueError that begins with
    `name`.
    """

    def __new__(cls, file: Any, kind: str, /, *, name: str) -> Self: ...
    def readinto(self, out: NDArray[Any], /) -> int:
        """Fill `out`, less only at the end, and return how many bytes."""

_Online = tuple[int, list[tuple[int, int, int]], list[tuple[int, int, list[int]]]]

@final
class OnlinePacker:
    """Packs rows that arrive one by one.

    Its state: how many came; those that wait (number, length, when it came); bins (free slots, when the first
    row came, rows).
    """

    def __new__(
        cls,
        *,
        capacity: int,
        buffer: int,
        policy: str,
        max_wait: int | None,
        max_segments: int | None,
        align: int,
        state: _Online | None = None,
    ) -> Self: ...
    def add(self, row: int, length: int, /) -> list[_Int64s]:
        """Add a row; the bins that are complete then."""

    def extend(self, rows: _Int64s, lengths: _Int64s, /) -> tuple[_Int64s, _Int64s]:
        """Add rows; the rows of the bins that are complete then, and offsets of bins in them."""

    def flush(self) -> list[_Int64s]:
        """The bins of all rows that are left."""

    def pending(self) -> int:
        """How many rows have come and are not out."""

    def state(self) -> _Online:
        """All that there is to go on from."""

@final
class TokenTree:
    """The nodes of a tree of tokens, which each call is given: all that are stored, int32."""

    def __new__(
        cls,
        tokens: NDArray[np.int32] | None = None,
        columns: Sequence[_Int64s] | None = None,
        /,
    ) -> Self: ...
    def find(self, tokens: NDArray[np.int32], prompt: NDArray[np.int32], /) -> tuple[int, int, int]:
        """How far a prompt is a path: the node it ends in or -1, its tokens, those of them in the node."""

    def extend(
        self,
        tokens: NDArray[np.int32],
        /,
        *,
        after: int,
        within: int,
        begin: int,
        observed: int,
        sampled: int,
        captured: int,
        repaired: _Int64s,
    ) -> int:
        """Add a turn's tokens from `begin` on, behind the first `within` of `after`; its last node."""

    def path(self, node: int, /) -> _Int64s:
        """The nodes from a root to this one."""

    def lacking(self, node: int, within: int, /) -> list[_Int64s]:
        """Nodes of the path that have a token without routes; where in the path, and where of all."""

    def branches(self) -> list[_Int64s]:
        """The nodes without children, where the path to each begins, and the nodes of all paths."""

    def forest(self) -> list[_Int64s]:
        """Parents, begins, ends and source rows of nodes, depth first, and the node of each branch."""

    def columns(self) -> list[_Int64s]:
        """Parents, begins, lengths, sampled and captured of all nodes."""

    def __len__(self) -> int: ...

def array_lengths(rows: list[Any] | tuple[Any, ...], /) -> _Int64s | None:
    """Lengths of rows that are C-contiguous arrays of one dtype and inner shape, or None."""

def attention_mask(
    starts: _Int64s, lengths: _Int64s, order: _Int64s | None, /, *, out: NDArray[np.uint8]
) -> None:
    """Write 1 where a row is, 0 in gaps."""

def build_forest(
    columns: Sequence[tuple[int, Sequence[tuple[_Parts, _Int64s]]]],
    /,
    *,
    groups: _Int64s | None,
    min_shared: int,
) -> list[_Int64s]:
    """What rows share: parents, begins, ends and source rows of nodes, and the node that each row ends with.

    A column is the numbers of an element, and one half of its rows or two: parts and row lengths.
    """

def balance(
    lengths: _Int64s,
    costs: _Int64s,
    groups: _Int64s | None,
    /,
    *,
    parts: int,
    equal_counts: bool,
    capacity: int | None,
    tolerance: float,
) -> _Int64s:
    """The part of each row; `groups` are numbers below that of rows."""

def balance_bound(
    costs: _Int64s, groups: _Int64s | None, /, *, parts: int, equal_counts: bool
) -> tuple[int, int]:
    """The least that the costliest of some parts can cost, and what all rows cost."""

def can_cast(from_: np.dtype[Any], to: np.dtype[Any], /) -> bool:
    """Whether `place` casts between two dtypes, checked."""

def check_forest(parents: _Int64s, begins: _Int64s, ends: _Int64s, leaf: _Int64s, /) -> None:
    """Check that nodes are depth first, end to end along each path, and that rows end with nodes."""

def check_offsets(offsets: _Int64s, available: int, /) -> None:
    """Check that offsets start at 0 or above, never fall, and stay within `available` elements."""

def concat_arrays(rows: list[Any] | tuple[Any, ...], /) -> tuple[NDArray[Any], _Int64s] | None:
    """Join rows as in `array_lengths`: (values, offsets), or None."""

def concat_columns(
    values: Sequence[NDArray[Any]], offsets: Sequence[_Int64s], /, *, out: NDArray[Any] | None
) -> tuple[NDArray[Any], _Int64s] | None:
    """Join columns: (`out` or fresh values, offsets), or None unless C-contiguous and alike."""

def decode_base64(text: str | NDArray[Any], /, *, size: int, begin: int, out: NDArray[Any]) -> None:
    """Write to `out` the bytes from `begin` on of the `size` bytes that a base64 text stands for."""

def fill_batch(
    starts: _Int64s,
    lengths: _Int64s,
    order: _Int64s | None,
    row_lengths: _Int64s,
    prompt_lengths: _Int64s,
    columns: Sequence[_Column],
    /,
    *,
    size: int,
    width: int,
    source_rows: _Int64s | None = None,
    begins: _Int64s | None = None,
    segment_ids: NDArray[np.int32] | None = None,
    positions: NDArray[np.int32] | None = None,
    attention_mask: NDArray[np.uint8] | None = None,
) -> None:
    """Write all arrays of a batch, each element once.

    A column's level is "prompt", "response", "sequence" (a row's last elements may be missing), "last"
    (an element per row, on its last response token that is placed) or "tokens" (prompts, then responses).
    Its row lengths go with parts that say where rows begin. Without them an array is a row as long as it
    is, and the others have offsets.
    """

def fill_runs(starts: _Int64s, lengths: _Int64s, values: _Int64s, /, *, out: NDArray[np.int32]) -> None:
    """Write `values[row]` to each row's elements, 0 in gaps."""

def first_negative(numbers: _Int64s, /) -> int | None:
    """Where the first number below zero is."""

def forest_bound(
    parents: _Int64s, begins: _Int64s, ends: _Int64s, leaf: _Int64s, /, *, capacity: int
) -> tuple[int, int]:
    """The least bins of a capacity that rows take, and the least tokens in them."""

def forest_paths(parents: _Int64s, starts: _Int64s, lengths: _Int64s, leaf: _Int64s, /) -> list[_Int64s]:
    """Where rows are in placed nodes: where the spans of each begin, and of spans starts and lengths."""

def from_lists(rows: Sequence[Any], dtype: np.dtype[Any] | None = None, /) -> tuple[NDArray[Any], _Int64s]:
    """Flatten rows of (nested) lists or tuples of numbers: (values `[N, *inner]`, offsets)."""

def gae(
    rewards: NDArray[Any],
    values: NDArray[Any] | None,
    mask: NDArray[Any] | None,
    offsets: _Int64s,
    /,
    *,
    gamma: float,
    lam: float,
    both: bool,
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Scan rows of float32 or float64 from their ends: (advantages, returns, which is None unless `both`)."""

def gather_rows(
    values: NDArray[Any], begins: _Int64s, lengths: _Int64s, /, *, copy: bool
) -> tuple[NDArray[Any], _Int64s]:
    """Lay rows of one C-contiguous array end to end: (values, offsets).

    Without `copy` the values are the array itself where its rows are that already.
    """

def ids_from_lengths(lengths: _Int64s, /, *, out: NDArray[np.int32]) -> None:
    """Write segment ids of segments that lie end to end, 0 after the last."""

def joined_steps(
    prompts: Sequence[NDArray[Any] | tuple[NDArray[Any], _Int64s]],
    prompt_lengths: _Int64s,
    responses: Sequence[NDArray[Any] | tuple[NDArray[Any], _Int64s]],
    response_lengths: _Int64s,
    first: NDArray[np.bool_],
    /,
) -> NDArray[np.bool_]:
    """Whether each step's prompt begins with the prompt and response before, `first` ones never."""

def offsets_from_lengths(lengths: _Int64s, /, align: int = 1) -> _Int64s:
    """Offsets [0, l0, l0 + l1, …], each length rounded up to a multiple of `align`."""

def panics() -> int:
    """How many panics there have been, each of which is a fault of this module."""

def parse_jsonl(
    data: NDArray[np.uint8],
    /,
    *,
    hints: dict[str, Any],
    first_line: int = 1,
    name: str = "<bytes>",
    on_error: str = "raise",
    nonfinite: str = "raise",
    columns: set[str] | None = None,
    lists: dict[str, Any] | None = None,
) -> tuple[int, int, dict[str, Any]]:
    """Read whole lines of JSON: (rows, lines skipped, columns).

    `columns` are the keys to keep; of others nothing is decoded. `lists` are dtypes of columns whose hint is
    object: ((values, list_offsets), offsets) where each row is lists of integers that these hold.

    Other columns are (values, offsets), an array of one number per row, or a list.
    """

def pack_forest(
    parents: _Int64s,
    begins: _Int64s,
    ends: _Int64s,
    leaf: _Int64s,
    /,
    *,
    capacity: int,
    align: int,
    max_segments: int | None,
    bins_multiple_of: int,
    oversize: str,
) -> tuple[list[_Int64s], int, int]:
    """Lay a forest in bins: nodes, bins, width.

    Of nodes the parents, starts, lengths, source rows and begins, and which of them each row ends with.
    """

def pack_rows(
    lengths: _Int64s,
    /,
    *,
    capacity: int,
    algorithm: str,
    align: int,
    max_segments: int | None,
    bins_multiple_of: int,
    oversize: str,
    shuffle: int | None,
) -> tuple[_Int64s, _Int64s, _Int64s | None, int, int]:
    """Lay rows in bins: (starts, lengths placed, rows by start or None if they are, bins, width).

    `shuffle` is the key of the order that bins are in; None: that in which they are opened.
    The lengths placed are `lengths` itself where no row is cut or dropped.
    """

def permute(numbers: _Int64s, /, *, count: int, seed: int, epoch: int, inverse: bool) -> _Int64s:
    """Where each of `count` numbers goes in a keyed permutation, or where it comes from."""

def pick_numbers(
    rows: Sequence[Sequence[Any]],
    item: int | str | None,
    dtype: np.dtype[Any] | None = None,
    /,
    *,
    keys: Sequence[Sequence[Any]] | None = None,
) -> tuple[NDArray[Any], _Int64s]:
    """One number of each element, an entry of it or what it has by name: (values, offsets).

    With `keys`, a row of them for each row, elements are dicts, and the number is of the value of the key:
    the value itself if `item` is None.
    """

def place(
    parts: Sequence[NDArray[Any] | tuple[NDArray[Any], _Int64s]],
    starts: _Int64s,
    lengths: _Int64s,
    order: _Int64s | None,
    /,
    *,
    fill: NDArray[Any],
    out: NDArray[Any],
    zeroed: bool = False,
    row_lengths: _Int64s | None = None,
    source_rows: _Int64s | None = None,
    begins: _Int64s | None = None,
) -> None:
    """Write rows to `out` at `starts`, and one element's `fill` elsewhere; `zeroed`: it is there already.

    With the last three, pieces are written: `lengths[i]` elements of row `source_rows[i]` from
    `begins[i]` on.
    """

def plan_bins(
    lengths: _Int64s,
    /,
    *,
    capacity: int,
    algorithm: str,
    align: int,
    max_segments: int | None,
    oversize: str,
) -> _Int64s:
    """The bin of each row; -1 for a dropped one."""

def plan_steps(
    lengths: _Int64s,
    costs: _Int64s,
    groups: _Int64s | None,
    home: _Int64s | None,
    /,
    *,
    capacity: int,
    ranks: int,
    sync: str,
    max_segments: int | None,
    steps: int,
    seed: int | None,
) -> tuple[_Int64s, int, int, int, int]:
    """Where each row goes, the steps, the makespan, what that is at least, and what all rows cost."""

def positions_from_lengths(lengths: _Int64s, /, *, out: NDArray[np.int32]) -> None:
    """Write positions in segments that lie end to end, 0 after the last."""

def positions(
    starts: _Int64s,
    lengths: _Int64s,
    order: _Int64s | None,
    /,
    *,
    out: NDArray[np.int32],
    begins: _Int64s | None = None,
) -> None:
    """Write positions within each row, from `begins` (0) on; 0 in gaps."""

def read_forest(
    parents: _Int64s, starts: _Int64s, lengths: _Int64s, leaf: _Int64s, /, *, width: int
) -> list[_Int64s]:
    """Of placed nodes: the end of what is below each, how many rows have it, its tree's number in its bin."""

def row_costs(lengths: _Int64s, /, *, per_token: int, per_square: int) -> _Int64s:
    """What each row costs."""

def runs(ids: NDArray[Any], /) -> list[_Int64s]:
    """Every run of `[rows, width]` ids: ids, flat starts, lengths."""

def segment_ids(
    starts: _Int64s,
    lengths: _Int64s,
    order: _Int64s | None,
    /,
    *,
    width: int,
    out: NDArray[np.int32],
) -> None:
    """Write row numbers from 1 within each run of `width` elements, 0 in gaps."""

def seqlens_and_offsets(
    ids: NDArray[Any], /, *, name: str, max_segments: int, pair: bool
) -> list[NDArray[np.int32]]:
    """Lengths by id `[rows, max_segments]` and offsets by appearance `[rows, max_segments + 1]`."""

def sorted_rows(starts: _Int64s, lengths: _Int64s, near: _Int64s | None, /, *, size: int) -> _Int64s | None:
    """Check that rows lie in `size` elements and are disjoint; return rows by start, None if they are.

    `near` is an order to begin with: the orders of layouts that are joined, say.
    """

def spans(
    starts: _Int64s, lengths: _Int64s, row_lengths: _Int64s, begins: _Int64s, wanted: _Int64s, /
) -> tuple[_Int64s, _Int64s]:
    """Where `wanted` elements of each row from `begins` (one, or one per row) on are: (starts, lengths)."""

def split_rows(lengths: _Int64s, /, *, capacity: int) -> tuple[_Int64s, _Int64s, _Int64s] | None:
    """Row, begin and length of each piece of at most `capacity` elements; None where pieces are rows."""

def thd(
    ids_q: NDArray[Any],
    ids_kv: NDArray[Any],
    positions_q: NDArray[Any] | None,
    positions_kv: NDArray[Any] | None,
    /,
    *,
    mask: str,
    max_segments: int,
    pair: bool,
) -> list[NDArray[np.int32]]:
    """(q_seqlens, kv_seqlens, q_offsets, kv_offsets) of `[rows, width]` ids and positions."""

def turns(mask: NDArray[Any], offsets: _Int64s, /) -> tuple[_Int64s, _Int64s, _Int64s]:
    """Runs of non-zero elements in each row: (lengths, offsets of the rows' runs, non-zeros per row)."""

def value_range(values: NDArray[Any], /) -> tuple[int, int] | None:
    """The least and the greatest of integers, None where there are none."""

def visible_until(
    starts: _Int64s,
    lengths: _Int64s,
    order: _Int64s | None,
    ends: _Int64s,
    /,
    *,
    width: int,
    out: NDArray[np.int32],
) -> None:
    """Write `ends[row]` in each row, in gaps each element's own place, both from its line's beginning on."""

def sample(
    cond: NDArray[Any],
    uncond: NDArray[Any] | None,
    ids: tuple[int, int] | NDArray[np.int32],
    /,
    *,
    dtype: str,
    full: bool,
    rows: dict[str, NDArray[Any] | None],
    order: str,
    logprobs: str,
    return_kept: bool,
) -> tuple[
    _Int64s, NDArray[np.float32], NDArray[np.int8], tuple[NDArray[np.int32], NDArray[np.int64]] | None
]:
    """Draw a token per row: (token ids, log-probabilities, statuses, kept ids and offsets).

    `rows` has an array, or None, for each of cfg_scale, temperature, top_k, top_p, min_p, seeds,
    positions and noise.
    """

def uniforms(
    seeds: _Int64s, positions: _Int64s, ids: NDArray[np.int32], /, *, out: NDArray[np.float32]
) -> None:
    """Write the uniforms `[seeds, ids]` of tokens."""

def read_arrow(source: Any, /) -> tuple[list[str] | None, list[Any]]:
    """Read what speaks Arrow: the names of a table's columns, and its chunks (see `_rows.arrow.Arrow`)."""

def export_array(spec: Any, /) -> tuple[Any, Any]:
    """Export an array: the capsules of its type and of itself."""

def export_stream(names: list[str], specs: list[Any], rows: int, /) -> Any:
    """Export columns as a stream of one record batch."""

def arrow_formats(schema: Any, /) -> tuple[str, list[tuple[str, str]]]:
    """The format of a type that somebody asks for, and those of its children by name."""

def hash_rows(values: NDArray[Any], offsets: _Int64s, /, *, seed: int, out: NDArray[np.uint64]) -> None:
    """Hash the rows of one C-contiguous array (XXH3, 64 bits)."""

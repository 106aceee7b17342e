"""Slow, obvious versions of what rollkit does fast, to test against, and strategies that draw their input.

The strategies need hypothesis, which is imported when one is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.layout import Layout
from rollkit._rows.ragged import Ragged

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def plan_bins_reference(
    lengths: Sequence[int] | NDArray[np.integer],
    capacity: int,
    *,
    algorithm: str = "first_fit_decreasing",
    align: int = 1,
    max_segments: int | None = None,
    oversize: str = "raise",
) -> NDArray[np.int64]:
    """`rollkit.plan_bins` by looking at every open bin for every row: O(rows × bins).

    Takes and returns what `plan_bins` does, but checks nothing beyond rows that are too long.

    Example:
        >>> plan_bins_reference([3, 3, 5, 5], capacity=8)
        array([0, 1, 0, 1])
    """
    sizes = [min(n, capacity) if oversize == "truncate" else n for n in map(int, lengths)]
    order = list(range(len(sizes)))
    if algorithm.endswith("_decreasing"):
        order.sort(key=lambda row: -sizes[row])
    slots = max(capacity // align, 1)
    most = len(sizes) if max_segments is None else max_segments
    room: list[int] = []
    free: list[int] = []  # how many more rows a bin takes
    bins = np.full(len(sizes), -1, np.int64)
    for row in order:
        size = sizes[row]
        if size > capacity:
            if oversize == "raise":
                raise ValueError(f"row {row} has {size} elements, capacity is {capacity}")
            if oversize == "alone":
                bins[row] = len(room)
                room.append(0)
                free.append(0)
            continue
        need = min(-(-size // align), slots)
        fitting = [b for b in range(len(room)) if room[b] >= need and free[b] > 0]
        if algorithm == "next_fit":
            fitting = [b for b in fitting if b == len(room) - 1]
        elif algorithm == "best_fit_decreasing":
            fitting.sort(key=lambda b: room[b])
        if not fitting:
            fitting = [len(room)]
            room.append(slots)
            free.append(most)
        bins[row] = fitting[0]
        room[fitting[0]] -= need
        free[fitting[0]] -= 1
    return bins


def pack_starts_reference(
    lengths: Sequence[int] | NDArray[np.integer], capacity: int, *, align: int = 1, **options: Any
) -> list[int]:
    """The starts of `rollkit.Layout.pack`, bin by bin; takes what `plan_bins_reference` does.

    Example:
        >>> pack_starts_reference([3, 0, 7, 2, 0, 1], capacity=8)
        [8, 0, 0, 11, 7, 7]
        >>> pack_starts_reference([3, 5, 0], capacity=8)
        [0, 3, 3]
    """
    bins = plan_bins_reference(lengths, capacity, align=align, **options).tolist()
    placed = [min(n, capacity) if options.get("oversize") == "truncate" else n for n in map(int, lengths)]
    width = max([capacity, *(n for n, found in zip(placed, bins, strict=True) if found >= 0)])
    starts = [-1] * len(bins)
    for number in set(bins) - {-1}:
        used = last = 0
        for row in (row for row, found in enumerate(bins) if found == number):
            if placed[row]:
                last = used
            # Where a bin is full, the next one starts: an empty row goes back to the last row's start.
            starts[row] = number * width + (last if used == width else used)
            used = min(-(-(used + placed[row]) // align) * align, width)
    return starts


def concat_reference(parts: Sequence[Ragged]) -> list[Any]:
    """`rollkit.concat`, as nested lists.

    Example:
        >>> concat_reference([Ragged.from_rows([[1], [2, 3]]), Ragged.from_rows([[4]])])
        [[1], [2, 3], [4]]
    """
    return [row.tolist() for part in parts for row in part]


def place_reference(
    rows: Sequence[Any] | Ragged, layout: Layout, fill: Any = 0, dtype: DTypeLike | None = None
) -> NDArray[Any]:
    """`rollkit.place`, one element at a time. `rows` are arrays (at least one) or a `Ragged`.

    Example:
        >>> place_reference([np.array([7, 8])], Layout.pad([2], width=3), fill=-1)
        array([[-1,  7,  8]])
        >>> halves = Layout((4,), [2, 0], [1, 2], [3], source_rows=[0, 0], begins=[0, 1])
        >>> place_reference([np.array([7, 8, 9])], halves)
        array([8, 9, 7, 0])
    """
    arrays = [np.asarray(row) for row in rows]
    inner = rows.inner if isinstance(rows, Ragged) else arrays[0].shape[1:]
    if dtype is None:
        dtype = rows.dtype if isinstance(rows, Ragged) else arrays[0].dtype
    out: NDArray[Any] = np.empty((layout.size, *inner), dtype)
    for cell in range(layout.size):
        out[cell] = fill
    if len(arrays) != len(layout):
        raise ValueError(f"there are {len(arrays)} rows, the layout has {len(layout)}")
    for row, begin, start, length in _pieces_reference(layout):
        for position in range(length):
            out[start + position] = arrays[row][begin + position]
    return out.reshape(*layout.shape, *inner)


def take_reference(array: NDArray[Any], layout: Layout) -> list[list[Any]]:
    """`rollkit.take`, one element at a time, as nested lists; a row's pieces in their order within it.

    Example:
        >>> take_reference(np.array([[0, 7, 8]]), Layout.pad([2], width=3))
        [[7, 8]]
        >>> halves = Layout((4,), [2, 0], [1, 2], [3], source_rows=[0, 0], begins=[0, 1])
        >>> take_reference(np.array([8, 9, 7, 0]), halves)
        [[7, 8, 9]]
    """
    flat = array.reshape(layout.size, *array.shape[len(layout.shape) :])
    rows: list[list[Any]] = [[] for _ in range(len(layout))]
    for row, _, start, length in sorted(_pieces_reference(layout)):
        rows[row] += [flat[start + position].tolist() for position in range(length)]
    return rows


def _pieces_reference(layout: Layout) -> list[tuple[int, int, int, int]]:
    """Row, begin within it, start and length of each piece of a layout."""
    starts, lengths = layout.starts.tolist(), layout.lengths.tolist()
    rows = range(len(starts)) if layout.source_rows is None else layout.source_rows.tolist()
    begins = [0] * len(starts) if layout.begins is None else layout.begins.tolist()
    return list(zip(rows, begins, starts, lengths, strict=True))


def positions_reference(layout: Layout) -> NDArray[np.int32]:
    """`Layout.positions`, one element at a time.

    Example:
        >>> positions_reference(Layout.pad([2, 1], width=3))
        array([[0, 0, 1],
               [0, 0, 0]], dtype=int32)
    """
    rows = [np.arange(n, dtype=np.int32) for n in layout.row_lengths.tolist()]
    return place_reference(rows, layout) if rows else np.zeros(layout.shape, np.int32)


def attention_mask_reference(layout: Layout) -> NDArray[np.uint8]:
    """`Layout.attention_mask`, one element at a time.

    Example:
        >>> attention_mask_reference(Layout.pad([2, 1], width=3))
        array([[0, 1, 1],
               [0, 0, 1]], dtype=uint8)
    """
    rows = [np.ones(n, np.uint8) for n in layout.row_lengths.tolist()]
    return place_reference(rows, layout) if rows else np.zeros(layout.shape, np.uint8)


def segment_ids_reference(layout: Layout) -> NDArray[np.int32]:
    """`Layout.segment_ids`, one line after another, empty rows counted where they start.

    Example:
        >>> segment_ids_reference(Layout.pack([3, 2, 1], capacity=4))
        array([[1, 1, 1, 2],
               [1, 1, 0, 0]], dtype=int32)
    """
    out = np.zeros(layout.size, np.int32)
    rows = list(zip(layout.starts.tolist(), layout.lengths.tolist(), strict=True))
    for begin in range(0, layout.size, layout.width or 1):
        number = 0
        # Of two rows with one start the empty one comes first.
        for start, length in sorted(rows):
            if begin <= start < begin + layout.width:
                number += 1
                for position in range(length):
                    out[start + position] = number
    return out.reshape(layout.shape)


def shard_reference(
    layout: Layout, size: int, scheme: str = "zigzag", *, align: int = 1
) -> list[NDArray[np.int64]]:
    """`rollkit.Layout.shard`, token by token: which place of the output each place of a rank's share is.

    Takes what `shard` does, but `"balanced"`, which is no rule but a search.

    Example:
        >>> shard_reference(Layout.concat([4, 8]), 2)
        [array([ 0,  3,  4,  5, 10, 11]), array([1, 2, 6, 7, 8, 9])]
    """
    shares: list[list[int]] = [[] for _ in range(size)]
    piece_at = {
        start + position: piece
        for piece, (_, _, start, length) in enumerate(_pieces_reference(layout))
        for position in range(length)
    }
    chunks = 2 * size if scheme in ("zigzag", "dual_chunk") and size > 1 else size
    for line in range(0, layout.size, layout.width or 1):
        slots, latest = [0], None  # where slots begin: a line's first one with the line
        for column in range(layout.width):
            piece = piece_at.get(line + column, latest)
            if piece != latest and latest is not None:
                slots.append(column)
            latest = piece
        bounds = [*slots, layout.width] if scheme == "zigzag" else [0, layout.width]
        for begin, end in pairwise(bounds):
            for position in range(end - begin):
                stripe = align if scheme == "striped" else (end - begin) // chunks
                chunk = position // stripe % chunks
                shares[min(chunk, 2 * size - 1 - chunk)].append(line + begin + position)
    shape = (*layout.shape[:-1], layout.width // size)
    return [np.array(share, np.int64).reshape(shape) for share in shares]


def pad_reference(
    rows: Sequence[Mapping[str, Any]],
    *,
    pad_id: int = 0,
    side: str = "left",
    width: int | None = None,
    fills: Mapping[str, Any] | None = None,
) -> dict[str, NDArray[Any]]:
    """The arrays of `rollkit.pad`, cell by cell; `rows` are dicts of lists, one per rollout.

    Example:
        >>> row = {"prompt_token_ids": [5], "response_ids": [6, 7], "rewards": 1.0}
        >>> arrays = pad_reference([row], width=4)
        >>> arrays["input_ids"], arrays["rewards"]
        (array([[0, 5, 6, 7]], dtype=int32), array([[0., 0., 0., 1.]], dtype=float32))
    """
    sizes = [len(row.get("prompt_token_ids", ())) + len(row["response_ids"]) for row in rows]
    wide = max(sizes, default=0) if width is None else width
    starts = [(i, 0 if side == "right" or not n else wide - n) for i, n in enumerate(sizes)]
    arrays = _batch_reference(rows, starts, (len(rows), wide), pad_id, fills or {})
    arrays["attention_mask"] = (arrays["segment_ids"] != 0).astype(np.uint8)
    return arrays


def pack_reference(
    rows: Sequence[Mapping[str, Any]],
    capacity: int,
    *,
    pad_id: int = 0,
    algorithm: str = "first_fit_decreasing",
    align: int = 1,
    fills: Mapping[str, Any] | None = None,
) -> dict[str, NDArray[Any]]:
    """The arrays of `rollkit.pack`, cell by cell; `rows` are dicts of lists, one per rollout.

    Example:
        >>> rows = [{"response_ids": [1, 2]}, {"response_ids": [3, 4, 5]}, {"response_ids": [6]}]
        >>> pack_reference(rows, capacity=4)["input_ids"]
        array([[3, 4, 5, 6],
               [1, 2, 0, 0]], dtype=int32)
    """
    sizes = [len(row.get("prompt_token_ids", ())) + len(row["response_ids"]) for row in rows]
    flat = pack_starts_reference(sizes, capacity, algorithm=algorithm, align=align)
    starts = [divmod(start, capacity) for start in flat]
    lines = 1 + max((line for line, _ in starts), default=-1)
    return _batch_reference(rows, starts, (lines, capacity), pad_id, fills or {})


def _batch_reference(
    rows: Sequence[Mapping[str, Any]],
    starts: Sequence[tuple[int, int]],
    shape: tuple[int, int],
    pad_id: int,
    fills: Mapping[str, Any],
) -> dict[str, NDArray[Any]]:
    """The cells of a batch whose rollout `i` begins at (line, column) `starts[i]`."""
    arrays: dict[str, NDArray[Any]] = {
        "input_ids": np.full(shape, pad_id, np.int32),
        "segment_ids": np.zeros(shape, np.int32),
        "positions": np.zeros(shape, np.int32),
    }
    if not any("loss_masks" in row for row in rows):
        arrays["loss_masks"] = np.zeros(shape, np.uint8)
        rows = [{**row, "loss_masks": [1] * len(row["response_ids"])} for row in rows]
    # Of rollouts with one start the empty ones come first.
    filled = [bool(row.get("prompt_token_ids", ()) or row["response_ids"]) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: (starts[i], filled[i]))
    for i, (row, (line, column)) in enumerate(zip(rows, starts, strict=True)):
        prompt, response = list(row.get("prompt_token_ids", ())), list(row["response_ids"])
        number = 1 + sum(starts[j][0] == line for j in order[: order.index(i)])
        for position, token in enumerate(prompt + response):
            arrays["input_ids"][line, column + position] = token
            arrays["segment_ids"][line, column + position] = number
            arrays["positions"][line, column + position] = position
        for name, found in row.items():
            if name in ("prompt_token_ids", "response_ids"):
                continue
            if name == "rewards" and not isinstance(found, list):
                cells = {len(prompt) + len(response) - 1: found} if prompt or response else {}
                shown = np.zeros(0, np.float32)
            elif not isinstance(found, list):
                continue
            else:
                first = len(prompt) if _is_of_responses(rows, name) else 0
                cells = {first + j: entry for j, entry in enumerate(found)}
                shown = _narrow_reference(name, [row[name] for row in rows])
            if name not in arrays:
                inner: tuple[int, ...] = shown.shape[1:]
                legal: Any = np.arange(inner[-1]) if name == "rollout_expert_indices" and inner else 0
                arrays[name] = np.full((*shape, *inner), fills.get(name, legal), shown.dtype)
            if name == "rollout_expert_indices":
                masks = arrays.setdefault("route_masks", np.ones(shape, np.uint8))
                masks[line, column : column + len(cells)] = 0
            for position, entry in cells.items():
                arrays[name][line, column + position] = entry
    return arrays


def _is_of_responses(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether a column has an element for each token of the response, and none for the prompt's."""
    if name == "rollout_expert_indices" or name.startswith("prompt_"):
        return False
    return all(len(row[name]) == len(row["response_ids"]) for row in rows)


def _narrow_reference(name: str, rows: Sequence[list[Any]]) -> NDArray[Any]:
    """All entries of a column, in the dtype that it has in a batch."""
    known = {"loss_masks": np.uint8, "rewards": np.float32, "rollout_logprobs": np.float32}
    flat = np.array([entry for row in rows for entry in row])
    natural: type[np.generic] = np.float32 if flat.dtype == np.float64 else flat.dtype.type
    return flat.astype(known.get(name, natural if flat.size else np.int64))


def next_token_logprobs_reference(
    logits: NDArray[Any], tokens: NDArray[Any], segment_ids: NDArray[Any]
) -> NDArray[np.float64]:
    """`rollkit.next_token_logprobs` of `[B, T, V]` logits, token by token in float64.

    Example:
        >>> next_token_logprobs_reference(np.zeros((1, 3, 2)), np.array([[1, 0, 1]]), np.array([[1, 1, 2]]))
        array([[ 0.        , -0.69314718,  0.        ]])
    """
    found = np.zeros(tokens.shape)
    for line in range(tokens.shape[0]):
        for t in range(1, tokens.shape[1]):
            if segment_ids[line, t] and segment_ids[line, t] == segment_ids[line, t - 1]:
                scores = logits[line, t - 1].astype(np.float64)
                found[line, t] = scores[tokens[line, t]] - np.logaddexp.reduce(scores)
    return found


def labels_reference(
    tokens: NDArray[Any], segment_ids: NDArray[Any], masks: NDArray[Any], ignore_index: int = -100
) -> NDArray[np.int64]:
    """`rollkit.labels`, token by token.

    Example:
        >>> labels_reference(np.array([[7, 8, 9]]), np.array([[1, 1, 2]]), np.ones((1, 3)))
        array([[-100,    8, -100]])
    """
    found = np.full(tokens.shape, ignore_index, np.int64)
    for line in range(tokens.shape[0]):
        for t in range(1, tokens.shape[1]):
            if masks[line, t] and segment_ids[line, t] and segment_ids[line, t] == segment_ids[line, t - 1]:
                found[line, t] = tokens[line, t]
    return found


def lengths(max_rows: int = 8, max_length: int = 9) -> SearchStrategy[list[int]]:
    """Row lengths, many of them 0 and many alike.

    Example:
        >>> import hypothesis
        >>> @hypothesis.given(lengths())
        ... def check(rows):
        ...     assert Layout.concat(rows).size == sum(rows)
        >>> check()
    """
    from hypothesis import strategies as st

    length = st.integers(0, max_length) | st.sampled_from([0, 1, max_length])
    return st.lists(length, max_size=max_rows)


def layouts(
    row_lengths: Sequence[int] | NDArray[np.integer] | None = None,
    *,
    pieces: bool | None = None,
    covering: bool = False,
    max_rows: int = 6,
    max_length: int = 9,
) -> SearchStrategy[Layout]:
    """Layouts of every kind: whole rows end to end, padded or packed, and pieces of rows in any order.

    Rows are split, have windows and holes, or no piece at all; pieces are empty or dropped, and lie on one
    line or several, with gaps.

    Args:
        row_lengths: of the rows that are laid; drawn unless given.
        pieces: whether layouts are of pieces; of either kind unless given.
        covering: every element of every row has a place.
        max_rows: at most that many rows, where they are drawn.
        max_length: of a row, where they are drawn.

    Example:
        >>> import hypothesis
        >>> @hypothesis.given(layouts(covering=True))
        ... def check(layout):
        ...     assert take_reference(layout.positions(), layout) == [[*range(n)] for n in layout.row_lengths]
        >>> check()
    """
    from hypothesis import strategies as st

    @st.composite
    def draw_one(draw: Any) -> Layout:
        rows = draw(lengths(max_rows, max_length)) if row_lengths is None else [int(n) for n in row_lengths]
        split = draw(st.booleans()) if pieces is None else pieces
        return _draw_pieces(draw, rows, covering) if split else _draw_whole(draw, rows, covering)

    return draw_one()


def _draw_whole(draw: Any, rows: list[int], covering: bool) -> Layout:
    from hypothesis import strategies as st

    kind = draw(
        st.sampled_from(["concat", "left", "right", "alone", "truncate", "drop"][: 4 if covering else 6])
    )
    align = draw(st.integers(1, 3))
    if kind == "concat":
        return Layout.concat(rows, align=align)
    if kind in ("left", "right"):
        return Layout.pad(rows, side=kind, multiple_of=align)
    return Layout.pack(rows, draw(st.integers(1, 12)), align=align, oversize=kind)


def _draw_pieces(draw: Any, rows: list[int], covering: bool) -> Layout:
    from hypothesis import strategies as st

    found: list[tuple[int, int, int]] = []  # row, begin, length
    for row, length in enumerate(rows):
        cuts = draw(st.lists(st.integers(0, length), max_size=3))
        bounds = [0, *sorted(cuts), length]
        found += [(row, a, b - a) for a, b in pairwise(bounds) if covering or draw(st.integers(0, 3))]
    found = draw(st.permutations(found))
    width = max([length for *_, length in found], default=0) + draw(st.integers(0, 3))
    flat = draw(st.booleans())
    starts, free = [], 0
    for *_, length in found:
        free += draw(st.sampled_from([0, 0, 0, 1, 3])) if width else 0
        if not flat and width and length > width - free % width:
            free += width - free % width
        starts.append(-1 if not length and draw(st.booleans()) else free)
        free += length
    lines = -(-free // width) if width else draw(st.integers(0, 2))
    shape = (free + draw(st.integers(0, 2)),) if flat else (lines + draw(st.integers(0, 1)), width)
    source_rows, begins, sizes = zip(*found, strict=True) if found else ((), (), ())
    wanted = [np.array(values, np.int64) for values in (starts, sizes, rows, source_rows, begins)]
    return Layout(shape, *wanted)


DTYPES = (
    *(np.dtype(kind) for kind in "?bhilBHILefdFDSU"),
    np.dtype(">i4"),
    np.dtype(">f8"),
    np.dtype("M8[s]"),
    np.dtype([("a", "<i4"), ("b", "<f2")]),
)
"""Dtypes that `raggeds` draws from unless told otherwise: of every kind that holds no Python objects."""


def raggeds(
    dtypes: Sequence[DTypeLike] = DTYPES,
    inners: Sequence[tuple[int, ...]] = ((), (3,), (2, 2), (0,)),
    max_rows: int = 8,
    max_length: int = 9,
) -> SearchStrategy[Ragged]:
    """Rows of any dtype and inner shape, some of them a slice of more rows, or over strided memory.

    Example:
        >>> import hypothesis
        >>> @hypothesis.given(raggeds([np.int32], inners=[()]))
        ... def check(rows):
        ...     assert sum(map(len, rows)) == rows.lengths.sum()
        >>> check()
    """
    from hypothesis import strategies as st

    @st.composite
    def draw_one(draw: Any) -> Ragged:
        sizes = np.array(draw(lengths(max_rows, max_length)), np.int64)
        dtype = np.dtype(draw(st.sampled_from(list(dtypes))))
        dtype = np.dtype(f"{dtype.kind}5") if dtype.itemsize == 0 else dtype
        inner = draw(st.sampled_from(list(inners)))
        before, after, step = draw(
            st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([1, 1, -2]))
        )
        total = int(sizes.sum()) + before + after
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        memory = _any_values(rng, (total * abs(step), *inner), dtype)[::step]
        offsets = np.append(0, sizes.cumsum()) + before
        ragged = Ragged(memory, offsets)
        first = draw(st.integers(0, 1))
        return ragged[first:] if draw(st.booleans()) else ragged

    return draw_one()


def _any_values(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    numbers = rng.integers(0, 100, shape)
    if dtype.names:
        values = np.empty(shape, dtype)
        for name in dtype.names:
            values[name] = numbers
        return values
    return numbers.astype(dtype)


def rollouts(max_rows: int = 6, max_length: int = 6) -> SearchStrategy[Rollouts]:
    """Rollouts with every known column and some unknown ones; prompts and responses may be empty.

    Example:
        >>> import hypothesis
        >>> @hypothesis.given(rollouts())
        ... def check(drawn):
        ...     assert len(drawn["response_ids"]) == len(drawn)
        >>> check()
    """
    return rollout_rows(max_rows, max_length).map(Rollouts.from_rows)


def rollout_rows(max_rows: int = 6, max_length: int = 6) -> SearchStrategy[list[dict[str, Any]]]:
    """What `rollouts` is made of: one dict of lists and numbers per rollout, at least one.

    Example:
        >>> import hypothesis
        >>> @hypothesis.given(rollout_rows())
        ... def check(rows):
        ...     assert all(len(row["loss_masks"]) == len(row["response_ids"]) for row in rows)
        >>> check()
    """
    from hypothesis import strategies as st

    @st.composite
    def draw_rows(draw: Any) -> list[dict[str, Any]]:
        size = st.integers(0, max_length) | st.sampled_from([0, 1])
        sizes = draw(st.lists(st.tuples(size, size), min_size=1, max_size=max_rows))
        short = draw(st.integers(0, 3))
        per_token = draw(st.booleans())
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))

        def floats(count: int) -> list[float]:
            drawn: list[float] = (rng.integers(-99, 99, count) / 4).tolist()
            return drawn

        return [
            {
                "prompt_token_ids": rng.integers(1, 99, prompt).tolist(),
                "response_ids": rng.integers(1, 99, response).tolist(),
                "loss_masks": rng.integers(0, 2, response).tolist(),
                "rollout_logprobs": floats(response),
                "rewards": floats(response) if per_token else float(rng.integers(1, 9) * bool(response)),
                "stop_reasons": "stop" if rng.integers(2) else "length",
                "rollout_expert_indices": rng.integers(
                    0, 64, (max(prompt + response - short, int(prompt + response > 1)), 2, 3)
                ).tolist(),
                "is_last_step": bool(rng.integers(2)),
                "advantages": floats(response),
                "token_types": rng.integers(0, 9, prompt + response).tolist(),
            }
            for prompt, response in sizes
        ]

    return draw_rows()

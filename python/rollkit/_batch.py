"""Rollouts to training batches: `pad`, `pack`, and the `Batch` they make."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from rollkit import _check, _native
from rollkit._check import Int64s, mapping
from rollkit._errors import at, refusal, retold
from rollkit._frameworks import AnyArray
from rollkit._rollouts.fields import fill_of, narrow
from rollkit._rollouts.names import Names, check_names, flash_kwargs, renamed
from rollkit._rollouts.rewards import check_scalars
from rollkit._rollouts.sources import Source, Sources, warn_cut
from rollkit._rows.dtypes import numpy_dtype
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, castable, fill_element, is_new, place_parts
from rollkit._rows.place import take
from rollkit._rows.ragged import Ragged, shipped

MADE: Final = {"segment_ids": np.int32, "positions": np.int32, "attention_mask": np.uint8}
"""The arrays that are read off the layout."""


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Token arrays of one shape, the layout they share, and the columns that are per row.

    Maps names to arrays: `batch["input_ids"]`. `len` counts rollouts.

    Attributes:
        arrays: name to array `[*layout.shape, *inner]`: NumPy's, or after `to` a framework's.
        layout: where each rollout's tokens (prompt, then response) are.
        prompt_lengths: `[rows]` int64, how many of them are the prompt.
        rows: the columns with one entry per rollout, in input order.

    Example:
        >>> batch = pad({"response_ids": [[1, 2], [3]], "stop_reasons": ["stop", "length"]})
        >>> list(batch)
        ['input_ids', 'segment_ids', 'positions', 'attention_mask', 'loss_masks']
        >>> batch["positions"]
        array([[0, 1],
               [0, 0]], dtype=int32)
        >>> batch.rows["stop_reasons"]
        ['stop', 'length']
    """

    arrays: Mapping[str, Any]
    layout: Layout
    prompt_lengths: Int64s
    rows: Mapping[str, Any]
    # The flat memory of the arrays, which may be larger than they are: what `out=` fills again.
    _memory: Mapping[str, AnyArray] = field(default_factory=dict)

    def to(self, framework: str, device: Any = None, **options: Any) -> Batch:
        """Hand the arrays to a framework, without a copy on the CPU where it allows that.

        Args:
            framework: `"torch"`, `"jax"` or `"numpy"`.
            device: where they go; None: the framework's default (torch: the CPU), or where an array of the
                framework is already.
            **options: for `torch.Tensor.to`, such as `non_blocking=True`.

        Returns:
            A batch of the framework's arrays. On the CPU they may share memory with this one, so a
            batch whose buffers are filled again (`out=`) changes them too.
        """
        from rollkit._arrays.ops import array_maker

        make = array_maker(framework, device, options)
        return self._with({name: make(array) for name, array in self.arrays.items()})

    def pin_memory(self) -> Batch:
        """Copy to page-locked memory, as torch tensors: the hook that torch's DataLoader calls."""
        pinned = {name: tensor.pin_memory() for name, tensor in self.to("torch").items()}
        return self._with(pinned)

    def unpack(self, array: Any) -> Ragged:
        """Turn a batch column, by name, or a model's per-token output, back into rows in input order.

        Example:
            >>> batch = pad({"prompt_token_ids": [[1], [2, 3]], "response_ids": [[4, 5], [6]]})
            >>> batch.unpack("input_ids").to_list()
            [[1, 4, 5], [2, 3, 6]]
        """
        return take(self[array] if isinstance(array, str) else array, self.layout)

    def rename(self, names: Names) -> Batch:
        """The same arrays under a trainer's names, and with its dtypes.

        Args:
            names: `{old: new}`, or a word:

                - `"rollkit"`: as they are.
                - `"hf"`: int64 `input_ids`, `position_ids`, `labels` and `attention_mask` (of `pad`).
                  `labels` are made (see `rollkit.labels`) unless there are some; of these, too, the first
                  token of each segment is ignored. What a model's own loss reads is then shifted by it.
                  Models tell packed segments apart by `position_ids` only without a cache:
                  `model(input_ids=…, position_ids=…, use_cache=False)`.
                - `"grain"`: each token array `x` with `x_segment_ids` and `x_positions`, as its packers.
                - `"maxtext"`: `inputs`, `targets` and `…_position`, `…_segmentation` of both, int32. Targets
                  are shifted, and of segmentation 0 where no loss is: leave its own shift out. What else
                  is per token is shifted with them, but routes.

                Other arrays keep their names.

        Returns:
            A batch that shares what is not cast.

        Raises:
            ValueError: an unknown word; no such array; two of one name.

        Example:
            >>> batch = pack({"response_ids": [[1, 2], [3]]}, capacity=4).rename("hf")
            >>> batch["position_ids"], batch["labels"]
            (array([[0, 1, 0, 0]]), array([[-100,    2, -100, -100]]))
        """
        return self._with(renamed(self.arrays, self.layout, names))

    def flash_kwargs(self) -> dict[str, Any]:
        """What models of transformers hand to varlen attention: `model(…, **batch.flash_kwargs())`.

        Gaps and padding are segments of their own: kernels leave what is in none unwritten.

        Returns:
            `cu_seq_lens_q`, `cu_seq_lens_k` int32, `max_length_q`, `max_length_k` ints, over all lines.

        Example:
            >>> pack({"response_ids": [[1, 2], [3]]}, capacity=6).flash_kwargs()["cu_seq_lens_q"]
            array([0, 2, 3, 6], dtype=int32)
        """
        return flash_kwargs(self.layout, next(iter(self.arrays.values()), None))

    @property
    def responses(self) -> Layout:
        """Where each rollout's response is: `rollkit.take(logprobs, batch.responses)`."""
        lengths = self.layout.row_lengths
        return self.layout.spans(self.prompt_lengths, lengths - self.prompt_lengths)

    def keys(self) -> KeysView[str]:
        """The names of the arrays."""
        return self.arrays.keys()

    def items(self) -> ItemsView[str, Any]:
        """Names and arrays."""
        return self.arrays.items()

    def _with(self, arrays: Mapping[str, Any]) -> Batch:
        return Batch(arrays, self.layout, self.prompt_lengths, self.rows)

    def __getitem__(self, name: str) -> Any:
        try:
            return self.arrays[name]
        except KeyError:
            known = ", ".join(map(repr, self.arrays))
            raise KeyError(f"no array {name!r}; there are {known}") from None

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.layout)

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = {
            name: shipped(array) if isinstance(array, np.ndarray) else (array, None)
            for name, array in self.arrays.items()
        }
        return _unpickled, (arrays, self.layout, self.prompt_lengths, dict(self.rows))

    def __repr__(self) -> str:
        kinds = ", ".join(f"{name} {array.dtype}" for name, array in self.arrays.items())
        return f"Batch({self.layout!r}: {kinds})"


def _unpickled(
    arrays: Mapping[str, tuple[Any, Any]], layout: Layout, prompt_lengths: Int64s, rows: Mapping[str, Any]
) -> Batch:
    viewed = {name: array if dtype is None else array.view(dtype) for name, (array, dtype) in arrays.items()}
    return Batch(viewed, layout, prompt_lengths, rows)


def pack(
    rollouts: Source | Sequence[Source],
    capacity: int | None = None,
    *,
    pad_id: int = 0,
    layout: Layout | None = None,
    algorithm: str = "first_fit_decreasing",
    align: int = 1,
    max_segments: int | None = None,
    bins_multiple_of: int = 1,
    oversize: str = "raise",
    fills: Mapping[str, Any] | None = None,
    dtypes: Mapping[str, DTypeLike] | None = None,
    levels: Mapping[str, str] | None = None,
    names: Names = "rollkit",
    validate: bool = False,
    out: Batch | None = None,
) -> Batch:
    """Pack rollouts into bins of `capacity` tokens: `[bins, capacity]`.

    Args:
        rollouts: `Rollouts`, a `GeneratorOutput`-shaped dict, or a sequence of them whose rows count
            through. Nothing is joined first: tokens go from their buffers to the batch in one write.
        capacity: tokens of a bin (or give `layout`).
        pad_id: the token id of padding.
        layout: a plan made before, of the rollouts' lengths (prompt and response).
        algorithm: see `plan_bins`.
        align: each rollout starts at a multiple of this within its bin.
        max_segments: at most that many rollouts in a bin.
        bins_multiple_of: empty bins are added up to a multiple of this.
        oversize: what becomes of a rollout longer than `capacity`; see `Layout.pack`. A scalar reward of
            one whose response is cut off whole is left out with it, and a warning says how many.
        fills: what padding holds, by column; 0 unless given (`labels`: -100), but of routes experts
            0 … topk - 1, for the tokens without one too, which `route_masks` marks by 1.
        dtypes: by array name; int32 ids, uint8 masks, float32 and int64 labels unless given.
        levels: what columns have an element for, where their names do not say it: `"prompt"`,
            `"response"` or `"sequence"` tokens, or `"row"`.
        names: what the arrays are called, and their dtypes with it: a word or `{old: new}`, as
            `Batch.rename` takes it.
        validate: refuse values that no rollout has, as `Rollouts.validate` does (a NaN log-probability, a
            negative id), which are kept else.
        out: a batch whose memory is filled again, where it is large enough.

    Returns:
        A batch with `input_ids` (prompt, then response), `segment_ids`, `positions`, `loss_masks` (0 on
        the prompt; 1 on responses if none are given), `rewards` per token (a scalar lands on the last
        token), and every other column that has an element per response token, per prompt token or per token.

    Raises:
        ValueError: rows of a column are of another length than their tokens; column and row are named.
        OverflowError: a number does not fit its dtype; likewise.

    Example:
        >>> batch = pack(
        ...     {
        ...         "prompt_token_ids": [[1, 2], [3]],
        ...         "response_ids": [[4], [5, 6]],
        ...         "loss_masks": [[1], [0, 1]],
        ...         "rewards": [1.0, -1.0],
        ...     },
        ...     capacity=8,
        ... )
        >>> batch["input_ids"]
        array([[1, 2, 4, 3, 5, 6, 0, 0]], dtype=int32)
        >>> batch["loss_masks"]
        array([[0, 0, 1, 0, 0, 1, 0, 0]], dtype=uint8)
        >>> batch["rewards"]
        array([[ 0.,  0.,  1.,  0.,  0., -1.,  0.,  0.]], dtype=float32)
        >>> batch["segment_ids"]
        array([[1, 1, 1, 2, 2, 2, 0, 0]], dtype=int32)
    """
    check_names(names)
    sources = Sources.of(rollouts, levels)
    if _check.flag("validate", validate):
        sources.check_values()
    if layout is not None:
        if capacity is not None:
            raise TypeError("pack takes a capacity or a layout, not both: a layout has its capacity")
        _check_plan(sources, layout)
    elif capacity is None:
        raise TypeError("pack needs a capacity, or a layout")
    else:
        layout = Layout.pack(
            sources.lengths,
            capacity,
            algorithm=algorithm,
            align=align,
            max_segments=max_segments,
            bins_multiple_of=bins_multiple_of,
            oversize=oversize,
        )
        if oversize == "truncate":
            warn_cut(layout, sources.prompt_lengths)
    return _fill(sources, layout, pad_id, fills, dtypes, out, names)


def pad(
    rollouts: Source | Sequence[Source],
    *,
    pad_id: int = 0,
    side: str = "left",
    width: int | None = None,
    multiple_of: int = 1,
    fills: Mapping[str, Any] | None = None,
    dtypes: Mapping[str, DTypeLike] | None = None,
    levels: Mapping[str, str] | None = None,
    names: Names = "rollkit",
    validate: bool = False,
    out: Batch | None = None,
) -> Batch:
    """Pad rollouts to a rectangle, one per line: `[rows, width]`.

    Args are those of `pack`, and:
        side: where the padding goes, `"left"` or `"right"`.
        width: of the rectangle; the longest rollout's by default.
        multiple_of: the width is rounded up to a multiple of this.

    Returns:
        A batch as `pack` makes it, with an `attention_mask` (uint8) besides.

    Example:
        >>> batch = pad({"prompt_token_ids": [[1, 2], [3]], "response_ids": [[4], [5]]}, pad_id=9)
        >>> batch["input_ids"]
        array([[1, 2, 4],
               [9, 3, 5]], dtype=int32)
        >>> batch["attention_mask"]
        array([[1, 1, 1],
               [0, 1, 1]], dtype=uint8)
    """
    check_names(names)
    sources = Sources.of(rollouts, levels)
    if _check.flag("validate", validate):
        sources.check_values()
    layout = Layout.pad(sources.lengths, side=side, width=width, multiple_of=multiple_of)
    return _fill(sources, layout, pad_id, fills, dtypes, out, names, attention_mask=True)


def _fill(
    sources: Sources,
    layout: Layout,
    pad_id: int,
    fills: Mapping[str, Any] | None,
    dtypes: Mapping[str, DTypeLike] | None,
    out: Batch | None,
    names: Names,
    attention_mask: bool = False,
) -> Batch:
    fills, dtypes = mapping("fills", fills), mapping("dtypes", dtypes)
    _check_names(sources, fills, dtypes)
    if names == "hf":
        dtypes = {"input_ids": np.int64, **dtypes}
    arrays = _Arrays(sources, layout, dtypes, out)
    arrays.add_tokens(pad_id)
    for name, dtype in MADE.items():
        if attention_mask or name != "attention_mask":
            arrays.make(name, dtype)
    for name, parts in sources.tokens.items():
        fill = fills[name] if name in fills else fill_of(name, parts.inner)
        arrays.add(name, sources.level(name), parts, fill)
    if "loss_masks" not in sources.tokens:
        arrays.add(
            "loss_masks", "response", _constant(1, sources.responses.lengths), fills.get("loss_masks", 0)
        )
    routes = sources.tokens.get("rollout_expert_indices")
    if routes is not None and "route_masks" not in sources.tokens:
        arrays.add("route_masks", "sequence", _constant(0, routes.lengths), fills.get("route_masks", 1))
    rows = dict(sources.rows)
    if "rewards" in rows:
        scalars = np.asarray(rows["rewards"])
        check_scalars(scalars, sources.responses.lengths)
        arrays.add("rewards", "last", Parts.one_each(scalars), fills.get("rewards", 0))
    arrays.fill()
    made = arrays.made if names == "rollkit" else renamed(arrays.made, layout, names)
    return Batch(made, layout, sources.prompt_lengths, rows, arrays.memory)


def _constant(value: int, lengths: Int64s) -> Parts:
    """Rows of one value: all of one array, which is as long as the longest."""
    values = np.full(int(lengths.max(initial=0)), value, np.uint8)
    return Parts.over(values, np.zeros_like(lengths), lengths)


class _Arrays:
    """The arrays of a batch, in the memory of an earlier one where that is large enough.

    They are all written in one call, which finds each row's place once.
    """

    def __init__(
        self, sources: Sources, layout: Layout, dtypes: Mapping[str, DTypeLike], out: Batch | None
    ) -> None:
        if out is not None and not isinstance(out, Batch):
            raise TypeError(f"out must be a Batch, got {type(out).__name__}")
        self._sources, self._layout, self._dtypes = sources, layout, dtypes
        self._spare = {} if out is None else dict(out._memory)
        self._columns: list[Any] = []
        self._names: list[tuple[str, ...]] = []  # of the sources of each column
        self.memory: dict[str, AnyArray] = {}
        self.made: dict[str, Any] = {}

    def make(
        self, name: str, dtype: DTypeLike, inner: tuple[int, ...] = (), *, zeros: bool = False
    ) -> AnyArray:
        """An array to fill."""
        shape = (*self._layout.shape, *inner)
        size = prod(shape)
        spare = self._spare.get(name)
        if spare is None or spare.size < size or spare.dtype != dtype:
            spare = (np.zeros if zeros else np.empty)(size, dtype)
        self.memory[name] = spare
        array = spare if spare.size == size else spare[:size]
        self.made[name] = array = array.reshape(shape)
        return array

    def add(self, name: str, level: str, parts: Parts, fill: Any) -> None:
        """An array of a column."""
        if parts.own is not None:
            where = self._where(level, parts)
            with at(column=name):
                self.made[name] = place_parts(parts, where, fill, dtype=self._own_dtype(name, parts))
            return
        with at(column=name):
            dtype = self._dtype(name, parts.dtype)
            parts = castable(parts, dtype)
            self._append(name, (name,), level, (parts.buffers, parts.lengths), parts, fill, dtype)

    def add_tokens(self, pad_id: int) -> None:
        """`input_ids`, of prompts and responses."""
        prompts, responses = self._sources.prompts, self._sources.responses
        if prompts is None:
            with at(column="input_ids"):
                self.add("input_ids", "response", responses, pad_id)
            return
        names = ("prompt_token_ids", "response_ids")
        for name, parts in zip(names, (prompts, responses), strict=True):
            if parts.inner:
                raise refusal(
                    ValueError, f"expected token ids, got elements of shape {parts.inner}", column=name
                )
        if prompts.own is not None or responses.own is not None:
            with at(column="input_ids"):
                both = Parts.join([prompts, responses])
                where = Layout.union([self._where(level, responses) for level in ("prompt", "response")])
                dtype = self._own_dtype("input_ids", both)
                self.made["input_ids"] = place_parts(both, where, pad_id, dtype=dtype)
            return
        dtype = self._dtype("input_ids", prompts.dtype)
        found = []
        for name, parts in zip(names, (prompts, responses), strict=True):
            with at(column=name):
                found.append(castable(parts, dtype))
        first, second = found
        rows = (first.buffers, second.buffers), (first.lengths, second.lengths)
        self._append("input_ids", names, "tokens", rows, first, pad_id, dtype)

    def _append(
        self, name: str, names: tuple[str, ...], level: str, rows: Any, parts: Parts, fill: Any, dtype: Any
    ) -> None:
        element = fill_element(fill, dtype, parts.inner)
        zeroed = name not in self._spare and is_new(self._layout.size, element)
        out = self.make(name, dtype, parts.inner, zeros=zeroed)
        if out.size:
            self._columns.append((level, *rows, element, out, zeroed))
            self._names.append(names)

    def fill(self) -> None:
        """Write all arrays."""
        layout = self._layout
        made = {name: self.made[name] for name in MADE if name in self.made}
        try:
            _native.fill_batch(
                *layout.slots,
                layout.row_lengths,
                self._sources.prompt_lengths,
                self._columns,
                size=layout.size,
                width=max(layout.width, 1),
                source_rows=layout.source_rows,
                begins=layout.begins,
                **made,
            )
        except (OverflowError, ValueError, TypeError) as error:
            index = getattr(error, "index", None)
            if index is None:
                raise
            column, source = index
            raise retold(error, column=self._names[column][source]) from None

    def _dtype(self, name: str, found: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype that was asked for, or else the narrow one."""
        wanted = self._dtypes.get(name)
        return narrow(name, found) if wanted is None else numpy_dtype(wanted, f"dtypes[{name!r}]")

    def _own_dtype(self, name: str, parts: Parts) -> Any:
        """`_dtype` of rows that their framework places; None for their own."""
        wanted = self._dtypes.get(name)
        if wanted is not None or parts.own is None:
            return wanted
        buffer = parts.buffers[0]
        found = parts.own.dtype_of(buffer[0] if isinstance(buffer, tuple) else buffer)
        narrowed = narrow(name, found)
        return None if narrowed == found else narrowed

    def _where(self, level: str, parts: Parts) -> Layout:
        """Where a column goes whose framework places it."""
        prompts, responses = self._sources.prompt_lengths, self._sources.responses.lengths
        if level == "response":
            return self._layout.spans(prompts, responses)
        return self._layout.spans(0, prompts if level == "prompt" else parts.lengths)


def _check_names(sources: Sources, fills: Mapping[str, Any], dtypes: Mapping[str, Any]) -> None:
    """Check that options are for columns that there are, and that no column is one that a batch makes."""
    for name in MADE.keys() & sources.tokens.keys():
        raise ValueError(f"column {name!r}: a batch makes this array itself; rename or leave out the column")
    if "input_ids" in fills:
        raise ValueError("fills has 'input_ids', whose padding is pad_id")
    known = [*sources.tokens, *({"loss_masks"} - sources.tokens.keys()), *({"rewards"} & sources.rows.keys())]
    for option, given, names in (("fills", fills, known), ("dtypes", dtypes, ["input_ids", *known])):
        for name in given.keys() - set(names):
            there = ", ".join(map(repr, names)) or "none"
            raise ValueError(f"{option} has {name!r}, which is no token column; there are {there}")


def _check_plan(sources: Sources, layout: Layout) -> None:
    """Check that a layout made before was made for these rollouts."""
    given: object = layout
    if not isinstance(given, Layout):
        raise TypeError(f"layout must be a Layout, got {type(given).__name__}; Layout.pack makes one")
    got, wanted = sources.lengths, layout.row_lengths
    if len(got) != len(wanted):
        raise ValueError(f"there are {len(got)} rollouts, the layout has {len(wanted)} rows")
    if (odd := got != wanted).any():
        row = int(odd.argmax())
        raise ValueError(
            f"row {row} has {got[row]} tokens (prompt and response), the layout has {wanted[row]} for it"
        )

"""Rollouts to training batches: `pad`, `pack`, and the `Batch` they make."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from rollkit._check import AnyArray, Int64s
from rollkit._fields import FIELDS, narrow
from rollkit._layout import Layout
from rollkit._place import Parts, place_parts, take
from rollkit._ragged import Ragged
from rollkit._rollouts import Rollouts, as_column, is_rows, token_columns

Source = Rollouts | Mapping[str, Any]
"""Rollouts, or a `GeneratorOutput`-shaped dict: token columns as lists, arrays or tensors."""


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Token arrays of one shape, the layout they share, and the columns that are per row.

    Maps names to arrays: `batch["input_ids"]`. `len` counts rollouts.

    Attributes:
        arrays: name to array `[*layout.shape, *inner]`: NumPy's, or after `to` a framework's.
        layout: where each rollout's tokens (prompt, then response) are.
        prompt_lengths: `[rows]` int64, how many of them are the prompt.
        rows: the columns with one entry per rollout, in input order.
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
            device: where they go; the framework's default if None (torch: the CPU).
            **options: for `torch.Tensor.to`, such as `non_blocking=True`.

        Returns:
            A batch of the framework's arrays. On the CPU they may share memory with this one, so a
            batch whose buffers are filled again (`out=`) changes them too.
        """
        from rollkit._backends import array_maker

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
        return Batch, (dict(self.arrays), self.layout, self.prompt_lengths, dict(self.rows))

    def __repr__(self) -> str:
        kinds = ", ".join(f"{name} {array.dtype}" for name, array in self.arrays.items())
        return f"Batch({self.layout!r}: {kinds})"


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
        oversize: what becomes of a rollout longer than `capacity`; see `Layout.pack`.
        fills: what padding holds, by column; 0 unless given.
        dtypes: by array name; int32 ids, uint8 masks and float32 unless given.
        out: a batch whose memory is filled again, where it is large enough.

    Returns:
        A batch with `input_ids` (prompt, then response), `segment_ids`, `positions`, `loss_masks` (0 on
        the prompt), `rewards` per token (a scalar lands on the last token), and every other column that
        has an element per response token, per prompt token or per token.

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
    sources = _Sources.of(rollouts)
    if layout is None:
        if capacity is None:
            raise TypeError("pack needs a capacity, or a layout")
        layout = Layout.pack(
            sources.lengths,
            capacity,
            algorithm=algorithm,
            align=align,
            max_segments=max_segments,
            bins_multiple_of=bins_multiple_of,
            oversize=oversize,
        )
    return _fill(sources, layout, pad_id, fills or {}, dtypes or {}, out)


def pad(
    rollouts: Source | Sequence[Source],
    *,
    pad_id: int = 0,
    side: str = "left",
    width: int | None = None,
    multiple_of: int = 1,
    fills: Mapping[str, Any] | None = None,
    dtypes: Mapping[str, DTypeLike] | None = None,
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
    sources = _Sources.of(rollouts)
    layout = Layout.pad(sources.lengths, side=side, width=width, multiple_of=multiple_of)
    return _fill(sources, layout, pad_id, fills or {}, dtypes or {}, out, attention_mask=True)


@dataclass(frozen=True, slots=True)
class _Sources:
    """The columns of all sources, rows counted through."""

    prompts: Parts | None
    responses: Parts
    tokens: dict[str, Parts]
    rows: dict[str, Any]

    @classmethod
    def of(cls, rollouts: Source | Sequence[Source]) -> _Sources:
        sources = [rollouts] if isinstance(rollouts, Rollouts | Mapping) else list(rollouts)
        if not sources:
            raise ValueError("rollouts is empty; give at least one part")
        columns = [_columns(i, source) for i, source in enumerate(sources)]
        tokens: dict[str, Parts] = {}
        rows: dict[str, Any] = {}
        for name in columns[0]:
            found = [part[name] for part in columns]
            if all(map(is_rows, found)):
                tokens[name] = _named_parts(name, found)
            else:
                rows[name] = _joined_rows(name, found)
        prompts = tokens.pop("prompt_token_ids", None)
        main = "response_ids" if "response_ids" in tokens else "input_ids"
        if main not in tokens:
            raise ValueError("rollouts need a column 'response_ids' (or 'input_ids') of token ids")
        if main == "input_ids" and prompts is not None:
            raise ValueError("'input_ids' holds whole sequences; 'prompt_token_ids' goes with 'response_ids'")
        responses = tokens.pop(main)
        if prompts is not None and len(prompts.lengths) != len(responses.lengths):
            raise ValueError(
                f"'prompt_token_ids' has {len(prompts.lengths)} rows, {main!r} has {len(responses.lengths)}"
            )
        return cls(prompts, responses, tokens, rows)

    @property
    def prompt_lengths(self) -> Int64s:
        if self.prompts is None:
            return np.zeros_like(self.responses.lengths)
        return self.prompts.lengths

    @property
    def lengths(self) -> Int64s:
        """Tokens of each rollout: prompt and response."""
        return self.prompt_lengths + self.responses.lengths


def _columns(index: int, source: Source) -> dict[str, Any]:
    if isinstance(source, Rollouts):
        return dict(source.columns)
    if not isinstance(source, Mapping):
        raise TypeError(
            f"rollouts must be Rollouts or GeneratorOutput-shaped dicts; part {index} is "
            f"{type(source).__name__}"
        )
    return token_columns(source)


def _named_parts(name: str, found: Sequence[Any]) -> Parts:
    """The buffers of one column. Lists, which have none, are converted to the column's dtype here."""
    known = FIELDS.get(name)
    dtype = None if known is None else known.dtype
    parts = []
    for column in found:
        try:
            parts.append(Parts.of(column, dtype))
        except (TypeError, ValueError, OverflowError) as error:
            raise type(error)(f"column {name!r}: {error}") from None
    dtypes = {part.dtype for part in parts}
    if len(dtypes) > 1:
        wanted = narrow(name, np.result_type(*dtypes))
        parts = [cast_parts(part, wanted) for part in parts]
    return Parts.join(parts)


def cast_parts(parts: Parts, dtype: np.dtype[Any]) -> Parts:
    """Parts of this dtype, so that the rows of several count through in one call of the kernel."""
    if parts.dtype == dtype:
        return parts
    layout = Layout.concat(parts.lengths)
    values = place_parts(parts, layout, 0, dtype=dtype)
    return Parts.of(Ragged(values, np.append(layout.starts, layout.size)))


def _joined_rows(name: str, found: Sequence[Any]) -> Any:
    columns = [as_column(name, column) for column in found]
    if all(isinstance(column, np.ndarray) for column in columns):
        return columns[0] if len(columns) == 1 else np.concatenate(columns)
    return [entry for column in columns for entry in column]


def _fill(
    sources: _Sources,
    layout: Layout,
    pad_id: int,
    fills: Mapping[str, Any],
    dtypes: Mapping[str, DTypeLike],
    out: Batch | None,
    attention_mask: bool = False,
) -> Batch:
    memory = _Memory(out)
    prompts = layout.spans(0, sources.prompt_lengths)
    responses = layout.spans(sources.prompt_lengths, sources.responses.lengths)

    def placed(name: str, parts: Parts, where: Layout, fill: Any) -> AnyArray:
        dtype = np.dtype(dtypes.get(name, narrow(name, parts.dtype)))
        buffer = memory.array(name, (*where.shape, *parts.inner), dtype)
        try:
            return place_parts(parts, where, fill, dtype=dtype, out=buffer)
        except (OverflowError, ValueError, TypeError) as error:
            raise type(error)(f"column {name!r}: {error}") from None

    arrays: dict[str, AnyArray] = {}
    if sources.prompts is None:
        arrays["input_ids"] = placed("input_ids", sources.responses, responses, pad_id)
    else:
        # Prompts and responses are rows of one call: 0 to rows - 1, and rows to 2 × rows - 1.
        tokens = Parts.join([sources.prompts, cast_parts(sources.responses, sources.prompts.dtype)])
        arrays["input_ids"] = placed("input_ids", tokens, Layout.union([prompts, responses]), pad_id)
    arrays["segment_ids"] = layout.segment_ids(memory.array("segment_ids", layout.shape, np.dtype(np.int32)))
    arrays["positions"] = layout.positions(memory.array("positions", layout.shape, np.dtype(np.int32)))
    if attention_mask:
        arrays["attention_mask"] = layout.attention_mask(
            memory.array("attention_mask", layout.shape, np.dtype(np.uint8))
        )
    for name, parts in sources.tokens.items():
        where = _where(name, parts.lengths, layout, prompts, responses)
        arrays[name] = placed(name, parts, where, fills.get(name, 0))
    rows = dict(sources.rows)
    if "rewards" in rows:
        scalars = np.asarray(rows["rewards"])
        where = last_tokens(scalars, layout, responses)
        arrays["rewards"] = placed("rewards", one_each(scalars), where, 0.0)
    return Batch(arrays, layout, sources.prompt_lengths, rows, memory.flat)


class _Memory:
    """Arrays to fill: the memory of an earlier batch where it is large enough, else new."""

    def __init__(self, out: Batch | None) -> None:
        if out is not None and not isinstance(out, Batch):
            raise TypeError(f"out must be a Batch, got {type(out).__name__}")
        self._spare = {} if out is None else dict(out._memory)
        self.flat: dict[str, AnyArray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> AnyArray:
        size = int(np.prod(shape))
        spare = self._spare.get(name)
        if spare is None or spare.size < size or spare.dtype != dtype:
            spare = np.empty(size, dtype)
        self.flat[name] = spare
        return spare[:size].reshape(shape)


def _where(name: str, lengths: Int64s, layout: Layout, prompts: Layout, responses: Layout) -> Layout:
    """The layout of a token column: that of the part of the rollout it has an element for."""
    known = FIELDS.get(name)
    if known is not None and known.short:
        missing = layout.row_lengths - lengths
        if ((missing == 0) | (missing == 1)).all():
            return layout.spans(0, lengths)
        row = int(np.flatnonzero((missing != 0) & (missing != 1))[0])
        raise ValueError(
            f"column {name!r}: row {row} has {lengths[row]} elements for {layout.row_lengths[row]} "
            "tokens; expected one per token, the last may be missing"
        )
    for where in (responses, layout, prompts):
        if np.array_equal(lengths, where.row_lengths):
            return where
    row = int(np.flatnonzero(lengths != responses.row_lengths)[0])
    raise ValueError(
        f"column {name!r}: row {row} has {lengths[row]} elements; its prompt has "
        f"{prompts.row_lengths[row]} tokens, its response {responses.row_lengths[row]}"
    )


def last_tokens(rewards: AnyArray, layout: Layout, responses: Layout) -> Layout:
    """One element per row, on its last token that is placed."""
    if rewards.ndim != 1 or rewards.dtype.kind not in "biuf":
        raise ValueError("column 'rewards': expected a number per rollout, or one per response token")
    lost = (responses.row_lengths == 0) & (rewards != 0)
    if lost.any():
        row = int(lost.argmax())
        raise ValueError(
            f"column 'rewards': row {row} has reward {rewards[row]} and an empty response, so no token "
            "to put it on; drop the rollout or set the reward to 0"
        )
    present = layout.lengths > 0
    starts = np.where(present, layout.starts + layout.lengths - 1, -1)
    return Layout(layout.shape, starts, present.astype(np.int64), np.ones_like(starts))


def one_each(values: AnyArray) -> Parts:
    return Parts.of(Ragged(values, np.arange(len(values) + 1)))

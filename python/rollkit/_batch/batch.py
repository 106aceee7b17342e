"""What `pad` and `pack` make: `Batch`."""

from __future__ import annotations

from collections.abc import Callable, Collection, ItemsView, Iterator, KeysView, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rollkit import _check
from rollkit._arrays.ops import array_maker, ops_of
from rollkit._batch.pytree import WAITING, register
from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._frameworks import AnyArray, framework_of, is_array
from rollkit._rollouts.columns import take_column
from rollkit._rollouts.labels import lacks
from rollkit._rollouts.names import Names, flash_kwargs, renamed
from rollkit._rows.laid import Laid
from rollkit._rows.layout import Layout
from rollkit._rows.lists import Lists
from rollkit._rows.place import take
from rollkit._rows.ragged import Ragged, shipped, trusted

if TYPE_CHECKING:
    from rollkit._rows.trees import TreeLayout

# Properties of these come here too, when what they read is missing.
_NEEDS_LAYOUT: Final = ("layout", "prompt_lengths", "num_rows", "responses")
_PARTS: Final = ("arrays", "layout", "prompt_lengths", "rows")


class Batch(Mapping[str, Any]):
    """Token arrays of one shape, the layout they share, and the columns that are per row.

    A mapping of names to arrays, which no function changes: `batch["input_ids"]`, `model(**batch)`. `len`
    counts arrays, as of any mapping, and `num_rows` rollouts. It is a pytree of its arrays in torch and JAX,
    and equal to itself alone. Under `jit` all else of it is static, and compared by value: a batch of
    another layout or other `rows` is traced anew, so give a jitted function `batch.arrays`, or pack to a
    fixed shape (`bins=`).

    Attributes:
        arrays: name to array `[*layout.shape, *inner]`: NumPy's, or after `to` a framework's. `Lists` of a
            column with a list per token: one for each place, in memory order. A new dict each time, as are
            `rows`: `batch | {…}` makes a batch with more arrays.
        layout: where each rollout's tokens (prompt, then response) are; a `TreeLayout` where they share
            prefixes, which refuses by name what is of segments alone.
        prompt_lengths: `[rows]` int64, how many of them are the prompt.
        rows: the columns with one entry per rollout, in input order. Where rollouts share prefixes, columns
            per token too: each a `Ragged` with an element per token of prompt and response.

    Example:
        >>> from rollkit import pad
        >>> batch = pad({"response_ids": [[1, 2], [3]], "stop_reasons": ["stop", "length"]})
        >>> list(batch)
        ['input_ids', 'segment_ids', 'positions', 'attention_mask', 'loss_masks']
        >>> batch["positions"]
        array([[0, 1],
               [0, 0]], dtype=int32)
        >>> batch.num_rows, batch.rows["stop_reasons"]
        (2, ['stop', 'length'])
    """

    layout: Layout | TreeLayout
    prompt_lengths: Int64s
    _arrays: Mapping[str, Any]
    _rows: Mapping[str, Any]
    # Those of `rows` that have an element per token, since rows share prefixes.
    _per_token: tuple[str, ...]
    # The flat memory of the arrays, which may be larger than they are: what `out=` fills again.
    _memory: Mapping[str, AnyArray]

    def __init__(
        self,
        arrays: Mapping[str, Any],
        layout: Layout | TreeLayout | None = None,
        prompt_lengths: Int64s | None = None,
        rows: Mapping[str, Any] | None = None,
        memory: Mapping[str, AnyArray] | None = None,
        per_token: Collection[str] = (),
    ) -> None:
        """Hold arrays; `pack` and `pad` make them.

        Without a layout it holds the arrays alone: what trainers make of any mapping, `type(batch)({...})`.
        """
        fields: dict[str, Any] = {"_arrays": dict(arrays), "_rows": dict(rows or {}), "_memory": memory or {}}
        fields["_per_token"] = tuple(per_token)
        if layout is not None:
            fields |= {"layout": layout, "prompt_lengths": prompt_lengths}
        vars(self).update(fields)
        if WAITING:
            register(Batch)

    def __getattr__(self, name: str) -> Any:
        if name in _NEEDS_LAYOUT:
            raise AttributeError(lacks(name))
        raise AttributeError(f"Batch has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f'a Batch does not change; batch | {{"{name}": array}} makes one with more arrays'
            if name not in _PARTS
            else f"{name} of a Batch: it does not change; pack and pad make another"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Batch does not change: {name!r} is not deleted")

    @property
    def arrays(self) -> dict[str, Any]:
        """The arrays by name, in a dict of their own: what is done to it is not done to the batch."""
        return dict(self._arrays)

    @property
    def rows(self) -> dict[str, Any]:
        """The columns with one entry per rollout, in input order; likewise."""
        return dict(self._rows)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def num_rows(self) -> int:
        """How many rollouts there are."""
        return len(self.layout)

    def to(self, target: Any = None, device: Any = None, **options: Any) -> Batch:
        """Hand the arrays to a framework, or move them to a device; without a copy on the CPU where it can.

        Args:
            target: `"torch"`, `"jax"` or `"numpy"`; or a device (`"cpu"`, `"cuda:0"`, a `torch.device`, a
                `jax.Device` or sharding). On a device arrays stay with their framework; those of NumPy
                become torch's (of a `jax.Device`: JAX's).
            device: where they go; None: the framework's default (torch: the CPU), or where an array of the
                framework is already.
            **options: for `torch.Tensor.to`, such as `non_blocking=True`.

        Returns:
            A batch of the framework's arrays. On the CPU they may share memory with this one, so a
            batch whose buffers are filled again (`out=`) changes them too.

        Raises:
            ValueError: neither a framework nor a device.

        Example:
            >>> from rollkit import pack, pad
            >>> type(pack({"response_ids": [[1, 2], [3]]}, 4).to("cpu")["input_ids"])
            <class 'torch.Tensor'>
        """
        like = next(iter(self._arrays.values()), None)
        return self._made(array_maker(target, device, options, framework_of(like)))

    def pin_memory(self) -> Batch:
        """Copy to page-locked memory, as torch tensors: the hook that torch's DataLoader calls."""
        return self.to("torch")._made(lambda tensor: tensor.pin_memory())

    def _made(self, make: Callable[[Any], Any]) -> Batch:
        """The same of other arrays, and of other columns per token."""
        rows = {
            name: trusted(_each(make, column._held), column.offsets) if name in self._per_token else column
            for name, column in self._rows.items()
        }
        return self._with({name: _each(make, array) for name, array in self._arrays.items()}, rows)

    def unpack(self, array: Any) -> Ragged:
        """Turn a batch column, by name, or a model's per-token output, back into rows in input order.

        Example:
            >>> from rollkit import pack, pad
            >>> batch = pad({"prompt_token_ids": [[1], [2, 3]], "response_ids": [[4, 5], [6]]})
            >>> batch.unpack("input_ids").to_list()
            [[1, 4, 5], [2, 3, 6]]
        """
        if isinstance(array, str):
            if array in self._per_token and array not in self._arrays:
                found: Ragged = self._rows[array]
                return found
            array = self[array]
        return take(array, self.layout)

    def rename(self, names: Names) -> Batch:
        """The same arrays under a trainer's names, and with its dtypes.

        Args:
            names: `{old: new}`, or a word:

                - `"rollkit"`: as they are.
                - `"hf"`: int64 `input_ids`, `position_ids`, `labels` and `attention_mask` (of `pad`).
                  `labels` are made (see `rollkit.labels`) unless there are some; of these, too, the first
                  token of each segment is ignored, and what `loss_masks` do not count. What a model's own
                  loss reads is then shifted by it. Of a row in pieces that is so of each:
                  `labels(batch, shift=True)` loses none.
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
            >>> from rollkit import pack, pad
            >>> batch = pack({"response_ids": [[1, 2], [3]]}, capacity=4).rename("hf")
            >>> batch["position_ids"], batch["labels"]
            (array([[0, 1, 0, 0]]), array([[-100,    2, -100, -100]]))
        """
        return self._with(renamed(self._arrays, self.layout, names))

    def flash_kwargs(self) -> dict[str, Any]:
        """What models of transformers hand to varlen attention: `model(…, **batch.flash_kwargs())`.

        Gaps and padding are segments of their own: kernels leave what is in none unwritten.

        Returns:
            `cu_seq_lens_q`, `cu_seq_lens_k` int32, `max_length_q`, `max_length_k` ints, over all lines.

        Example:
            >>> from rollkit import pack, pad
            >>> pack({"response_ids": [[1, 2], [3]]}, capacity=6).flash_kwargs()["cu_seq_lens_q"]
            array([0, 2, 3, 6], dtype=int32)
        """
        return flash_kwargs(self.layout, next(iter(self._arrays.values()), None))

    @property
    def responses(self) -> Laid:
        """Where each rollout's response is: `rollkit.take(logprobs, batch.responses)`."""
        lengths = self.layout.row_lengths
        return self.layout.spans(self.prompt_lengths, lengths - self.prompt_lengths)

    def keys(self) -> KeysView[str]:
        """The names of the arrays."""
        return self._arrays.keys()

    def items(self) -> ItemsView[str, Any]:
        """Names and arrays."""
        return self._arrays.items()

    def split(self, parts: int) -> list[Batch]:
        """Cut into microbatches: as many lines each, or one more. Arrays are views.

        Raises:
            ValueError: there are fewer lines than parts.

        Example:
            >>> from rollkit import pack, pad
            >>> batch = pack({"response_ids": [[1, 2], [3, 4], [5]]}, capacity=2)
            >>> [part["input_ids"].tolist() for part in batch.split(2)]
            [[[1, 2], [3, 4]], [[5, 0]]]
        """
        lines, parts = self.layout.shape[0], _check.positive("parts", parts)
        if parts > lines:
            raise ValueError(f"parts is {parts}, the batch has {lines} lines; one has at least a line")
        ends = [lines * i // parts for i in range(parts + 1)]
        sizes = sorted((b - a for a, b in pairwise(ends)), reverse=True)
        begins = np.cumsum([0, *sizes]).tolist()
        return [self[a:b] for a, b in pairwise(begins)]

    def _lines(self, lines: slice) -> Batch:
        """The lines of a slice: their arrays, and the rows on them."""
        shape = self.layout.shape
        begin, end, step = lines.indices(shape[0])
        if step != 1 or len(shape) < 2:
            raise ValueError(f"a batch is sliced by lines that follow each other, got {lines} of {shape}")
        end = max(begin, end)
        rows, layout = self.layout._on_lines(begin, end - begin)
        arrays = {name: _part(array, begin, end, self.layout.width) for name, array in self._arrays.items()}
        if not isinstance(layout, Layout) and "predecessors" in arrays:
            arrays["predecessors"] = _moved(arrays["predecessors"], begin * self.layout.width)
        return Batch(
            arrays,
            layout,
            self.prompt_lengths[rows],
            {name: self._picked(name, column, rows) for name, column in self._rows.items()},
            per_token=self._per_token,
        )

    def _picked(self, name: str, column: Any, rows: Int64s) -> Any:
        """Some rows of a column; of one per token on the side where the batch is."""
        found = take_column(column, rows)
        if name not in self._per_token:
            return found
        like = _numbers(column)
        if framework_of(_numbers(found)) == framework_of(like):
            return found
        own = ops_of(like)
        return trusted(_each(lambda part: own.from_host(part, like), found._held), found.offsets)

    def _with(self, arrays: Mapping[str, Any], rows: Mapping[str, Any] | None = None) -> Batch:
        found = vars(self)
        placed = found.get("layout"), found.get("prompt_lengths")
        return Batch(arrays, *placed, self._rows if rows is None else rows, per_token=self._per_token)

    def __or__(self, other: Any) -> Batch:
        """This batch with more arrays, or with some in the place of its own: `[*layout.shape, *inner]`."""
        if not isinstance(other, Mapping):
            return NotImplemented
        for name, array in other.items():
            if not isinstance(name, str):
                raise TypeError(f"names of arrays are texts, got {name!r}, {type(name).__name__}")
            if isinstance(array, Lists) and len(array.offsets) - 1 == self.layout.size:
                continue
            shape = tuple(array.shape[: len(self.layout.shape)]) if is_array(array) else None
            if shape != self.layout.shape:
                got = type(array).__name__ if shape is None else f"an array of shape {tuple(array.shape)}"
                text = f"array {name!r} must have shape {self.layout.shape} (and inner dims), got {got}"
                raise refusal(ValueError, f"{text}; rollkit.place lays rows out", column=name, label="")
        return self._with({**self._arrays, **other})

    def __getitem__(self, key: Any) -> Any:
        """An array by name, or a microbatch: a slice of lines, with its rows and their layout."""
        if isinstance(key, slice):
            return self._lines(key)
        try:
            return self._arrays[key]
        except (KeyError, TypeError):
            if key in self._per_token:
                raise KeyError(
                    f"no array {key!r}: a token that rows share may have another in each; "
                    f"batch.unpack({key!r}) has that of all rows"
                ) from None
            known = ", ".join(map(repr, self._arrays))
            raise KeyError(f"no array {key!r}; there are {known}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = {
            name: shipped(array) if isinstance(array, np.ndarray) else (array, None)
            for name, array in self._arrays.items()
        }
        found = vars(self)
        placed = found.get("layout"), found.get("prompt_lengths")
        rows = {name: _sent(x) if name in self._per_token else x for name, x in self._rows.items()}
        return _unpickled, (arrays, *placed, rows, self._per_token)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{name} {_kind(array)}" for name, array in self._arrays.items())
        layout = repr(self.layout) if "layout" in vars(self) else "no layout"
        return f"Batch({layout}: {kinds})"


def spare_of(out: Any) -> Mapping[str, AnyArray]:
    """The memory of a batch that is written again, by name; none where there is no such batch."""
    if out is None:
        return {}
    if not isinstance(out, Batch):
        raise TypeError(f"out must be a Batch, got {type(out).__name__}")
    return out._memory


def _kind(array: Any) -> Any:
    """What a leaf is, in words: a function of trees may put anything there."""
    return getattr(array, "dtype", type(array).__name__)


def _sent(column: Ragged) -> Any:
    """A column per token as a pickle has it: of tensors in two parts, whose memory a `Ragged` would take."""
    return column if isinstance(_numbers(column), np.ndarray) else (column._held, column.offsets)


def _numbers(column: Ragged) -> Any:
    """The numbers of a column, or of its lists."""
    held = column._held
    return held.values if isinstance(held, Lists) else held


def _each(make: Callable[[Any], Any], array: Any) -> Any:
    return type(array)(*map(make, array)) if isinstance(array, Lists) else make(array)


def _part(array: Any, begin: int, end: int, width: int) -> Any:
    """The lines from one to another of an array, or of lists."""
    return array.part(begin * width, end * width) if isinstance(array, Lists) else array[begin:end]


def _moved(positions: Any, begin: int) -> Any:
    """Flat positions of a part that begins there, of what were those of the whole."""
    return ops_of(positions).where(positions < 0, positions, positions - begin)


def _unpickled(
    arrays: Mapping[str, tuple[Any, Any]],
    layout: Layout | TreeLayout | None,
    prompt_lengths: Int64s | None,
    rows: Mapping[str, Any],
    per_token: tuple[str, ...] = (),
) -> Batch:
    viewed = {name: array if dtype is None else array.view(dtype) for name, (array, dtype) in arrays.items()}
    found = {
        name: trusted(*column) if name in per_token and isinstance(column, tuple) else column
        for name, column in rows.items()
    }
    return Batch(viewed, layout, prompt_lengths, found, per_token=per_token)

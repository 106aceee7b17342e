"""Whether a model may be packed at all: what it computes of a row beside others, and of the row alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from rollkit._arrays.ops import ops
from rollkit._batch import Batch, pack, pad
from rollkit._frameworks import AnyArray, framework_of, is_array
from rollkit._rollouts.labels import laid_of, tokens_of
from rollkit._rows.layout import Layout
from rollkit._rows.lists import Lists
from rollkit._rows.place import place
from rollkit._rows.ragged import Ragged, trusted

_PLACES: Final = ("segment_ids", "visible_until", "predecessors", "multiplicity")
"""The arrays that say where rows are in a batch, which of a row alone are others."""


def check_isolation(
    model: Callable[[Batch], Any], batch: Batch, *, rtol: float = 1e-4, atol: float = 1e-5
) -> None:
    """Check that a model computes of each row of a batch what it computes of the row alone.

    Attention with a wrong mask is not the only leak: linear attention, convolutions and recurrent state go on
    from one packed row to the next, and from one branch of a tree into another, unless they are told.

    Args:
        model: is called with a batch, and returns an array `[*batch.layout.shape, …]`, or several by name in
            the order in which they are computed: `{"layer 0": …, "layer 1": …}`. Without dropout.
        batch: of `pack`, `pad` or `pack(share_prefixes=True)`, whose rows are whole. The model is called with
            it, and then, for each row, with a batch of that row alone, made alike: of the same framework, and
            with the same arrays. Its `rows` are empty.
        rtol: the difference that is let pass, relative to the row alone.
        atol: likewise, absolute.

    Raises:
        AssertionError: an output differs; the first row, of it the first output and in it the first token.
        TypeError: the model returns something else, or `batch` is none.

    Example:
        >>> batch = pack({"response_ids": [[1, 2], [3, 4, 5]]}, capacity=8)
        >>> check_isolation(lambda batch: batch["input_ids"] * (batch["positions"] + 1.0), batch)
        >>> check_isolation(lambda batch: {"states": batch["input_ids"].cumsum(1)}, batch)
        Traceback (most recent call last):
        AssertionError: row 1, token 0: 'states' is off by 3 from what it is of the row alone (3)
    """
    layout = laid_of(batch)
    like = tokens_of(batch, layout)
    together = {name: batch.unpack(found) for name, found in _outputs(model(batch), batch).items()}
    columns = {name: batch.unpack(name) for name in batch}
    for row in np.flatnonzero(np.diff(layout.row_offsets())).tolist():
        single = _alone(batch, {name: column.take([row]) for name, column in columns.items()}, like)
        for name, found in _outputs(model(single), single).items():
            begin, end = together[name].offsets[row : row + 2].tolist()
            got, wanted = _host(together[name].flat)[begin:end], _host(single.unpack(found).flat)
            near = np.isclose(got, wanted, rtol=rtol, atol=atol, equal_nan=True)
            if near.all():
                continue
            at = int((~near).reshape(len(near), -1).any(axis=1).argmax())
            one = int(abs(got[at] - wanted[at]).argmax())
            value = wanted[at].reshape(-1)[one]
            off = abs(got[at].reshape(-1)[one] - value)
            raise AssertionError(
                f"row {row}, token {at}: {name!r} is off by {off:.3g} from what it is of the row alone "
                f"({value:.3g})"
            )


def _outputs(found: Any, batch: Batch) -> dict[str, Any]:
    """What a model returned, by name."""
    named = dict(found) if isinstance(found, Mapping) else {"output": found}
    for name, array in named.items():
        depth = len(batch.layout.shape)
        if not is_array(array) or tuple(array.shape[:depth]) != batch.layout.shape:
            came = tuple(array.shape) if is_array(array) else type(array).__name__
            raise TypeError(
                f"model must return arrays of shape {batch.layout.shape} first, {name!r} is {came}"
            )
    return named


def _alone(batch: Batch, columns: Mapping[str, Ragged], like: Any) -> Batch:
    """A batch of one row, made as the other was, and where that is.

    Args:
        batch: the other.
        columns: what each of its arrays has of the row.
        like: its tokens.
    """
    tokens = _on_host(columns["input_ids"].flat)
    rows: dict[str, Any] = {"response_ids": [tokens]}
    dtypes = {"input_ids": tokens.dtype}
    if "attention_mask" in batch:
        single = pad(rows, dtypes=dtypes)
    else:
        single = pack(rows, len(tokens), dtypes=dtypes, share_prefixes=not isinstance(batch.layout, Layout))
    made = {name: single[name] for name in _PLACES if name in batch}
    ends = np.array([0, len(tokens)])
    own = {
        name: place(trusted(_on_host(column._held), ends), single.layout.written)
        for name, column in columns.items()
        if name not in made
    }
    single = Batch(own | made, single.layout, single.prompt_lengths)
    framework = framework_of(like)
    if framework in (None, "numpy"):
        return single
    return single.to(like.device) if framework == "torch" else single.to(framework)


def _on_host(values: Any) -> Any:
    if isinstance(values, Lists):
        return Lists(*map(_on_host, values))
    found: AnyArray = ops(framework_of(values) or "numpy").to_host(values)
    return found


def _host(values: Any) -> AnyArray:
    """Numbers on the host, in as many bits as there are."""
    numbers = _on_host(values)
    found: AnyArray = numbers.astype(np.complex128 if numbers.dtype.kind == "c" else np.float64)
    return found

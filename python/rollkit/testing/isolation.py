"""Whether a model may be packed at all: what it computes of a row beside others, and of the row alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rollkit._arrays.ops import ops
from rollkit._batch import Batch, pack
from rollkit._frameworks import AnyArray, framework_of, is_array


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
            it, and then, for each row, with a batch of that row's tokens alone, of the same framework.
        rtol: the difference that is let pass, relative to the row alone.
        atol: likewise, absolute.

    Raises:
        AssertionError: an output differs; the first row, of it the first output and in it the first token.
        TypeError: the model returns something else.

    Example:
        >>> batch = pack({"response_ids": [[1, 2], [3, 4, 5]]}, capacity=8)
        >>> check_isolation(lambda batch: batch["input_ids"] * (batch["positions"] + 1.0), batch)
        >>> check_isolation(lambda batch: {"states": batch["input_ids"].cumsum(1)}, batch)
        Traceback (most recent call last):
        AssertionError: row 1, token 0: 'states' is off by 3 from what it is of the row alone (3)
    """
    together = {name: batch.unpack(found) for name, found in _outputs(model(batch), batch).items()}
    for row, tokens in enumerate(batch.unpack("input_ids").to_list()):
        if not len(tokens):
            continue
        single = _alone(np.asarray(tokens), batch["input_ids"])
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


def _alone(tokens: AnyArray, like: Any) -> Batch:
    """A batch of one row, where the other batch is."""
    batch = pack({"response_ids": [tokens]}, len(tokens), dtypes={"input_ids": _dtype_of(like)})
    framework = framework_of(like)
    if framework in (None, "numpy"):
        return batch
    return batch.to(like.device) if framework == "torch" else batch.to(framework)


def _dtype_of(like: Any) -> Any:
    """The dtype of an array, NumPy's."""
    return np.dtype(ops(framework_of(like) or "numpy").dtype_of(like))


def _host(values: Any) -> AnyArray:
    """Numbers on the host, in float64."""
    own = ops(framework_of(values) or "numpy")
    return np.asarray(own.to_host(values)).astype(np.float64)

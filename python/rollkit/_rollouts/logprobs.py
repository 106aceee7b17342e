"""From a model's output to the log-probability of each token: `next_token_logprobs`."""

from __future__ import annotations

from typing import Any

import numpy as np

from rollkit._arrays.ops import Ops, ops
from rollkit._check import flag
from rollkit._errors import Unfit, refusal
from rollkit._frameworks import as_array, dtype_name, framework_of, kind_of
from rollkit._rollouts.labels import Batched, laid_of, tokens_of
from rollkit._rows.laid import Laid
from rollkit._rows.layout import Layout


def next_token_logprobs(logits: Any, batch: Batched, *, normalised: bool = False) -> Any:
    """The log-probability of each token of a batch, given what precedes it in its own segment.

    Output `t` of a model is about token `t + 1`: this does the shift within segments, so the result stands
    beside the token, as `loss_masks`, `advantages` and `rollout_logprobs` do. 0 where a token has no
    predecessor in its row (its first one, which no model has scored) and in padding. The first token of
    a piece is scored by the last one of the piece before, and that of a node of a tree by the last one of the
    node that it goes on from: each token of a batch that shares prefixes is scored once.

    Logits become float32 a part at a time (in JAX as its compiler fuses it), so that there is no float32
    copy of them all, and none is kept for the gradient, which is in their own dtype.

    Args:
        logits: `[*batch.layout.shape, V]` floats, of any framework; gradients go through in torch and JAX.
        batch: the `Batch` that the model saw.
        normalised: they are log-probabilities already, and are only picked.

    Returns:
        `[*batch.layout.shape]` float32, of the framework and on the device of `logits`.

    Raises:
        TypeError: `logits` is no array of floats, or `batch` none.
        OverflowError: a float64 logit does not fit float32; those of a device are not looked at.
        ValueError: `logits` has another shape; a token is beyond the vocabulary. Where tokens have no values
            on the host (traced, on a device) that is for the framework to say; JAX gives NaN.

    Example:
        >>> import numpy as np, rollkit
        >>> batch = rollkit.pack({"response_ids": [[1, 0, 1], [0, 1]]}, capacity=6)
        >>> uniform = np.zeros((1, 6, 2), np.float32)
        >>> next_token_logprobs(uniform, batch).round(3)
        array([[ 0.   , -0.693, -0.693,  0.   , -0.693,  0.   ]], dtype=float32)
    """
    layout = laid_of(batch)
    framework = framework_of(logits)
    if framework is None or kind_of(logits) != "float":
        got = type(logits).__name__ if framework is None else dtype_name(logits)
        raise TypeError(f"logits must be an array of floats, got {got}")
    if tuple(logits.shape[:-1]) != layout.shape or logits.ndim == len(layout.shape):
        raise ValueError(
            f"logits must have shape {layout.shape} and the vocabulary's size, got {tuple(logits.shape)}"
        )
    own = ops(framework)
    tokens = tokens_of(batch, layout)
    before, after, repeats = _edges(layout)
    _check_tokens(tokens, layout, after, logits.shape[-1])
    if framework_of(tokens) != framework:
        tokens = own.from_host(as_array(tokens), logits)
    index = own.index(after, logits)
    ids = own.wide(tokens).reshape(-1)[index]
    flat = logits.reshape(layout.size, logits.shape[-1])
    rows = own.index(before, logits)
    if logits.dtype.itemsize > 4:
        flat, rows = _single(own, own.gather(flat, rows), layout, after), own.arange(len(after), flat)
        repeats = 0
    found = own.picked(flat, rows, ids, repeats=repeats, normalised=flag("normalised", normalised))
    placed = own.scatter(layout.size, own.from_host(np.zeros((), np.float32), found), found, index)
    return placed.reshape(layout.shape)


def _edges(layout: Laid) -> tuple[Any, Any, int]:
    """Predecessors and tokens, and how many at the end are predecessors that were named before."""
    before, after = layout.edges()
    if isinstance(layout, Layout):
        return before, after, 0
    firsts = np.unique(before, return_index=True)[1]
    again = np.ones(len(before), bool)
    again[firsts] = False
    order = np.concatenate([np.sort(firsts), np.flatnonzero(again)])
    return before[order], after[order], len(before) - len(firsts)


def _check_tokens(tokens: Any, layout: Laid, after: Any, vocabulary: int) -> None:
    """Refuse tokens beyond the vocabulary, where they can be looked at."""
    own: Ops = ops(framework_of(tokens) or "numpy")
    if own.is_traced(tokens) or not own.is_host(tokens):
        return
    ids = as_array(tokens).reshape(-1)[after]
    odd = (ids < 0) | (ids >= vocabulary)
    if odd.any():
        text = f": token {ids[odd][0]} is beyond the logits, which are of {vocabulary}"
        raise refusal(ValueError, text, column="input_ids", **_where(layout, int(after[odd.argmax()])))


def _single(own: Ops, logits: Any, layout: Laid, after: Any) -> Any:
    """Wide logits as float32; those at `i` are about the token at `after[i]`."""
    try:
        return own.cast(logits, np.float32)
    except Unfit as error:
        where = _where(layout, int(after[error.index]))
        raise refusal(OverflowError, f": {error}", column="logits", label="logits", **where) from None


def _where(layout: Laid, flat: int) -> dict[str, Any]:
    """The row and position of the token at a flat index; of rows that share it, the first."""
    written = layout.written
    piece = int(np.flatnonzero((written.starts <= flat) & (flat < written.starts + written.lengths))[0])
    rows, begins = written.pieces_of_rows()
    return {"row": int(rows[piece]), "position": int(begins[piece]) + flat - int(written.starts[piece])}

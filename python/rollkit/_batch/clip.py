"""What PPO's clip takes of a batch whose rows share tokens: `clip_weights`."""

from __future__ import annotations

from typing import Any

import numpy as np

from rollkit._arrays.ops import ops_of
from rollkit._batch.batch import Batch
from rollkit._errors import refusal
from rollkit._frameworks import AnyArray, framework_of, kind_of
from rollkit._rollouts.labels import laid_of, tokens_of
from rollkit._rows.laid import Laid
from rollkit._rows.lists import Lists
from rollkit._rows.ragged import Ragged


def clip_weights(
    batch: Batch,
    *,
    advantages: str = "advantages",
    weights: str = "loss_weights",
    old_logprobs: str = "rollout_logprobs",
) -> tuple[Any, Any, Any]:
    """What PPO's clipped loss of rows takes at each token, where several rows may share it.

    With ρ = exp(new - old), the loss of rows, Σ w·max(-A·ρ, -A·clip ρ), is that of the batch's tokens, each
    once: Σ -P·min(ρ, clip ρ) + N·max(ρ, clip ρ), and so is its gradient. The clip is the same for all rows.
    Rows in which a token has no weight, or no advantage, do not count there; a row's first token counts in
    none, since nothing predicts it.

    A trainer that computes old log-probabilities itself takes them of the batch, not of rows, of which they
    differ by rounding: `clip_weights(batch | {"old": scored}, old_logprobs="old")`.

    Args:
        batch: of any framework, whose rows may share prefixes or not.
        advantages: the column A, an element per token or per row.
        weights: the column w, per token: `loss_weights`, or a mask, 0 where there is no loss.
        old_logprobs: the column of the old log-probabilities, per token.

    Returns:
        P, the sum of w·max(A, 0) over the rows of a token, N, that of w·max(-A, 0), and the old
        log-probability: `[*batch.layout.shape]` each, 0 where there is no loss; of the framework and on the
        device of the batch's tokens. What is per row has the weights' dtype.

    Raises:
        ValueError: rows that share a token have other old log-probabilities there, so that one token cannot
            stand for both; the message names row and position. Take the loss of rows then:
            `batch.unpack(scored)`. Or the batch lacks a column.
        TypeError: a column is traced, or is not of numbers.

    Example:
        >>> import numpy as np, rollkit
        >>> rows = {
        ...     "prompt_token_ids": [[1], [1]],
        ...     "response_ids": [[5, 6], [5, 7]],
        ...     "rollout_logprobs": [[-0.5, -1.0], [-0.5, -2.0]],
        ...     "advantages": [1.0, -1.0],
        ...     "loss_weights": [[0.25, 0.25], [0.5, 0.5]],
        ... }
        >>> batch = rollkit.pack(rows, capacity=4, share_prefixes=True)
        >>> positive, negative, old = clip_weights(batch)
        >>> positive, negative
        (array([[0.  , 0.25, 0.25, 0.  ]], dtype=float32), array([[0. , 0.5, 0. , 0.5]], dtype=float32))
        >>> scored = rollkit.next_token_logprobs(np.zeros((1, 4, 9), np.float32), batch)
        >>> ratio = np.exp(scored - old)
        >>> clipped = ratio.clip(0.8, 1.2)
        >>> loss = negative * np.maximum(ratio, clipped) - positive * np.minimum(ratio, clipped)
        >>> round(float(loss.sum()), 3)
        0.689
    """
    layout = laid_of(batch)
    like = tokens_of(batch, layout)
    own = ops_of(like)
    w, old = _column(batch, "weights", weights, like), _column(batch, "old_logprobs", old_logprobs, like)
    gains = _column(batch, "advantages", advantages, like, w)
    gains = own.where((w == 0) & (gains != gains), 0, gains)  # a row without a say may have no advantage
    each = own.where(own.from_host(_predicted(layout), w), w * gains, 0)
    indices = layout.indices(own, each)
    positive, negative = (
        own.scatter_sum(layout.size, part, indices).reshape(layout.shape)
        # A NaN is in both sums, as it is in the loss of rows.
        for part in (own.where(gains <= 0, 0, each), own.where(gains >= 0, 0, -each))
    )
    agreed = _agreed(layout, own.to_host(old), own.to_host(each != 0), old_logprobs)
    return positive, negative, own.from_host(agreed.reshape(layout.shape), like)


def _predicted(layout: Laid) -> AnyArray:
    """`[elements]` bool: which elements of rows have a token before them."""
    offsets = layout.row_offsets()
    found = np.ones(int(offsets[-1]), bool)
    found[offsets[:-1][np.diff(offsets) > 0]] = False
    return found


def token_column(batch: Batch, called: str, name: Any, *, per_row: bool = False) -> Any:
    """The elements of a column at each row's tokens, as far as they are placed: `[elements]`, row after row.

    Args:
        batch: which has it among its arrays or its rows.
        called: the argument that names it.
        name: the column's name.
        per_row: whether it may be a number for each row, and is repeated then.
    """
    if not isinstance(name, str):
        raise TypeError(f"{called} is the name of a column, got {type(name).__name__}")
    found = batch.unpack(name) if name in batch else batch.rows.get(name)
    if found is None:
        known = ", ".join(map(repr, dict.fromkeys([*batch, *batch.rows])))
        raise ValueError(f"{called} is {name!r}, which the batch does not have; there are {known}")
    offsets = laid_of(batch).row_offsets()
    if per_row and isinstance(found, np.ndarray) and found.ndim == 1 and found.dtype.kind in "iufb":
        return np.repeat(found, np.diff(offsets))
    plain = isinstance(found, Ragged) and not isinstance(found._held, Lists) and not found.inner
    if plain and np.array_equal(found.offsets, offsets):
        return found.flat
    raise TypeError(f"{called} is {name!r}, which has no number for each token{' or row' * per_row}")


def _column(batch: Batch, called: str, name: str, like: Any, first: Any = None) -> Any:
    """A column where the batch is; with `first`, one per row too, in the dtype of that."""
    values = token_column(batch, called, name, per_row=first is not None)
    own = ops_of(like)
    if first is not None and name not in batch and not isinstance(batch.rows[name], Ragged):
        values = values.astype(own.dtype_of(first) if kind_of(first) == "float" else np.float32)
    if framework_of(values) != framework_of(like):
        values = own.from_host(values, like)
    if own.is_traced(values):
        raise TypeError(f"{called} is {name!r}, which is traced; call clip_weights outside of jit")
    return values


def _agreed(layout: Laid, old: AnyArray, used: AnyArray, name: str) -> AnyArray:
    """Of each place what the rows that use it have there, or a refusal of the first that differs.

    Args:
        layout: where rows are.
        old: `[elements]`, row after row.
        used: `[elements]` bool.
        name: the column's.
    """
    elements = np.flatnonzero(used)
    places, values = layout.gather_indices()[elements], old[elements]
    found = np.zeros(layout.size, old.dtype)
    found[places[::-1]] = values[::-1]  # the first row's, which comes last
    odd = (found[places] != values) & ((found[places] == found[places]) | (values == values))
    if odd.any():
        element = int(elements[odd.argmax()])
        offsets = layout.row_offsets()
        row = int(np.searchsorted(offsets, element, side="right")) - 1
        text = (
            " differs from what another row has at this token, and both have a loss there, so that two sums "
            "do not say it; take the loss of rows: batch.unpack(next_token_logprobs(logits, batch))"
        )
        raise refusal(ValueError, text, column=name, row=row, position=element - int(offsets[row]))
    return found

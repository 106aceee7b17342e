"""Which tokens a draw could have been: `Kept`, and `replay_logprobs` under the same masks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rollkit._arrays.ops import as_like, ops_of, single
from rollkit._check import integer, items
from rollkit._frameworks import (
    AnyArray,
    check_ints,
    dtype_name,
    is_array,
    is_traced,
    kind_of,
    same_framework,
)
from rollkit.decode._operations import operations_of
from rollkit.decode._request import parameter
from rollkit.decode.allowed import AllowedSet


class Kept(NamedTuple):
    """The kept tokens of each row as CSR, as vLLM, slime and prime-rl export them.

    Row i kept `token_ids[offsets[i]:offsets[i + 1]]`. A row without a token kept none; a greedy row
    only the one it drew.
    """

    token_ids: Any
    """`[entries]` int32 global ids, rising within a row."""
    offsets: Any
    """`[rows + 1]` int64 (int32 in JAX without 64 bits)."""

    @classmethod
    def from_mask(cls, mask: Any, allowed: AllowedSet) -> Kept:
        """Make CSR of a mask over local ids, which is what `sample` returns inside `jax.jit`.

        Args:
            mask: `[rows, len(allowed)]` bool, of NumPy, torch or JAX (not traced), which the ids will be of.
            allowed: what the columns are.

        Raises:
            TypeError: `mask` is not bool.
            ValueError: it has not a column per allowed token.

        Example:
            >>> kept = Kept.from_mask(np.array([[True, False], [True, True]]), AllowedSet([3, 5], 9))
            >>> kept.token_ids, kept.offsets
            (array([3, 3, 5], dtype=int32), array([0, 1, 3]))
        """
        mask = as_like("mask", mask, None)
        if not isinstance(allowed, AllowedSet):
            raise TypeError(f"allowed must be an AllowedSet, got {type(allowed).__name__}")
        if kind_of(mask) != "bool":
            raise TypeError(f"mask must be bool, got {dtype_name(mask)}")
        if mask.ndim != 2 or mask.shape[1] != len(allowed):
            shape = tuple(mask.shape)
            raise ValueError(f"mask must be [rows, {len(allowed)}], a column per allowed token, got {shape}")
        return cls(*operations_of(mask).csr(mask, allowed))

    @classmethod
    def concat(cls, parts: list[Kept]) -> Kept:
        """Join rows of NumPy, such as those of successive steps.

        Example:
            >>> part = Kept(np.array([3, 5], np.int32), np.array([0, 1, 2]))
            >>> Kept.concat([part, part]).offsets
            array([0, 1, 2, 3, 4])
        """
        parts = items("parts", parts)
        for i, part in enumerate(parts):
            if not isinstance(part, Kept):
                raise TypeError(f"parts[{i}] must be a Kept, got {type(part).__name__}")
        lengths = [np.diff(part.offsets) for part in parts]
        ids = [np.asarray(part.token_ids, np.int32) for part in parts]
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([[], *lengths]), dtype=np.int64)])
        return cls(np.concatenate([np.empty(0, np.int32), *ids]), offsets.astype(np.int64))

    def row(self, index: int) -> Any:
        """Return the kept ids of a row."""
        row = integer("index", index)
        if not 0 <= row < len(self.offsets) - 1:
            raise IndexError(f"row {row} is out of range: there are {len(self.offsets) - 1} rows")
        return self.token_ids[int(self.offsets[row]) : int(self.offsets[row + 1])]


def replay_logprobs(
    logits: Any,
    token_ids: Any,
    kept: Kept,
    *,
    allowed: AllowedSet | None = None,
    temperature: Any = 1.0,
) -> Any:
    """Score forced tokens over the sets they were drawn from: log-softmax of logits / T on each kept set.

    What a trainer compares with the log-probabilities of the rollout: the same mask, other weights.
    Differentiable with respect to `logits` in torch and JAX.

    Args:
        logits: `[rows, vocab_size]`, or compact `[rows, len(allowed)]`; after guidance, if there is any.
        token_ids: `[rows]` ints, global ids.
        kept: a row per row of `logits`, of any framework.
        allowed: what the columns of compact logits are. `None`: they are the vocabulary.
        temperature: one number or `[rows]`, as for the draw; a row of 0 was greedy and scores as 1.

    Returns:
        `[rows]` float32; −∞ where a token is not in its kept set. Logits of +∞ share all mass of a row,
        as in `sample`.

    Raises:
        TypeError: `logits` and `token_ids` are of different frameworks, or hold no floats or no integers;
            `kept` is no `Kept`, or traced.
        ValueError: rows do not match, a kept id is no column, or `temperature` is out of range.
        OverflowError: a float64 logit does not fit float32; those of a device are not looked at.

    Example:
        >>> kept = Kept(np.array([0, 2], np.int32), np.array([0, 2]))
        >>> replay_logprobs(np.float32([[1, 9, 1]]), [2], kept).round(3)
        array([-0.693], dtype=float32)
    """
    if not isinstance(token_ids, np.ndarray):
        same_framework(logits=logits, token_ids=token_ids)
    logits = as_like("logits", logits, token_ids if is_array(token_ids) else None)
    _check_logits(logits)
    logits = single("logits", logits)
    _check_kept(kept)
    temperature = parameter("temperature", temperature, logits.shape[0])
    rows, columns, tokens = _entries(logits, token_ids, kept, allowed)
    return operations_of(logits).replay(logits, tokens, rows, columns, temperature)


def _check_logits(logits: Any) -> None:
    if kind_of(logits) != "float":
        raise TypeError(f"logits must be floating-point numbers, got {dtype_name(logits)}")
    if logits.ndim != 2:
        raise ValueError(f"logits must be [rows, columns], got shape {tuple(logits.shape)}")


def _check_kept(kept: Any) -> None:
    if not isinstance(kept, Kept):
        raise TypeError(f"kept must be a Kept, got {type(kept).__name__}; see Kept and Kept.from_mask")
    if any(map(is_traced, kept)):
        raise TypeError("kept is traced by JAX; its size is not known then, so pass it from outside of jit")


def _offsets(kept: Kept) -> tuple[AnyArray, AnyArray]:
    ids, offsets = (ops_of(part).to_host(part) for part in kept)
    check_ints("kept.token_ids", ids)
    check_ints("kept.offsets", offsets)
    rising = offsets.ndim == 1 and offsets.size and offsets[0] == 0 and (np.diff(offsets) >= 0).all()
    if not rising or offsets[-1] != len(ids):
        raise ValueError(f"kept.offsets must rise from 0 to the {len(ids)} ids of kept")
    return ids, offsets


def _entries(logits: Any, token_ids: Any, kept: Kept, allowed: AllowedSet | None) -> tuple[Any, Any, Any]:
    """Return the row and column of each kept entry, and the column of each token, -1 for none."""
    height, width = logits.shape
    ids, offsets = _offsets(kept)
    if len(offsets) != height + 1:
        raise ValueError(f"kept has {len(offsets) - 1} rows, logits have {height}; they go row by row")
    rows = np.repeat(np.arange(height), np.diff(offsets))
    tokens = as_like("token_ids", token_ids, None)
    check_ints("token_ids", tokens)
    if tuple(tokens.shape) != (height,):
        raise ValueError(f"token_ids must be [{height}], one per row, got shape {tuple(tokens.shape)}")
    columns = ids.astype(np.int64)
    if allowed is not None and not isinstance(allowed, AllowedSet):
        raise TypeError(f"allowed must be an AllowedSet or None, got {type(allowed).__name__}")
    if allowed is not None and width != allowed.vocab_size:
        if width != len(allowed):
            raise ValueError(
                f"logits must have {len(allowed)} columns (compact) or {allowed.vocab_size} (full), "
                f"got {width}"
            )
        columns, tokens = allowed.to_local(columns), allowed.to_local(tokens)
    if columns.size and (columns.min() < 0 or columns.max() >= width):
        wrong = int(ids[np.argmax((columns < 0) | (columns >= width))])
        raise ValueError(f"kept has token {wrong}, which is no column of logits with {width}; pass allowed=")
    return rows, columns, tokens

"""From tokens to what a loss compares with: `labels`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from rollkit import _check
from rollkit._arrays.ops import Ops, ops
from rollkit._frameworks import check_ints, framework_of, kind_of
from rollkit._rows.edges import edges, followers
from rollkit._rows.laid import Laid
from rollkit._rows.layout import Layout


class Batched(Protocol):
    """Arrays by name, and the layout they share: a `Batch`."""

    @property
    def layout(self) -> Any:
        """Where rows are."""
        ...

    def __getitem__(self, name: str) -> Any:
        """An array."""
        ...


def labels(batch: Batched, ignore_index: int = -100, mask: Any = "loss_masks", *, shift: bool = False) -> Any:
    """The tokens that a loss is about, and `ignore_index` everywhere else.

    The first token of a row is never one: what stands before it is another rollout, or padding. Of a row in
    pieces, the first token of a piece is one only where labels are shifted: what predicts it is at the end of
    the piece before, on another line, so that losses that shift by themselves pass over it.

    Args:
        batch: a `Batch`, of any framework, traced or not.
        ignore_index: what all other tokens get; losses of torch and Hugging Face take -100.
        mask: which tokens count, where it is not 0: the name of an array of the batch, an array of its
            shape, or None for all.
        shift: each token where its predecessor is, one to the left or at the end of the piece before: for
            losses that compare output `t` with label `t`. Models of Hugging Face shift by themselves.

    Returns:
        `[*batch.layout.shape]` int64 (in JAX what it has for that), of the framework and on the device of
        the tokens.

    Raises:
        TypeError: `batch` is none, or `ignore_index` no int.
        ValueError: the mask has another shape.

    Example:
        >>> import rollkit
        >>> rows = {"prompt_token_ids": [[1], []], "response_ids": [[2, 3], [4, 5]]}
        >>> batch = rollkit.pack(rows, capacity=6)
        >>> batch["input_ids"]
        array([[1, 2, 3, 4, 5, 0]], dtype=int32)
        >>> labels(batch)
        array([[-100,    2,    3, -100,    5, -100]])
        >>> labels(batch, shift=True)
        array([[   2,    3, -100,    5, -100, -100]])
    """
    layout = layout_of(batch)
    ignore_index = _check.positive("ignore_index", ignore_index, least=-(2**63))
    tokens = tokens_of(batch, layout)
    own = ops(framework_of(tokens) or "numpy")
    found = own.wide(tokens)
    if mask is not None:
        counts = nonzero(own, batch[mask] if isinstance(mask, str) else mask, tokens)
        found = own.where(counts, found, ignore_index)
    if _check.flag("shift", shift):
        return to_predecessors(own, layout, found, ignore_index)
    return own.where(own.from_host(followers(layout), tokens), found, ignore_index)


def to_predecessors(own: Ops, layout: Layout, values: Any, fill: Any) -> Any:
    """Each element where its predecessor in its row is, and `fill` where there is none; of the same dtype."""
    inner = tuple(values.shape[len(layout.shape) :])
    flat = values.reshape(layout.size, *inner)
    none = bool(fill) if kind_of(values) == "bool" else fill  # of an int `where` makes int64 of bools

    def chosen(there: Any, moved: Any) -> Any:
        return own.where(own.from_host(there.reshape(-1, *(1 for _ in inner)), values), moved, none)

    if layout.begins is not None:
        before, after = edges(layout, None)
        source, there = np.zeros(layout.size, np.int64), np.zeros(layout.size, bool)
        source[before], there[before] = after, True
        return chosen(there, own.gather(flat, own.index(source, values))).reshape(values.shape)
    # One to the left, which takes no index: what begins a segment does not count.
    flat = chosen(followers(layout), flat)
    last = chosen(np.zeros(len(flat[:1]), bool), flat[:1])
    return own.cat([flat[1:], last]).reshape(values.shape)


def layout_of(batch: Any) -> Layout:
    """The layout of a batch of segments, or a refusal of what is none."""
    layout = laid_of(batch)
    if not isinstance(layout, Layout):
        raise TypeError(
            "a batch that shares prefixes has no labels: a token may have several after it; "
            "next_token_logprobs scores each at its own place, and layout.edges says what predicts it"
        )
    return layout


def laid_of(batch: Any) -> Laid:
    """The layout of a batch, whether or not its rows share tokens, or a refusal of what is none."""
    layout = getattr(batch, "layout", None)
    if isinstance(layout, Laid):
        return layout
    if isinstance(batch, Mapping) and hasattr(batch, "arrays"):  # a Batch, which is of a floor above
        raise TypeError(lacks("layout"))
    raise TypeError(f"batch must be a Batch, got {type(batch).__name__}; pack and pad make one")


def lacks(name: str) -> str:
    """What is said where a batch of arrays alone is asked for more."""
    return (
        f"this batch has no {name}: it was made of another's arrays (torch's collate functions and "
        "transformers' Trainer do that); keep the one of pack or pad, and move it by .to(device)"
    )


def tokens_of(batch: Batched, layout: Laid) -> Any:
    """The token ids of a batch, one integer a token."""
    tokens = batch["input_ids"]
    check_ints("input_ids", tokens)
    if tuple(tokens.shape) != layout.shape:
        raise ValueError(f"input_ids must have shape {layout.shape}, got {tuple(tokens.shape)}")
    return tokens


def nonzero(own: Ops, mask: Any, tokens: Any) -> Any:
    """Where a mask is not 0, beside the tokens."""
    if framework_of(mask) != framework_of(tokens):
        mask = own.from_host(_check.host("mask", mask), tokens)
    if tuple(mask.shape) != tuple(tokens.shape):
        raise ValueError(f"mask must have the batch's shape {tuple(tokens.shape)}, got {tuple(mask.shape)}")
    return (own.wide(mask) if own.is_integer(mask) else mask) != 0

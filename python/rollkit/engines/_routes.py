"""Routes of experts as engines send them: arrays, lists or base64, of all tokens or some."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np

from rollkit import _check
from rollkit._check import Int64s
from rollkit._errors import at
from rollkit._frameworks import AnyArray, as_array
from rollkit._rollouts.fields import fill_of
from rollkit._rows.ragged import Ragged
from rollkit.engines._fields import in_all
from rollkit.routing import decode_routes

COLUMN: Final = "rollout_expert_indices"

_NPY: Final = "k05VTVBZ"
"""How base64 of NumPy's file format begins."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Routes of one row.

    Attributes:
        routes: what the engine sends.
        prompt: those of the prompt, where they come apart.
        start: the position of the first of them in the sequence.
    """

    routes: Any
    prompt: Any = None
    start: int = 0


def add_routes(
    columns: dict[str, Any],
    name: str,
    sent: Sequence[Sent],
    prompts: Int64s,
    experts: Any = None,
) -> None:
    """Add the routes of all rows, each of prompt and response, the last token's perhaps missing.

    Rows that begin after the first token (`start`) are filled up, as padding is, and marked in `route_masks`.

    Args:
        columns: with `response_ids`.
        name: what the engine calls them.
        sent: by row.
        prompts: `[rows]`, the tokens of each prompt.
        experts: (layers, topk), of base64 without a shape.

    Raises:
        ValueError: rows of routes are for other tokens than there are; the row is named.
    """
    if not in_all(COLUMN, name, [row.routes for row in sent]):
        return
    found = []
    for row, (one, prompt, response) in enumerate(
        zip(sent, prompts.tolist(), columns["response_ids"].lengths.tolist(), strict=True)
    ):
        with at(column=COLUMN, row=row):
            found.append(_whole(one, prompt, response, experts))
    some = next((routes for routes in found if len(routes)), found[0])
    found = [routes if len(routes) else some[:0] for routes in found]  # a list of none tells no shape
    with at(column=COLUMN):
        columns[COLUMN] = Ragged.from_rows(found)
    starts = [row.start for row in sent]
    if any(starts):
        masks = [np.zeros(n, np.uint8) for n in (prompts + columns["response_ids"].lengths).tolist()]
        for mask, start, rows in zip(masks, starts, found, strict=True):
            mask[:start] = 1
            mask[len(rows) :] = 1
        columns["route_masks"] = Ragged.from_rows(masks)


def _whole(sent: Sent, prompt: int, response: int, experts: Any) -> AnyArray:
    """The routes of a row from its first token on."""
    routes = _array(sent.routes, experts)
    rows, tokens = len(routes), prompt + response
    if sent.prompt is not None and rows in (response, response - 1):
        first = _array(sent.prompt, experts)
        if len(first) != prompt:
            raise ValueError(f"{len(first)} rows of routes for the {prompt} tokens of the prompt")
        if first.shape[1:] != routes.shape[1:]:
            raise ValueError(
                f"routes of the prompt have shape {first.shape[1:]}, the others {routes.shape[1:]}"
            )
        return np.concatenate([first, routes])
    if rows + sent.start not in (tokens, tokens - 1):
        text = f"{rows} rows of routes for a prompt of {prompt} and a response of {response} tokens"
        if sent.start:
            text += f", from token {sent.start} on"
        raise ValueError(f"{text}; expected {tokens - sent.start} or one less")
    if not sent.start:
        return routes
    filled = np.empty((sent.start, *routes.shape[1:]), routes.dtype)
    filled[...] = np.array(fill_of(COLUMN, routes.shape[1:]), routes.dtype)
    return np.concatenate([filled, routes])


def _array(sent: Any, experts: Any) -> AnyArray:
    """Routes `[rows, layers, topk]`, decoded."""
    if isinstance(sent, str | bytes):
        found = _decoded(sent, experts)
    elif isinstance(sent, Mapping):
        found = decode_routes(sent)
    else:
        array = as_array(sent)
        try:
            found = array if isinstance(array, np.ndarray) else np.asarray(array)
        except ValueError:
            raise ValueError("routes are lists of unequal lengths; expected [tokens, layers, topk]") from None
    if found.size == 0 and len(found.shape) == 1:
        return np.empty((0, 0, 0), np.int16)
    if found.ndim != 3:
        raise ValueError(f"routes have shape {found.shape}; expected [tokens, layers, topk]")
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"routes must be integers, got {found.dtype}")
    return found


def _decoded(text: str | bytes, experts: Any) -> AnyArray:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"routes are a text that is no base64: {error}") from None
    if (text[:8] if isinstance(text, str) else text[:8].decode("latin-1")) == _NPY:
        try:
            return np.asarray(np.load(io.BytesIO(raw), allow_pickle=False))
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"routes are a broken .npy file: {error}") from None
    if experts is None:
        raise ValueError("routes are base64 without a shape; pass experts=(layers, topk) of the model")
    shape = _check.shape("experts", experts)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"experts must be (layers, topk), got {experts!r}")
    size = prod(shape) * 4
    if len(raw) % size:
        raise ValueError(
            f"routes of {len(raw)} bytes are no rows of {shape} int32 experts, {size} bytes each"
        )
    return np.frombuffer(raw, np.int32).reshape(-1, *shape)

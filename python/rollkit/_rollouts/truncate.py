"""Rollouts cut to a length, every column alike: `Rollouts.truncate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from rollkit import _check
from rollkit._check import Int64s
from rollkit._errors import at, warn
from rollkit._rollouts.columns import Column, check_levels, check_uncut, level_of
from rollkit._rows.parts import gathered
from rollkit._rows.ragged import Ragged, trusted

CUT: Final = "truncated_response_tokens"
COUNTS: Final = ("truncated_prompt_tokens", CUT)
"""Columns that say how many tokens of each row are gone."""

_Spans = list[tuple[Int64s, Int64s]]


def truncated(
    columns: Mapping[str, Column],
    prompt: int | None,
    response: int | None,
    side: str | None,
    levels: Mapping[str, str] | None,
) -> dict[str, Any]:
    """See `Rollouts.truncate`."""
    levels = check_levels(levels, columns)
    if side is not None:
        _check.choice("side", side, ("left", "right"))
    main = "response_ids" if "response_ids" in columns else "input_ids"
    if main not in columns:
        raise ValueError("truncate needs a column 'response_ids' (or 'input_ids') of token ids")
    if prompt is not None and main == "input_ids":
        text = "prompt needs the columns 'prompt_token_ids' and 'response_ids': 'input_ids' are both in one"
        raise ValueError(text + "; response cuts them")
    responses = _lengths(columns[main])
    prompts = _lengths(columns.get("prompt_token_ids")) if "prompt_token_ids" in columns else 0 * responses
    first = _kept("prompt", prompt, prompts, side or "left")
    second = _kept("response", response, responses, side or "right")
    found: dict[str, Any] = {}
    for name, column in columns.items():
        if not isinstance(column, Ragged):
            found[name] = column
            continue
        level = "response" if name == main else level_of(name, column.lengths, prompts, responses, levels)
        if level == "row":
            check_uncut(name, column.lengths, (first[1] < prompts) | (second[1] < responses))
            found[name] = column
            continue
        spans = {
            "prompt": [first],
            "response": [second],
            "sequence": [first, (second[0] + prompts, second[1])],
        }[level]
        with at(column=name):
            found[name] = _cut(column, spans)
        if name == "rewards":
            _warn_lost(column, found[name])
    for name, (lengths, kept) in zip(COUNTS, ((prompts, first[1]), (responses, second[1])), strict=True):
        found[name] = columns.get(name, 0) + (lengths - kept)
    return found


def _lengths(column: Any) -> Int64s:
    if not isinstance(column, Ragged):
        raise TypeError("truncate needs rows of token ids, which are one Ragged")
    return column.lengths


def _kept(name: str, most: int | None, lengths: Int64s, side: str) -> tuple[Int64s, Int64s]:
    """Which elements of each row stay: the first of them, and how many."""
    if most is None:
        return np.zeros_like(lengths), lengths
    kept = np.minimum(lengths, _check.positive(name, most, least=0))
    return (lengths - kept if side == "left" else np.zeros_like(lengths)), kept


def _cut(column: Ragged, spans: _Spans) -> Ragged:
    """Spans of each row, one after the other; what a row is too short for (routes may be) is left out."""
    ends = column.lengths
    kept = [(np.minimum(begin, ends), np.minimum(begin + length, ends)) for begin, length in spans]
    begins = np.stack([column.offsets[:-1] + begin for begin, _ in kept], axis=1).reshape(-1)
    lengths = np.stack([end - begin for begin, end in kept], axis=1).reshape(-1)
    values, offsets = gathered(column._held, begins, lengths, copy=True)
    return trusted(values, np.ascontiguousarray(offsets[:: len(spans)]))


def _warn_lost(before: Ragged, after: Ragged) -> None:
    lost = np.count_nonzero(before._host("truncate", before.flat)) - np.count_nonzero(after._host("truncate"))
    if lost:
        warn(f"truncate cuts off {lost:,} rewards other than 0")

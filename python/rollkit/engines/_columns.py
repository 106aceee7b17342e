"""Columns that more than one engine sends, made of what each calls them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from rollkit import _check
from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._frameworks import AnyArray, as_array, is_array
from rollkit._rollouts.columns import Column, mask_column
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.parts import gathered
from rollkit._rows.ragged import Ragged, trusted
from rollkit.engines._fields import FLOAT32, UINT8, check_lengths, field, in_all, word

Version = Callable[[Any], int]


def rollouts_of(columns: dict[str, Any], rewards: Any, masks: Any) -> Rollouts:
    """The columns, with what the caller adds to them, as rollouts."""
    lengths = columns["response_ids"].lengths
    if rewards is not None:
        columns["rewards"] = _per_row_or_token("rewards", rewards, lengths)
    if masks is not None:
        found = _per_row_or_token("masks", masks, lengths)
        found = found if isinstance(found, Ragged) else per_token(found, lengths)
        with at(column="loss_masks", label="masks"):
            columns["loss_masks"] = mask_column(
                found if found.dtype.kind not in "iu" else found.astype(UINT8)
            )
    return Rollouts({name: columns[name] for name in sorted(columns, key=_order)})


_ORDER = ("prompt_token_ids", "response_ids", "loss_masks", "rewards", "rollout_logprobs")


def _order(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _per_row_or_token(name: str, given: Any, lengths: Int64s) -> Column:
    """One number a row, or a row of them, one a token."""
    rows: Any = as_array(given)
    if not isinstance(rows, Ragged | np.ndarray | list | tuple):
        rows = _check.items(name, rows)
    count = rows.shape[0] if isinstance(rows, np.ndarray) and rows.ndim else None
    count = len(rows) if count is None and not isinstance(rows, np.ndarray) else count
    if count is None:
        raise TypeError(f"{name} must have one entry per row, got a 0-D array")
    if count != len(lengths):
        raise ValueError(f"{name} has {count} rows, there are {len(lengths)}")
    nested = isinstance(rows, list | tuple) and any(
        isinstance(row, list | tuple) or _is_row(row) for row in rows
    )
    if nested or isinstance(rows, Ragged) or (isinstance(rows, np.ndarray) and rows.ndim > 1):
        dtype = FLOAT32 if name == "rewards" else None
        with at(column=name, label=name):
            found = rows if isinstance(rows, Ragged) else Ragged.from_rows(rows, dtype)
        check_lengths(name, found.lengths, lengths)
        return found
    if name == "rewards":
        return _check.floats(name, rows).astype(FLOAT32)
    one = _check.host(name, rows)
    if one.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got {one.dtype}")
    return one


def _is_row(row: Any) -> bool:
    return is_array(row) and bool(row.ndim)


def per_token(entries: Any, lengths: Int64s) -> Ragged:
    """An entry of each row, for each of its tokens."""
    offsets = np.append(0, np.cumsum(lengths))
    return Ragged(np.repeat(np.asarray(entries), lengths), offsets)


def split(rows: Ragged, firsts: Int64s) -> tuple[Ragged, Ragged]:
    """The beginning of each row, as long as `firsts` says, and the rest."""
    begins = rows.offsets[:-1]
    head = gathered(rows.values, begins, firsts, copy=True)
    tail = gathered(rows.values, begins + firsts, rows.lengths - firsts, copy=True)
    return trusted(*head), trusted(*tail)


def stop_reasons(columns: dict[str, Any], name: str, reasons: Sequence[Any]) -> None:
    """Add why rows ended."""
    words = [word(reason) for reason in reasons]
    if in_all("stop_reasons", name, words):
        columns["stop_reasons"] = words


def lists(column: str, name: str, found: Sequence[Any], lengths: Int64s) -> Any:
    """A list of ids for each token: nested lists, or ids end to end with offsets, or with counts."""
    rows = [_lists_of(column, row, value) for row, value in enumerate(found)]
    check_lengths(column, [len(row) for row in rows], lengths)
    return rows


def _lists_of(column: str, row: int, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return value
    ids, offsets = field(value, "token_ids"), field(value, "offsets")
    if ids is None:
        ids, counts = field(value, "ids"), field(value, "counts")
        offsets = None if counts is None else np.append(0, np.cumsum(_check.int64s("counts", counts)))
    if ids is None or offsets is None:
        text = f" is {type(value).__name__}; expected a list of ids per token, or ids and their offsets"
        raise refusal(TypeError, text, column=column, row=row)
    flat, bounds = _check.int64s("token_ids", ids).tolist(), _check.int64s("offsets", offsets).tolist()
    whole = bool(bounds) and (bounds[0], bounds[-1]) == (0, len(flat))
    if not whole or any(a > b for a, b in pairwise(bounds)):
        text = f" has offsets that do not cover its {len(flat)} ids, from 0 on and never falling"
        raise refusal(ValueError, text, column=column, row=row)
    return [flat[a:b] for a, b in pairwise(bounds)]


def top(counts: list[Int64s], ids: AnyArray, logprobs: AnyArray, most: int) -> dict[str, Ragged]:
    """The `most` likeliest tokens of each, of which there may be more: ids and log-probabilities.

    Args:
        counts: for each row, how many there are of each token.
        ids: of all, end to end.
        logprobs: of all, end to end.
        most: how many to take.
    """
    lengths = np.array([len(row) for row in counts], np.int64)
    every = np.concatenate([*counts, np.empty(0, np.int64)])
    few = np.flatnonzero(every < most)
    offsets = np.append(0, np.cumsum(lengths))
    if len(few):
        row = int(np.searchsorted(offsets, few[0], side="right")) - 1
        text = f": {every[few[0]]} log-probabilities, top_logprobs={most}; ask the engine for as many"
        raise refusal(ValueError, text, column="top_logprobs", row=row, position=few[0] - offsets[row])
    begins = np.cumsum(every) - every
    # Stable: of equals the first, as the engine has them.
    order = np.lexsort((-logprobs, np.repeat(np.arange(len(every)), every)))
    chosen = order[begins[:, None] + np.arange(most)]
    return {
        "top_logprob_ids": Ragged(ids[chosen].astype(np.int32), offsets),
        "top_logprobs": Ragged(logprobs[chosen].astype(np.float32), offsets),
    }


def versions(columns: dict[str, Any], name: str, found: Sequence[Any], version: Version | None) -> None:
    """Add which weights sampled each token: of spans of tokens, or of one label a row.

    Labels are texts. They are numbers in all rows, or are made ones by `version`; where none is a number the
    column is left out, as engines that were told no version say "default".
    """
    if not in_all("model_versions", name, found):
        return
    lengths = columns["response_ids"].lengths
    spans = [_spans(row, value, int(lengths[row])) for row, value in enumerate(found)]
    labels = {label for row in spans for label, _ in row}
    if version is not None and not callable(version):
        raise TypeError(f"version must be a function of a label, got {type(version).__name__}")
    numbers = {label: _number(label) if version is None else version(label) for label in labels}
    if version is None and all(number is None for number in numbers.values()):
        return
    for row, labelled in enumerate(spans):
        for label, _ in labelled:
            if not isinstance(numbers[label], int | np.integer):
                text = f": {label!r} is no number, others are; pass version=, which makes one of a label"
                if version is not None:
                    text = f": version makes {numbers[label]!r} of {label!r}, expected an int"
                raise refusal(ValueError, text, column="model_versions", row=row)
    flat = [(numbers[label], count) for row in spans for label, count in row]
    values = np.array([number for number, _ in flat], np.int64)
    counts = np.array([count for _, count in flat], np.int64)
    offsets = np.append(0, np.cumsum(lengths))
    columns["model_versions"] = Ragged(np.repeat(values, counts), offsets).astype(np.int32)


def _number(label: Any) -> int | None:
    if isinstance(label, int | np.integer) and not isinstance(label, bool):
        return int(label)
    return int(label) if isinstance(label, str) and label.isascii() and label.isdigit() else None


def _spans(row: int, found: Any, tokens: int) -> list[tuple[Any, int]]:
    """Labels, and how many tokens each is of."""
    if not isinstance(found, list | tuple):
        return [(found, tokens)]
    spans: list[tuple[Any, int]] = []
    begin = 0
    for span in found:
        label, start, end = (
            span
            if isinstance(span, list | tuple) and len(span) == 3
            else [field(span, name) for name in ("version", "start", "end")]
        )
        if not isinstance(end, int) or start != begin or end < begin:
            break
        spans.append((label, end - begin))
        begin = end
    else:
        if begin == tokens:
            return spans
    text = f" has spans that do not cover its {tokens} tokens one after the other: {found!r}"
    raise refusal(ValueError, text[:200], column="model_versions", row=row)

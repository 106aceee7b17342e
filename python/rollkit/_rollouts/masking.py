"""Which tokens count: masks of truncated rows and of groups without a signal, rewards on tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollkit import _check
from rollkit._errors import refusal
from rollkit._rollouts.loss_masks import loss_masks_of
from rollkit._rollouts.rewards import last_tokens
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.scores import Ignored, scores
from rollkit._rollouts.sources import Source, as_rollouts
from rollkit._rollouts.stops import Words, finished
from rollkit._rollouts.truncate import CUT
from rollkit._rollouts.validate import check_lengths
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, place_parts
from rollkit._rows.place import place
from rollkit._rows.ragged import Ragged

_FLOAT32 = np.dtype(np.float32)


def mask_overlong(rollouts: Source | Sequence[Source], *, keep: Words = (), cut: Words = ()) -> Rollouts:
    """Mask rows whole that the engine cut off, by their stop reason, or `Rollouts.truncate` since.

    DAPO's overlong filtering (Yu et al. 2025, arXiv:2503.14476, section 3.4), by stop reason, so that it
    depends on no tokenizer; what `truncate` cut of a response has its count in `truncated_response_tokens`.

    Args:
        rollouts: `Rollouts`, a dict or a sequence of them, with a column `stop_reasons`.
            The words of vLLM, SGLang (of its dicts the `"type"`), OpenAI, Anthropic, TGI, TensorRT-LLM and
            llama.cpp are known, in any case; docs/rollouts.md lists them.
        keep: more stop reasons of finished rollouts, None among them; it wins over what is known.
        cut: more stop reasons of rollouts that were cut off.

    Returns:
        Rollouts with new `loss_masks`; the other columns are shared, and the input is as it was.

    Raises:
        KeyError: a column is missing.
        ValueError: a stop reason is not known; its row is named.

    Example:
        >>> rollouts = Rollouts({
        ...     "response_ids": [[1, 2], [3]],
        ...     "loss_masks": [[1, 1], [1]],
        ...     "stop_reasons": ["length", "stop"],
        ... })
        >>> mask_overlong(rollouts)["loss_masks"].to_list()
        [[0, 0], [1]]
    """
    rollouts = as_rollouts(rollouts)
    kept = finished(rollouts["stop_reasons"], keep=keep, cut=cut)
    if CUT in rollouts:
        kept = kept & (np.asarray(rollouts[CUT]) == 0)
    return rollouts.with_columns(loss_masks=keep_rows(loss_masks_of(rollouts), kept))


def soft_overlong_penalty(
    rollouts: Source | Sequence[Source], *, max_length: int, cache: int, factor: float = 1.0
) -> Rollouts:
    """Take from the reward of responses that are nearly too long, ever more the longer they are.

    DAPO's soft overlong punishment (Yu et al. 2025, arXiv:2503.14476, equation 13): of a response of n
    tokens, 0 where n is at most `max_length - cache`, from there falling evenly to -`factor` at `max_length`,
    and that beyond.

    Args:
        rollouts: `Rollouts`, a dict or a sequence of them, with columns `response_ids` and `rewards`: one per
            row, or one per token, of which the last is changed.
        max_length: the tokens a response may have (verl's `max_response_length`).
        cache: the tokens before that in which the penalty grows (verl's `overlong_buffer.len`).
        factor: the most that is taken (verl's `overlong_buffer.penalty_factor`).

    Returns:
        Rollouts with new `rewards`; the other columns are shared, and the input is as it was. A reward of
        None stays None.

    Raises:
        KeyError: a column is missing.
        ValueError: `cache` is not from 1 to `max_length`, or `factor` below 0 or not finite.

    Example:
        >>> rollouts = Rollouts({"response_ids": [[7] * 4, [7] * 7, [7] * 8], "rewards": [1.0, 1.0, 0.0]})
        >>> soft_overlong_penalty(rollouts, max_length=8, cache=4)["rewards"]
        array([ 1.  ,  0.25, -1.  ])
    """
    max_length, cache = _check.positive("max_length", max_length), _check.positive("cache", cache)
    if cache > max_length:
        raise ValueError(f"cache must be at most max_length, {max_length}, got {cache}")
    factor = _check.finite("factor", factor)
    if factor < 0:
        raise ValueError(f"factor must be 0 or more, got {factor}")
    rollouts = as_rollouts(rollouts)
    lengths = rollouts.ragged("response_ids").lengths
    penalty = np.clip((max_length - cache - lengths) / cache, -1.0, 0.0) * factor
    rewards = rollouts["rewards"]
    if isinstance(rewards, list):
        changed: Any = [r if r is None else r + p for r, p in zip(rewards, penalty.tolist(), strict=True)]
    elif not isinstance(rewards, Ragged):
        changed = np.asarray(rewards) + penalty
    else:
        check_lengths("rewards", rewards.lengths, lengths)
        ends = rewards.offsets[1:] - rewards.offsets[0] - 1
        filled = lengths > 0
        flat = rewards.flat.astype(np.result_type(rewards.dtype, np.float32))
        flat[ends[filled]] += penalty[filled]
        changed = Ragged(flat, rewards.offsets - rewards.offsets[0])
    return rollouts.with_columns(rewards=changed)


def mask_zero_variance(
    rollouts: Source | Sequence[Source],
    by: str | ArrayLike | Iterable[Any] = "instance_ids",
    *,
    tol: float = 0.0,
    ignore: Ignored = None,
) -> Rollouts:
    """Mask groups whole whose rewards are all equal: their group-relative advantages are all zero.

    SkyRL's zero-variance filter, and the rule of DAPO's dynamic sampling (Yu et al. 2025, arXiv:2503.14476,
    section 3.2). A group of one is kept. Rewards are compared, where SkyRL asks whether their standard
    deviation is 0, which rounding may keep it from (three rewards of 0.1).

    Rows that are steps of one trajectory count as one, by the reward of their last row; see `advantages`.

    Args:
        rollouts: `Rollouts`, a dict or a sequence of them, with a column `rewards` (rewards per token are
            summed).
        by: what groups share: a column's name, or one id per row.
        tol: rewards this far apart count as equal.
        ignore: rollouts that are compared with none, as in `advantages`: with `"masked"`, a truncated one
            makes no group look varied. They stay as they are, and so does a group with one left.

    Returns:
        Rollouts with new `loss_masks`; the other columns are shared, and the input is as it was.

    Raises:
        KeyError: a column is missing.
        ValueError: `by` has another number of ids than there are rows; with column and row: rows of one
            trajectory are not adjacent, or of two groups, or the last is not its last step; a reward is NaN
            or infinite.

    Warns:
        UserWarning: every group has one rollout.

    Example:
        >>> rollouts = Rollouts({
        ...     "response_ids": [[1], [2], [3], [4]],
        ...     "loss_masks": [[1], [1], [1], [1]],
        ...     "rewards": [1.0, 1.0, 0.0, 1.0],
        ...     "instance_ids": ["a", "a", "b", "b"],
        ... })
        >>> mask_zero_variance(rollouts)["loss_masks"].to_list()
        [[0], [0], [1], [1]]
    """
    rollouts = as_rollouts(rollouts)
    masks = loss_masks_of(rollouts)
    tol = _check.number("tol", tol)
    known = scores(rollouts, by, ignore)
    groups = known.groups
    flat = (groups.sizes > 1) & ~known.differ(tol)
    return rollouts.with_columns(loss_masks=keep_rows(masks, ~known.of_rows(flat[groups.ids], False)))


def mask_stale(rollouts: Source | Sequence[Source], current: int, most: int) -> Rollouts:
    """Mask the tokens that weights sampled which are too old by now: asynchronous rollouts.

    Args:
        rollouts: `Rollouts`, a dict or a sequence of them, with a column `model_versions`: of each response
            token, the number of the weights that sampled it; below 0 where none did (observations).
        current: the number of the weights that are trained now.
        most: how many versions older a token may be at most.

    Returns:
        Rollouts with new `loss_masks`; the other columns are shared, and the input is as it was.

    Raises:
        KeyError: a column is missing.
        ValueError: a version is newer than `current`, or the rows are of another length than the masks.

    Example:
        >>> rollouts = Rollouts({"response_ids": [[1, 2], [3]], "model_versions": [[3, 5], [4]]})
        >>> mask_stale(rollouts, current=5, most=1)["loss_masks"].to_list()
        [[0, 1], [1]]
    """
    rollouts = as_rollouts(rollouts)
    masks, versions = loss_masks_of(rollouts), rollouts.ragged("model_versions")
    if versions.inner:
        text = f"expected a version per token, got elements of shape {versions.inner}"
        raise refusal(ValueError, text, column="model_versions")
    current, most = _check.integer("current", current), _check.positive("most", most, least=0)
    if (odd := versions.lengths != masks.lengths).any():
        row = int(odd.argmax())
        text = f" has {versions.lengths[row]} elements, its mask has {masks.lengths[row]}"
        raise refusal(ValueError, text, column="model_versions", row=row)
    found = versions.flat
    if (odd := found > current).any():
        at = int(odd.argmax()) + int(versions.offsets[0])
        row = int(np.searchsorted(versions.offsets, at, side="right")) - 1
        text = f": version {found[odd][0]} is newer than current={current}"
        position = at - int(versions.offsets[row])
        raise refusal(ValueError, text, column="model_versions", row=row, position=position)
    stale = (found >= 0) & (current - found.astype(np.int64) > most)
    offsets = masks.offsets - masks.offsets[0]
    return rollouts.with_columns(loss_masks=Ragged(np.where(stale, masks.dtype.type(0), masks.flat), offsets))


def spread_rewards(rollouts: Source | Sequence[Source]) -> Rollouts:
    """Turn a reward per row into one per response token: zeros, with the reward on the last token.

    Rewards that are per token already stay as they are.

    Args:
        rollouts: `Rollouts`, a dict or a sequence of them, with columns `response_ids` and `rewards`.

    Returns:
        Rollouts whose `rewards` are a float32 `Ragged`; the other columns are shared.

    Raises:
        KeyError: a column is missing.
        ValueError: a row has a reward and no token to put it on.

    Example:
        >>> rollouts = Rollouts({"response_ids": [[1, 2, 3], [4]], "rewards": [0.5, -1.0]})
        >>> spread_rewards(rollouts)["rewards"].to_list()
        [[0.0, 0.0, 0.5], [-1.0]]
    """
    rollouts = as_rollouts(rollouts)
    rewards, responses = rollouts["rewards"], rollouts.ragged("response_ids")
    if isinstance(rewards, Ragged):
        return rollouts
    scalars = np.asarray(rewards)
    rows = Layout.concat(responses.lengths)
    values = place_parts(Parts.one_each(scalars), last_tokens(scalars, rows), 0.0, dtype=_FLOAT32)
    return rollouts.with_columns(rewards=Ragged(values, rows.offsets()))


def keep_rows(masks: Ragged, kept: NDArray[np.bool_]) -> Ragged:
    """A copy in which rows that are not kept are zeros: to the kernel, rows without a place."""
    rows = Layout.concat(masks.lengths)
    return Ragged(place(masks, rows.kept(kept), 0), rows.offsets())


def on_tokens(per_row: NDArray[Any], masks: Ragged) -> Ragged:
    """A number of each row on those of its tokens whose mask is not 0, which all others get."""
    values = np.repeat(per_row, masks.lengths)
    np.copyto(values, 0, where=masks.flat == 0)  # half the time of np.where
    return Ragged(values, masks.offsets - masks.offsets[0])

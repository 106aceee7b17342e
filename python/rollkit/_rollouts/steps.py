"""Agent turns to whole trajectories: `merge_steps`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit import _native
from rollkit._check import Int64s
from rollkit._rollouts.columns import take_column
from rollkit._rollouts.fields import fill_of
from rollkit._rollouts.other_masks import warn_of_other_masks
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.sources import Source, Sources
from rollkit._rollouts.trajectories import task_ends
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, place_parts
from rollkit._rows.ragged import Ragged, trusted


def merge_steps(rollouts: Source | Sequence[Source], *, levels: Mapping[str, str] | None = None) -> Rollouts:
    """Merge the turns of each trajectory into one row where each continues the one before.

    A turn joins the row before it if its prompt begins with that row's prompt and response. What its
    prompt has beyond them is an observation: it becomes part of the response with mask, log-probability
    and reward 0. A turn that does not continue the row starts a new one. Prompts are compared where they
    are, and no context is rebuilt: the time is that of reading them.

    Args:
        rollouts: one row per turn, the turns of a trajectory in order and next to each other. Where a
            trajectory ends says `is_last_step`, or else a change of `trajectory_ids`.
        levels: what columns have an element for, where their names do not say it: `"prompt"`,
            `"response"` or `"sequence"` tokens, or `"row"`.

    Returns:
        Rollouts with the prompt of a row's first turn; every column per response token, 0 where an
        observation is; `loss_masks` of that where neither these nor `labels` are given, 1 on all else;
        columns per token of prompt and response (`rollout_expert_indices`), each turn giving what the turns
        before it lack; and of all columns per row (a scalar reward, the stop reason, `is_last_step`, ids)
        the entry of the row's last turn.

    Raises:
        ValueError: no column says where trajectories end, or `is_last_step` is not where `trajectory_ids`
            end; rows of one trajectory are not adjacent, or of two `instance_ids`; or a column's rows are
            of another length than their tokens (column and row are named).

    The rule is that of SkyRL's prefix-aware merging (pull request 1532), which refuses routed experts.

    Example:
        >>> merged = merge_steps({
        ...     "prompt_token_ids": [[1, 2], [1, 2, 3, 8]],
        ...     "response_ids": [[3], [4, 5]],
        ...     "loss_masks": [[1], [1, 1]],
        ...     "is_last_step": [False, True],
        ... })
        >>> merged["prompt_token_ids"].to_list(), merged["response_ids"].to_list()
        ([[1, 2]], [[3, 8, 4, 5]])
        >>> merged["loss_masks"].to_list()
        [[1, 0, 1, 1]]
    """
    sources = Sources.of(rollouts, levels)
    if sources.prompts is None:
        raise ValueError("merging needs the columns 'prompt_token_ids' and 'response_ids'")
    dtype = np.result_type(sources.prompts.dtype, sources.responses.dtype)
    dtype = dtype if dtype.kind in "iu" else np.dtype(np.int64)  # NumPy makes float64 of int64 and uint64
    prompts, responses = sources.prompts.astype(dtype), sources.responses.astype(dtype)
    joined = _native.joined_steps(
        prompts.buffers, prompts.lengths, responses.buffers, responses.lengths, _first_steps(sources)
    )
    firsts = np.flatnonzero(~joined)

    known = prompts.lengths + responses.lengths
    observed = np.where(joined, prompts.lengths - _before(known), 0)
    ends = _native.offsets_from_lengths(observed + responses.lengths)
    shape = (int(ends[-1]),)
    # One after the other, so that they are layouts without a look at them.
    observations = Layout._trusted(shape, ends[:-1], observed, observed)
    acted = Layout._trusted(shape, ends[:-1] + observed, responses.lengths, responses.lengths)
    offsets = np.append(ends[firsts], ends[-1])

    seen = Parts.join([prompts.spans(_before(known) * joined, observed), responses])
    columns: dict[str, Any] = {
        "prompt_token_ids": _end_to_end(prompts, ~joined * prompts.lengths, firsts),
        "response_ids": trusted(place_parts(seen, Layout.union([observations, acted]), 0), offsets),
    }
    for name, parts in sources.tokens.items():
        level = sources.level(name)
        if level == "response":
            columns[name] = trusted(place_parts(parts, acted, fill_of(name)), offsets)
        elif level == "prompt":
            columns[name] = _end_to_end(parts, ~joined * parts.lengths, firsts)
        else:
            carried = joined * _before(_most_so_far(parts.lengths, joined))
            new = np.maximum(parts.lengths - carried, 0)
            columns[name] = _end_to_end(parts, new, firsts, parts.lengths - new)
    if sources.tokens.keys().isdisjoint(("loss_masks", "labels")):  # else these say what was observed
        warn_of_other_masks(sources.names)
        masks = place_parts(Parts.of_one(1, responses.lengths), acted, 0)
        columns["loss_masks"] = trusted(masks, offsets)
    lasts = np.append(firsts[1:], len(joined))[: len(firsts)] - 1
    for name, entries in sources.rows.items():
        columns[name] = take_column(entries, lasts)
    return Rollouts._trusted(columns)


def _first_steps(sources: Sources) -> NDArray[np.bool_]:
    """`[steps]` bool: the step is the first of its trajectory."""
    ends = task_ends(sources.rows, len(sources.lengths))
    if ends is None:
        raise ValueError(
            "merging needs a column 'is_last_step' or 'trajectory_ids', to know where trajectories end"
        )
    return np.append(np.ones(1, bool), ends)[: len(ends)]


def _before(values: Int64s) -> Int64s:
    """The value of the step before; 0 before the first."""
    before = np.zeros_like(values)
    before[1:] = values[:-1]
    return before


def _most_so_far(lengths: Int64s, joined: NDArray[np.bool_]) -> Int64s:
    """The longest of each step and those before it in its row.

    A step that adds nothing and lacks the route of its last token has less than the step before.
    """
    # Each row is lifted above the rows before it, so that one running maximum serves them all.
    lift = np.cumsum(~joined) * (lengths.max(initial=0) + 1)
    most: Int64s = np.maximum.accumulate(lengths + lift) - lift
    return most


def _end_to_end(parts: Parts, lengths: Int64s, firsts: Int64s, begins: Int64s | None = None) -> Ragged:
    """Lay a part of each step end to end, as rows that begin at the first steps."""
    spans = parts.spans(np.zeros_like(lengths) if begins is None else begins, lengths)
    return Ragged.laid(spans, Layout.concat(lengths), firsts)

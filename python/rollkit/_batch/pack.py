"""Rollouts to training batches: `pad` and `pack`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, DTypeLike

from rollkit import _check
from rollkit._batch.batch import Batch
from rollkit._batch.fill import fill
from rollkit._batch.plan import planned, shares
from rollkit._rollouts.names import Names, check_names
from rollkit._rollouts.sources import Source, Sources
from rollkit._rows.binpack import Packing
from rollkit._rows.layout import Layout

if TYPE_CHECKING:
    from rollkit._rows.trees import TreeLayout


def pack(
    rollouts: Source | Sequence[Source],
    capacity: int | None = None,
    *,
    rows: ArrayLike | None = None,
    pad_id: int = 0,
    layout: Layout | TreeLayout | None = None,
    algorithm: str = "first_fit_decreasing",
    align: int = 1,
    max_segments: int | None = None,
    bins_multiple_of: int = 1,
    bins: int | None = None,
    oversize: str = "raise",
    order: str = "opened",
    seed: int | None = None,
    share_prefixes: bool = False,
    groups: str | ArrayLike | Sequence[Any] | None = None,
    match: str | Sequence[str] = (),
    fills: Mapping[str, Any] | None = None,
    dtypes: Mapping[str, DTypeLike] | None = None,
    levels: Mapping[str, str] | None = None,
    names: Names = "rollkit",
    validate: bool = False,
    out: Batch | None = None,
) -> Batch:
    """Pack rollouts into bins of `capacity` tokens: `[bins, capacity]`.

    Args:
        rollouts: `Rollouts`, a `GeneratorOutput`-shaped dict, or a sequence of them whose rows count
            through. Nothing is joined first: tokens go from their buffers to the batch in one write.
        capacity: tokens of a bin (or give `layout`).
        rows: the numbers of the rollouts to take, counted through the parts, in that order; all by default.
            Their tokens are not copied first.
        pad_id: the token id of padding.
        layout: a plan made before, of the rollouts' lengths (prompt and response); one row a number where
            there are `rows`. A `TreeLayout`, as `Forest.pack` makes it, is a batch that shares prefixes: of
            rollouts whose tokens are the same wherever it has them share one.
        algorithm: see `plan_bins`.
        align: each rollout starts at a multiple of this within its bin.
        max_segments: at most that many rollouts in a bin.
        bins_multiple_of: empty bins are added up to a multiple of this.
        bins: exactly so many bins, empty ones at the end: one shape for all batches.
        oversize: what becomes of a rollout longer than `capacity`; see `Layout.pack`. A scalar reward of
            one whose response is cut off whole is left out with it, and a warning says how many. Of one in
            pieces (`"split"`) it is on the last token, in whichever bin that is; `unpack` gives whole rows.
        order: of bins, `"opened"` or `"shuffled"`, by `seed`; see `Layout.pack`. `rows` are not reordered.
        seed: of the shuffled order.
        share_prefixes: lay once what rollouts share of their beginnings (`Forest`): see below.
        groups: the column, or an entry per rollout: only rollouts of one group share tokens.
        match: columns per token of prompt and response that must be the same for a token to be shared.
        fills: what padding holds, by column; 0 unless given (`labels`: -100), but of routes experts
            0 … topk - 1, for the tokens without one too, which `route_masks` marks by 1.
        dtypes: by array name; int32 ids, uint8 masks, float32 and int64 labels unless given.
        levels: what columns have an element for, where their names do not say it: `"prompt"`,
            `"response"` or `"sequence"` tokens, or `"row"`.
        names: what the arrays are called, and their dtypes with it: a word or `{old: new}`, as
            `Batch.rename` takes it.
        validate: refuse values that no rollout has, as `Rollouts.validate` does (a NaN log-probability, a
            negative id), which are kept else.
        out: a batch whose memory is filled again, where it is large enough.

    Returns:
        A batch with `input_ids` (prompt, then response), `segment_ids`, `positions`, `loss_masks` (where
        none are given, those of `labels`, or 0 on the prompt and 1 on responses), `rewards` per token (a
        scalar lands on the last token), and every other column that has an element per response token, per
        prompt token or per token.

        With `share_prefixes` its arrays are `input_ids`, `positions`, `segment_ids` (of trees), and
        `visible_until`, `predecessors` and `multiplicity` of its layout, a `TreeLayout`. A token that several
        rollouts have may have other masks and advantages in each, so all other columns per token are among
        `batch.rows`: an element per token of prompt and response, as `unpack` gives them of any batch. A
        scalar reward stays one. There are no labels; `next_token_logprobs` scores each token once. A warning
        says where rows share a token and have other experts for it, and that images may differ.

    Raises:
        ValueError: rows of a column are of another length than their tokens; column and row are named. Or
            a layout is of other rows.
        OverflowError: a number does not fit its dtype; likewise.

    Example:
        >>> batch = pack(
        ...     {
        ...         "prompt_token_ids": [[1, 2], [3]],
        ...         "response_ids": [[4], [5, 6]],
        ...         "loss_masks": [[1], [0, 1]],
        ...         "rewards": [1.0, -1.0],
        ...     },
        ...     capacity=8,
        ... )
        >>> batch["input_ids"]
        array([[1, 2, 4, 3, 5, 6, 0, 0]], dtype=int32)
        >>> batch["loss_masks"]
        array([[0, 0, 1, 0, 0, 1, 0, 0]], dtype=uint8)
        >>> batch["rewards"]
        array([[ 0.,  0.,  1.,  0.,  0., -1.,  0.,  0.]], dtype=float32)
        >>> batch["segment_ids"]
        array([[1, 1, 1, 2, 2, 2, 0, 0]], dtype=int32)
        >>> rows = {"prompt_token_ids": [[1, 2], [1, 2]], "response_ids": [[4], [5, 6]]}
        >>> batch = pack(rows, capacity=6, share_prefixes=True)
        >>> batch["input_ids"], batch["predecessors"]
        (array([[1, 2, 4, 5, 6, 0]], dtype=int32), array([[-1,  0,  1,  1,  3, -1]]))
        >>> batch.unpack("input_ids").to_list(), batch.rows["loss_masks"].to_list()
        ([[1, 2, 4], [1, 2, 5, 6]], [[0, 0, 1], [0, 0, 1, 1]])
    """
    check_names(names)
    sources = Sources.of(rollouts, levels, rows)
    if _check.flag("validate", validate):
        sources.check_values()
    packing: Packing = {
        "algorithm": algorithm,
        "align": align,
        "max_segments": max_segments,
        "bins_multiple_of": bins_multiple_of,
        "oversize": oversize,
        "order": order,
        "seed": seed,
    }
    if shares(share_prefixes, layout, groups, match):
        from rollkit._batch.shared import fill_shared, planned_trees  # with it come forests

        sources = sources.in_order()
        trees = planned_trees("pack", sources, capacity, layout, bins, groups, match, **packing)
        return fill_shared(sources, trees, pad_id, fills, dtypes, out, names, check=layout is not None)
    plan = planned("pack", sources, capacity, layout, bins, **packing)
    return fill(sources, plan, pad_id, fills, dtypes, out, names)


def pad(
    rollouts: Source | Sequence[Source],
    *,
    rows: ArrayLike | None = None,
    pad_id: int = 0,
    side: str = "left",
    width: int | None = None,
    multiple_of: int = 1,
    fills: Mapping[str, Any] | None = None,
    dtypes: Mapping[str, DTypeLike] | None = None,
    levels: Mapping[str, str] | None = None,
    names: Names = "rollkit",
    validate: bool = False,
    out: Batch | None = None,
) -> Batch:
    """Pad rollouts to a rectangle, one per line: `[rows, width]`.

    Args are those of `pack`, and:
        side: where the padding goes, `"left"` or `"right"`.
        width: of the rectangle; the longest rollout's by default.
        multiple_of: the width is rounded up to a multiple of this.

    Returns:
        A batch as `pack` makes it, with an `attention_mask` (uint8) besides.

    Example:
        >>> batch = pad({"prompt_token_ids": [[1, 2], [3]], "response_ids": [[4], [5]]}, pad_id=9)
        >>> batch["input_ids"]
        array([[1, 2, 4],
               [9, 3, 5]], dtype=int32)
        >>> batch["attention_mask"]
        array([[1, 1, 1],
               [0, 1, 1]], dtype=uint8)
    """
    check_names(names)
    sources = Sources.of(rollouts, levels, rows)
    if _check.flag("validate", validate):
        sources.check_values()
    layout = Layout.pad(sources.ordered(sources.lengths), side=side, width=width, multiple_of=multiple_of)
    return fill(sources, layout, pad_id, fills, dtypes, out, names, attention_mask=True)

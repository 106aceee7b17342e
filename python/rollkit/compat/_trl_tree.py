"""`tree_columns`: a batch that shares prefixes as `AsyncGRPOTrainer` takes it, as in TRL 1.16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rollkit import _check, _native
from rollkit._arrays.ops import ops_of
from rollkit._batch import Batch
from rollkit._batch.clip import token_column
from rollkit._check import Int64s
from rollkit._errors import refusal
from rollkit._frameworks import AnyArray
from rollkit._rollouts.forest import Forest
from rollkit._rollouts.labels import laid_of, tokens_of
from rollkit._rows.laid import counted
from rollkit._rows.layout import ABSENT, Layout
from rollkit._rows.place import place, take
from rollkit._rows.ragged import Ragged, trusted
from rollkit._rows.trees import TreeLayout
from rollkit.compat._features import tensors

IGNORED: Final = -100
LAST: Final = -1
"""What follows the last token of a row; no token is it."""

INT32_MAX: Final = 2**31 - 1


def tree_columns(
    batch: Batch,
    *,
    pad_id: int = 0,
    old_logprobs: str = "rollout_logprobs",
    advantages: str = "advantages",
    loss_masks: str = "loss_masks",
) -> dict[str, Any]:
    """Make what `AsyncGRPOTrainer`'s model and loss take: a line for each bin, a rank's `TreeRow`.

    Labels are shifted there, so a position has one. Rows therefore share a token only if they go on alike:
    trees fork one token earlier than in the batch, and a line has a token more for each branch, and for each
    row that ends where another goes on. Leave room for them in the batch's capacity.

    Args:
        batch: of `pack(share_prefixes=True)`. Its bins say which rows go together, and its trees what is
            shared at most. One of segments is taken, too: it shares nothing.
        pad_id: the token id of padding.
        old_logprobs: the column of the old log-probabilities, per token.
        advantages: the column of the advantages, per token.
        loss_masks: the column of 0 and 1: which tokens have a loss. A row's first token has none.

    Returns:
        Tensors on the CPU, padded to the longest line: those of `DataCollatorForRollout`, of `TreeRow`s to
        which the rows of each bin were added in input order.

        - `input_ids`, `position_ids`, `attention_mask`, `shift_labels`: `[bins, N]` int64.
        - `tree_kv_index`: `[bins, K]` int64; `tree_cu_seqlens_q`, `tree_cu_seqlens_k`: `[bins, S + 1]` int32;
          -1 in padding. `tree_max_seqlens`: `[bins, 2]` int64.
        - `token_index`, -1 in padding, and `segment_id`, the number of the row in its bin: `[bins, M]` int64;
          `old_log_probs` and `advantages`: `[bins, M]` float32. An entry for each token and row with a loss.
        - `global_n_tokens`, `global_n_forward_tokens`, `mean_seq_len`: `[bins]` float32, the same in each.

    Raises:
        ValueError: a bin or a row is empty, which `TreeRow` cannot be; a mask is neither 0 nor 1; the batch
            lacks a column.
        TypeError: this is no batch, or a column is not per token.

    Source: `trl.experimental.async_grpo`: `TreeRow.pack` and `DataCollatorForRollout`.

    Example:
        >>> import rollkit
        >>> rows = {
        ...     "prompt_token_ids": [[1, 2], [1, 2]],
        ...     "response_ids": [[5, 6], [5, 7]],
        ...     "rollout_logprobs": [[-0.5, -1.0], [-0.5, -2.0]],
        ...     "advantages": [[1.0, 1.0], [-1.0, -1.0]],
        ... }
        >>> found = tree_columns(rollkit.pack(rows, capacity=8, share_prefixes=True))
        >>> found["input_ids"], found["shift_labels"]
        (tensor([[1, 2, 5, 6, 5, 7]]), tensor([[-100,    5,    6, -100,    7, -100]]))
        >>> found["token_index"], found["tree_kv_index"]
        (tensor([[1, 2, 1, 4]]), tensor([[0, 1, 0, 1, 2, 3, 0, 1, 4, 5]]))
    """
    layout = _tree_layout(batch)
    pad_id = _check.integer("pad_id", pad_id)
    named = {"old_logprobs": old_logprobs, "advantages": advantages, "loss_masks": loss_masks}
    columns = {name: _on_host(batch, name, column, layout) for name, column in named.items()}
    columns["input_ids"] = take(_host(tokens_of(batch, layout)), layout).astype(np.int64)
    order = np.argsort(layout.row_bins, kind="stable")  # the rows of each bin, in input order
    order = order[layout.row_bins[order] != ABSENT]
    lines = layout.row_bins[order]
    _check_lines(layout, order, lines)
    ids, old, gains, masks = (columns[name].take(order) for name in ("input_ids", *named))
    trees = _forked(layout, order, lines, ids)
    terms = _Terms.of(trees, masks, lines)
    made = {
        "input_ids": place(ids, trees, fill=pad_id),
        "position_ids": trees.positions().astype(np.int64),
        "attention_mask": trees.attention_mask().astype(np.int64),
        "shift_labels": terms.labels(ids.values, trees),
        **_paths(trees),
        "token_index": terms.in_lines(terms.before % trees.width, -1),
        "old_log_probs": terms.in_lines(old.values[terms.tokens].astype(np.float32)),
        "advantages": terms.in_lines(gains.values[terms.tokens].astype(np.float32)),
        "segment_id": terms.in_lines(terms.rows),
    }
    counts = len(terms.tokens), trees.num_placed, trees.num_placed / len(trees)
    for name, count in zip(
        ("global_n_tokens", "global_n_forward_tokens", "mean_seq_len"), counts, strict=True
    ):
        made[name] = np.full(trees.shape[0], count, np.float32)
    return tensors(made)


@dataclass(frozen=True, slots=True)
class _Terms:
    """The terms of the loss: a token of a row that is trained, and has one before it. Line after line.

    Attributes:
        tokens: `[M]`: of rows end to end, which elements they are.
        before: `[M]`: the flat places of the tokens before them, which predict them.
        rows: `[M]`: the numbers of their rows, from 0 in each line.
        counts: `[lines]`: the terms of each line.
    """

    tokens: Int64s
    before: Int64s
    rows: Int64s
    counts: Int64s

    @classmethod
    def of(cls, trees: TreeLayout, masks: Ragged, lines: Int64s) -> _Terms:
        trained = masks.values != 0
        trained[masks.offsets[:-1]] = False  # nothing predicts these
        tokens = np.flatnonzero(trained)
        of_row = np.searchsorted(masks.offsets, tokens, side="right") - 1
        first_rows = np.searchsorted(lines, lines)
        counts = np.bincount(lines[of_row], minlength=trees.shape[0])
        before = trees.gather_indices()[tokens - 1]
        return cls(tokens, before, (np.arange(len(lines)) - first_rows)[of_row], counts)

    def labels(self, ids: AnyArray, trees: TreeLayout) -> AnyArray:
        """What each place predicts, where a row has a loss on it."""
        found = np.full(trees.size, IGNORED)
        found[self.before] = ids[self.tokens]
        return found.reshape(trees.shape)

    def in_lines(self, values: AnyArray, fill: int = 0) -> AnyArray:
        """A value of each term, as lines of one width."""
        return _padded(values, self.counts, fill)


def _tree_layout(batch: Any) -> TreeLayout:
    if not isinstance(batch, Batch):
        raise TypeError(f"batch must be a Batch, got {type(batch).__name__}")
    if not isinstance(layout := laid_of(batch), TreeLayout):
        raise TypeError("batch must be one that shares prefixes: pack(..., share_prefixes=True) makes it")
    return layout


def _on_host(batch: Batch, called: str, name: Any, layout: TreeLayout) -> Ragged:
    values = _host(token_column(batch, called, name, per_row=called == "advantages"))
    if called == "loss_masks" and (odd := (values != 0) & (values != 1)).any():
        element, offsets = int(odd.argmax()), layout.row_offsets()
        row = int(np.searchsorted(offsets, element, side="right")) - 1
        text = f" is {values[element]}; a mask of TRL is 0 or 1"
        raise refusal(ValueError, text, column=name, row=row, position=element - int(offsets[row]))
    return trusted(values, layout.row_offsets())


def _host(values: Any) -> AnyArray:
    found: AnyArray = ops_of(values).to_host(values)
    return found


def _check_lines(layout: TreeLayout, order: Int64s, lines: Int64s) -> None:
    """Refuse what no `TreeRow` can hold."""
    bins = layout.shape[0]
    if (empty := np.bincount(lines, minlength=bins) == 0).any() or not bins:
        where = f"bin {empty.argmax()} has no row" if bins else "the batch has no bins"
        raise ValueError(f"{where}, and a rank that has nothing to compute holds up the others")
    if (empty := np.diff(layout.row_offsets())[order] == 0).any():
        raise refusal(ValueError, " is empty, which TRL has no place for", row=int(order[empty].min()))


def _forked(layout: TreeLayout, order: Int64s, lines: Int64s, ids: Ragged) -> TreeLayout:
    """The trees of a batch, a bin a line, each fork one token earlier: what shares a token goes on alike."""
    after = np.append(ids.values[1:], LAST)
    after[ids.offsets[1:] - 1] = LAST
    # What two rows share has one place in the batch.
    places = trusted(layout.gather_indices(), layout.row_offsets()).take(order)
    forest = Forest.build(places, match=[trusted(after, ids.offsets)])
    lengths, of_node = forest.ends - forest.begins, lines[forest.source_rows]
    ends = np.cumsum(lengths)
    used = np.diff(np.append(0, ends)[np.searchsorted(of_node, np.arange(layout.shape[0] + 1))])
    width = int(used.max())
    shift = np.arange(len(used)) * width - (np.cumsum(used) - used)
    nodes = Layout._trusted(
        (len(used), width),
        ends - lengths + shift[of_node],
        lengths,
        ids.lengths,
        None,
        forest.source_rows,
        forest.begins,
    )
    return TreeLayout._trusted(nodes, forest.parents, forest.leaf)


def _paths(trees: TreeLayout) -> dict[str, AnyArray]:
    """What `tree_attention` takes: of each node the keys along its path, and where its own and these end."""
    starts, lengths = trees.nodes.starts, trees.nodes.lengths
    offsets, begins, spans = _native.forest_paths(trees.parents, starts, lengths, np.arange(len(starts)))
    keys = np.diff(_native.offsets_from_lengths(spans)[offsets])
    first = np.searchsorted(starts, np.arange(trees.shape[0]) * trees.width)
    per_line = np.add.reduceat(keys, first)
    if per_line.max() > INT32_MAX:
        raise OverflowError(f"gathering along paths takes {per_line.max()} keys of a bin, beyond int32")
    longest = [np.maximum.reduceat(counts, first) for counts in (lengths, keys)]
    return {
        "tree_kv_index": _padded(counted(begins, spans) % trees.width, per_line, -1),
        "tree_cu_seqlens_q": _running(lengths, first),
        "tree_cu_seqlens_k": _running(keys, first),
        "tree_max_seqlens": np.stack(longest, 1),
    }


def _running(lengths: Int64s, first: Int64s) -> AnyArray:
    """0 and the running sum of the lengths of each line, int32."""
    sums = _native.offsets_from_lengths(lengths)
    counts = np.diff(np.append(first, len(lengths))) + 1
    found = sums[counted(first, counts)] - np.repeat(sums[first], counts)
    return _padded(found.astype(np.int32), counts, -1)


def _padded(values: AnyArray, counts: Int64s, fill: int) -> AnyArray:
    """Lines of some of the values each, padded on the right."""
    rows = trusted(values, _native.offsets_from_lengths(counts))
    found: AnyArray = place(rows, Layout.pad(counts, side="right"), fill=fill)
    return found

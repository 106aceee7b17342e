"""Turns that share their beginnings, each token stored once: `TokenTree`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit._check import Int64s, flag, host, mapping
from rollkit._errors import at
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import level_of
from rollkit._rollouts.fields import FIELDS, fill_of
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.dtypes import common
from rollkit._rows.growing import Growing
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts
from rollkit._rows.ragged import Ragged
from rollkit.forest._branches import Branches
from rollkit.forest._nodes import ROOT, Nodes
from rollkit.routing._join import common_dtype
from rollkit.routing._payload import Payload

TOKENS: Final = "token_ids"
ROUTES: Final = "rollout_expert_indices"
_WHOLE: Final = "rollkit.whole"


class TokenTree:
    """The turns of an agent, or of many that begin alike, as a tree of token spans.

    A turn is committed with its whole context as the prompt. What the tree has of it already is shared:
    only the tokens beyond the longest common prefix are stored, and of routes only their rows are decoded.
    A response is always a node of its own, so that two samples from one prompt stay two.

    Nodes are numbered; `parents`, `lengths` and `sampled` have one entry per node. A node that is split
    keeps its number, its beginning becomes a new one.

    Args:
        levels: `"response"` or `"sequence"`, by column: whether a turn gives an element for its response's
            tokens alone or for its prompt's too. Known names say it; of others it is decided by the lengths
            in the first turn.

    Example:
        >>> tree = TokenTree()
        >>> tree.commit([1, 2], [3], rollout_logprobs=[-0.5])
        1
        >>> tree.commit([1, 2, 3, 8], [4], rollout_logprobs=[-0.25])
        3
        >>> tree.commit([1, 2], [5], rollout_logprobs=[-2.0])
        4
        >>> branches = tree.branches()
        >>> branches["prompt_token_ids"].to_list(), branches["response_ids"].to_list()
        ([[1, 2], [1, 2]], [[3, 8, 4], [5]])
        >>> branches["loss_masks"].to_list(), branches["rollout_logprobs"].to_list()
        ([[1, 0, 1], [1]], [[-0.5, 0.0, -0.25], [-2.0]])
    """

    def __init__(self, levels: Mapping[str, str] | None = None) -> None:
        self._nodes = Nodes()
        self._levels = dict(mapping("levels", levels))
        # Every column has an element per stored token, so that a node is one span of all of them.
        self._columns: dict[str, Growing] = {TOKENS: Growing(np.dtype(np.int32), ())}
        self._whole: set[str] = set()  # columns that have an element for prompt tokens too

    @property
    def parents(self) -> Int64s:
        """`[nodes]` int64: each node's parent, -1 for a root."""
        return np.array(self._nodes.parents, np.int64)

    @property
    def lengths(self) -> Int64s:
        """`[nodes]` int64: the tokens of each node."""
        return np.array(self._nodes.lengths, np.int64)

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """`[nodes]` bool: the node is (the beginning or end of) a response."""
        return np.array(self._nodes.sampled, bool)

    @property
    def leaves(self) -> Int64s:
        """The nodes without children, one per branch, in the order of `branches`."""
        nodes = self._nodes
        return np.array([node for node in range(len(nodes)) if node not in nodes.children], np.int64)

    def commit(
        self,
        prompt_token_ids: Sequence[int] | AnyArray,
        response_ids: Sequence[int] | AnyArray,
        *,
        routes: AnyArray | Mapping[str, Any] | None = None,
        **columns: Any,
    ) -> int:
        """Add a turn.

        Args:
            prompt_token_ids: the whole context.
            response_ids: what was sampled.
            routes: of context and response, maybe without the last token's: an array, or a payload (see
                `decode_routes`). They may start where the new tokens do. A token of the context for which
                no turn before had routes takes them from this one.
            **columns: an element per response token (`rollout_logprobs`; `loss_masks`, 1 unless given), or
                per token of context and response. All turns have the same columns.

        Returns:
            The number of the turn's last node.

        Raises:
            ValueError: columns other than those of the turns before, or of other lengths; routes that leave
                out tokens, or are malformed. The tree is then as it was.
            OverflowError: a number that does not fit its column.

        Where several nodes match the prompt equally far, the newest is continued.
        """
        prompt, response = _row("prompt_token_ids", prompt_token_ids), _row("response_ids", response_ids)
        for name, row in (("prompt_token_ids", prompt), ("response_ids", response)):
            if row.ndim != 1:
                raise ValueError(f"{name}: expected one token after the other, got shape {row.shape}")
        columns.setdefault("loss_masks", np.ones(len(response), np.uint8))
        node, matched, within = self._nodes.match(self._columns[TOKENS].rows, prompt)
        count = len(prompt) - matched + len(response)
        if not count and node == ROOT:
            raise ValueError("the turn has no tokens")
        self._same_columns({TOKENS, *columns} | ({ROUTES} if routes is not None else set()))

        found = dict(self._columns)
        rows = {name: _row(name, value) for name, value in columns.items()}
        whole = {name for name, row in rows.items() if self._is_whole(name, row, prompt, response)}
        values = {TOKENS: np.concatenate([prompt[matched:], response])}
        for name, row in rows.items():
            values[name] = _new_elements(name, row, prompt, response, matched, name in whole)
        for name, new in values.items():
            found[name] = _with_room(name, found.get(name), new)
        captured = 0
        repairs: list[tuple[int, AnyArray]] = []
        if routes is not None:
            payload = Payload.of(routes)
            found[ROUTES], captured = _routes_with_room(payload, found.get(ROUTES), matched, count)
            repairs = list(self._repairs(payload, node, within))

        # From here on nothing fails.
        begin = self._columns[TOKENS].length
        self._columns, self._whole = found, self._whole | whole
        for column in found.values():
            column.length = begin + count
        for short, missing in repairs:
            found[ROUTES].rows[self._nodes.begins[short] + self._nodes.captured[short]] = missing
            self._nodes.captured[short] += 1
        stored = found[TOKENS].rows
        if node != ROOT and within < self._nodes.lengths[node]:
            node = self._nodes.split(stored, node, within)
        for length, sampled in ((len(prompt) - matched, False), (len(response), True)):
            if length:
                node = self._nodes.add(stored, node, begin, length, sampled, min(captured, length))
                begin, captured = begin + length, max(captured - length, 0)
        return node

    def branches(
        self, *, final: str | None = "repeat", num_experts: int | None = None, once: bool = False
    ) -> Rollouts:
        """Return a row per leaf: all tokens from its root on, with their columns.

        Args:
            final: what a token has for which no turn had routes, the last of a response: see
                `split_routes`. With `None` the last token of a branch has no row, and any other such token
                is an error.
            num_experts: see `split_routes`.
            once: a node that branches share is in the loss mask of the first alone: it is trained once.

        Returns:
            Rollouts whose prompt is what precedes the first sampled token; `loss_masks`, 1 on sampled
            tokens; columns per response token, 0 where nothing was sampled; if there are routes,
            `rollout_expert_indices` per token and `route_masks` (uint8), 1 where `final` wrote the row.

        Raises:
            ValueError: nothing was committed, or a route is missing that `final` does not give.
        """
        if not len(self):
            raise ValueError("the tree is empty; commit a turn first")
        once = flag("once", once)
        branches = Branches.of(self._nodes, self.leaves.tolist())
        tokens = self._columns[TOKENS].rows
        columns = {"prompt_token_ids": branches.prompts(tokens), "response_ids": branches.responses(tokens)}
        for name, column in self._columns.items():
            if name == ROUTES:
                captured = np.array(self._nodes.captured, np.int64)
                columns[name], masks = branches.routes(column.rows, captured, final, num_experts)
                if masks is not None:
                    columns["route_masks"] = masks
            elif name in self._whole:
                columns[name] = branches.sequences(column.rows)
            elif name != TOKENS:
                columns[name] = branches.responses(column.rows, once=once and name == "loss_masks")
        return Rollouts(columns)

    def to_arrow(self) -> Any:
        """Return a `pyarrow` table of one row per node.

        Its columns are `parents`, `sampled`, `captured` (how many tokens have routes), `token_ids`, and
        those of the turns.
        """
        layout = Layout.concat(self.lengths)
        begins = np.array(self._nodes.begins, np.int64)
        columns: dict[str, Any] = {
            "parents": self.parents,
            "sampled": self.sampled,
            "captured": np.array(self._nodes.captured, np.int64),
        }
        for name, column in self._columns.items():
            parts = Parts([(column.rows, begins)], layout.lengths, column.dtype, column.inner)
            columns[name] = Ragged.laid(parts, layout)
        table = Rollouts(columns).to_arrow()
        return table.replace_schema_metadata({_WHOLE: ",".join(sorted(self._whole))})

    @classmethod
    def from_arrow(cls, table: Any) -> TokenTree:
        """Make the tree of a table that `to_arrow` returned.

        Raises:
            ValueError: a column is missing, or the table is no tree; the node is named.

        Example:
            >>> tree = TokenTree()
            >>> tree.commit([1, 2], [3])
            1
            >>> TokenTree.from_arrow(tree.to_arrow()).branches().equals(tree.branches())
            True
        """
        from rollkit._rollouts.arrow import columns_from_arrow

        columns = columns_from_arrow(table)
        for name in ("parents", "sampled", "captured", TOKENS):
            if name not in columns:
                raise ValueError(f"the table has no column {name!r}")
        tree = cls()
        parents, sampled, captured = (_per_node(columns, name) for name in ("parents", "sampled", "captured"))
        tokens = columns[TOKENS]
        if not isinstance(tokens, Ragged) or tokens.flat.dtype.kind not in "iu" or tokens.flat.ndim != 1:
            raise ValueError(f"column {TOKENS!r} must have token ids per node")
        begins = tokens.offsets[:-1] - tokens.offsets[0]
        if (empty := np.flatnonzero(tokens.lengths == 0)).size:
            raise ValueError(f"node {empty[0]} has no tokens; nodes have one or more")
        for node in zip(
            *map(np.ndarray.tolist, (parents, begins, tokens.lengths, sampled, captured)), strict=True
        ):
            tree._nodes.add(tokens.flat, *node)
        tree._nodes.check(ROUTES in columns)
        for name, column in columns.items():
            if not isinstance(column, Ragged) or not np.array_equal(column.lengths, tree.lengths):
                raise ValueError(f"column {name!r} must have an element per token of {TOKENS!r}")
            tree._columns[name] = Growing.over(column.flat)
        known = (table.schema.metadata or {}).get(_WHOLE.encode(), b"").decode()
        tree._whole = set(filter(None, known.split(",")))
        return tree

    def _same_columns(self, names: set[str]) -> None:
        if len(self) and (odd := names ^ self._columns.keys()):
            listed = ", ".join(map(repr, sorted(odd)))
            raise ValueError(f"the turn and those before differ in columns: {listed} ({ROUTES!r} is routes=)")

    def _is_whole(self, name: str, row: AnyArray, prompt: AnyArray, response: AnyArray) -> bool:
        """Whether a column has an element for every token of the context, not of the response alone."""
        if name in self._columns:
            return name in self._whole
        elements, before, after = (np.array([len(part)]) for part in (row, prompt, response))
        with at(column=name, label=name, alone=True):
            level = level_of(name, elements, before, after, self._levels)
            if level not in ("response", "sequence"):
                raise ValueError(f"a tree has columns per response or sequence token, not per {level}")
        return level == "sequence"

    def _repairs(self, payload: Payload, last: int, within: int) -> Iterator[tuple[int, AnyArray]]:
        """Nodes of the prefix that lack a row, and that row of the payload."""
        position = 0
        for node in self._nodes.path(last):
            used = within if node == last else self._nodes.lengths[node]
            captured = self._nodes.captured[node]
            row = position + captured - payload.start
            if captured < used and 0 <= row < payload.rows:
                yield node, payload.view(row, row + 1)[0]
            position += used

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        count = self._columns[TOKENS].length
        names = ", ".join(name for name in self._columns if name != TOKENS)
        return f"TokenTree({len(self):,} nodes, {count:,} tokens: {names})"


def _per_node(columns: dict[str, Any], name: str) -> AnyArray:
    """Take a column of one number per node from those of a table."""
    found = columns.pop(name)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iub":
        raise ValueError(f"column {name!r} must have one integer per node, or true and false, and no nulls")
    return found


def _row(name: str, value: Any) -> AnyArray:
    """One row of a column, as an array of the column's dtype."""
    field = FIELDS.get(name)
    with at(column=name, label=name, alone=True):
        if not isinstance(value, list | tuple) and host(name, value).ndim == 0:
            raise TypeError(f"expected an element per token, got {value!r}")
        if field is not None and field.lists:
            raise ValueError("a tree keeps no lists per token; keep them beside it, a row per turn")
        return Ragged.from_rows([value], None if field is None else field.dtype).flat


def _new_elements(
    name: str, row: AnyArray, prompt: AnyArray, response: AnyArray, matched: int, whole: bool
) -> AnyArray:
    """A column's elements for the tokens from `matched` on: of the prompt the fill unless it has them."""
    wanted = len(response) + whole * len(prompt)
    if len(row) != wanted:
        raise ValueError(
            f"{name} has {len(row)} elements, expected {wanted}; the prompt has {len(prompt)} tokens, the "
            f"response {len(response)}"
        )
    if whole:
        return row[matched:]
    return np.concatenate([np.full((len(prompt) - matched, *row.shape[1:]), fill_of(name), row.dtype), row])


def _with_room(name: str, column: Growing | None, new: AnyArray) -> Growing:
    """The column with `new` written behind its end."""
    if column is None:
        column = Growing(new.dtype, new.shape[1:])
    elif column.inner != new.shape[1:]:
        raise ValueError(f"{name} has inner shape {new.shape[1:]}, in the turns before {column.inner}")
    with at(column=name):
        column.widen(common((column.dtype, new.dtype)))
    column.room(len(new))[...] = new
    return column


def _routes_with_room(
    payload: Payload, column: Growing | None, matched: int, count: int
) -> tuple[Growing, int]:
    """The column of routes with those of the new tokens written behind its end, and how many there are."""
    end = payload.start + payload.rows
    if payload.start > matched or matched + count - end not in (0, 1):
        raise ValueError(
            f"routes are of positions {payload.start} to {end}, the turn's new tokens at {matched} to "
            f"{matched + count}; only the last one's may be missing"
        )
    if column is None:
        column = Growing(payload.dtype, payload.inner)
    elif column.inner != payload.inner:
        raise ValueError(f"routes have inner shape {payload.inner}, in the turns before {column.inner}")
    column.widen(common_dtype(column.dtype, payload.dtype))
    captured = max(end - matched, 0)
    room = column.room(count)
    payload.read(matched - payload.start, room[:captured])
    room[captured:] = 0
    return column, captured

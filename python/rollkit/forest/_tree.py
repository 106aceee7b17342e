"""Turns that share their beginnings, each token stored once: `TokenTree`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit import _native
from rollkit._check import Int64s, flag, mapping
from rollkit._errors import at
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import LISTS, check_level, level_of
from rollkit._rollouts.fields import fill_of
from rollkit._rollouts.forest import Forest
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.growing import Growing
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts
from rollkit._rows.ragged import Ragged
from rollkit._rows.trees import NONE
from rollkit.forest._branches import Branches
from rollkit.forest._columns import (
    Column,
    GrowingLists,
    Row,
    fitting,
    of_rows,
    row_of,
    until_now,
    wider,
    write,
)
from rollkit.routing._join import common_dtype
from rollkit.routing._payload import Payload

TOKENS: Final = "token_ids"
ROUTES: Final = "rollout_expert_indices"
MADE: Final = frozenset((TOKENS, ROUTES, "route_masks", "parents", "sampled", "captured"))
"""Columns that a tree makes itself."""

_WHOLE: Final = "rollkit.whole"
_OF_LISTS: Final = "rollkit.lists"
_NO_NODES: Final = np.zeros(0, np.int64)


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
            in the first turn. `"response[]"` and `"sequence[]"` say that each element is a list.

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
        for name, level in mapping("levels", levels).items():
            check_level(name, level)
        self._lock = Lock()  # nodes and columns change together
        self._nodes = _native.TokenTree()
        self._levels = {name: level.removesuffix(LISTS) for name, level in (levels or {}).items()}
        self._lists = {name for name, level in (levels or {}).items() if level.endswith(LISTS)}
        # All have an element per stored token, so that a node is one span of each.
        self._tokens = Growing(np.dtype(np.int32), ())
        self._routes: Growing | None = None
        self._columns: dict[str, Column] = {}
        self._whole: set[str] = set()  # columns that have an element for prompt tokens too

    @property
    def parents(self) -> Int64s:
        """`[nodes]` int64: each node's parent, -1 for a root."""
        return self._nodes.columns()[0]

    @property
    def lengths(self) -> Int64s:
        """`[nodes]` int64: the tokens of each node."""
        return self._nodes.columns()[2]

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """`[nodes]` bool: the node is (the beginning or end of) a response."""
        return self._nodes.columns()[3].astype(bool)

    @property
    def leaves(self) -> Int64s:
        """The nodes without children, one per branch, in the order of `branches`."""
        parents = self.parents
        leaf = np.ones(len(parents) + 1, bool)  # the last for the parent of roots
        leaf[parents] = False
        return np.flatnonzero(leaf[:-1])

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
                per token of context and response. All turns have the same columns. An element may be a list
                (`sampling_masks`, `kept_token_ids`, a `Ragged`, or what `levels` says).

        Returns:
            The number of the turn's last node.

        Raises:
            ValueError: columns other than those of the turns before, or of other lengths; routes that leave
                out tokens, or are malformed. The tree is then as it was.
            OverflowError: a number that does not fit its column.

        Where several nodes match the prompt equally far, the newest is continued. Threads that commit to one
        tree take turns.
        """
        with self._lock:
            return self._commit(prompt_token_ids, response_ids, routes, columns)

    def _commit(self, prompt_token_ids: Any, response_ids: Any, routes: Any, columns: dict[str, Any]) -> int:
        prompt = _token_ids("prompt_token_ids", prompt_token_ids)
        response = _token_ids("response_ids", response_ids)
        self._check_names({"loss_masks", *columns}, routes is not None)
        rows = {name: row_of(name, value, self._of_lists(name)) for name, value in columns.items()}
        if "loss_masks" not in rows:
            rows["loss_masks"] = np.ones(len(response), np.uint8)
        tokens = self._tokens
        node, matched, within = self._nodes.find(tokens.rows, prompt)
        observed, begin = len(prompt) - matched, tokens.length
        count = observed + len(response)
        if not count and node == NONE:
            raise ValueError("the turn has no tokens")

        found = dict(self._columns)
        whole = {name for name, row in rows.items() if self._is_whole(name, row, prompt, response)}
        for name, row in rows.items():
            _check_length(name, row, prompt, response, name in whole)
            found[name] = fitting(name, self._columns.get(name), row)
            if name in whole:
                write(found[name], 0, 0, row[matched:])
            else:
                write(found[name], observed, fill_of(name), row)
        room = tokens.room(count)
        room[:observed], room[observed:] = prompt[matched:], response
        captured, repaired, routed = 0, _NO_NODES, None
        if routes is not None:
            payload = Payload.of(routes)
            routed, captured = _routes_with_room(payload, self._routes, matched, count)
            repaired = self._repair(routed, payload, node, within)

        # From here on nothing fails, but for want of memory; then there are elements that no node has.
        self._columns, self._routes, self._whole = found, routed, self._whole | whole
        for column in self._kept().values():
            column.length = begin + count
        return self._nodes.extend(
            tokens.rows,
            after=node,
            within=within,
            begin=begin,
            observed=observed,
            sampled=len(response),
            captured=captured,
            repaired=repaired,
        )

    def forest(self) -> Forest:
        """Return the nodes as a forest, with a row for each branch, in the order of `branches`.

        It is not the least: a response is a node of its own, and of two that begin alike both are there.
        `Forest.build` of the branches finds what these share.

        Example:
            >>> tree = TokenTree()
            >>> tree.commit([1, 2], [3]), tree.commit([1, 2], [3, 4])
            (1, 2)
            >>> tree.forest()
            Forest(2 rows, 3 nodes: 5 of 7 tokens)
            >>> tree.forest().pack(8).positions()
            array([[0, 1, 2, 2, 3, 0, 0, 0]], dtype=int32)
        """
        return Forest._trusted(*self._nodes.forest())

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
            tokens; columns per response token, 0 or an empty list where nothing was sampled; if there are
            routes, `rollout_expert_indices` per token and `route_masks` (uint8), 1 where `final` wrote the
            row.

        Raises:
            ValueError: nothing was committed, or a route is missing that `final` does not give.
        """
        if not len(self):
            raise ValueError("the tree is empty; commit a turn first")
        once = flag("once", once)
        with self._lock:
            return self._branches(final, num_experts, once)

    def _branches(self, final: str | None, num_experts: int | None, once: bool) -> Rollouts:
        branches = Branches.of(self._nodes)
        tokens = self._tokens.rows
        columns = {"prompt_token_ids": branches.prompts(tokens), "response_ids": branches.responses(tokens)}
        for name, column in self._columns.items():
            if name in self._whole:
                columns[name] = branches.sequences(column.rows)
            else:
                columns[name] = branches.responses(column.rows, once=once and name == "loss_masks")
        if self._routes is not None:
            columns[ROUTES], masks = branches.routes(self._routes.rows, final, num_experts)
            if masks is not None:
                columns["route_masks"] = masks
        return Rollouts(columns)

    def to_arrow(self) -> Any:
        """Return a `pyarrow` table of one row per node.

        Its columns are `parents`, `sampled`, `captured` (how many tokens have routes), `token_ids`, and
        those of the turns.
        """
        with self._lock:
            parents, begins, lengths, sampled, captured = self._nodes.columns()
            layout = Layout.concat(lengths)
            columns: dict[str, Any] = {
                "parents": parents,
                "sampled": sampled.astype(bool),
                "captured": captured,
            }
            for name, column in self._kept().items():
                columns[name] = Ragged.laid(Parts.over(column.rows, begins, lengths), layout)
            lists = (name for name, column in self._columns.items() if isinstance(column, GrowingLists))
            said = {_WHOLE: ",".join(sorted(self._whole)), _OF_LISTS: ",".join(lists)}
        return Rollouts(columns).to_arrow().replace_schema_metadata(said)

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

        columns = columns_from_arrow(table, _said(table, _OF_LISTS))
        for name in ("parents", "sampled", "captured", TOKENS):
            if name not in columns:
                raise ValueError(f"the table has no column {name!r}")
        tree = cls()
        parents, sampled, captured = (_per_node(columns, name) for name in ("parents", "sampled", "captured"))
        tokens = columns[TOKENS]
        if not isinstance(tokens, Ragged) or tokens.inner or tokens.dtype.kind not in "iu":
            raise ValueError(f"column {TOKENS!r} must have token ids per node")
        with at(column=TOKENS):
            columns[TOKENS] = tokens = tokens.astype(np.int32)
        lengths = tokens.lengths
        if (empty := np.flatnonzero(lengths == 0)).size:
            raise ValueError(f"node {empty[0]} has no tokens; nodes have one or more")
        most = lengths if ROUTES in columns else np.zeros_like(lengths)
        if (odd := np.flatnonzero((captured > most) | (captured < most - 1) | (captured < 0))).size:
            node = odd[0]
            raise ValueError(
                f"node {node} has {lengths[node]} tokens and {captured[node]} routes; nodes have tokens, and "
                "routes for all but, maybe, the last"
            )
        begins = tokens.offsets[:-1] - tokens.offsets[0]
        tree._nodes = _native.TokenTree(
            np.ascontiguousarray(tokens.flat), (parents, begins, lengths, sampled, captured)
        )
        for name, column in columns.items():
            if not isinstance(column, Ragged) or not np.array_equal(column.lengths, lengths):
                raise ValueError(f"column {name!r} must have an element per token of {TOKENS!r}")
        tree._tokens = Growing.over(columns.pop(TOKENS).flat)
        if ROUTES in columns:
            tree._routes = Growing.over(columns.pop(ROUTES).flat)
        tree._columns = {name: of_rows(column.flat) for name, column in columns.items()}
        tree._whole = _said(table, _WHOLE)
        return tree

    def _kept(self) -> dict[str, Column]:
        """All that is stored, by name."""
        routes = {} if self._routes is None else {ROUTES: self._routes}
        return {TOKENS: self._tokens, **self._columns, **routes}

    def _of_lists(self, name: str) -> bool:
        """Whether the elements of a column are lists, as far as is known before one is seen."""
        column = self._columns.get(name)
        return name in self._lists or isinstance(column, GrowingLists)

    def _check_names(self, names: set[str], routed: bool) -> None:
        """Refuse columns that the turns before did not have, and those that a tree makes."""
        if not names.isdisjoint(MADE):
            name = min(names.intersection(MADE))
            raise ValueError(f"a tree makes {name!r} itself; rename the column, or give routes as routes=")
        given = names | {ROUTES} if routed else names
        if len(self) and (odd := given ^ (self._kept().keys() - {TOKENS})):
            listed = ", ".join(map(repr, sorted(odd)))
            raise ValueError(f"the turn and those before differ in columns: {listed} ({ROUTES!r} is routes=)")

    def _is_whole(self, name: str, row: Row, prompt: AnyArray, response: AnyArray) -> bool:
        """Whether a column has an element for every token of the context, not of the response alone."""
        if name in self._columns:
            return name in self._whole
        elements, before, after = (np.array([len(part)]) for part in (row, prompt, response))
        with at(column=name, label=name, alone=True):
            level = level_of(name, elements, before, after, self._levels)
            if level not in ("response", "sequence"):
                raise ValueError(f"a tree has columns per response or sequence token, not per {level}")
        return level == "sequence"

    def _repair(self, column: Growing, payload: Payload, last: int, within: int) -> Int64s:
        """Give tokens of the prefix that lack routes those of the payload; return the nodes they are in."""
        if last == NONE:
            return _NO_NODES
        nodes, positions, stored = self._nodes.lacking(last, within)
        rows = positions - payload.start
        given = (rows >= 0) & (rows < payload.rows)
        for row, token in zip(rows[given].tolist(), stored[given].tolist(), strict=True):
            column.rows[token] = payload.view(row, row + 1)[0]
        return nodes[given]

    def __copy__(self) -> TokenTree:
        return deepcopy(self)  # what grows is not shared

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            found = vars(self) | {"_lock": None, "_nodes": self._nodes.columns()}
            routes = None if self._routes is None else until_now(self._routes)
            columns = {name: until_now(column) for name, column in self._columns.items()}
            return found | {"_tokens": until_now(self._tokens), "_columns": columns, "_routes": routes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())
        self._nodes = _native.TokenTree(self._tokens.rows, state["_nodes"])

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        names = ", ".join([*self._columns, *([] if self._routes is None else [ROUTES])])
        return f"TokenTree({len(self):,} nodes, {self._tokens.length:,} tokens: {names})"


def _token_ids(name: str, value: Any) -> AnyArray:
    row = row_of(name, value)
    if not isinstance(row, np.ndarray) or row.ndim != 1:
        shape = f"shape {row.shape}" if isinstance(row, np.ndarray) else "lists"
        raise ValueError(f"{name}: expected one token after the other, got {shape}")
    return row


def _said(table: Any, about: str) -> set[str]:
    """The columns of a table that its metadata says something of."""
    metadata = getattr(getattr(table, "schema", None), "metadata", None)
    said = metadata.get(about.encode(), b"") if isinstance(metadata, Mapping) else b""
    return set(filter(None, said.decode().split(",")))


def _per_node(columns: dict[str, Any], name: str) -> Int64s:
    """Take a column of one number per node from those of a table."""
    found = columns.pop(name)
    if not isinstance(found, np.ndarray) or found.ndim != 1 or found.dtype.kind not in "iub":
        raise ValueError(f"column {name!r} must have one integer per node, or true and false, and no nulls")
    return np.ascontiguousarray(found, np.int64)


def _check_length(name: str, row: Row, prompt: AnyArray, response: AnyArray, whole: bool) -> None:
    wanted = len(response) + whole * len(prompt)
    if len(row) != wanted:
        raise ValueError(
            f"{name} has {len(row)} elements, expected {wanted}; the prompt has {len(prompt)} tokens, the "
            f"response {len(response)}"
        )


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
    column = wider(column, common_dtype(column.dtype, payload.dtype))
    captured = max(end - matched, 0)
    room = column.room(count)
    payload.read(matched - payload.start, room[:captured])
    room[captured:] = 0
    return column, captured

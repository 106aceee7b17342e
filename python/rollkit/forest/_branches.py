"""The paths of a token tree as rows: `Branches`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rollkit import _native
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray
from rollkit._rows.layout import Layout
from rollkit._rows.lists import Lists
from rollkit._rows.parts import Parts, place_parts
from rollkit._rows.ragged import Ragged, trusted
from rollkit.routing._final import final_row


@dataclass(frozen=True, slots=True)
class Branches:
    """The nodes on the way to each leaf, path after path.

    Attributes:
        count: of branches.
        nodes: `[steps]`, the node.
        rows: `[steps]`, the branch it is on.
        begins: `[steps]`, its first token.
        lengths: `[steps]`, its tokens.
        captured: `[steps]`, those that have routes; they come first.
        prompt: `[steps]`, it precedes the first sampled node of its path.
    """

    count: int
    nodes: Int64s
    rows: Int64s
    begins: Int64s
    lengths: Int64s
    captured: Int64s
    prompt: NDArray[np.bool_]

    @classmethod
    def of(cls, tree: _native.TokenTree) -> Branches:
        """The path to every leaf."""
        leaves, offsets, nodes = tree.branches()
        _, begins, lengths, sampled, captured = (column[nodes] for column in tree.columns())
        rows = np.repeat(np.arange(len(leaves)), np.diff(offsets))
        seen = np.cumsum(sampled)
        before = (seen - sampled)[offsets[:-1]]  # of earlier branches
        return cls(len(leaves), nodes, rows, begins, lengths, captured, seen == before[rows])

    def prompts(self, values: AnyArray | Lists) -> Ragged:
        """Elements of what precedes the first sampled token."""
        return self._gather(values, self.prompt)

    def responses(self, values: AnyArray | Lists, once: bool = False) -> Ragged:
        """Elements from the first sampled token on; with `once`, 0 for nodes that an earlier branch has."""
        kept = self.lengths
        if once:
            first = np.zeros(len(self.nodes), bool)
            first[np.unique(self.nodes, return_index=True)[1]] = True
            kept = np.where(first, kept, 0)
        return self._gather(values, ~self.prompt, kept)

    def sequences(self, values: AnyArray | Lists) -> Ragged:
        """Elements of all tokens."""
        return self._gather(values, np.ones_like(self.prompt))

    def routes(
        self, values: AnyArray, final: str | None, num_experts: int | None
    ) -> tuple[Ragged, Ragged | None]:
        """Routes of all tokens, and where they are filled in."""
        kept = self.captured
        everything = np.ones_like(self.prompt)
        missing = np.flatnonzero(kept < self.lengths)
        ends = np.cumsum(self.lengths)
        holes = ends[missing] - 1
        if final is None:
            self._check_last(missing)
            return self._gather(values, everything, kept, kept), None
        found = self._gather(values, everything, kept)
        positions = holes - found.offsets[self.rows[missing]]
        fill = final_row(final, values.dtype, values.shape[1:], num_experts, positions)
        if fill is not None:
            found.values[holes] = fill
        else:
            self._check_repeat(found, holes)
            first = np.append(True, np.diff(holes) != 1)[: len(holes)]  # the row before a hole may be one too
            found.values[holes] = found.values[(holes[first] - 1)[np.cumsum(first) - 1]]
        masks = np.zeros(len(found.values), np.uint8)
        masks[holes] = 1
        return found, Ragged(masks, found.offsets)

    def _gather(
        self,
        values: AnyArray | Lists,
        chosen: NDArray[np.bool_],
        kept: Int64s | None = None,
        lengths: Int64s | None = None,
        fill: AnyArray | int = 0,
    ) -> Ragged:
        """Lay the chosen nodes end to end: the first `kept` elements of each, then the fill."""
        slots = Layout.concat((self.lengths if lengths is None else lengths)[chosen])
        kept = slots.lengths if kept is None else kept[chosen]
        parts = Parts.over(values, self.begins[chosen], kept)
        placed = place_parts(parts, Layout(slots.shape, slots.starts, kept, kept), fill)
        firsts = np.searchsorted(self.rows[chosen], np.arange(self.count + 1))
        return trusted(placed, slots.offsets()[firsts])

    def _check_last(self, missing: Int64s) -> None:
        last = np.append(self.rows[1:] != self.rows[:-1], True)
        if not last[missing].all():
            step = int(missing[~last[missing]][0])
            raise ValueError(
                f"branch {self.rows[step]}: the last token of node {self.nodes[step]} has no routes; pass a "
                "policy as final"
            )

    def _check_repeat(self, found: Ragged, holes: Int64s) -> None:
        alone = np.isin(holes, found.offsets[:-1])
        if alone.any():
            row = int(np.searchsorted(found.offsets, holes[alone][0], side="right")) - 1
            raise ValueError(
                f"branch {row}: its first token has no routes and no row before it to repeat; pass another "
                "policy as final"
            )

"""The nodes of a token tree, and how they are found, split and added: `Nodes`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from rollkit._frameworks import AnyArray

ROOT: Final = -1


@dataclass(slots=True)
class Nodes:
    """Spans of tokens. Lists have an entry per node; no node is empty.

    Attributes:
        parents: `ROOT` where there is none.
        begins: the first token, in columns that all nodes share.
        lengths: the tokens.
        sampled: the node is (the beginning or end of) a response.
        captured: the tokens that have routes, which come first.
        children: nodes by parent and first token. Only those that begin as a turn goes on are compared with
            it, however many there are beside them.
    """

    parents: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    captured: list[int] = field(default_factory=list)
    children: dict[int, dict[int, set[int]]] = field(default_factory=dict)

    def add(
        self, stored: AnyArray, parent: int, begin: int, length: int, sampled: bool, captured: int
    ) -> int:
        """Append a node and return its number.

        Args:
            stored: the tokens of all nodes.
            parent: see `Nodes`, as for the others.
            begin: one of `stored`.
            length: at least 1.
            sampled: see `Nodes`.
            captured: see `Nodes`.
        """
        node = len(self)
        self.parents.append(parent)
        self.begins.append(begin)
        self.lengths.append(length)
        self.sampled.append(sampled)
        self.captured.append(captured)
        self._place(stored, node)
        return node

    def _place(self, stored: AnyArray, node: int) -> None:
        beside = self.children.setdefault(self.parents[node], {})
        beside.setdefault(int(stored[self.begins[node]]), set()).add(node)

    def split(self, stored: AnyArray, node: int, at: int) -> int:
        """Make the first `at` tokens of a node a node of their own, its parent; the rest keeps its number."""
        parent, begin, captured = self.parents[node], self.begins[node], self.captured[node]
        self.children[parent][int(stored[begin])].remove(node)
        head = self.add(stored, parent, begin, at, self.sampled[node], min(captured, at))
        self.parents[node] = head
        self.begins[node] += at
        self._place(stored, node)
        self.lengths[node] -= at
        self.captured[node] = max(captured - at, 0)
        return head

    def path(self, node: int) -> list[int]:
        """The nodes from a root to this one."""
        path = []
        while node != ROOT:
            path.append(node)
            node = self.parents[node]
        return path[::-1]

    def match(self, stored: AnyArray, tokens: AnyArray) -> tuple[int, int, int]:
        """Find the longest prefix of `tokens` that is a path.

        Returns:
            The node it ends in (the newest, of several), its tokens, and how many of those are in the node.
        """
        best = (0, ROOT, 0)
        reached = [(ROOT, 0)]
        for node, at in reached:
            if at == len(tokens):
                continue
            for child in self.children.get(node, {}).get(int(tokens[at]), ()):
                begin = self.begins[child]
                same = _common(stored[begin : begin + self.lengths[child]], tokens[at:])
                best = max(best, (at + same, child, same))
                if same == self.lengths[child]:
                    reached.append((child, at + same))
        matched, node, within = best
        return node, matched, within

    def check(self, routed: bool) -> None:
        """Refuse lists that are no tree, and, with `routed`, nodes that lack routes."""
        reached = [ROOT]
        for node in reached:
            for alike in self.children.get(node, {}).values():
                reached.extend(alike)
        if len(reached) != len(self) + 1:
            lost = min(set(range(len(self))) - set(reached))
            raise ValueError(
                f"node {lost} has parent {self.parents[lost]}, from which no way leads to a root"
            )
        for node, (length, captured) in enumerate(zip(self.lengths, self.captured, strict=True)):
            if length < 1 or captured not in ((length - 1, length) if routed else (0,)):
                raise ValueError(
                    f"node {node} has {length} tokens and {captured} routes; nodes have tokens, and "
                    "routes for all but, maybe, the last"
                )

    def __len__(self) -> int:
        return len(self.parents)


def _common(own: AnyArray, tokens: AnyArray) -> int:
    """How many tokens two runs have in common from the first on."""
    count = min(len(own), len(tokens))
    odd = own[:count] != tokens[:count]
    return int(odd.argmax()) if odd.any() else count

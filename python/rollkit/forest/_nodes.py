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
        children: nodes by parent.
    """

    parents: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    captured: list[int] = field(default_factory=list)
    children: dict[int, list[int]] = field(default_factory=dict)

    def add(self, parent: int, begin: int, length: int, sampled: bool, captured: int) -> int:
        """Append a node and return its number."""
        node = len(self)
        self.parents.append(parent)
        self.begins.append(begin)
        self.lengths.append(length)
        self.sampled.append(sampled)
        self.captured.append(captured)
        self.children.setdefault(parent, []).append(node)
        return node

    def split(self, node: int, at: int) -> int:
        """Make the first `at` tokens of a node a node of their own, its parent; the rest keeps its number."""
        parent, captured = self.parents[node], self.captured[node]
        self.children[parent].remove(node)
        head = self.add(parent, self.begins[node], at, self.sampled[node], min(captured, at))
        self.children[head] = [node]
        self.parents[node] = head
        self.begins[node] += at
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
            for child in self.children.get(node, ()):
                begin = self.begins[child]
                same = _common(stored[begin : begin + self.lengths[child]], tokens[at:])
                if same:
                    best = max(best, (at + same, child, same))
                    if same == self.lengths[child]:
                        reached.append((child, at + same))
        matched, node, within = best
        return node, matched, within

    def check(self, routed: bool) -> None:
        """Refuse lists that are no tree, and, with `routed`, nodes that lack routes."""
        reached = [ROOT]
        for node in reached:
            reached.extend(self.children.get(node, ()))
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
    if not count or own[0] != tokens[0]:
        return 0
    odd = own[:count] != tokens[:count]
    return int(odd.argmax()) if odd.any() else count

"""What a rank reads of chunks: `fetched`."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from rollkit import _check
from rollkit._check import Int64s
from rollkit._errors import TELLING, at, refusal
from rollkit._rollouts.columns import LISTS
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.sources import as_rollouts
from rollkit._rows.parts import own_ops
from rollkit._rows.ragged import Ragged
from rollkit.ray._chunk import TWO, all_of, connection, is_pair, is_ref, nodes_of


class Wanted(NamedTuple):
    """What a rank wants of a chunk."""

    number: int
    size: int
    """The rows that the chunk has, by the plan."""
    rows: Int64s
    """Those of the rank."""
    columns: Sequence[str] | None
    levels: Mapping[str, str] | None


class Part(NamedTuple):
    """What a rank gets of a chunk."""

    rollouts: Rollouts
    """The columns that it wants."""
    rows: Int64s
    """Its rows, as these rollouts count them."""
    kinds: Mapping[str, str | None]
    """What each column of the chunk holds, in words, whichever rows are here; see `_kind`."""

    @classmethod
    def of(cls, wanted: Wanted, chunk: Any, *, alone: bool = False) -> Part:
        """Read a chunk, or refuse it; `alone` copies the rows, and leaves the others where they are."""
        number, size = wanted.number, wanted.size
        if is_pair(chunk):
            raise TypeError(f"chunk {number} is rollouts and lengths in one; {TWO}")
        with at(path=f"chunk {number}"):
            found = _chosen(as_rollouts(chunk), wanted)
        if len(found) != size:
            raise ValueError(f"chunk {number} has {len(found)} rows, the plan has {size} for it")
        for name, column in found.items():
            if isinstance(column, Ragged) and own_ops(column.values) is not None:
                text = "chunks are in the host's memory, not on a device or with a gradient: .detach().cpu()"
                raise refusal(TypeError, text, column=name, path=f"chunk {number}")
        kinds = {name: _kind(column) for name, column in found.items()}
        if alone:
            return cls(found.take(wanted.rows), np.arange(len(wanted.rows)), kinds)
        return cls(found, wanted.rows, kinds)


def fetched(
    refs: Mapping[int, Any], wanted: Sequence[Wanted], ahead: int, pick: bool | None
) -> Iterator[tuple[Wanted, Part]]:
    """What a rank wants of each chunk, while what it wants of the next ones is on its way.

    What is read of the store is views of it, so that an object is free again once nobody has its arrays. Rows
    that are picked come as an object of this process's, which is gone with its arrays.
    """
    nodes = _nodes_to_pick_at(refs, wanted, pick)
    coming = iter(wanted)
    waiting: deque[tuple[Wanted, Any]] = deque()
    for count in (ahead + 1, *[1] * len(wanted)):
        for one in islice(coming, count):
            ref = refs[one.number]
            picked = one.number in nodes
            waiting.append((one, _asked(one, ref, nodes[one.number]) if picked else ref))
        if not waiting:
            return
        _start([ref for _, ref in waiting])
        one, ref = waiting.popleft()
        part = _picked(ref) if one.number in nodes else None
        if part is None:
            ref = refs[one.number]
            part = Part.of(one, all_of([one.number], [ref])[0] if is_ref(ref) else ref)
        del ref
        yield one, part
        del part  # before the next one is waited for


def _nodes_to_pick_at(
    refs: Mapping[int, Any], wanted: Sequence[Wanted], pick: bool | None
) -> dict[int, str | None]:
    """The node of each chunk that is not fetched whole, by number; None where Ray is to choose it.

    Fetched whole is a chunk that is here, or is of no node, or of whose rows half are wanted and more.
    """
    asked = [one.number for one in wanted if is_ref(refs[one.number])]
    if pick is None:
        asked = [one.number for one in wanted if 2 * len(one.rows) < one.size and is_ref(refs[one.number])]
    if pick is False or not asked:
        return {}
    connection()
    where = nodes_of(refs[number] for number in asked)
    nodes = {number: where[refs[number]] for number in asked}
    if pick is None:
        here = sys.modules["ray"].get_runtime_context().get_node_id()
        nodes = {number: there for number, there in nodes.items() if there and here not in there}
    return {number: min(there, default=None) for number, there in nodes.items()}


def _asked(wanted: Wanted, ref: Any, node: str | None) -> Any:
    """A ref of the rows alone: a task takes them where the chunk is. Ray does it again where it dies."""
    task = _task()
    if node is not None:
        strategy = sys.modules["ray"].util.scheduling_strategies.NodeAffinitySchedulingStrategy
        task = task.options(scheduling_strategy=strategy(node, soft=True))
    return task.remote(ref, wanted)


@cache
def _task() -> Any:
    return sys.modules["ray"].remote(num_cpus=0)(_pick)


def _pick(chunk: Any, wanted: Wanted) -> Part | None:
    """What a task does. What it refuses the rank will, which then reads the chunk itself."""
    try:
        return Part.of(wanted, chunk, alone=True)
    except TELLING:
        return None


def _picked(ref: Any) -> Part | None:
    """The rows that a task has taken; None where it has not, and the chunk itself will tell why."""
    ray = sys.modules["ray"]
    try:
        found: Part | None = ray.get(ref)
    except ray.exceptions.RayError:
        return None
    return found


def _start(refs: Sequence[Any]) -> None:
    """Let Ray bring objects to this node, and do not wait for them."""
    remote = list(dict.fromkeys(filter(is_ref, refs)))
    if remote:
        connection().wait(remote, num_returns=len(remote), timeout=0, fetch_local=True)


def _chosen(rollouts: Rollouts, wanted: Wanted) -> Rollouts:
    """The columns that are asked for, as lists where `levels` says that they are."""
    for name in wanted.columns or ():
        if name not in rollouts:
            known = ", ".join(map(repr, rollouts))
            raise ValueError(f"columns has {name!r}, which is no column; there are {known}")
    found = rollouts if wanted.columns is None else rollouts.select(*wanted.columns)
    for name, level in _check.mapping("levels", wanted.levels).items():
        if name in found and isinstance(level, str) and level.endswith(LISTS):
            with at(column=name):
                found = found.with_columns(**{name: Ragged.from_rows(found.columns[name], lists=True)})
    return found


def _kind(column: Any) -> str | None:
    """What a column holds, in words; None where it has no element, which might be of any dtype."""
    if not len(column):
        return None
    if isinstance(column, list):
        return "a list of objects"
    if not isinstance(column, Ragged):
        return f"{_element(column.dtype, column.shape[1:])} per row"
    if not len(column.flat):
        return None
    if column.of_lists:
        return f"lists of {column.dtype} per token"
    return f"rows of {_element(column.dtype, column.inner)}"


def _element(dtype: Any, inner: tuple[int, ...]) -> str:
    return f"{dtype} {inner}" if inner else str(dtype)

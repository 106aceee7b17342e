"""Rollouts where they were made: `Chunk`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from rollkit import _check
from rollkit._check import Int64s
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.sources import Source, Sources, as_rollouts
from rollkit._rows.step_plan import NOBODY

TWO: Final = "what returns with_lengths has num_returns=2"


class Chunk(NamedTuple):
    """Rollouts in Ray's object store, and how long they are: a driver plans by the lengths alone.

    Attributes:
        ref: `ray.ObjectRef` of the rollouts; or rollouts themselves, on one machine.
        lengths: `[rows]` ints, the tokens of each (prompt and response), or an `ObjectRef` of them.

    Example:
        >>> Chunk(*with_lengths({"response_ids": [[1, 2], [3]]})).lengths
        array([2, 1])
    """

    ref: Any
    lengths: Any


class ChunkLost(RuntimeError):
    """A chunk that cannot be had: its owner died, its node is gone, or the task that makes it failed.

    Who makes it again, under whatever ref, gets the same batches of the same plan.

    Attributes:
        chunk: its number.

    Example:
        >>> ChunkLost(3, "is gone: its node is")
        ChunkLost('chunk 3 is gone: its node is')
    """

    def __init__(self, chunk: int, why: str) -> None:
        super().__init__(f"chunk {chunk} {why}")
        self.chunk, self._why = chunk, why

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkLost, (self.chunk, self._why)


def with_lengths(rollouts: Source | Sequence[Source]) -> tuple[Rollouts, Int64s]:
    """What a task, or a method of an actor, returns of rollouts: the two refs of a `Chunk`.

    A value that is returned belongs to who asked for it, and outlives the process that made it. What an actor
    puts in the store itself (`ray.put`) is gone when the actor is.

        @ray.remote(num_returns=2)
        def generate(prompts):
            return rollkit.ray.with_lengths(rollouts_of(prompts))

        chunks = [Chunk(*generate.remote(part)) for part in parts]

    Args:
        rollouts: as `rollkit.pack` takes them.

    Returns:
        The rollouts, and `[rows]` int64, the tokens of each.

    Example:
        >>> with_lengths({"prompt_token_ids": [[1], [2]], "response_ids": [[3, 4], []]})
        (Rollouts(2 rows: prompt_token_ids int32, response_ids int32), array([3, 1]))
    """
    found = as_rollouts(rollouts)
    return found, Sources.of(found).lengths


def homes(refs: Sequence[Any], nodes: Sequence[str]) -> Int64s:
    """A rank on the node where each chunk is, as `plan(…, home=)` takes it. Waits until all are made.

    Args:
        refs: one for each chunk, an `ObjectRef` or a `Chunk`.
        nodes: the node of each rank: `ray.get_runtime_context().get_node_id()` there.

    Returns:
        `[chunks]` int64: of the ranks of a node one after the other; -1 where a chunk is with none of them,
        or so small (100 kB) that Ray has it nowhere.

    Example:
        >>> homes([{"response_ids": [[1]]}], nodes=["a", "b"])
        array([-1])
    """
    found = [chunk.ref if isinstance(chunk, Chunk) else chunk for chunk in _by_number("refs", refs)]
    ranks: dict[str, list[int]] = {}
    for rank, node in enumerate(_check.items("nodes", nodes)):
        ranks.setdefault(str(node), []).append(rank)
    remote = list(dict.fromkeys(filter(is_ref, found)))
    if remote:  # who is not made yet is nowhere
        connection().wait(remote, num_returns=len(remote), fetch_local=False)
    where = nodes_of(remote)
    chosen = np.full(len(found), NOBODY, np.int64)
    given: Counter[str] = Counter()
    for i, ref in enumerate(found):
        there = where[ref] if is_ref(ref) else ()
        node = next((node for node in there if node in ranks), None)
        if node is not None:
            chosen[i] = ranks[node][given[node] % len(ranks[node])]
            given[node] += 1
    return chosen


def nodes_of(refs: Iterable[Any]) -> dict[Any, Sequence[str]]:
    """The nodes that have each object; none where it is small, or gone, or nobody knows of it.

    Each owner is asked by itself: Ray ends a process that asks two at once, of whom one is dead.
    """
    owned: dict[bytes, list[Any]] = {}
    for ref in dict.fromkeys(refs):
        owned.setdefault(ref.owner_address(), []).append(ref)
    found: dict[Any, Sequence[str]] = {}
    for asked in owned.values():
        told = sys.modules["ray"].experimental.get_object_locations(asked)
        found |= {ref: told.get(ref, {}).get("node_ids", ()) for ref in asked}
    return found


def lengths_of(chunks: Any) -> list[Int64s]:
    """The lengths of the rows of each chunk, as `plan` takes them."""
    given = _by_number("lengths", chunks)
    found = [chunk.lengths if isinstance(chunk, Chunk) else chunk for chunk in given]
    refs = [i for i, lengths in enumerate(found) if is_ref(lengths)]
    for i, lengths in zip(refs, all_of(refs, [found[i] for i in refs]), strict=True):
        found[i] = lengths
    return [_lengths(f"lengths[{i}]", lengths) for i, lengths in enumerate(found)]


def _lengths(name: str, given: Any) -> Int64s:
    if is_pair(given):
        raise TypeError(f"{name} is rollouts and lengths in one; {TWO}")
    return with_lengths(given)[1] if isinstance(given, Rollouts | Mapping) else _check.lengths(name, given)


def refs_of(given: Any, numbers: Sequence[int], count: int) -> dict[int, Any]:
    """The refs of the chunks of these numbers, of `count` in all."""
    if not isinstance(given, Mapping):
        refs = _by_number("refs", given)
        if len(refs) != count:
            raise ValueError(f"refs has {len(refs)} chunks, the plan has {count}")
        given = dict(enumerate(refs))
    for number in numbers:
        if number not in given:
            raise ValueError(f"refs has no chunk {number}, of which the plan has rows")
    found = {number: given[number] for number in numbers}
    return {number: ref.ref if isinstance(ref, Chunk) else ref for number, ref in found.items()}


def is_pair(value: Any) -> bool:
    """Whether this is both of what `with_lengths` returns."""
    return isinstance(value, tuple) and len(value) > 0 and isinstance(value[0], Rollouts)


def is_ref(value: Any) -> bool:
    """Whether this is a ref of Ray's; whoever has one has imported Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and isinstance(value, ray.ObjectRef)


def connection() -> Any:
    """Ray, of who has refs of it; refused where the connection is closed, since Ray would make a new one."""
    ray = sys.modules["ray"]
    if not ray.is_initialized():
        raise ValueError(
            "there is no connection to Ray any more, and refs are of one; call ray.init(…) first"
        )
    return ray


def all_of(numbers: Sequence[int], refs: Sequence[Any]) -> list[Any]:
    """The values of refs; the chunk that cannot be had is named."""
    if not refs:
        return []
    ray = connection()
    try:
        return list(ray.get(list(refs)))
    except ray.exceptions.RayError as error:
        if len(refs) == 1:  # Ray's frames hold the refs, and are in a cycle with its exception
            raise ChunkLost(numbers[0], _why(ray.exceptions, error)) from error.with_traceback(None)
    return [all_of([number], [ref])[0] for number, ref in zip(numbers, refs, strict=True)]


def _why(exceptions: Any, error: Exception) -> str:
    """What became of an object, in a line; Ray's own message has many."""
    if isinstance(error, exceptions.OwnerDiedError):
        return "is gone: the process that owned it has died; return chunks, do not ray.put them in an actor"
    if isinstance(error, exceptions.ObjectLostError):
        return f"is gone: {type(error).__name__}"
    cause = getattr(error, "cause", None) or error
    text = str(cause).strip().partition("\n")[0]
    return f"was not made: {type(cause).__name__}: {text}"


def _by_number(name: str, given: Any) -> list[Any]:
    if isinstance(given, Rollouts | Mapping | Chunk) or is_ref(given):
        raise TypeError(f"{name} must be a sequence with one for each chunk, got {type(given).__name__}")
    return _check.items(name, given)

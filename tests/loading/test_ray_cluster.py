"""`rollkit.ray` on Ray itself: what moves, what stays, and what dies."""

from __future__ import annotations

import gc
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.loading.on_ray import one_machine
from tests.thorough import by_level

from rollkit import Rollouts
from rollkit.ray import Chunk, ChunkLost, execute, homes, plan, with_lengths

ray: Any = pytest.importorskip("ray")

CAPACITY, CHUNKS, RANKS = 4096, 4, 2


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One machine; its workers import the package that is tested."""
    with one_machine(ray):
        yield


def made(number: int, rows: int = 60, longest: int = 400) -> Rollouts:
    """The rollouts of a chunk: the same whenever they are made."""
    rng = np.random.default_rng(number)
    prompts, responses = rng.integers(1, longest, (2, rows))
    return Rollouts({
        "prompt_token_ids": [rng.integers(1, 30_000, n).astype(np.int32) for n in prompts],
        "response_ids": [rng.integers(1, 30_000, n).astype(np.int32) for n in responses],
        "rollout_logprobs": [rng.normal(size=n).astype(np.float32) for n in responses],
        "rewards": rng.normal(size=rows),
        "numbers": np.arange(rows) + number * rows,
        "images": [{"pixels": np.full(2, number)} for _ in range(rows)],
    })  # fmt: skip


def told(batch: Any) -> str:
    """All that is in a batch."""
    found = sha256()
    for name, array in batch.items():
        found.update(name.encode() + np.ascontiguousarray(array).tobytes())
    for name, column in batch.rows.items():
        found.update(name.encode() + repr(list(column)).encode())
    return found.hexdigest()


class _Producer:
    """An actor that makes chunks."""

    @ray.method(num_returns=2)  # type: ignore[untyped-decorator]
    def make(self, number: int) -> Any:
        return with_lengths(made(number))

    def put(self, number: int) -> Any:
        return [ray.put(made(number))]


Producer: Any = ray.remote(num_cpus=0)(_Producer)


class _Rank:
    """An actor that places its rows."""

    def __init__(self) -> None:
        self.batch: Any = None

    def run(self, plan: Any, chunks: Any) -> tuple[str, list[int]]:
        self.batch = execute(plan, chunks, out=self.batch)
        return told(self.batch), self.batch.rows["numbers"].tolist()

    def memory(self, plan: Any, chunks: Any) -> tuple[int, int]:
        """How much memory of its own a batch adds to this process, and how large it is."""
        execute(plan[:1], chunks)  # what the first call imports and keeps
        used, batch = most_memory(lambda: execute(plan, chunks))
        return used, sum(array.nbytes for array in batch.values())


Rank: Any = ray.remote(num_cpus=0)(_Rank)


def most_memory(call: Callable[[], Any]) -> tuple[int, Any]:
    """The most memory of its own that this process has during a call, beyond what it had, and the result."""

    def anonymous() -> int:
        (kb,) = re.findall(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(kb) << 10

    seen, done = [anonymous()], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            seen.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = call()
    finally:
        done.set()
        watcher.join()
    return max([*seen, anonymous()]) - seen[0], result


def in_use() -> tuple[float, int]:
    """The bytes of objects that Ray's store keeps, and how many refs this driver has."""
    kept = ray.cluster_resources()["object_store_memory"] - ray.available_resources()["object_store_memory"]
    return kept, len(ray._private.worker.global_worker.core_worker.get_all_reference_counts())


def wait_until_free(before: tuple[float, int]) -> None:
    """Objects are let go, and counted, some time after the last of their refs.

    Ray's exceptions are in cycles with frames that have refs.
    """
    until = time.monotonic() + 20
    while (now := in_use()) > before and time.monotonic() < until:
        gc.collect()
        time.sleep(0.1)
    assert now <= before


def test_rollouts_come_as_views_of_the_store() -> None:
    found = ray.get(ray.put(made(0)))
    assert found.drop("images").equals(made(0).drop("images"))
    for name in ("prompt_token_ids", "response_ids", "rollout_logprobs"):
        assert not found[name].values.flags.writeable
        assert not found[name].values.flags.owndata
    assert not found["rewards"].flags.writeable


def test_a_batch_holds_nothing_of_the_store() -> None:
    """What a chunk's views are of stays in the store, and there is room for a few chunks alone."""
    batch = execute(plan([with_lengths(made(0))[1]], CAPACITY, 1)[0], [ray.put(made(0))])
    arrays = [*batch.values(), *(column for column in batch.rows.values() if isinstance(column, np.ndarray))]
    arrays += [image["pixels"] for image in batch.rows["images"]]
    assert all(array.flags.writeable for array in arrays)


def test_returned_chunks_outlive_their_producer_and_others_do_not() -> None:
    """The exception of a task of Ray's is of its cause's type, and has its attributes."""
    producer, rank = Producer.remote(), Rank.remote()
    chunk, (put,) = Chunk(*producer.make.remote(0)), ray.get(producer.put.remote(0))
    (mine,) = plan([chunk], CAPACITY, 1)
    wanted = told(execute(mine, [chunk]))
    assert ray.get(rank.run.remote(mine, [chunk]))[0] == wanted
    ray.kill(producer)
    wait_until_dead(producer)
    assert ray.get(rank.run.remote(mine, [chunk]))[0] == told(execute(mine, [chunk])) == wanted
    with pytest.raises(ChunkLost) as lost:
        again_and_again(lambda: execute(mine, [put]))  # until Ray has noticed
    assert lost.value.chunk == 0
    assert str(lost.value) == (
        "chunk 0 is gone: the process that owned it has died; return chunks, do not ray.put them in an actor"
    )
    with pytest.raises(ChunkLost) as far:
        ray.get(rank.run.remote(mine, [put]))
    assert far.value.cause.chunk == 0  # type: ignore[attr-defined]


def wait_until_dead(actor: Any) -> None:
    with pytest.raises(ray.exceptions.RayActorError):
        again_and_again(lambda: ray.get(actor.__ray_ready__.remote()))


def again_and_again(call: Any) -> None:
    for _ in range(100):
        call()
        time.sleep(0.1)


def test_what_a_producer_says_when_it_fails_is_told() -> None:
    def fail() -> Any:
        raise ValueError("no such prompt\nmore")

    chunk = Chunk(*ray.remote(num_returns=2, max_retries=0)(fail).remote())
    with pytest.raises(ChunkLost, match=r"^chunk 1 was not made: ValueError: no such prompt$"):
        plan([[3], chunk], 8, 1)
    good = Chunk(*with_lengths({"response_ids": [[1, 2]]}))
    (mine,) = plan([good, [2]], 8, 1)
    with pytest.raises(ChunkLost, match=r"^chunk 1 was not made: ValueError: no such prompt$"):
        execute(mine, [good, chunk])


def test_a_rank_takes_memory_for_its_batch_alone() -> None:
    chunks = [Chunk(*with_lengths(made(i, rows=400, longest=3000))) for i in range(8)]
    refs = [ray.put(chunk.ref) for chunk in chunks]
    first, _ = plan([chunk.lengths for chunk in chunks], 8192, 2)
    rank = Rank.remote()
    used, size = ray.get(rank.memory.remote(first, refs))
    assert size > 1 << 26
    assert used <= 1.1 * size
    ray.kill(rank)


def test_homes_are_ranks_of_the_node() -> None:
    node = ray.get_runtime_context().get_node_id()
    refs = [ray.put(made(i)) for i in range(3)]
    assert homes([*refs, made(3)], [node, "elsewhere", node]).tolist() == [0, 2, 0, -1]
    assert homes(refs, ["elsewhere"]).tolist() == [-1, -1, -1]


def test_refs_of_a_closed_connection_start_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = made(0)
    ref = ray.put(chunk)
    (part,) = plan([with_lengths(chunk)[1]], CAPACITY, 1)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for call in (
        lambda: execute(part, [ref]),
        lambda: execute(part, [ref], pick=True),
        lambda: plan([ref], CAPACITY, 1),
        lambda: homes([ref], ["a"]),
    ):
        with pytest.raises(ValueError, match=r"^there is no connection to Ray any more"):
            call()


def test_killed_producers_and_ranks_lose_no_row_and_change_no_byte() -> None:
    """One is killed in every step, at a random moment; who has lost something makes it again."""
    rng = random.Random(0)
    wanted = [told_of(part) for part in planned([with_lengths(made(i))[1] for i in range(CHUNKS)])]
    step = Step()
    before = in_use()
    for _ in range(by_level(5, 12, 50)):
        timer = threading.Timer(rng.uniform(0, 0.4), step.kill, [rng])
        timer.start()
        results = step.run()
        timer.join()
        assert [result for result, _ in results] == wanted
        assert sorted(row for _, rows in results for row in rows) == list(range(CHUNKS * 60))
    wait_until_free(before)


def planned(lengths: Any) -> Any:
    return plan(lengths, CAPACITY, RANKS)


def told_of(part: Any) -> str:
    return told(execute(part, [made(i) for i in range(CHUNKS)]))


class Step:
    """A driver that starts whom it misses."""

    def __init__(self) -> None:
        self.producers = [Producer.remote() for _ in range(2)]
        self.ranks = [Rank.remote() for _ in range(RANKS)]

    def kill(self, rng: random.Random) -> None:
        ray.kill(rng.choice([*self.producers, *self.ranks]))

    def run(self) -> list[Any]:
        chunks = {i: self.make(i) for i in range(CHUNKS)}
        while True:
            try:
                plans = planned(chunks.values())
                break
            except ChunkLost as lost:
                self.producers[lost.chunk % 2] = Producer.remote()
                chunks[lost.chunk] = self.make(lost.chunk)
        found = [rank.run.remote(part, chunks) for rank, part in zip(self.ranks, plans, strict=True)]
        return [self.result(rank, found[rank], plans[rank], chunks) for rank in range(RANKS)]

    def make(self, number: int) -> Chunk:
        return Chunk(*self.producers[number % 2].make.remote(number))

    def result(self, rank: int, found: Any, part: Any, chunks: Any) -> Any:
        while True:
            try:
                return ray.get(found)
            except ray.exceptions.RayActorError:
                self.ranks[rank] = Rank.remote()
                found = self.ranks[rank].run.remote(part, chunks)

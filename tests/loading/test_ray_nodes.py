"""`rollkit.ray` where chunks are on another node: two stores on one machine."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.loading.on_ray import paths
from tests.loading.test_ray import made, same, whole
from tests.thorough import LEVEL

from rollkit import Ragged, Rollouts
from rollkit.ray import Chunk, ChunkLost, execute, homes, plan, with_lengths
from rollkit.ray._execute import _Making
from rollkit.ray._tasks import check_shared

ray: Any = pytest.importorskip("ray")

from tests.loading.test_ray_cluster import (  # noqa: E402
    again_and_again,
    in_use,
    wait_until_dead,
    wait_until_free,
)

pytestmark = pytest.mark.skipif(LEVEL == 0, reason="two nodes take long to start")

ROWS, CHUNKS = 2000, 6
PICKS = [None, True, False]


@pytest.fixture(scope="module")
def far() -> Iterator[str]:
    """A node beside the one of this driver."""
    from ray.cluster_utils import Cluster

    with paths():
        store: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 1 << 28}
        cluster = Cluster(initialize_head=True, head_node_args={**store, "include_dashboard": False})
        node = cluster.add_node(**store, resources={"far": 1})
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield node.node_id
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def chunks() -> list[Rollouts]:
    return [made(ROWS, number) for number in range(CHUNKS)]


@pytest.fixture
def refs(far: str, chunks: list[Rollouts]) -> list[Chunk]:
    """Chunks on the other node alone."""
    sent = ray.remote(num_cpus=0, num_returns=2, resources={"far": 0.1})(with_lengths)
    return [Chunk(*sent.remote(chunk)) for chunk in chunks]


@pytest.fixture
def came(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of the objects that ranks have read from now on, but for those that came in a message."""
    sizes: list[int] = []
    get = ray.get

    def counted(refs: Any) -> Any:
        found = get(refs)
        several = refs if isinstance(refs, list) else [refs]
        told = ray.experimental.get_object_locations(several)
        sizes.extend(told[ref]["object_size"] or 0 for ref in several)
        return found

    monkeypatch.setattr(ray, "get", counted)
    return sizes


@pytest.mark.parametrize("fetch", [0, 2])
@pytest.mark.parametrize("pick", PICKS)
def test_chunks_come_from_another_node(
    far: str, chunks: list[Rollouts], refs: list[Chunk], fetch: int, pick: bool | None
) -> None:
    nodes = [ray.get_runtime_context().get_node_id(), far]
    plans = plan(refs, 4096, 2, home=homes(refs, nodes))
    assert homes(refs, nodes).tolist() == [1] * CHUNKS
    for part in plans:
        same(execute(part, refs, fetch=fetch, pick=pick), whole(part, chunks))
    assert sorted(np.concatenate([part.rows for part in plans]).tolist()) == list(range(CHUNKS * ROWS))


def test_rows_come_without_the_rest_of_their_chunk(
    far: str, chunks: list[Rollouts], refs: list[Chunk], came: list[int]
) -> None:
    """An eighth of the rows is an eighth of the bytes; of some columns, less."""
    part = plan(refs, 4096, 8)[3]
    same(execute(part, refs), whole(part, chunks))
    assert not here(refs)
    rows = sum(came)
    came.clear()
    few = ["response_ids", "prompt_token_ids"]
    same(execute(part, refs, columns=few), whole(part, [chunk.select(*few) for chunk in chunks]))
    tokens = sum(came)
    came.clear()
    same(execute(part, refs, pick=False), whole(part, chunks))
    assert len(here(refs)) == len(came) == CHUNKS
    assert rows <= 1.1 * len(part.rows) / (CHUNKS * ROWS) * sum(came)
    assert tokens < rows / 2
    came.clear()
    same(execute(part, refs), whole(part, chunks))  # which are here now
    assert sum(came) > 5 * rows


def test_a_chunk_of_which_most_is_wanted_comes_whole(
    far: str, chunks: list[Rollouts], refs: list[Chunk]
) -> None:
    part = plan(refs, 4096, 2, home=[0, 0, 0, 1, 1, 1], nodes=[0, 1])[0]
    few = np.diff(part.by_chunk[1]) < ROWS / 2
    assert few.any()
    assert not few.all()
    same(execute(part, refs), whole(part, chunks))
    assert here(refs) == part.chunks[~few].tolist()


def here(refs: list[Chunk]) -> list[int]:
    """The chunks that are on the node of this driver."""
    node = ray.get_runtime_context().get_node_id()
    found = ray.experimental.get_object_locations([chunk.ref for chunk in refs])
    return [i for i, chunk in enumerate(refs) if node in found[chunk.ref]["node_ids"]]


def test_what_was_picked_is_let_go(
    chunks: list[Rollouts], refs: list[Chunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, *_ = plan(refs, 4096, 8)
    most, add = 0, _Making.add
    before = settled()

    def watched(self: Any, wanted: Any, part: Any) -> None:
        nonlocal most
        most = max(most, in_use()[1])
        add(self, wanted, part)

    monkeypatch.setattr(_Making, "add", watched)
    batch = execute(part, refs, fetch=1)
    same(batch, whole(part, chunks))
    assert most <= before[1] + 2  # the one that is placed, and the next
    wait_until_free(before)


def settled() -> tuple[float, int]:
    """What is in use, once Ray has counted it: nodes tell of their stores now and then, busy ones later."""
    seen: list[tuple[float, int]] = []
    while len(seen) < 5 or len(set(seen[-5:])) > 1:
        seen.append(in_use())
        time.sleep(1)
    return seen[-1]


class Bomb:
    """Who pickles it dies, as long as a file says so; but for this process."""

    def __init__(self, fuses: str) -> None:
        self.fuses, self.safe = Path(fuses), os.getpid()

    def __reduce__(self) -> Any:
        if os.getpid() != self.safe and (left := int(self.fuses.read_text())):
            self.fuses.write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return _bomb, (str(self.fuses), self.safe)

    def __repr__(self) -> str:
        return "bomb"


def _bomb(fuses: str, safe: int) -> Bomb:
    made = Bomb(fuses)
    made.safe = safe
    return made


@pytest.mark.parametrize("kills", [1, 4])
def test_a_worker_that_dies_while_it_picks_changes_nothing(
    refs: list[Chunk], chunks: list[Rollouts], tmp_path: Path, kills: int
) -> None:
    """Ray starts the task again; when it gives up the chunk comes whole."""
    fuses = tmp_path / "fuses"
    fuses.write_text("0")
    bombs = [Bomb(str(fuses)) for _ in range(ROWS)]
    chunk = chunks[0].with_columns(bombs=bombs)
    sent = ray.remote(num_cpus=0, num_returns=2, resources={"far": 0.1})(with_lengths)
    sources = [Chunk(*sent.remote(chunk))]
    (part, *_) = plan(sources, 4096, 8)
    fuses.write_text(str(kills))
    before = settled()
    same(execute(part, sources), whole(part, [chunk]))
    assert fuses.read_text() == "0"
    assert here(sources) == ([0] if kills > 3 else [])
    wait_until_free(before)


@pytest.mark.parametrize("pick", PICKS)
def test_what_is_wrong_with_a_chunk_is_said_alike(refs: list[Chunk], pick: bool | None) -> None:
    part = plan(refs, 4096, 8)[0]
    sent = ray.remote(num_cpus=0, num_returns=2, resources={"far": 0.1})(with_lengths)

    def told(*odd: Any, **options: Any) -> str:
        with pytest.raises((ValueError, TypeError)) as error:
            execute(part, [refs[0], Chunk(*sent.remote(*odd)), *refs[2:]], pick=pick, **options)
        return str(error.value)

    assert told(made(9, 1)) == "chunk 1 has 9 rows, the plan has 2000 for it"
    assert told(made(ROWS, 1).drop("labels")) == "chunk 1 and chunk 0 differ in columns: 'labels'"
    cast = made(ROWS, 1).with_columns(numbers=np.arange(ROWS, dtype=np.float32))
    text = "chunk 1: column 'numbers': got float32 per row, chunk 0 has int64 per row; make all chunks alike"
    assert told(cast) == text
    rows = part.rows[(part.rows >= ROWS) & (part.rows < 2 * ROWS)] - ROWS
    tokens = list(made(ROWS, 1)["response_ids"])
    row = next(int(row) for row in rows if len(tokens[row]))
    tokens[row] = tokens[row][1:]
    text = (
        f"chunk 1: row {row} has {part.lengths[part.rows == ROWS + row][0] - 1} tokens (prompt and response)"
    )
    cut = made(ROWS, 1).drop("response_ids").with_columns(response_ids=Ragged.from_rows(tokens, np.int64))
    assert told(cut).startswith(text)
    assert told(made(ROWS, 1), columns=["z"]).startswith("chunk 0: columns has 'z', which is no column")


@pytest.mark.parametrize("pick", PICKS)
def test_a_chunk_whose_owner_died_is_lost(refs: list[Chunk], pick: bool | None) -> None:
    """Ray ends a process that asks owners for locations, and one of them is dead; see `nodes_of`."""
    part = plan(refs, 4096, 8)[0]
    owner = ray.remote(num_cpus=0, resources={"far": 0.1})(Owner).remote()
    (put,) = ray.get(owner.put.remote())
    ray.kill(owner)
    wait_until_dead(owner)  # else a copy may be here before, and stay a while
    with pytest.raises(ChunkLost, match=r"^chunk 1 is gone: the process that owned it has died") as lost:
        again_and_again(lambda: execute(part, [refs[0], put, *refs[2:]], pick=pick))
    assert lost.value.chunk == 1
    assert homes([refs[0], put], ["elsewhere"]).tolist() == [-1, -1]


class Owner:
    """An actor that puts a chunk in the store."""

    def put(self) -> Any:
        return [ray.put(made(ROWS, 1))]


def test_a_path_that_a_node_does_not_see_is_told(far: str, tmp_path: Path) -> None:
    check_shared([tmp_path])
    gone = tmp_path / "gone"
    with pytest.raises(
        ValueError, match=r"of the Ray cluster does not see it; it must lie on storage"
    ) as told:
        check_shared([tmp_path, gone])
    assert str(told.value).startswith(f"{gone}: node ")
    assert "\n" not in str(told.value)

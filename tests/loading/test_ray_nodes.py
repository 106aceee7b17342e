"""`rollkit.ray` where chunks are on another node: two stores on one machine."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.loading.test_ray import made, same, whole
from tests.thorough import LEVEL, by_level

import rollkit
from rollkit import Rollouts
from rollkit.ray import Chunk, ChunkLost, _fetch, execute, homes, plan, with_lengths

ray: Any = pytest.importorskip("ray")

pytestmark = pytest.mark.skipif(LEVEL == 0, reason="two nodes take long to start")

ROWS, CHUNKS = 2000, 6
PICKS = [None, True, False]


@pytest.fixture(scope="module")
def far() -> Iterator[str]:
    """A node beside the one of this driver."""
    from ray.cluster_utils import Cluster

    root = Path(rollkit.__file__).parents[1]
    paths = [str(root), str(root.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
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
    here = ray.get_runtime_context().get_node_id()
    plans = plan(refs, 4096, 2, home=homes(refs, [here, far]))
    assert homes(refs, [here, far]).tolist() == [1] * CHUNKS
    for part in plans:
        same(execute(part, refs, fetch=fetch, pick=pick), whole(part, chunks))
    assert sorted(np.concatenate([part.rows for part in plans]).tolist()) == list(range(CHUNKS * ROWS))


def test_rows_come_without_the_rest_of_their_chunk(
    far: str, chunks: list[Rollouts], refs: list[Chunk], came: list[int]
) -> None:
    ranks = 8
    plans = plan(refs, 4096, ranks)
    before = kept()
    for pick, most in ((False, CHUNKS), (None, 1.02 * CHUNKS / ranks)):
        del came[:]
        same(execute(plans[3], refs, pick=pick), whole(plans[3], chunks))
        size = ray.experimental.get_object_locations([refs[0].ref])[refs[0].ref]["object_size"]
        assert len(came) == CHUNKS
        if pick is None:  # chunks are here now
            assert here_now(refs) == 1
    assert before <= kept()

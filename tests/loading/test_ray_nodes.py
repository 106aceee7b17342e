"""`rollkit.ray` where chunks are on another node: two stores on one machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.loading.test_ray import made, same, whole
from tests.thorough import LEVEL

import rollkit
from rollkit.ray import Chunk, execute, homes, plan, with_lengths

ray: Any = pytest.importorskip("ray")

pytestmark = pytest.mark.skipif(LEVEL == 0, reason="two nodes take long to start")

ROWS = 2000


@pytest.fixture(scope="module")
def far() -> Iterator[str]:
    """A node beside the one of this driver."""
    from ray.cluster_utils import Cluster

    paths = [str(Path(rollkit.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        store: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 1 << 28}
        cluster = Cluster(initialize_head=True, head_node_args={**store, "include_dashboard": False})
        node = cluster.add_node(**store, resources={"far": 1})
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield node.node_id
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("fetch", [0, 2])
def test_chunks_come_from_another_node(far: str, fetch: int) -> None:
    chunks = [made(ROWS, number) for number in range(6)]
    sent = ray.remote(num_cpus=0, num_returns=2, resources={"far": 0.1})(with_lengths)
    refs = [Chunk(*sent.remote(chunk)) for chunk in chunks]
    here = ray.get_runtime_context().get_node_id()
    plans = plan(refs, 4096, 2, home=homes(refs, [here, far]))
    assert homes(refs, [here, far]).tolist() == [1] * 6
    for part in plans:
        same(execute(part, refs, fetch=fetch), whole(part, chunks))
    assert sorted(np.concatenate([part.rows for part in plans]).tolist()) == list(range(6 * ROWS))

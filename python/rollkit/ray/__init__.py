"""Past one machine, on Ray: a driver plans by lengths, and each rank places its own rows.

    chunks = [Chunk(*generate.remote(part)) for part in parts]     # who generates returns `with_lengths(…)`
    plans = plan(chunks, capacity=65536, ranks=len(ranks))         # the driver: no token comes here
    ray.get([rank.step.remote(mine, chunks) for rank, mine in zip(ranks, plans)])

    def step(self, plan, chunks):                                  # a rank
        batch = self.batch = execute(plan, chunks, out=self.batch)
        for t in range(len(plan)):
            loss(model(batch[t : t + 1])).backward()

`PackBatches` and `CollateArrow` are for Ray datasets, `write_shards` is `rollkit pack` by a cluster.

Ray is imported where a ref is met, so that plans are made and tried without it. See docs/scale.md.
"""

from typing import TYPE_CHECKING, Any

from rollkit.ray._chunk import Chunk, ChunkLost, homes, with_lengths
from rollkit.ray._data import PackBatches
from rollkit.ray._execute import execute
from rollkit.ray._plan import RankPlan, agree, plan
from rollkit.ray._shards import write_shards

if TYPE_CHECKING:
    from rollkit.ray._collate import CollateArrow

__all__ = [
    "Chunk",
    "ChunkLost",
    "CollateArrow",
    "PackBatches",
    "RankPlan",
    "agree",
    "execute",
    "homes",
    "plan",
    "with_lengths",
    "write_shards",
]


def __getattr__(name: str) -> Any:
    if name == "CollateArrow":  # a class of Ray's
        from rollkit.ray._collate import CollateArrow

        return CollateArrow
    raise AttributeError(f"module 'rollkit.ray' has no attribute {name!r}")

"""Past one machine, on Ray: a driver plans by lengths, and each rank places its own rows.

    chunks = [Chunk(*generate.remote(part)) for part in parts]     # who generates returns `with_lengths(…)`
    plans = plan(chunks, capacity=65536, ranks=len(ranks))         # the driver: no token comes here
    ray.get([rank.step.remote(mine, chunks) for rank, mine in zip(ranks, plans)])

    def step(self, plan, chunks):                                  # a rank
        batch = self.batch = execute(plan, chunks, out=self.batch)
        for t in range(len(plan)):
            loss(model(batch[t : t + 1])).backward()

Ray is imported where a ref is met, so that plans are made and tried without it. See docs/scale.md.
"""

from rollkit.ray._chunk import Chunk, ChunkLost, homes, with_lengths
from rollkit.ray._execute import execute
from rollkit.ray._plan import RankPlan, agree, plan

__all__ = ["Chunk", "ChunkLost", "RankPlan", "agree", "execute", "homes", "plan", "with_lengths"]

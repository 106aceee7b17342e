"""Simulate an optimizer step of 1 000 ranks: bytes over the network and idle time, with the real planner.

    python scripts/simulate_scale.py                       # 256 000 rows, 125 nodes of 8 ranks: seconds
    python scripts/simulate_scale.py --routes 48 8         # with expert choices, 384 bytes a token more
    python scripts/simulate_scale.py --rows 1000000        # a minute
    python scripts/simulate_scale.py --record              # the tables of benches/results

Nodes make rollouts and train on them. Each rank of a node holds one chunk: the rows that its producer made.
Lengths are log-normal, with shifts of the node, of the prompt (16 rows each) and of the row. A strategy says
which rank runs which rows in which micro-batch. Then time passes so:

* A micro-batch takes `seconds_per_cost` for each unit of its cost, a·n + b·n² a row; on a slow rank longer.
* Ranks wait for one another after each micro-batch (`--sync micro_batch`) or at the end (`step`).
* A rank asks for the rows of a micro-batch `fetch` micro-batches ahead. A node sends, and takes in, what is
  asked for in turn, at `node_bandwidth`, both ways at once; a rank places its rows at `rank_bandwidth`.
* Ranks fetch the rows that they run, as `rollkit.ray.execute` does from other nodes, or, `whole`, the chunks
  that have them, each once a node.
* A driver that gathers has one port of `node_bandwidth`. It sends when it has everything; its own packing
  costs it nothing here.

Not in the model: congestion between ports, gradients, a driver that fails, and how long it takes to make
rollouts again. All but the planner's CPU seconds follows from the seed.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rollkit

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

RESULTS = Path(__file__).resolve().parents[1] / "benches/results"
PROMPT = 16  # rows of one prompt
MEDIAN, NODE_SIGMA, PROMPT_SIGMA, ROW_SIGMA = 2617, 0.3, 0.5, 0.7  # σ = 0.91 over all
SHORTEST, LONGEST = 16, 32768
NO_RANKS: Ints = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Setting:
    """What is simulated."""

    rows: int = 256_000
    nodes: int = 125
    ranks_per_node: int = 8
    capacity: int = 65536
    cost: tuple[int, int] = (24576, 1)
    sync: str = "micro_batch"
    seconds_per_cost: float = 5e-9
    """A token costs 24 576 and takes 0.12 ms: 8·10⁹ parameters, 6 operations each, 400·10¹² a second."""
    node_bandwidth: float = 12.5e9
    """Bytes a second, in and out at once: 100 Gbit/s."""
    rank_bandwidth: float = 1e9
    """Bytes a second that a rank places into micro-batches."""
    routes: tuple[int, int] = (0, 0)
    """Layers, and experts a token of each."""
    fetch: int = 2
    slow_ranks: int = 3
    slower: float = 1.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated: a node is lost, so there are two."""
        ones = dict.fromkeys(("rows", "ranks_per_node", "capacity", "fetch"), 1)
        none = dict.fromkeys(("slow_ranks", "seed", "cost", "routes"), 0)
        for name, wanted in {"nodes": 2, **ones, **none}.items():
            value = getattr(self, name)
            if np.min(value) < wanted:
                raise ValueError(f"{name} must be at least {wanted}, got {value}")
        for name in ("seconds_per_cost", "node_bandwidth", "rank_bandwidth", "slower", "cost"):
            if not np.sum(getattr(self, name)) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True)
class World:
    """Rows and where they are."""

    of: Setting
    lengths: Ints
    costs: Ints
    chunk: Ints
    """The rank that holds each row."""
    token_bytes: int
    """Of the columns of a batch that are fetched; the others are made where the batch is."""

    @classmethod
    def make(cls, of: Setting) -> World:
        """Draw rows."""
        random = np.random.default_rng(of.seed)
        number = np.arange(of.rows)
        chunk = number * of.ranks // of.rows
        shift = random.normal(0, NODE_SIGMA, of.nodes)[chunk // of.ranks_per_node]
        shift += random.normal(0, PROMPT_SIGMA, of.rows // PROMPT + 1)[number // PROMPT]
        shift += random.normal(0, ROW_SIGMA, of.rows)
        longest = min(LONGEST, of.capacity)
        lengths = (MEDIAN * np.exp(shift)).clip(SHORTEST, longest).astype(np.int64)
        a, b = of.cost
        return cls(of, lengths, a * lengths + b * lengths**2, chunk, token_bytes(*of.routes))

    @property
    def home(self) -> Ints:
        """The node of each row."""
        return self.chunk // self.of.ranks_per_node

    @property
    def bytes(self) -> Ints:
        """Of each row."""
        return self.lengths * self.token_bytes

    @property
    def slow(self) -> Ints:
        """Which ranks are slow."""
        count = min(self.of.slow_ranks, self.of.ranks - 1)
        return np.random.default_rng(self.of.seed + 1).choice(self.of.ranks, count, replace=False)


def token_bytes(layers: int, top_k: int) -> int:
    """What a token takes in those columns of a real batch that ranks fetch."""
    columns: dict[str, list[NDArray[Any]]] = {
        "rollout_logprobs": [np.zeros(4, np.float32)],
        "loss_masks": [np.ones(4, np.uint8)],
    }
    if layers * top_k:
        columns["rollout_expert_indices"] = [np.zeros((4, layers, top_k), np.uint8)]
    batch = rollkit.pack(rollkit.Rollouts({"response_ids": [np.zeros(4, np.int32)], **columns}), 4)
    return sum(np.asarray(batch[name]).nbytes for name in ("input_ids", *columns)) // 4


@dataclass(frozen=True)
class Split:
    """Which rank runs which rows in which micro-batch."""

    rows: Ints
    rank: Ints
    step: Ints
    steps: int
    seconds: float = 0.0
    """What the planner took: CPU time, for real."""

    def of(self, which: Bools) -> Split:
        """A part of the rows."""
        return replace(self, rows=self.rows[which], rank=self.rank[which], step=self.step[which])

    def loads(self, world: World) -> Ints:
        """`[ranks, steps]`: the cost of each micro-batch."""
        loads = np.zeros((world.of.ranks, self.steps), np.int64)
        np.add.at(loads, (self.rank, self.step), world.costs[self.rows])
        return loads

    def node(self, world: World) -> Ints:
        """The node that runs each row."""
        return self.rank // world.of.ranks_per_node

    def idle(self, world: World) -> float:
        """The share of time in which ranks wait for the costliest, were all rows there."""
        loads = self.loads(world)
        each = loads.max(axis=0).sum() if world.of.sync == "micro_batch" else loads.sum(axis=1).max()
        return float(1 - loads.sum() / (world.of.ranks * each))

    def moved(self, world: World, source: Ints, whole: bool = False) -> Ints:
        """Bytes of each row over the network, to the node that runs it.

        Where chunks are fetched whole, the first row that a node runs of each stands for all of it.
        """
        away = source[self.rows] != self.node(world)
        if not whole:
            moved: Ints = world.bytes[self.rows] * away
            return moved
        chunk, order = world.chunk[self.rows], np.argsort(self.step, kind="stable")
        order = order[away[order]]
        pairs = self.node(world)[order] * world.of.ranks + chunk[order]
        first = order[np.unique(pairs, return_index=True)[1]]
        sizes = np.bincount(world.chunk, world.bytes, world.of.ranks).astype(np.int64)
        moved = np.zeros(len(self.rows), np.int64)
        moved[first] = sizes[chunk[first]]
        return moved


Splitter = Callable[[World, Ints, Ints], Split]
"""Rows to those ranks that may have some."""


def by_plan(world: World, rows: Ints, ranks: Ints) -> Split:
    """`plan_steps` over all rows, with `home`."""
    number = np.full(world.of.ranks, -1)
    number[ranks] = np.arange(len(ranks))
    return _planned(world, rows, ranks, home=number[world.chunk[rows]])


def by_node(world: World, rows: Ints, ranks: Ints) -> Split:
    """`plan_steps` with `nodes`: rows leave a node that has more than its share."""
    nodes = ranks // world.of.ranks_per_node
    first = np.full(world.of.nodes, -1)
    first[nodes[::-1]] = np.arange(len(ranks))[::-1]
    return _planned(world, rows, ranks, home=first[world.home[rows]], nodes=nodes.tolist())


def _planned(world: World, rows: Ints, ranks: Ints, **where: Any) -> Split:
    begun = time.thread_time()
    plan = rollkit.plan_steps(
        world.lengths[rows],
        capacity=world.of.capacity,
        ranks=len(ranks),
        cost=world.of.cost,
        sync=world.of.sync,
        **where,
    )
    seconds = time.thread_time() - begun
    rank, step = np.divmod(plan.slots, plan.steps)
    return Split(rows, ranks[rank], step, plan.steps, seconds)


def by_hash(world: World, rows: Ints, ranks: Ints) -> Split:
    """A row's number says its rank; each rank packs what it gets."""
    mixed = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(33)
    return _packed_alone(world, rows, ranks[mixed.astype(np.int64) % len(ranks)])


def at_home(world: World, rows: Ints, ranks: Ints) -> Split:
    """Each rank runs the chunk that it holds."""
    return _packed_alone(world, rows, world.chunk[rows])


def _packed_alone(world: World, rows: Ints, rank: Ints) -> Split:
    step, seconds = np.zeros(len(rows), np.int64), 0.0
    order = np.argsort(rank, kind="stable")
    for of in np.split(order, np.flatnonzero(np.diff(rank[order])) + 1):
        begun = time.thread_time()
        step[of] = rollkit.plan_bins(world.lengths[rows[of]], world.of.capacity)
        seconds = max(seconds, time.thread_time() - begun)  # all ranks at once
    return Split(rows, rank, step, int(step.max()) + 1, seconds)


@dataclass(frozen=True)
class Strategy:
    """How a step is done."""

    name: str
    split: Splitter
    driver: bool = False
    """Whether all rows go through one port."""
    whole: bool = False
    """Whether chunks are fetched whole, as the objects of a store are."""
    leave_slow: bool = False
    """Whether slow ranks get nothing."""
    ways: tuple[str, ...] = ("dealt again", "planned anew")
    """What becomes of the rest when a node is lost."""

    def source(self, world: World) -> Ints:
        """The node that sends each row; the driver is one more."""
        return np.full(len(world.lengths), world.of.nodes) if self.driver else world.home

    def gathered(self, world: World) -> int:
        """Bytes that must be at the driver before it sends any."""
        return int(world.bytes.sum()) if self.driver else 0


STRATEGIES = (
    Strategy("`plan_steps`, `home=`", by_plan),
    Strategy("the same, nothing to slow ranks", by_plan, leave_slow=True),
    Strategy("the same, whole chunks", by_plan, whole=True, ways=()),
    Strategy("`plan_steps`, `nodes=`", by_node),
    Strategy("the same, chunks whole", by_node, whole=True, ways=()),
    Strategy("driver gathers, plans, scatters", by_plan, driver=True),
    Strategy("rank by hash", by_hash, ways=("dealt again",)),
    Strategy("each rank its own chunk", at_home, ways=("dealt again",)),
)


def timeline(
    world: World,
    split: Split,
    source: Ints,
    *,
    whole: bool = False,
    slow: Ints = NO_RANKS,
    start: float = 0.0,
) -> tuple[float, float]:
    """When all ranks are done, and the share of their time until then in which they do nothing."""
    of, node, moved = world.of, split.node(world), split.moved(world, source, whole)
    sender, away = source[split.rows], moved > 0

    def seconds(ports: int, port: Ints, amounts: Ints, rate: float) -> Floats:
        """`[ports, steps]`: for how long each is busy for each micro-batch."""
        sums = np.bincount(port * split.steps + split.step, amounts, ports * split.steps)
        return (sums / rate).reshape(ports, split.steps)

    work = split.loads(world) * of.seconds_per_cost
    work[slow] *= of.slower
    sending = seconds(of.nodes + 1, sender, moved, of.node_bandwidth)
    taking = seconds(of.nodes, node, moved, of.node_bandwidth)
    placing = seconds(of.ranks, split.rank, world.bytes[split.rows], of.rank_bandwidth)
    order = np.argsort(split.step, kind="stable")
    ends = np.searchsorted(split.step[order], range(1, split.steps))

    sent, taken, placed = (np.full(len(port), start) for port in (sending, taking, placing))
    clock, begun = np.full(of.ranks, start), list[float]()
    for step, rows in enumerate(np.split(order, ends)):
        asked = begun[step - of.fetch] if step >= of.fetch else start
        sent = np.maximum(sent, asked) + sending[:, step]
        taken = np.maximum(taken, asked) + taking[:, step]
        placed = np.maximum(placed, asked) + placing[:, step]
        arrived = np.maximum(placed, taken.repeat(of.ranks_per_node))
        far = rows[away[rows]]
        np.maximum.at(arrived, split.rank[far], sent[sender[far]])
        clock = np.maximum(clock, arrived)
        begun.append(float(clock.min()))
        clock = clock + work[:, step]
        if of.sync == "micro_batch":
            clock[:] = clock.max()
    end = float(clock.max())
    return end, float(1 - work.sum() / (of.ranks * end))


def least_bytes(world: World, split: Split) -> int:
    """What must leave its node for nodes to have as much to do as in this split, whichever rows they run.

    A node that holds more than it runs gives off the difference: of cost, in as few bytes as its longest rows
    (a part of the last, too) have for that; and of tokens.
    """
    nodes, node, home = world.of.nodes, split.node(world), world.home[split.rows]
    costs, lengths = world.costs[split.rows], world.lengths[split.rows]
    more = np.bincount(home, costs, nodes) - np.bincount(node, costs, nodes)
    tokens = np.bincount(home, lengths, nodes) - np.bincount(node, lengths, nodes)
    order = np.lexsort((-lengths, home))
    home, costs, lengths = home[order], costs[order], lengths[order]
    before = np.cumsum(costs) - costs
    before -= before[np.searchsorted(home, np.arange(nodes)).clip(0, len(home) - 1)][home]
    share = ((more[home] - before) / costs).clip(0, 1)
    least = np.bincount(home, share * lengths, nodes)
    return int(np.maximum(least, tokens).clip(0).sum() * world.token_bytes)


@dataclass(frozen=True)
class Outcome:
    """What a strategy does in a step."""

    strategy: Strategy
    split: Split
    moved: int
    """Bytes over the network, of all."""
    least: int
    """What every split of such loads moves at least."""
    at_rank: int
    """Bytes of rows from other nodes that one rank runs, at most."""
    at_port: int
    """Bytes through one port, one way, at most."""
    seconds: float
    idle: float
    with_slow: tuple[float, float]
    """Seconds and idle share, where some ranks are slow."""


def run(world: World, strategy: Strategy) -> Outcome:
    """One step, without and with slow ranks."""
    of = world.of
    ranks = np.setdiff1d(np.arange(of.ranks), world.slow if strategy.leave_slow else NO_RANKS)
    split = strategy.split(world, np.arange(of.rows), ranks)
    source, gathered, whole = strategy.source(world), strategy.gathered(world), strategy.whole
    start = gathered / of.node_bandwidth
    seconds, idle = timeline(world, split, source, whole=whole, start=start)
    moved = split.moved(world, source, whole)
    ports = np.bincount(source[split.rows], moved).max(), np.bincount(split.node(world), moved).max()
    return Outcome(
        strategy,
        split,
        moved=int(moved.sum()) + gathered,
        least=least_bytes(world, split),
        at_rank=int(np.bincount(split.rank, split.moved(world, source)).max()),
        at_port=int(max(gathered, *ports)),
        seconds=seconds,
        idle=idle,
        with_slow=timeline(world, split, source, whole=whole, slow=world.slow, start=start),
    )


@dataclass(frozen=True)
class Loss:
    """What a lost node costs."""

    done: Ints
    """Rows that need not run again."""
    rest: Split
    """The others, on the ranks that are left."""
    bins: int
    """Micro-batches of the lost ranks."""
    remade: int
    """Tokens of chunks that are made again."""
    more_moved: int
    more_seconds: float
    least_seconds: float
    """That, if all ranks that are left had equally much of the rest."""


def lose(world: World, outcome: Outcome, way: str) -> Loss:
    """Lose a node at the end of a micro-batch, both random.

    What its ranks have added up is gone, so that all their micro-batches run elsewhere, and so is the
    micro-batch that was running. Chunks that the node held are made again by other producers, but for those
    of which all rows are where they run. A micro-batch is a function of the plan and the chunks, so that it
    is the same wherever it runs. `way` "dealt again": the ranks that are left go on with theirs, and then run
    those of the lost ranks. "planned anew": all rows that are not done are planned for those ranks.
    """
    of, split, strategy = world.of, outcome.split, outcome.strategy
    random = np.random.default_rng(of.seed + 2)
    lost, during = int(random.integers(of.nodes)), int(random.integers(split.steps))
    ranks = np.unique(split.rank)
    left = ranks[ranks // of.ranks_per_node != lost]
    if not len(left):  # those that are slow step in
        left = np.flatnonzero(np.arange(of.ranks) // of.ranks_per_node != lost)
    survives, fetched = split.node(world) != lost, split.step < during + of.fetch
    done = survives & (split.step < during)
    after, remade = world, 0
    if not strategy.driver:
        gone = np.unique(world.chunk[split.rows[(world.home[split.rows] == lost) & ~(survives & fetched)]])
        remade = int(world.lengths[np.isin(world.chunk, gone)].sum())
        moves = world.home == lost
        after = replace(world, chunk=np.where(moves, left[world.chunk % len(left)], world.chunk))
    todo = split.of(~done)
    again = way == "dealt again"
    rest = _dealt_again(todo, lost, left, during, of) if again else strategy.split(after, todo.rows, left)
    has = (survives & fetched)[~done] & (rest.rank == todo.rank)
    moved, source = split.moved(world, strategy.source(world)), strategy.source(after)
    more = int(rest.moved(after, source)[~has].sum()) - int(moved[~fetched].sum())
    first = replace(split.of(split.step <= during), steps=during + 1)
    start = strategy.gathered(world) / of.node_bandwidth
    broken, _ = timeline(world, first, strategy.source(world), start=start)
    end, _ = timeline(after, rest, source, start=broken)
    even = rest.loads(world).sum() * of.seconds_per_cost / len(left)
    return Loss(
        done=split.rows[done],
        rest=rest,
        bins=len(np.unique((split.rank * split.steps + split.step)[~survives])),
        remade=remade,
        more_moved=more,
        more_seconds=end - outcome.seconds,
        least_seconds=float(broken + even - outcome.seconds),
    )


def _dealt_again(todo: Split, lost: int, left: Ints, during: int, of: Setting) -> Split:
    """Ranks go on from a micro-batch; those of a lost node come after, one to each rank in turn."""
    rank, step = todo.rank.copy(), todo.step - during
    theirs = rank // of.ranks_per_node == lost
    _, turn = np.unique(todo.step[theirs] * of.ranks + rank[theirs], return_inverse=True)
    rank[theirs] = left[turn % len(left)]
    step[theirs] = todo.steps - during + turn // len(left)
    return Split(todo.rows, rank, step, int(step.max()) + 1)


def report(of: Setting) -> Iterator[str]:
    """Lines of tables."""
    world = World.make(of)
    tokens = int(world.lengths.sum())
    skew, _ = rollkit.imbalance(world.lengths, world.home, cost=of.cost, parts=of.nodes)
    waits = "micro-batch" if of.sync == "micro_batch" else "step"
    yield (
        f"{of.rows:,} rows, {tokens / 1e6:,.0f} M tokens of {world.token_bytes} bytes, "
        f"{tokens * world.token_bytes / 1e9:,.1f} GB, on {of.nodes} nodes of {of.ranks_per_node} ranks; "
        f"the costliest node is {skew:.0%} above the mean. Micro-batches of {of.capacity:,}, ranks wait "
        f"after each {waits}. Slow are {of.slow_ranks} ranks, by {of.slower:g}."
    )
    yield ""
    outcomes = [run(world, strategy) for strategy in STRATEGIES]
    yield from table(
        "strategy, plan, micro-batches a rank, moved, at least, rows to one rank, through one port, step, "
        "idle, with slow ranks: step, idle",
        [
            (
                found.strategy.name,
                f"{found.split.seconds * 1e3:,.1f} ms",
                f"{found.split.steps}",
                f"{found.moved / 1e9:.2f} GB",
                f"{found.least / 1e9:.2f} GB",
                f"{found.at_rank / 1e6:,.1f} MB",
                f"{found.at_port / 1e9:.2f} GB",
                f"{found.seconds:.1f} s",
                f"{found.idle:.2%}",
                f"{found.with_slow[0]:.1f} s",
                f"{found.with_slow[1]:.2%}",
            )
            for found in outcomes
        ],
    )
    yield ""
    losses = [(found, way, lose(world, found, way)) for found in outcomes for way in found.strategy.ways]
    yield from table(
        "a node lost, rest, its micro-batches, tokens made again, more moved, more time, were it even",
        [
            (
                found.strategy.name,
                way,
                f"{loss.bins}",
                f"{loss.remade / 1e6:.1f} M",
                f"{loss.more_moved / 1e9:+.2f} GB",
                f"{loss.more_seconds:+.1f} s",
                f"{loss.least_seconds:+.1f} s",
            )
            for found, way, loss in losses
        ],
    )


def table(titles: str, rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Lines of Markdown."""
    names = titles.split(", ")
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def planner(of: Setting) -> Iterator[str]:
    """What the planner's time and the idle time hang on."""
    syncs = ("micro_batch", "step")
    cases = [(rows, 65536, sync) for rows in (16_000, 64_000, 256_000, 1_000_000) for sync in syncs]
    cases += [(64_000, 32768, sync) for sync in syncs] + [(64_000, 131072, "micro_batch")]
    rows = []
    for (count, capacity, sync), plan in product(cases, (by_plan, by_node)):
        world = World.make(replace(of, rows=count, capacity=capacity, sync=sync))
        split = plan(world, np.arange(count), np.arange(of.ranks))
        rows.append(
            (
                f"{count:,}",
                f"{capacity:,}",
                sync,
                "`nodes=`" if plan is by_node else "`home=`",
                f"{split.seconds * 1e3:,.0f} ms",
                f"{split.seconds / count * 1e9:,.0f} ns",
                f"{split.steps}",
                f"{world.lengths.sum() / (of.ranks * split.steps * capacity):.1%}",
                f"{split.idle(world):.2%}",
                f"{split.moved(world, world.home).sum() / world.bytes.sum():.1%}",
            )
        )
    yield from table(
        "rows, capacity, ranks wait, by, plan, a row, micro-batches a rank, full, idle, moved", rows
    )


def record(of: Setting) -> Path:
    """Write the tables of benches/results."""
    path = RESULTS / f"simulation-{date.today()}-{platform.machine()}.md"
    settings = of, replace(of, routes=(48, 8)), replace(of, sync="step"), replace(of, rows=1_000_000)
    parts = [
        f"# 1 000 ranks, simulated {date.today()}",
        f"{platform.machine()}, CPython {platform.python_version()}, NumPy {np.__version__}. "
        "`python scripts/simulate_scale.py --record`: its docstring says the model. The planner's CPU time "
        "is measured; all else is computed.",
        *("\n".join(report(setting)) for setting in settings),
        "The planner alone, for 1 000 ranks:",
        "\n".join(planner(of)),
    ]
    path.write_text("\n\n".join(parts) + "\n")
    return path


def main() -> None:
    """Print the tables of a setting, or record those of the default."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="write the tables of benches/results")
    for field in fields(Setting):
        value = field.default
        many, kind = (len(value), int) if isinstance(value, tuple) else (None, type(value))
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=kind, nargs=many, default=value, help="%(default)s")
    given: dict[str, Any] = vars(parser.parse_args())
    recorded = given.pop("record")
    for name in ("cost", "routes"):
        given[name] = tuple(given[name])
    try:
        of = Setting(**given)
    except ValueError as error:
        parser.error(str(error))
    if recorded:
        print(record(of))
        return
    for line in report(of):
        print(line)


if __name__ == "__main__":
    main()

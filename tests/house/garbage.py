"""What the garbage tests call, and with what: public callables of the package, and values nobody means."""

from __future__ import annotations

import enum
import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from tests.house.garbage_drop_ins import ARGUMENTS, collator, trained

import rollkit
from rollkit import (
    Batch,
    Bins,
    Forest,
    Groups,
    Layout,
    Ledger,
    Mixture,
    Moments,
    OnlinePacker,
    Ragged,
    Rollouts,
    ShuffledSampler,
    datasets,
    decode,
    engines,
    forest,
    loss_totals,
    pack,
    plan_steps,
    plot,
    routing,
    segments,
)

MODULES = (rollkit, datasets, segments, routing, decode, forest, engines, plot, rollkit.ray)
"""Oracles do what they say and nothing else: their arguments are those of who writes tests."""

DOORS = ("grain", "jax", "torch")

DROP_INS = ("flash_attn", "skyrl", "transformer_engine", "transformers", "trl", "verifiers", "verl")
"""Modules of `rollkit.compat`, which need frameworks."""


class Liar(list):  # type: ignore[type-arg]
    """A list that says it is longer than it is."""

    def __len__(self) -> int:
        return 10


class Shrinking:
    """A number that empties the list it is in when it is read."""

    def __init__(self, home: list[Any]) -> None:
        self.home = home

    def __index__(self) -> int:
        self.home.clear()
        return 1


def shrinking() -> list[Any]:
    home: list[Any] = []
    home += [1, Shrinking(home), 3]
    return [home, home]


def endless() -> list[Any]:
    """A list that is in itself."""
    found: list[Any] = []
    found.append(found)
    return found


def frozen() -> Any:
    found = np.arange(4)
    found.flags.writeable = False
    return found


HOSTILE: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "object": object,
    "class": lambda: int,
    "function": lambda: len,
    "empty list": list,
    "empty dict": dict,
    "dict": lambda: {1: 2},
    "text": lambda: "x",
    "bytes": lambda: b"",
    "true": lambda: True,
    "-1": lambda: -1,
    "0": lambda: 0,
    "2**70": lambda: 2**70,
    "-2**70": lambda: -(2**70),
    "0.5": lambda: 0.5,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "1e300": lambda: 1e300,
    "1j": lambda: 1j,
    "generator": lambda: (i for i in [1, 2]),
    "set": lambda: {1, 2},
    "range": lambda: range(3),
    "list of None": lambda: [None, None],
    "list of texts": lambda: ["a", "b"],
    "list of dicts": lambda: [{}, {"a": 1}],
    "list of objects": lambda: [object(), object()],
    "lists of texts": lambda: [["a"], ["b", "c"]],
    "uneven lists": lambda: [[1, [2]], 3],
    "deep list": lambda: [[[[1]], [[2]]]],
    "list of nan": lambda: [float("nan"), 1.0],
    "list of huge": lambda: [2**70, 1],
    "list of lists of huge": lambda: [[2**70], [1]],
    "itself": endless,
    "liar": lambda: Liar([[1], [2]]),
    "shrinking": shrinking,
    "0-D": lambda: np.array(3),
    "0-D float": lambda: np.array(0.5),
    "float64": lambda: np.array([0.5, 1.5]),
    "int64": lambda: np.array([1, -2]),
    "4-D": lambda: np.zeros((2, 1, 1, 2), np.int64),
    "no elements": lambda: np.zeros((0, 3)),
    "object array": lambda: np.array([None, "a"], object),
    "complex": lambda: np.array([1j, 2]),
    "datetime": lambda: np.array(["2020-01-01", "NaT"], "M8[s]"),
    "structured": lambda: np.zeros(2, [("a", "i4"), ("b", "f8")]),
    "texts": lambda: np.array(["a", "b"]),
    "raw": lambda: np.zeros(2, "V3"),
    "big-endian": lambda: np.arange(2, dtype=">i4"),
    "bool array": lambda: np.array([True, False]),
    "read-only": frozen,
    "strided": lambda: np.arange(8)[::3],
    "unsigned": lambda: np.array([2**64 - 1, 1], np.uint64),
    "np.int8": lambda: np.int8(-1),
    "np.float16": lambda: np.float16("nan"),
    "Ragged": lambda: Ragged.from_rows([[1], [2, 3]]),
    "Ragged of lists": lambda: Ragged.from_rows([[[1, 2]], [[3, 4]]]),
    "Layout": lambda: Layout.pad([1, 2, 3]),
    "Rollouts": lambda: Rollouts({"response_ids": [[1]], "tags": ["a"]}),
    "Batch": lambda: pack({"response_ids": [[1]]}, 4),
    "module": lambda: np,
}

RAW = (
    "ambiguous",
    "inhomogeneous",
    "only integer scalar arrays",
    "object has no attribute",
    "has no len()",
    "is not iterable",
    "not subscriptable",
    "not supported between instances",
    "unsupported operand",
    "could not be broadcast",
    "unhashable type",
    "unexpected keyword",
    "ufunc",
    "invalid literal",
    "cannot be interpreted",
    "setting an array element",
    "object is not callable",
    "too many values to unpack",
    "not enough values to unpack",
    "missing 1 required",
    "positional argument",
)
"""What says nothing of the argument that is at fault: the words of Python and NumPy."""

REFUSALS = (
    ValueError, TypeError, OverflowError, MemoryError, KeyError, NotImplementedError, IndexError, OSError
)  # fmt: skip

LEFT_TO_TORCH = ("flash_attn", "skyrl", "trl", "verifiers", "verl")

THEIRS = (*REFUSALS, ZeroDivisionError, AssertionError, AttributeError, RuntimeError)
"""How drop-ins may refuse: as their originals do, which leave it to torch."""


def columns() -> dict[str, Any]:
    """Columns of three rollouts."""
    return {
        "prompt_token_ids": [[1], [2, 3], []],
        "response_ids": [[4, 5], [6], [7, 8, 9]],
        "rewards": [1.0, 0.0, 2.0],
        "loss_masks": [[1, 1], [1], [1, 0, 1]],
        "stop_reasons": ["stop", "length", "stop"],
        "instance_ids": ["a", "a", "b"],
    }


def layout() -> Layout:
    return Layout.pad([2, 1, 3])


def batch() -> Batch:
    return rollkit.pad(columns())


def ragged() -> Ragged:
    return Ragged.from_rows([[1, 2], [3], [4, 5, 6]])


def allowed() -> decode.AllowedSet:
    return decode.AllowedSet([1, 2, 4], 6)


def ids() -> Any:
    return np.array([[1, 1, 2, 0], [1, 2, 2, 2]], np.int32)


def positions() -> Any:
    return np.array([[0, 1, 0, 0], [0, 0, 1, 2]], np.int32)


def routes() -> Any:
    return np.arange(12, dtype=np.uint8).reshape(6, 1, 2)


def plan() -> decode.Plan:
    return decode.ActiveBatch(5).finish([False, True, False, False, False])


def kept() -> decode.Kept:
    return decode.Kept(np.array([1, 2, 4], np.int32), np.array([0, 2, 3]))


def builder() -> routing.RouteBuilder:
    found = routing.RouteBuilder()
    found.append(routes())
    return found


def tree() -> forest.TokenTree:
    found = forest.TokenTree()
    found.commit([1, 2], [3])
    return found


def rows_of_grain() -> Any:
    import grain

    return grain.MapDataset.source([{"x": np.arange(3)}])


def device() -> Any:
    import jax

    return jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])


def trees() -> Forest:
    return Forest.build([[5, 6], [5], [5, 6, 7]])


def ledger() -> Ledger:
    found = Ledger()
    found.give(3)
    return found


def rank_plan() -> rollkit.ray.RankPlan:
    return rollkit.ray.plan([[3, 3, 3]], 8, 1)[0]


INSTANCES: dict[str, Callable[[], Any]] = {
    "ActiveBatch": lambda: decode.ActiveBatch(5),
    "AllowedSet": allowed,
    "Batch": batch,
    "DataCollatorForLanguageModeling": collator,
    "Bins": lambda: Bins(columns(), 8),
    "Collator": lambda: rollkit.torch.Collator(),
    "Pack": lambda: rollkit.grain.Pack(rows_of_grain(), features=["x"], capacity=8),
    "PackedDataset": lambda: rollkit.torch.PackedDataset(columns(), 8),
    "Packer": lambda: rollkit.torch.Packer([], 8),
    "Forest": trees,
    "Groups": lambda: Groups.by(["a", "a", "b"]),
    "Kept": kept,
    "Layout": layout,
    "Ledger": ledger,
    "Mixture": lambda: Mixture({"a": ([1, 2], 1)}, seed=0),
    "Moments": lambda: Moments.of([[1.0, 2.0]]),
    "OnlinePacker": lambda: OnlinePacker(8),
    "RankPlan": rank_plan,
    "PartialHead": lambda: decode.PartialHead(np.ones((6, 2), np.float32), allowed()),
    "Ragged": ragged,
    "Rollouts": lambda: Rollouts(columns()),
    "RouteBuilder": builder,
    "Runs": lambda: segments.runs(ids()),
    "ShuffledSampler": lambda: ShuffledSampler(5, seed=0),
    "StepPlan": lambda: plan_steps([3, 2, 4], capacity=8, ranks=2),
    "TokenTree": tree,
    "TreeLayout": lambda: trees().pack(4),
    "Totals": lambda: loss_totals([[1, 0], [1]], groups=[0, 1], num_groups=2),
}
"""What methods are called on."""

RETURNED = {
    "CPPadding",
    "CPShard",
    "Groups",
    "Kept",
    "Moments",
    "NodeRoutes",
    "Plan",
    "Progress",
    "Runs",
    "Sampled",
    "StepPlan",
    "THD",
    "Totals",
    "Batch",
}
"""Classes that functions return, and nobody makes: their constructors check nothing."""

INNER = {
    "edges",
    "indices",
    "joined",
    "kept",
    "laid",
    "pieces_of",
    "row_offsets",
    "row_position",
    "source_indices",
}
"""Methods for other modules of the package, whose arguments are known to be right."""

ORIGINAL = {
    "rollkit.compat.transformer_engine": (
        "_get_seqlens_and_offsets",
        "_segment_ids_pos_to_seqlens_offsets",
    )
}
"""Drop-ins that are called as their originals are."""

VALID: dict[str, Callable[[], Any]] = {
    "allowed": allowed,
    "array": lambda: np.zeros((2, 8), np.int32),
    "batch": batch,
    "begins": lambda: [0, 0, 0],
    "bitmask": lambda: np.array([0b10110], np.int32),
    "by": lambda: "instance_ids",
    "cache": lambda: np.zeros((5, 4, 3)),
    "capacity": lambda: 8,
    "column": ragged,
    "columns": columns,
    "cond": lambda: np.ones((2, 6), np.float32),
    "cp_size": lambda: 2,
    "cu_seqlens": lambda: np.array([0, 4, 8], np.int32),
    "dtype": lambda: np.int64,
    "entries": lambda: ["a", "b", "a"],
    "epoch": lambda: 1,
    "first_line": lambda: 0,
    "found": lambda: segments.thd(ids(), max_segments=4),
    "framework": lambda: "numpy",
    "gamma": lambda: 0.9,
    "given": layout,
    "ids": ids,
    "ids_q": ids,
    "indices": lambda: [0, 1],
    "keep": lambda: [0, 1],
    "index": lambda: 0,
    "kept": kept,
    "lam": lambda: 0.9,
    "layout": layout,
    "layouts": lambda: [layout(), layout()],
    "lengths": lambda: [2, 1, 3],
    "lines": lambda: 3,
    "local": lambda: [0, 1],
    "logits": lambda: np.zeros((2, 6), np.float32),
    "loss_masks": lambda: [[1, 0], [1]],
    "mask": lambda: np.array([True, False, False, False, False]),
    "masks": lambda: [[1, 0], [1]],
    "max_segments": lambda: 4,
    "module": lambda: None,
    "n": lambda: 5,
    "name": lambda: "response_ids",
    "names": lambda: {"input_ids": "tokens"},
    "node_lengths": lambda: [2, 4],
    "num_experts": lambda: 16,
    "offsets": lambda: [0, 2, 3],
    "other": ragged,
    "outputs": lambda: [
        SimpleNamespace(prompt_token_ids=[1], outputs=[SimpleNamespace(token_ids=[2, 3], logprobs=None)])
    ],
    "ordinals": lambda: [0, 1],
    "output": lambda: {"prompt_token_ids": [[1]], "response_ids": [[2]]},
    "padding": lambda: ids() == 0,
    "parts": lambda: [ragged(), ragged()],
    "payload": lambda: {"data": "AAECAwQF", "shape": [3, 1, 2], "dtype": "uint8"},
    "plan": plan,
    "positions": positions,
    "prompt_token_ids": lambda: [1, 2],
    "rank": lambda: 0,
    "response_ids": lambda: [4],
    "responses": lambda: [{"prompt_token_ids": [1], "choices": [{"token_ids": [2, 3]}]}],
    "rewards": lambda: [[0.0, 1.0], [1.0]],
    "results": lambda: [{"output_ids": [2, 3], "meta_info": {}}],
    "rollouts": columns,
    "route_masks": lambda: [0, 0, 1, 0, 0, 1],
    "routes": routes,
    "row_lengths": lambda: [2, 1, 3],
    "rows": lambda: [[1, 2], [3]],
    "samples": lambda: [{"input_ids": [1, 2, 3], "completion_mask": [0, 1, 1]}],
    "scale": lambda: 2.0,
    "seeds": lambda: [1, 2],
    "shape": lambda: (3, 3),
    "slots": lambda: [1],
    "starts": lambda: [0, 3, 6],
    "table": lambda: Rollouts(columns()).to_arrow(),
    "token_ids": lambda: [1, 4],
    "traces": lambda: [{"nodes": [{"token_ids": [1, 2], "mask": [False, True], "logprobs": [-0.5]}]}],
    "uncond": lambda: np.ones((2, 6), np.float32),
    "until": lambda: (1,),
    "valid": lambda: [1, 1, 1],
    "values": lambda: [1.0, 2.0, 3.0],
    "vocab_size": lambda: 6,
    "weight": lambda: np.ones((6, 2), np.float32),
}
"""A valid argument for each name that a parameter without a default has."""

OWN: dict[str, dict[str, Callable[[], Any]]] = {
    "rollkit.Ragged": {"values": lambda: np.arange(3)},
    "rollkit.Ragged.from_arrow": {"array": lambda: ragged().to_arrow()},
    "rollkit.Rollouts.from_rows": {"rows": lambda: [{"response_ids": [1]}, {"response_ids": [2]}]},
    "rollkit.Ragged.from_buffers": {
        "header": lambda: ragged().to_buffers()[0],
        "buffers": lambda: ragged().to_buffers()[1],
    },
    "rollkit.Rollouts.from_buffers": {
        "header": lambda: Rollouts(columns()).to_buffers()[0],
        "buffers": lambda: Rollouts(columns()).to_buffers()[1],
    },
    "rollkit.Moments.from_array": {"array": lambda: [2.0, 3.0, 5.0]},
    "rollkit.Moments.of": {"values": lambda: [[1.0, 2.0], [3.0]]},
    "rollkit.Totals.from_array": {"array": lambda: [3, 2, 1, 2]},
    "rollkit.Bins": {"capacity": lambda: 8},
    "rollkit.clip_weights": {"batch": trained},
    "rollkit.Bins.batch": {"numbers": lambda: [0]},
    "rollkit.Bins.balanced": {"ranks": lambda: 1},
    "rollkit.Bins.select": {"columns": lambda: ["input_ids"]},
    "rollkit.Ledger.load_state_dict": {"state": lambda: ledger().state_dict()},
    "rollkit.Mixture": {"sources": lambda: {"a": ([1, 2], 1)}, "seed": lambda: 0},
    "rollkit.Mixture.where": {"i": lambda: 1},
    "rollkit.ShuffledSampler": {"seed": lambda: 0},
    "rollkit.ShuffledSampler.load_state_dict": {"state": lambda: ShuffledSampler(5, seed=0).state_dict()},
    "rollkit.OnlinePacker.add": {"row": lambda: 3, "length": lambda: 2},
    "rollkit.OnlinePacker.extend": {"rows": lambda: [3, 4], "lengths": lambda: [2, 1]},
    "rollkit.OnlinePacker.from_state": {"state": lambda: OnlinePacker(8).state()},
    "rollkit.StepPlan.layout": {"rank": lambda: 0, "t": lambda: 0},
    "rollkit.StepPlan.micro_batches": {"rank": lambda: 0},
    "rollkit.StepPlan.rows": {"rank": lambda: 0, "t": lambda: 0},
    "rollkit.balance": {"parts": lambda: 2},
    "rollkit.fit_cost": {
        "tokens": lambda: [8.0, 4.0],
        "squares": lambda: [64.0, 8.0],
        "seconds": lambda: [1.0, 0.5],
    },
    "rollkit.imbalance": {"assignment": lambda: [0, 1, 1], "parts": lambda: 2},
    "rollkit.plan_steps": {"capacity": lambda: 8, "ranks": lambda: 2},
    "rollkit.gae": {"values": lambda: [[0.5, 0.5], [0.5]]},
    "rollkit.soft_overlong_penalty": {"max_length": lambda: 8, "cache": lambda: 4},
    "rollkit.whiten": {"values": lambda: [[1.0, 2.0], [3.0]]},
    "rollkit.grain.Pack": {"parent": rows_of_grain, "features": lambda: ["x"]},
    "rollkit.grain.PackedSource": {"bins": lambda: Bins(columns(), 8)},
    "rollkit.jax.batches": {
        "bins": lambda: Bins(columns(), 8),
        "order": lambda: [0],
        "lines": lambda: 1,
    },
    "rollkit.jax.device_batch": {"sharding": device},
    "rollkit.jax.prefetch": {"batches": lambda: [columns()], "sharding": device},
    "rollkit.ray.Chunk": {"ref": columns, "lengths": lambda: [3, 2, 3]},
    "rollkit.ray.ChunkLost": {"chunk": lambda: 3, "why": lambda: "is gone"},
    "rollkit.ray.RankPlan": {
        name: lambda name=name: getattr(rank_plan(), name)  # type: ignore[misc]
        for name in rollkit.ray.RankPlan.__match_args__
    },
    "rollkit.ray.agree": {"digests": lambda: [rank_plan()]},
    "rollkit.ray.execute": {"plan": rank_plan, "refs": lambda: [columns()]},
    "rollkit.ray.homes": {"refs": lambda: [columns()], "nodes": lambda: ["a"]},
    "rollkit.ray.plan": {"lengths": lambda: [[3, 2, 4]], "capacity": lambda: 8, "ranks": lambda: 1},
    "rollkit.torch.PackedDataset": {"capacity": lambda: 8},
    "rollkit.torch.Packer": {"source": list},
    "rollkit.torch.Packer.load_state_dict": {"state": lambda: rollkit.torch.Packer([], 8).state_dict()},
    "rollkit.torch.collate_one": {"features": lambda: [{"x": 1}]},
    "rollkit.torch.prefetch": {"iterable": list},
    "rollkit.mask_stale": {
        "rollouts": lambda: {"response_ids": [[1]], "model_versions": [[1]]},
        "current": lambda: 2,
        "most": lambda: 1,
    },
    "rollkit.Rollouts.filter": {"rows": lambda: [True] * len(columns()["response_ids"])},
    "rollkit.Rollouts.rename": {"names": dict},
    "rollkit.Rollouts.equals": {"other": lambda: Rollouts(columns())},
    "rollkit.Forest": {
        name: lambda name=name: getattr(trees(), name)  # type: ignore[misc]
        for name in ("parents", "begins", "ends", "source_rows", "leaf")
    },
    "rollkit.Forest.build": {"rows": lambda: [[5, 6], [5], [5, 6, 7]]},
    "rollkit.Forest.equals": {"other": trees},
    "rollkit.TreeLayout": {
        name: lambda name=name: getattr(trees().pack(4), name)  # type: ignore[misc]
        for name in ("nodes", "parents", "leaf")
    },
    "rollkit.TreeLayout.bins": {"numbers": lambda: [0]},
    "rollkit.TreeLayout.equals": {"other": lambda: trees().pack(4)},
    "rollkit.TreeLayout.reduce": {"column": lambda: [[1, 2], [1], [1, 2, 3]], "how": lambda: "sum"},
    "rollkit.TreeLayout.rows_of": {"bins": lambda: [0]},
    "rollkit.plot.forest": {"found": trees},
    "rollkit.segments.flashmask_indices": {"layout": layout},
    "rollkit.segments.magi_ranges": {"layout": layout},
    "rollkit.segments.tree_varlen": {"layout": layout},
    "rollkit.Layout.row_sums": {"array": lambda: np.zeros((3, 3))},
    "rollkit.Layout.select": {"rows": lambda: [0, 1, 2]},
    "rollkit.Layout.shard": {"size": lambda: 3, "scheme": lambda: "contiguous"},
    "rollkit.Layout.spans": {"lengths": lambda: [1, 1, 1]},
    "rollkit.Layout.spread": {"numbers": lambda: [1.0, 2.0, 3.0]},
    "rollkit.Layout.stack": {"layouts": lambda: Layout.concat([8]).shard(2)},
    "rollkit.Batch.split": {"parts": lambda: 1},
    "rollkit.Batch.to": {"target": lambda: "numpy"},
    "rollkit.Batch.unpack": {"array": lambda: batch()["input_ids"]},
    "rollkit.next_token_logprobs": {
        "logits": lambda: np.zeros((*batch()["input_ids"].shape, 12), np.float32)
    },
    "rollkit.take": {"array": lambda: np.zeros((3, 3))},
    "rollkit.merge_steps": {"rollouts": lambda: {**columns(), "trajectory_ids": [1, 1, 2]}},
    "rollkit.pack": {"capacity": lambda: 8},
    "rollkit.Layout.union": {
        "layouts": lambda: [Layout.at((4,), np.array([at]), np.array([1])) for at in (0, 2)]
    },
    "rollkit.segments.flash_attention_kwargs": {"ids_q": lambda: np.ones((2, 4), np.int32)},
    "rollkit.segments.flash_attn_varlen": {"ids_q": lambda: np.ones((2, 4), np.int32)},
    "rollkit.routing.decode_routes": {"rows": lambda: slice(None)},
    "rollkit.routing.join_routes": {"parts": lambda: [routes(), None]},
    "rollkit.decode.Kept.part": {"begin": lambda: 0, "end": lambda: 1},
    "rollkit.decode.Kept.take": {"rows": lambda: [0]},
    "rollkit.decode.Kept.concat": {"parts": lambda: [kept(), kept()]},
    "rollkit.decode.Kept.from_mask": {"mask": lambda: np.ones((2, 3), bool)},
    "rollkit.decode.AllowedSet": {"allowed": lambda: [1, 2]},
    "rollkit.decode.AllowedSet.to_local": {"ids": lambda: [1, 2]},
    "rollkit.decode.uniforms": {"positions": lambda: [0, 1], "ids": lambda: [1, 2, 3]},
    "rollkit.decode.sample": {"seeds": lambda: [0, 1], "positions": lambda: [0, 0]},
    "rollkit.forest.TokenTree.from_arrow": {"table": lambda: tree().to_arrow()},
    "rollkit.segments.from_positions": {"positions": positions},
}
"""The same for functions where the name means something else."""

AT_A_CLUSTER = {"rollkit.ray.write_shards"}
"""What needs a connection to Ray; tests/loading/test_ray_data.py has its refusals."""

EXEMPT = {
    ("rollkit.Batch.to", "target"),  # device 0 is one, on other machines
    ("rollkit.Batch.to", "device"),
    ("rollkit.segments.block_mask", "device"),
    # What is called refuses in its own words.
    ("rollkit.decode.generate", "cache"),
    ("rollkit.decode.generate", "on_tokens"),
    ("rollkit.decode.generate", "on_progress"),
}
"""Parameters that refuse in others' words."""

INSTEAD = {("rollkit.pack", "layout"): "capacity", ("rollkit.decode.sample", "noise"): "seeds"}
"""What is left out beside a parameter that is given instead of it."""


class Target(NamedTuple):
    """A public callable."""

    name: str
    make: Callable[[], Any]
    """Gives it, bound to a fresh instance."""
    parameters: list[inspect.Parameter]

    def is_drop_in(self) -> bool:
        """Whether it refuses as an original does."""
        return self.name.startswith(tuple(f"rollkit.compat.{name}." for name in LEFT_TO_TORCH))

    def arguments(self) -> dict[str, Any]:
        """Valid ones for all parameters that have no default."""
        own = OWN.get(self.name) or ARGUMENTS.get(self.name, {})
        needed = [p.name for p in self.parameters if p.default is p.empty and p.kind not in _VARIADIC]
        return {name: (own.get(name) or VALID[name])() for name in {*needed, *own}}


_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def targets() -> Iterator[Target]:
    """Each public callable of the package that has a parameter."""
    for module in (*MODULES, *doors(), *drop_ins()):
        for name in public(module):
            found = getattr(module, name)
            if inspect.isclass(found):
                yield from _of_class(f"{module.__name__}.{name}", found)
            elif callable(found):
                yield from _target(f"{module.__name__}.{name}", functools.partial(_itself, found), found)


def doors() -> list[ModuleType]:
    """The modules that are named like a framework, where that is installed."""
    there = [name for name in DOORS if importlib.util.find_spec(name) is not None]
    return [importlib.import_module(f"rollkit.{name}") for name in there]


def drop_ins() -> list[ModuleType]:
    """The modules of `rollkit.compat`, where there is torch."""
    if importlib.util.find_spec("torch") is None:
        return []
    return [importlib.import_module(f"rollkit.compat{name and '.'}{name}") for name in ("", *DROP_INS)]


def public(module: ModuleType) -> list[str]:
    """What a module or package offers: the names of `__all__`, or what is defined in it."""
    own = module.__name__
    known = getattr(module, "__all__", None)
    names = [name for name in dir(module) if not name.startswith("_")] if known is None else known
    names = [name for name in names if f"{own}.{name}" not in AT_A_CLUSTER and _is_there(module, name)]
    homes = {name: str(getattr(getattr(module, name), "__module__", "")) for name in names}
    imported = known is not None or hasattr(module, "__path__")
    ours = [name for name, home in homes.items() if home == own or (imported and home.startswith("rollkit"))]
    return sorted([*ours, *ORIGINAL.get(own, ())])


def _is_there(module: ModuleType, name: str) -> bool:
    """Whether what a name needs is installed."""
    try:
        return hasattr(module, name)
    except ModuleNotFoundError:
        return False


def _itself(found: Any) -> Any:
    return found


def _of_class(called: str, found: type) -> Iterator[Target]:
    if issubclass(found, enum.Enum):
        return
    if found.__name__ not in RETURNED:
        yield from _target(called, functools.partial(_itself, found), found)
    for name, member in inspect.getmembers(found):
        theirs = not str(getattr(member, "__module__", "rollkit")).startswith("rollkit")
        inherited = theirs or any(hasattr(base, name) for base in (tuple, list, Mapping, BaseException))
        if name.startswith("_") or not callable(member) or inherited or name in INNER:
            continue
        if inspect.ismethod(member):
            yield from _target(f"{called}.{name}", functools.partial(_itself, member), member)
        else:
            yield from _method(f"{called}.{name}", INSTANCES[found.__name__], name)


def _method(called: str, make: Callable[[], Any], name: str) -> Iterator[Target]:
    yield from _target(called, lambda: getattr(make(), name), getattr(make(), name))


def _target(called: str, make: Callable[[], Any], found: Any) -> Iterator[Target]:
    parameters = [p for p in inspect.signature(found).parameters.values() if not p.name.startswith("_")]
    if parameters:
        yield Target(called, make, parameters)

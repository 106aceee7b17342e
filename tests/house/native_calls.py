"""A valid call of every function of `_native`, at any size: what the hostile tests begin with."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from rollkit import Forest, Layout, Ragged, TreeLayout, _native

Rng = np.random.Generator


class Call(NamedTuple):
    """Arguments of a call: all of its arrays may be replaced."""

    args: list[Any]
    named: dict[str, Any]


def lengths_of(rng: Rng, rows: int, most: int = 9) -> Any:
    """Row lengths, some of them 0."""
    return rng.integers(0, most, rows)


def packed(rng: Rng, rows: int) -> Layout:
    """A layout whose rows are not in order."""
    return Layout.pack(lengths_of(rng, rows), 16, align=int(rng.choice([1, 4])))


def slots_of(layout: Layout) -> list[Any]:
    """Starts, lengths, order, each an array of its own."""
    return [None if array is None else array.copy() for array in layout.slots]


def of_slots(dtype: Any, **named: Any) -> Callable[[Rng, int], Call]:
    """A call of what is read off a layout."""

    def make(rng: Rng, rows: int) -> Call:
        layout = packed(rng, rows)
        begins = {"begins": np.zeros(rows, np.int64)} if named.get("begins") else {}
        width = {"width": 16} if named.get("width") else {}
        return Call(slots_of(layout), {"out": np.zeros(layout.size, dtype), **begins, **width})

    return make


def place(rng: Rng, rows: int) -> Call:
    layout = packed(rng, rows)
    dtype, to = [(np.int64, np.int32), (np.int32, np.int32), (np.float64, np.float32)][rng.integers(3)]
    values = rng.integers(0, 99, layout.num_placed).astype(dtype)
    begins = np.cumsum(layout.lengths) - layout.lengths
    pieces = {}
    if rng.integers(2):
        pieces = {
            "row_lengths": layout.lengths.copy(),
            "source_rows": np.arange(rows),
            "begins": np.zeros(rows, np.int64),
        }
    out, fill = np.zeros(layout.size, to), np.zeros(1, to)
    return Call([[(values, begins)], *slots_of(layout)], {"fill": fill, "out": out, **pieces})


def fill_batch(rng: Rng, rows: int) -> Call:
    prompts = lengths_of(rng, rows, 5)
    total = prompts + lengths_of(rng, rows, 5)
    layout = Layout.pack(total, 16)

    def part(lengths: Any, dtype: Any) -> tuple[Any, Any]:
        offsets = np.append(0, np.cumsum(lengths))
        return rng.integers(0, 99, offsets[-1]).astype(dtype), offsets

    def column(level: str, parts: Any, dtype: Any = np.int32) -> tuple[Any, ...]:
        return level, parts, None, np.zeros(1, dtype), np.zeros(layout.size, dtype), False

    tokens = ([part(prompts, np.int64)], [part(total - prompts, np.int64)])
    columns = [
        column("tokens", tokens),
        column("response", [part(total - prompts, np.float64)], np.float32),
        column("prompt", [part(prompts, np.int32)]),
        column("sequence", [part(total, np.int32)]),
        column("last", [part(np.ones(rows, np.int64), np.float32)], np.float32),
    ]
    pieces = {"source_rows": np.arange(rows), "begins": np.zeros(rows, np.int64)} if rng.integers(2) else {}
    made = {name: np.zeros(layout.size, np.int32) for name in ("segment_ids", "positions")}
    made["attention_mask"] = np.zeros(layout.size, np.uint8)
    args = [*slots_of(layout), total, prompts, columns]
    return Call(args, {"size": layout.size, "width": 16, **pieces, **made})


def trees(rng: Rng, rows: int) -> Forest:
    """Rows that begin alike."""
    lengths = lengths_of(rng, rows)
    return Forest.build(Ragged(rng.integers(0, 3, lengths.sum()), np.append(0, np.cumsum(lengths))))


def forest_of(forest: Forest) -> list[Any]:
    """Its nodes, each an array of its own."""
    return [array.copy() for array in (forest.parents, forest.begins, forest.ends, forest.leaf)]


def build_forest(rng: Rng, rows: int) -> Call:
    first, second = lengths_of(rng, rows, 5), lengths_of(rng, rows, 5)
    halves = [
        ([(rng.integers(0, 3, n.sum()).astype(np.int32), np.cumsum(n) - n)], n) for n in (first, second)
    ]
    whole = first + second
    match = [([(rng.integers(0, 2, (whole.sum(), 2)), np.cumsum(whole) - whole)], whole)]
    columns = [(1, halves), (2, match)][: int(rng.integers(1, 3))]
    groups = rng.integers(0, 2, rows) if rng.integers(2) else None
    return Call([columns], {"groups": groups, "min_shared": int(rng.choice([1, 3]))})


def pack_forest(rng: Rng, rows: int) -> Call:
    named = {
        "capacity": int(rng.choice([4, 9, 9000])),
        "align": int(rng.choice([1, 4])),
        "max_segments": [None, 3][rng.integers(2)],
        "bins_multiple_of": 2,
        "oversize": str(rng.choice(["raise", "truncate", "alone", "drop"])),
    }
    return Call(forest_of(trees(rng, rows)), named)


def placed(rng: Rng, rows: int) -> tuple[list[Any], TreeLayout]:
    """Placed nodes, each array of its own, and their layout."""
    layout = trees(rng, rows).pack(16)
    nodes = (layout.parents, layout.nodes.starts, layout.nodes.lengths, layout.leaf)
    return [array.copy() for array in nodes], layout


def visible_until(rng: Rng, rows: int) -> Call:
    layout = packed(rng, rows)
    args = [*slots_of(layout), layout.starts + layout.lengths]
    return Call(args, {"width": 16, "out": np.zeros(layout.size, np.int32)})


def bins(rng: Rng, rows: int) -> Call:
    algorithms = ["first_fit_decreasing", "best_fit_decreasing", "first_fit", "next_fit"]
    most = int(rng.choice([9, 9000, 10**9]))
    named = {
        "capacity": most,
        "algorithm": str(rng.choice(algorithms)),
        "align": int(rng.choice([1, 4])),
        "max_segments": [None, 3][rng.integers(2)],
        "oversize": str(rng.choice(["raise", "truncate", "alone", "drop"])),
    }
    return Call([lengths_of(rng, rows, most)], named)


def groups_of(rng: Rng, rows: int) -> Any:
    """Which rows stay together; few of one group."""
    return rng.integers(0, max(rows, 1), rows) if rng.integers(2) else None


def balance(rng: Rng, rows: int) -> Call:
    lengths = lengths_of(rng, rows)
    named = {
        "parts": int(rng.choice([1, 7, 300])),
        "equal_counts": bool(rng.integers(2)),
        "capacity": [None, 40, 9000][rng.integers(3)],
        "tolerance": float(rng.choice([0, 1e-4])),
    }
    return Call([lengths, lengths**2, groups_of(rng, rows)], named)


def balance_bound(rng: Rng, rows: int) -> Call:
    return Call(
        [lengths_of(rng, rows), groups_of(rng, rows)], {"parts": 7, "equal_counts": bool(rng.integers(2))}
    )


def plan_steps(rng: Rng, rows: int) -> Call:
    lengths = lengths_of(rng, rows)
    home = rng.integers(-1, 4, rows) if rng.integers(2) else None
    named = {
        "capacity": int(rng.choice([40, 9000])),
        "ranks": 4,
        "sync": str(rng.choice(["micro_batch", "step"])),
        "max_segments": [None, 5][rng.integers(2)],
        "steps": int(rng.integers(3)),
        "seed": [None, 3][rng.integers(2)],
    }
    return Call([lengths, lengths**2, groups_of(rng, rows), home], named)


def pack_rows(rng: Rng, rows: int) -> Call:
    call = bins(rng, rows)
    return Call(call.args, {**call.named, "bins_multiple_of": 2, "shuffle": [None, 3][rng.integers(2)]})


def split_rows(rng: Rng, rows: int) -> Call:
    return Call([lengths_of(rng, rows)], {"capacity": int(rng.choice([2, 5, 9]))})


def permute(rng: Rng, rows: int) -> Call:
    count = int(rng.choice([max(rows, 1), 10**10, 2**63 - 1]))
    named = {"count": count, "seed": 3, "epoch": 1, "inverse": bool(rng.integers(2))}
    return Call([rng.integers(0, count, rows)], named)


def segment_numbers(rng: Rng, rows: int, dtype: Any = np.int32) -> Any:
    ids = np.sort(rng.integers(1, 5, (max(rows // 8, 1), 8)), axis=1).astype(dtype)
    ids[:, 7:] = 0
    return ids


def seqlens(rng: Rng, rows: int) -> Call:
    named = {"name": "ids", "max_segments": 4, "pair": bool(rng.integers(2))}
    return Call([segment_numbers(rng, rows, rng.choice(["i1", "i4", "i8"]))], named)


def thd(rng: Rng, rows: int) -> Call:
    q, kv = segment_numbers(rng, rows), segment_numbers(rng, rows)
    positions = [np.tile(np.arange(q.shape[1], dtype=rng.choice(["i4", "i8"])), (len(q), 1)) for _ in (q, kv)]
    mask = str(rng.choice(["causal", "causal_bottom_right", "padding"]))
    return Call([q, kv, *positions], {"mask": mask, "max_segments": 4, "pair": bool(rng.integers(2))})


def spans(rng: Rng, rows: int) -> Call:
    layout = packed(rng, rows)
    begins, wanted = np.zeros(1, np.int64), layout.row_lengths // 2
    return Call([layout.starts.copy(), layout.lengths.copy(), layout.row_lengths.copy(), begins, wanted], {})


def fill_runs(rng: Rng, rows: int) -> Call:
    layout = Layout.concat(lengths_of(rng, rows))
    args = [layout.starts.copy(), layout.lengths.copy(), np.arange(rows)]
    return Call(args, {"out": np.zeros(layout.size, np.int32)})


def from_lengths(rng: Rng, rows: int) -> Call:
    found = lengths_of(rng, rows)
    return Call([found], {"out": np.zeros(int(found.sum()) + 3, np.int32)})


def offsets_of(rng: Rng, rows: int) -> Any:
    return np.append(0, np.cumsum(lengths_of(rng, rows)))


def turns(rng: Rng, rows: int) -> Call:
    offsets = offsets_of(rng, rows)
    dtype = rng.choice(["?", "i2", "i4", "f4", "f8"])
    return Call([(rng.random(offsets[-1]) < 0.9).astype(dtype), offsets], {})


def gae(rng: Rng, rows: int) -> Call:
    offsets = offsets_of(rng, rows)
    dtype = rng.choice(["f4", "f8"])
    rewards, values = (rng.normal(size=offsets[-1]).astype(dtype) for _ in range(2))
    mask = (rng.random(offsets[-1]) < 0.9).astype(rng.choice(["?", "u1"]))
    args = [rewards, *((values, mask) if rng.integers(2) else (None, None)), offsets]
    return Call(args, {"gamma": 0.9, "lam": 0.8, "both": bool(rng.integers(2))})


def joined_steps(rng: Rng, rows: int) -> Call:
    lengths = lengths_of(rng, rows)
    begins = np.cumsum(lengths) - lengths
    values = np.zeros(lengths.sum(), np.int32)
    first = rng.random(rows) < 0.3
    return Call([[(values, begins)], lengths, [(values.copy(), begins.copy())], lengths.copy(), first], {})


def gather_rows(rng: Rng, rows: int) -> Call:
    lengths = lengths_of(rng, rows)
    begins = (np.cumsum(lengths) - lengths)[::-1].copy()
    return Call(
        [np.zeros(int(lengths.sum()), np.int32), begins, lengths[::-1].copy()],
        {"copy": bool(rng.integers(2))},
    )


def hash_rows(rng: Rng, rows: int) -> Call:
    offsets = offsets_of(rng, rows)
    return Call([np.zeros(offsets[-1], np.int32), offsets], {"seed": 1, "out": np.zeros(rows, np.uint64)})


def exported(rng: Rng, rows: int) -> tuple[Any, ...]:
    offsets = offsets_of(rng, rows)
    missing = np.zeros(offsets[-1], bool) if rng.integers(2) else None
    numbers = ("numbers", np.zeros(offsets[-1], rng.choice(["?", "i1", "f4", "i8"])), missing)
    if rng.integers(3):  # most, for any array is one of numbers
        return "numbers", np.zeros(rows, rng.choice(["?", "u2", "f8"])), None
    return "list", offsets, numbers, bool(rng.integers(2))


def export_array(rng: Rng, rows: int) -> Call:
    return Call([exported(rng, rows)], {})


def export_stream(rng: Rng, rows: int) -> Call:
    specs = [exported(rng, rows), ("texts", ["a"] * rows)]
    return Call([["x", "y"], specs, rows], {})


def read_arrow(rng: Rng, rows: int) -> Call:
    offsets = offsets_of(rng, rows)
    return Call([Ragged(np.zeros(offsets[-1], np.int32), offsets)], {})


def arrow_formats(rng: Rng, rows: int) -> Call:
    return Call([Ragged(np.zeros(1), np.array([0, 1])).__arrow_c_schema__()], {})


def concat_columns(rng: Rng, rows: int) -> Call:
    offsets = [offsets_of(rng, rows // 2 + 1) for _ in range(2)]
    values = [np.zeros(found[-1], np.int32) for found in offsets]
    out = np.zeros(sum(map(len, values)) + 2, np.int32) if rng.integers(2) else None
    return Call([values, offsets], {"out": out})


def sample(rng: Rng, rows: int) -> Call:
    height, width = max(rows // 64, 1), 64
    dtype = ["float32", "bfloat16", "float16"][rng.integers(3)]
    cond, uncond = rng.normal(size=(2, height, width)).astype(np.float32)
    if dtype != "float32":
        small = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
        cond, uncond = cond.astype(small).view(np.uint16), uncond.astype(small).view(np.uint16)
    listed = np.sort(rng.choice(width, 40, replace=False)).astype(np.int32)
    keyed = bool(rng.integers(2))
    parameters = {
        "cfg_scale": np.full(height, 2, np.float32),
        "temperature": np.full(height, 0.7),
        "top_k": np.full(height, rng.integers(0, 9)),
        "top_p": np.full(height, 0.9),
        "min_p": np.full(height, 0.01),
        "seeds": np.arange(height) if keyed else None,
        "positions": np.arange(height) if keyed else None,
        "noise": None if keyed else rng.random((height, width)).astype(np.float32),
    }
    options = {
        "order": str(rng.choice(["hf", "vllm", "joint", "acestep"])),
        "logprobs": "kept",
        "return_kept": True,
    }
    ids = listed if rng.integers(2) else (3, width)
    return Call([cond, uncond, ids], {"dtype": dtype, "full": True, "rows": parameters, **options})


def uniforms(rng: Rng, rows: int) -> Call:
    height = max(rows // 16, 1)
    ids = np.arange(16, dtype=np.int32)
    return Call([np.arange(height), np.arange(height), ids], {"out": np.zeros((height, 16), np.float32)})


def decode_base64(rng: Rng, rows: int) -> Call:
    size = 3 * rows + int(rng.integers(3))
    text = np.frombuffer(base64.b64encode(rng.bytes(size)), np.uint8).copy()
    begin = int(rng.integers(size + 1))
    return Call([text], {"size": size, "begin": begin, "out": np.zeros(size - begin, np.uint8)})


def parse_jsonl(rng: Rng, rows: int) -> Call:
    line = b'{"response_ids": [1, 2, 3], "rewards": 1.5, "name": "x\\u00e9"}\n'
    on_error = str(rng.choice(["raise", "skip"]))
    return Call(
        [np.frombuffer(line * (rows // 16 + 1), np.uint8).copy()], {"hints": {}, "on_error": on_error}
    )


def some_rows(rng: Rng, rows: int) -> Call:
    return Call([[rng.integers(0, 9, length) for length in lengths_of(rng, min(rows, 2000))]], {})


def lists(rng: Rng, rows: int) -> Call:
    dtype = [None, np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.uint8)][rng.integers(4)]
    return Call([[row.tolist() for row in some_rows(rng, rows).args[0]], dtype], {})


def picked(rng: Rng, rows: int) -> Call:
    flat = [row.tolist() for row in some_rows(rng, rows).args[0]]
    dtype = [None, np.dtype(np.int32), np.dtype(np.float32)][rng.integers(3)]
    if rng.integers(2):
        return Call([[[(x, None) for x in row] for row in flat], 0, dtype], {})
    dicts = [[{x: {"logprob": x}, -1: None} for x in row] for row in flat]
    return Call([dicts, "logprob", dtype], {"keys": flat})


CALLS: dict[str, Callable[[Rng, int], Call]] = {
    "array_lengths": some_rows,
    "attention_mask": of_slots(np.uint8),
    "balance": balance,
    "balance_bound": balance_bound,
    "build_forest": build_forest,
    "can_cast": lambda rng, rows: Call([np.dtype(np.int64), np.dtype(np.float32)], {}),
    "check_forest": lambda rng, rows: Call(forest_of(trees(rng, rows)), {}),
    "check_offsets": lambda rng, rows: Call([offsets_of(rng, rows), 9 * rows], {}),
    "concat_arrays": some_rows,
    "concat_columns": concat_columns,
    "decode_base64": decode_base64,
    "fill_batch": fill_batch,
    "fill_runs": fill_runs,
    "first_negative": lambda rng, rows: Call([lengths_of(rng, rows)], {}),
    "forest_bound": lambda rng, rows: Call(forest_of(trees(rng, rows)), {"capacity": 9}),
    "forest_paths": lambda rng, rows: Call(placed(rng, rows)[0], {}),
    "from_lists": lists,
    "gae": gae,
    "gather_rows": gather_rows,
    "hash_rows": hash_rows,
    "export_array": export_array,
    "export_stream": export_stream,
    "read_arrow": read_arrow,
    "arrow_formats": arrow_formats,
    "ids_from_lengths": from_lengths,
    "joined_steps": joined_steps,
    "offsets_from_lengths": lambda rng, rows: Call([lengths_of(rng, rows), int(rng.choice([1, 8]))], {}),
    "pack_forest": pack_forest,
    "pack_rows": pack_rows,
    "parse_jsonl": parse_jsonl,
    "permute": permute,
    "pick_numbers": picked,
    "place": place,
    "plan_bins": bins,
    "plan_steps": plan_steps,
    "positions": of_slots(np.int32, begins=True),
    "positions_from_lengths": from_lengths,
    "read_forest": lambda rng, rows: Call(placed(rng, rows)[0], {"width": 16}),
    "row_costs": lambda rng, rows: Call([lengths_of(rng, rows)], {"per_token": 3, "per_square": 1}),
    "runs": lambda rng, rows: Call([segment_numbers(rng, rows)], {}),
    "sample": sample,
    "segment_ids": of_slots(np.int32, width=True),
    "seqlens_and_offsets": seqlens,
    "sorted_rows": lambda rng, rows: Call(slots_of(layout := packed(rng, rows)), {"size": layout.size}),
    "spans": spans,
    "split_rows": split_rows,
    "thd": thd,
    "turns": turns,
    "uniforms": uniforms,
    "visible_until": visible_until,
    "value_range": lambda rng, rows: Call([rng.integers(-9, 9, rows).astype(np.int16)], {}),
}

COUNTERS = {"panics"}
"""Functions without arguments."""

FUNCTIONS = [
    name
    for name in dir(_native)
    if callable(getattr(_native, name)) and not name.startswith("_") and name not in COUNTERS
]
"""All there are; `Decompressor`, `OnlinePacker` and `TokenTree` have tests of their own."""


def replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    """The arguments, with each array in them as `change` makes it."""
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, Call):
        return Call(replaced(value.args, change), replaced(value.named, change))
    if isinstance(value, dict):
        return {key: replaced(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([replaced(item, change) for item in value])
    return value

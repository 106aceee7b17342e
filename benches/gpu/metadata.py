"""`rollkit.segments` on arrays of a device: every number is the host's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpu.cases import Rng, segment_bounds
from gpu.setting import Array, Faults, Setting, moved, on_host, own_operations, placed
from rollkit import Layout, gae, pack, returns, segments

WIDTH, ROOM = 48, 8
MASKS = ("causal", "causal_bottom_right", "padding")
PADDINGS = ("none", "trailing", "zeros")


def of_torch(setting: Setting) -> Iterator[str]:
    yield from _of(setting, "torch", setting.tries(2000, 10))


def of_jax(setting: Setting) -> Iterator[str]:
    yield from _of(setting, "jax", setting.tries(2000, 2))


def _of(setting: Setting, framework: str, numbers: Iterator[int]) -> Iterator[str]:
    with own_operations(setting, framework):
        count, faults = 0, Faults(setting)
        for number in numbers:
            rng = np.random.default_rng([5, number])
            arrays = columns(rng)
            there = {name: placed(setting, framework, array) for name, array in arrays.items()}
            some = list(CALLS.items())
            if framework == "jax":  # a compilation of each: all of them first, then in turns
                some = some if setting.on_gpu and number < 2 else [some[number % len(some)]]
            for name, call in some:
                with faults.of(name):
                    check(f"{name} by {framework}, case {number}", call(there), call(arrays))
            count = number + 1
        faults.check()
        yield f"{count} × 2 lines of ids, up to {len(CALLS)} functions: the host's numbers"
    yield from _batches(setting, framework)


def columns(rng: Rng) -> dict[str, Array]:
    """Ids and positions of a ring step's q and kv, and lengths: 2 lines of one width."""
    ids, places = [], []
    for _ in range(2):
        found = np.zeros(WIDTH, np.int32)
        at = 0
        for number, length in enumerate(segment_bounds(rng, WIDTH)[: ROOM - 1]):
            real = int(rng.integers(0, length + 1)) if rng.random() < 0.5 else length
            found[at : at + real] = number + 1
            at += length
        ids.append(found)
        places.append(rng.permutation(4 * WIDTH)[:WIDTH].astype(np.int32))
    plain = segments.positions(np.array(ids))
    lengths = np.array([*segment_bounds(rng, WIDTH), *[0] * ROOM][: ROOM - 2], np.int32)
    return {
        "ids": np.array(ids),
        "other": np.where(rng.random((2, WIDTH)) < 0.2, 0, np.array(ids)).astype(np.int32),
        "any": rng.integers(0, ROOM, (2, WIDTH)).astype(np.int32),
        "positions": plain.astype(np.int32),
        "places": np.array(places),
        "mask": (np.array(ids) > 0).astype(np.int32),
        "lengths": lengths,
        "rewards": rng.integers(-4, 5, (2, WIDTH)).astype(np.float32),
        "values": rng.integers(-4, 5, (2, WIDTH)).astype(np.float32),
    }


def _thd(mask: str) -> Callable[[dict[str, Any]], Any]:
    return lambda of: segments.thd(
        of["ids"],
        of["other"],
        positions_q=of["places"],
        positions_kv=of["places"],
        mask=mask,
        max_segments=ROOM,
        on_reentry="te",  # positions are at random, which the host would refuse, and a device not
    )


def _dense(mask: str, window: tuple[int, int] | None) -> Callable[[dict[str, Any]], Any]:
    return lambda of: segments.dense_mask(
        of["ids"],
        of["other"],
        positions_q=of["places"],
        positions_kv=of["places"],
        mask=mask,
        window=window,
    )


def _from_positions(padding: str) -> Callable[[dict[str, Any]], Any]:
    return lambda of: segments.from_positions(of["positions"], padding=padding)


CALLS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "seqlens": lambda of: segments.seqlens(of["any"], max_segments=ROOM),
    "offsets": lambda of: segments.offsets(of["ids"], max_segments=ROOM),
    "positions": lambda of: segments.positions(of["any"]),
    "run_length_fill": lambda of: segments.run_length_fill(of["any"]),
    "thd": lambda of: segments.thd(of["ids"], max_segments=ROOM),
    **{f"thd, {mask}": _thd(mask) for mask in MASKS},
    "segment_ids": lambda of: segments.segment_ids(of["lengths"], total=WIDTH),
    "segment_positions": lambda of: segments.segment_positions(of["lengths"], total=WIDTH),
    **{f"from_positions, {padding}": _from_positions(padding) for padding in PADDINGS},
    "from_positions, a mask": lambda of: segments.from_positions(of["positions"], padding=of["mask"]),
    "dense_mask": lambda of: segments.dense_mask(of["ids"]),
    **{f"dense_mask, {mask}": _dense(mask, None) for mask in MASKS},
    "dense_mask, a window": _dense("causal", (3, 1)),
    "cu_seqlens": lambda of: segments.cu_seqlens(of["ids"]),
    "cu_seqlens_padded": lambda of: segments.cu_seqlens_padded(of["ids"]),
    "max_seqlen": lambda of: segments.max_seqlen(of["any"]),
    "runs": lambda of: segments.runs(of["any"]).starts,
    "flash_attn_varlen": lambda of: segments.flash_attn_varlen(of["ids"], padding="removed"),
    "cp_reorder": lambda of: segments.cp_reorder(of["ids"], 2),
    "cp_inverse_reorder": lambda of: segments.cp_inverse_reorder(of["ids"], 3, scheme="striped", stripe=2),
    "gae": lambda of: gae(of["rewards"], of["values"], of["mask"], gamma=0.5, lam=0.5, segment_ids=of["ids"]),
    "returns": lambda of: returns(of["rewards"], of["mask"], gamma=0.5, segment_ids=of["ids"]),
}
"""By name; sums are of numbers that float32 holds."""


def check(what: str, got: Any, wanted: Any) -> None:
    """Compare nested results; floats to rounding."""
    if isinstance(wanted, dict):
        assert got.keys() == wanted.keys(), what
        for name in wanted:
            check(f"{what}, {name}", got[name], wanted[name])
    elif isinstance(wanted, tuple):
        assert len(got) == len(wanted), what
        for i, (one, other) in enumerate(zip(got, wanted, strict=True)):
            check(f"{what}, result {i}", one, other)
    elif isinstance(wanted, np.ndarray):
        found = on_host(got)
        assert found.shape == wanted.shape, f"{what}: got shape {found.shape}, wanted {wanted.shape}"
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5, err_msg=what)
        else:
            np.testing.assert_array_equal(found, wanted, err_msg=what)
    else:
        assert got == wanted, f"{what}: got {got}, wanted {wanted}"


def _batches(setting: Setting, framework: str) -> Iterator[str]:
    """A `Batch` on the device stands for its layout, and gives the same."""
    count, faults = 0, Faults(setting)
    for number in setting.tries(300, 3):
        rng = np.random.default_rng([6, number])
        rows = [rng.integers(0, 9, int(n)).tolist() for n in rng.integers(1, 9, 7)]
        batch = pack({"response_ids": rows}, 16)
        there = moved(setting, framework, batch)
        for name, call in (
            ("thd", lambda of: segments.thd(of, max_segments=8)),
            ("cu_seqlens", segments.cu_seqlens),
            ("flash_attn_varlen", lambda of: segments.flash_attn_varlen(of, padding="removed")),
            ("positions", segments.positions),
        ):
            with faults.of(name):
                check(f"{name} of a batch by {framework}", call(there), call(batch))
        if framework == "torch":
            with faults.of("shares"):
                assert isinstance(batch.layout, Layout)
                shares(setting, batch.layout, rng)
        count = number + 1
    faults.check()
    yield f"{count} batches: the same"


def shares(setting: Setting, layout: Layout, rng: Rng) -> None:
    """What ranks of a context-parallel group hold, and back: by torch's operations."""
    from rollkit import Ragged, place, take

    with own_operations(setting, "torch"):
        whole = Layout.concat(layout.row_lengths, align=8)
        parts = whole.shard(4, str(rng.choice(["zigzag", "contiguous"])))
        rows = Ragged(rng.normal(size=int(layout.row_lengths.sum())).astype(np.float32), layout.row_offsets())
        column = Ragged(placed(setting, "torch", on_host(rows.values)), rows.offsets)
        outputs = []
        for part in parts:
            outputs.append(place(column, part))
            check("place of a share", outputs[-1], place(rows, part))
            sums = part.row_sums(placed(setting, "torch", part.attention_mask()))
            check("row_sums of a share", sums, part.row_sums(part.attention_mask()))
            spread = part.spread(placed(setting, "torch", np.arange(len(rows), dtype=np.float32)))
            check("spread of a share", spread, part.spread(np.arange(len(rows), dtype=np.float32)))
        check("take of all shares", take(outputs, parts).flat, on_host(rows.flat))

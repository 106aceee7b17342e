"""`rollkit.ray` without Ray: plans, and what ranks make of rollouts that are at hand."""

from __future__ import annotations

import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.house.refusals import check_refusal
from tests.thorough import examples

import rollkit.ray
from rollkit import Batch, Ragged, Rollouts, pack, plan_steps
from rollkit.ray import Chunk, ChunkLost, RankPlan, agree, homes, with_lengths
from rollkit.ray._execute import _Making

# Arguments of wrong types are what some of this file is about.
plan: Any = rollkit.ray.plan
execute: Any = rollkit.ray.execute

CAPACITY = 64


def made(rows: int, seed: int) -> Rollouts:
    """A chunk with a column of every kind."""
    rng = np.random.default_rng(seed)
    prompts, responses = rng.integers(0, 9, rows), rng.integers(0, 30, rows)

    def column(lengths: Any, dtype: Any, *inner: int) -> Ragged:
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Ragged(rng.integers(0, 100, (offsets[-1], *inner)).astype(dtype), offsets)

    kept = column(rng.integers(0, 3, responses.sum()), np.int32)  # a list of token ids a token
    return Rollouts({
        "prompt_token_ids": column(prompts, np.int32),
        "response_ids": column(responses, np.int64),
        "rollout_logprobs": column(responses, np.float64),
        "loss_masks": column(responses, np.uint8),
        "labels": column(responses, np.int64),
        "rollout_expert_indices": column(np.maximum(prompts + responses - 1, 0), np.uint8, 2, 3),
        "prompt_weights": column(prompts, np.float16),
        "sampling_masks": Ragged(cast(Any, kept), np.concatenate([[0], np.cumsum(responses)])),
        "rewards": np.where(responses, rng.normal(size=rows), 0),
        "stop_reasons": [f"{seed}.{row}" for row in range(rows)],
        "numbers": np.arange(rows),
        "images": [{"pixels": np.full(2, row)} for row in range(rows)],
    })  # fmt: skip


def lengths_of(chunks: Any) -> list[Any]:
    return [with_lengths(chunk)[1] for chunk in chunks]


def same(batch: Batch, wanted: Batch) -> None:
    """Both have the same arrays and columns, in one order, to the byte."""
    assert list(batch) == list(wanted)
    assert list(batch.rows) == list(wanted.rows)
    for name, array in batch.items():
        if name == "sampling_masks":
            assert Ragged(array.values, array.offsets).equals(
                Ragged(wanted[name].values, wanted[name].offsets)
            )
            continue
        assert array.dtype == wanted[name].dtype, name
        assert array.tobytes() == wanted[name].tobytes(), name
    for name, column in batch.rows.items():
        assert type(column) is type(wanted.rows[name])
        assert repr(list(column)) == repr(list(wanted.rows[name])), name
    assert batch.prompt_lengths.tolist() == wanted.prompt_lengths.tolist()
    assert pickle.dumps(batch.layout) == pickle.dumps(wanted.layout)


def whole(part: RankPlan, chunks: Any, **options: Any) -> Batch:
    return pack(chunks, rows=part.rows, layout=part.layout, **options)


@settings(max_examples=examples(100))
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    ranks=st.integers(1, 4),
    align=st.sampled_from([1, 4, 48]),
    seed=st.none() | st.integers(0, 9),
    pad_id=st.sampled_from([0, 7]),
    fetch=st.integers(0, 3),
)
def test_ranks_place_what_pack_does_and_every_row_once(
    sizes: list[int], ranks: int, align: int, seed: int | None, pad_id: int, fetch: int
) -> None:
    chunks = [made(size, number) for number, size in enumerate(sizes)]
    plans = plan(lengths_of(chunks), CAPACITY, ranks, align=align, seed=seed, cost=(3, 1))
    assert len(plans) == ranks
    assert len(set(map(len, plans))) == 1
    out = None
    for part in plans:
        wanted = whole(part, chunks, pad_id=pad_id)
        out = execute(part, chunks, pad_id=pad_id, fetch=fetch, out=out)
        same(out, wanted)
        same(execute(pickle.loads(pickle.dumps(part)), dict(enumerate(chunks)), pad_id=pad_id), wanted)
    assert sorted(np.concatenate([part.rows for part in plans]).tolist()) == list(range(sum(sizes)))


@settings(max_examples=examples(200))
@given(
    lengths=st.lists(st.lists(st.integers(0, 20), max_size=9), min_size=1, max_size=4),
    ranks=st.integers(1, 4),
    align=st.sampled_from([1, 3, 8, 32]),
)
def test_a_plan_is_that_of_a_step(lengths: list[list[int]], ranks: int, align: int) -> None:
    plans = plan(lengths, 20, ranks, align=align)
    steps = plan_steps([n for chunk in lengths for n in chunk], capacity=20, ranks=ranks, align=align)
    for rank, part in enumerate(plans):
        assert len(part) == steps.steps
        assert (part.rank, part.ranks, part.capacity, part.align) == (rank, ranks, 20, align)
        for t in range(steps.steps):
            one, layout = part[t], steps.layout(rank, t)
            assert one.rows.tolist() == steps.rows(rank, t).tolist()
            assert one.layout.shape == layout.shape
            some = layout.lengths > 0  # an empty row may be anywhere
            assert one.layout.lengths.tolist() == layout.lengths.tolist()
            assert one.layout.starts[some].tolist() == layout.starts[some].tolist()
            ends = np.cumsum([len(chunk) for chunk in lengths])
            of = np.unique(np.searchsorted(ends, one.rows, side="right")).tolist()
            assert one.chunks.tolist() == (of or part.chunks[:1].tolist())
        assert part[:] == part == pickle.loads(pickle.dumps(part))


def test_bins_are_lines_of_the_whole() -> None:
    chunks = [made(20, number) for number in range(3)]
    part, _ = plan(lengths_of(chunks), CAPACITY, 2)
    assert len(part) > 3
    batch = execute(part, chunks)
    for t in range(len(part)):
        np.testing.assert_array_equal(execute(part[t], chunks)["input_ids"], batch[t : t + 1]["input_ids"])
    two = execute(part[1:3], chunks)
    np.testing.assert_array_equal(two["rollout_logprobs"], batch[1:3]["rollout_logprobs"])
    assert part[-1] == part[len(part) - 1]
    assert part != part[1:]
    assert execute(part[3:3], chunks)["input_ids"].shape == (0, CAPACITY)


def test_a_plan_is_small_and_knows_what_it_is_of() -> None:
    lengths = np.random.default_rng(0).integers(1, 4000, (10, 1000))
    plans = plan(list(lengths), 16384, 4)
    for part in plans:
        assert len(pickle.dumps(part)) <= 24 * len(part.rows) / 2
    assert agree(plans) == agree([part.digest for part in plans]) == plans[0][2:4].digest
    others = [
        plan(list(lengths), 16384, 2),
        plan(list(lengths), 16384, 4, seed=1),
        plan(list(lengths), 16383, 4),
        plan(list(lengths), 16384, 4, align=2),
        plan([lengths.reshape(-1)], 16384, 4),
        plan(list(lengths[::-1]), 16384, 4),
    ]
    assert len({plans[0].digest, *(other[0].digest for other in others)}) == 7
    assert plan(list(lengths), 16384, 4) == plans
    assert plans[0] != "a plan"


def test_lengths_are_those_of_chunks_and_of_rollouts() -> None:
    chunks = [made(9, number) for number in range(2)]
    lengths = lengths_of(chunks)
    wanted = plan(lengths, CAPACITY, 2)
    assert plan(chunks, CAPACITY, 2) == wanted
    assert plan([Chunk(None, lengths[0]), dict(chunks[1].items())], CAPACITY, 2) == wanted
    assert plan([lengths[0].tolist(), lengths[1].astype(np.int32)], CAPACITY, 2) == wanted


def test_home_is_by_chunk() -> None:
    lengths = [[8], [8], [8], [8]]
    first, second = plan(lengths, 8, 2, home=[1, 0, 1, 0])
    assert (first.chunks.tolist(), second.chunks.tolist()) == ([1, 3], [0, 2])
    assert homes([made(1, 0)], ["a"]).tolist() == [-1]


@settings(max_examples=examples(100))
@given(
    lengths=st.lists(st.lists(st.integers(0, 20), max_size=9), min_size=1, max_size=6),
    nodes=st.lists(st.sampled_from("ab"), min_size=1, max_size=4),
)
def test_a_plan_of_nodes_is_that_of_a_step(lengths: list[list[int]], nodes: list[str]) -> None:
    ranks = len(nodes)
    home = [chunk % (ranks + 1) - 1 for chunk in range(len(lengths))]
    plans = plan(lengths, 20, ranks, home=home, nodes=nodes)
    rows = [n for chunk in lengths for n in chunk]
    of_rows = [rank for rank, chunk in zip(home, lengths, strict=True) for _ in chunk]
    steps = plan_steps(rows, capacity=20, ranks=ranks, home=of_rows, nodes=nodes)
    for rank, part in enumerate(plans):
        assert len(part) == steps.steps
        for t in range(steps.steps):
            assert part[t].rows.tolist() == steps.rows(rank, t).tolist()


def test_chunks_agree_on_levels_where_prompts_tell() -> None:
    """Without a prompt, one per response token and one per sequence token are the same."""
    without: Any = {"prompt_token_ids": [[], []], "response_ids": [[1, 2], [3]], "x": [[1, 2], [3]]}
    with_prompts: Any = {"prompt_token_ids": [[9], [9]], "response_ids": [[1], [3]], "x": [[1, 2], [3, 4]]}
    both = [
        Rollouts(
            {**chunk, "lists": Ragged.from_rows([[[n] * n for n in row] for row in chunk["x"]], lists=True)}
        )
        for chunk in (without, with_prompts)
    ]
    for chunks in (both, both[::-1], [both[0], both[0]]):
        for part in plan(lengths_of(chunks), 4, 1):
            batch, wanted = execute(part, chunks), whole(part, chunks)
            assert batch["x"].tolist() == wanted["x"].tolist()
            for part_of in ("values", "offsets"):
                ours, theirs = (getattr(of["lists"], part_of) for of in (batch, wanted))
                assert ours.tolist() == theirs.tolist()


def test_memory_is_filled_again() -> None:
    chunks = [made(20, number) for number in range(3)]
    first, second = plan(lengths_of(chunks), CAPACITY, 2)
    batch = execute(first, chunks)
    again = execute(second, chunks, out=batch)
    for name, array in again.items():
        assert name == "sampling_masks" or np.shares_memory(array, batch[name]), name
    same(again, whole(second, chunks))
    dtypes = {"input_ids": np.int64}
    same(execute(first, chunks, out=again, dtypes=dtypes), whole(first, chunks, dtypes=dtypes))


OPTIONS: dict[str, dict[str, Any]] = {
    "fills": {"fills": {"labels": -1, "rollout_logprobs": 2.5}},
    "dtypes": {"dtypes": {"rollout_logprobs": np.float16}},
    "levels": {"levels": {"prompt_weights": "row"}},
    "hf": {"names": "hf"},
    "names": {"names": {"input_ids": "tokens"}},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_those_of_pack(name: str) -> None:
    chunks = [made(9, number) for number in range(3)]
    for part in plan(lengths_of(chunks), CAPACITY, 2):
        same(execute(part, chunks, **OPTIONS[name]), whole(part, chunks, **OPTIONS[name]))


def test_columns_are_chosen_and_chunks_are_any_source() -> None:
    chunks = [made(9, number) for number in range(3)]
    few = ["response_ids", "rewards", "prompt_token_ids"]
    sources = [chunks[0], Chunk(chunks[1], None), dict(chunks[2].items())]
    for part in plan(lengths_of(chunks), CAPACITY, 2):
        wanted = whole(part, [chunk.select(*few) for chunk in chunks])
        same(execute(part, sources, columns=few), wanted)


def test_lists_that_levels_speak_of() -> None:
    chunks = [{"response_ids": [[1, 2], [3]], "notes": [[[5], [6, 7]], [[8]]]}] * 2
    (part,) = plan([[2, 1], [2, 1]], 3, 1)
    batch = execute(part, chunks, levels={"notes": "response[]"})
    wanted = whole(part, chunks, levels={"notes": "response[]"})
    assert batch["notes"].values.tolist() == wanted["notes"].values.tolist()
    assert batch["notes"].offsets.tolist() == wanted["notes"].offsets.tolist()


def test_only_the_chunks_of_a_rank_are_asked_for() -> None:
    chunks = [made(2, number) for number in range(6)]
    for part in plan(lengths_of(chunks), CAPACITY, 3):
        assert len(part.chunks) < 6
        refs: list[Any] = [
            chunk if i in part.chunks else "nobody reads this" for i, chunk in enumerate(chunks)
        ]
        same(execute(part, refs), whole(part, chunks))


def test_a_rank_without_rows_has_padding() -> None:
    chunks = [made(0, 0), made(1, 4), made(0, 2)]
    plans = plan(lengths_of(chunks), CAPACITY, 2)
    assert [len(part.rows) for part in plans] == [1, 0]
    for part in plans:
        same(execute(part, chunks), whole(part, chunks))
    (nothing,) = plan([[]], CAPACITY, 1)
    assert not execute(nothing, [made(0, 0)])["input_ids"].any()
    assert plan([], CAPACITY, 2)[1].chunks.tolist() == []


def test_a_column_without_elements_says_nothing_of_its_dtype() -> None:
    """A list of empty rows is float64 for want of an element."""
    chunks = [{"response_ids": [[]], "extra": [[]]}, {"response_ids": [[1, 2]], "extra": [[5, 6]]}]
    (part,) = plan([[0], [2]], 4, 1)
    batch = execute(part, chunks)
    same(batch, whole(part, chunks))
    assert batch["extra"].dtype == np.int64


def test_chunks_are_let_go_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds one keeps it in the store of Ray."""
    seen: list[Any] = []
    add = _Making.add

    def watched(self: Any, wanted: Any, part: Any) -> None:
        assert all(ref() is None for ref in seen)
        seen.extend(map(weakref.ref, arrays_of(part.rollouts)))
        add(self, wanted, part)

    monkeypatch.setattr(_Making, "add", watched)
    chunks = [
        made(5, number).to_generator_output() for number in range(4)
    ]  # of which each call makes rollouts
    (part,) = plan(lengths_of(chunks), CAPACITY, 1)
    execute(part, chunks)
    assert len(seen) > 4 * len(chunks[0])


def arrays_of(rollouts: Rollouts) -> list[Any]:
    """All arrays that a chunk is made of."""
    found: list[Any] = [rollouts]
    for column in rollouts.values():
        if isinstance(column, Ragged):
            lists = cast(Any, column.values) if column.of_lists else column
            found += [lists.values, lists.offsets, column.offsets]
        elif isinstance(column, np.ndarray):
            found.append(column)
    return found


def test_a_batch_shares_nothing_with_chunks() -> None:
    chunks = [made(5, number) for number in range(2)]
    (part,) = plan(lengths_of(chunks), CAPACITY, 1)
    batch = execute(part, chunks)
    for image in batch.rows["images"]:
        assert not any(
            np.shares_memory(image["pixels"], its["pixels"]) for c in chunks for its in c["images"]
        )


def test_ray_is_imported_by_nobody_who_has_no_ref() -> None:
    code = (
        "import sys, rollkit.ray as rr; p, = rr.plan([[2]], 4, 1);"
        "rr.execute(p, [{'response_ids': [[1, 2]]}]); assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


ONE: dict[str, Any] = {
    "response_ids": [[1, 2], [3]],
    "x": Ragged.from_rows([[1, 2], [3]], np.float32),
    "y": [1, 2],
}
LEVELS = {"prompt_token_ids": [[1], []], "response_ids": [[1], [3]], "x": [[1, 2], [3]]}
(PART,) = plan([[2, 1], [2, 1]], 3, 1)
(SHORT,) = plan([[2, 1]], 3, 1)


def but(**columns: Any) -> dict[str, Any]:
    return {name: column for name, column in {**ONE, **columns}.items() if column is not None}


def torch_ones() -> Any:
    return pytest.importorskip("torch").ones(3, requires_grad=True)


REFUSALS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: plan([[3, 9], [7, 70, 1]], 64, 2),
        ValueError,
        "chunk 1: row 1 has 70 elements, more than the capacity of 64; raise capacity, or cut the row",
    ),
    (
        lambda: plan([[3], [7, -1]], 64, 2),
        ValueError,
        "lengths[1][1] is -1; lengths must be 0 or more",
    ),
    (
        lambda: plan([[3], [7]], 64, 2, home=[1]),
        ValueError,
        "home has 1 chunks, lengths has 2",
    ),
    (
        lambda: plan([[3], [7]], 64, 2, home=[0, 2]),
        ValueError,
        "home[1] is 2, expected a rank below 2, or -1 for none",
    ),
    (
        lambda: plan([[3], [7]], 64, 2, home=[0, 1], nodes=["a"]),
        ValueError,
        "nodes has 1 ranks, there are 2",
    ),
    (
        lambda: plan([[3], [7]], 64, 2, nodes=["a", "b"]),
        TypeError,
        "nodes needs home, which says where each row is: a rank of its node",
    ),
    (
        lambda: plan([[3, 9], [7, 70, 1]], 64, 2, home=[0, 1], nodes=["a", "b"]),
        ValueError,
        "chunk 1: row 1 has 70 elements, more than the capacity of 64; raise capacity, or cut the row",
    ),
    (lambda: execute(SHORT, [ONE], pick="rows"), TypeError, "pick must be True or False, got str"),
    (
        lambda: execute(PART, [LEVELS, {**LEVELS, "x": [[1], [2]]}]),
        ValueError,
        "chunk 1: column 'x': got an element per response token, chunk 0 has one per sequence token; make "
        "all chunks alike",
    ),
    (
        lambda: plan([[1], with_lengths(ONE)], 8, 1),
        TypeError,
        "lengths[1] is rollouts and lengths in one; what returns with_lengths has num_returns=2",
    ),
    (
        lambda: execute(SHORT, [with_lengths(ONE)]),
        TypeError,
        "chunk 0 is rollouts and lengths in one; what returns with_lengths has num_returns=2",
    ),
    (
        lambda: execute(SHORT, [but(x=Ragged(torch_ones(), np.array([0, 2, 3])))]),
        TypeError,
        "chunk 0: column 'x': chunks are in the host's memory, not on a device or with a gradient: "
        ".detach().cpu()",
    ),
    (
        lambda: plan(Rollouts(ONE), 64, 2),
        TypeError,
        "lengths must be a sequence with one for each chunk, got Rollouts",
    ),
    (
        lambda: plan([[3.5]], 64, 2),
        TypeError,
        "lengths[0] must hold integers, got float64",
    ),
    (
        lambda: agree([SHORT, PART]),
        ValueError,
        f"rank 1 has plan {PART.digest!r}, rank 0 {SHORT.digest!r}: all plan the same lengths alike",
    ),
    (lambda: agree([]), ValueError, "digests is empty; give that of each rank"),
    (
        lambda: agree([SHORT, 3]),  # type: ignore[list-item]
        TypeError,
        "digests[1] must be the digest of a RankPlan, got int",
    ),
    (lambda: PART[7], IndexError, "bin 7 is out of range: there are 2"),
    (
        lambda: PART[::2],
        ValueError,
        "bins of a plan are sliced in their order, one after the other, got slice(None, None, 2)",
    ),
    (
        lambda: execute([PART], [ONE, ONE]),
        TypeError,
        "plan must be a RankPlan, got list; rollkit.ray.plan makes one a rank",
    ),
    (
        lambda: execute(plan([], 4, 1)[0], []),
        ValueError,
        "the plan is of no chunks, and no chunk says what columns there are",
    ),
    (lambda: execute(PART, [ONE]), ValueError, "refs has 1 chunks, the plan has 2"),
    (lambda: execute(PART, {1: ONE}), ValueError, "refs has no chunk 0, of which the plan has rows"),
    (
        lambda: execute(SHORT, Rollouts(ONE)),
        TypeError,
        "refs must be a sequence with one for each chunk, got Rollouts",
    ),
    (
        lambda: execute(SHORT, ["chunk"]),
        TypeError,
        "chunk 0: rollouts must be Rollouts or GeneratorOutput-shaped dicts; part 0 is str",
    ),
    (lambda: execute(SHORT, [ONE], fetch=-1), ValueError, "fetch must be at least 0, got -1"),
    (lambda: execute(SHORT, [ONE], out={}), TypeError, "out must be a Batch, got dict"),
    (
        lambda: execute(SHORT, [ONE], columns=["response_ids", "z"]),
        ValueError,
        "chunk 0: columns has 'z', which is no column; there are 'response_ids', 'x', 'y'",
    ),
    (
        lambda: execute(PART, [ONE, but(y=None)]),
        ValueError,
        "chunk 1 and chunk 0 differ in columns: 'y'",
    ),
    (
        lambda: execute(PART, [ONE, but(x=Ragged.from_rows([[1, 2], [3]], np.float64))]),
        TypeError,
        "chunk 1: column 'x': got rows of float64, chunk 0 has rows of float32; make all chunks alike",
    ),
    (
        lambda: execute(PART, [ONE, but(x=[[[1], [2]], [[3]]])]),
        TypeError,
        "chunk 1: column 'x': got rows of int64 (1,), chunk 0 has rows of float32; make all chunks alike",
    ),
    (
        lambda: execute(PART, [ONE, but(y=["a", "b"])]),
        TypeError,
        "chunk 1: column 'y': got a list of objects, chunk 0 has int64 per row; make all chunks alike",
    ),
    (
        lambda: execute(PART, [ONE, {"response_ids": [[1, 2]], "x": [[1.0, 2.0]], "y": [1]}]),
        ValueError,
        "chunk 1 has 1 rows, the plan has 2 for it",
    ),
    (
        lambda: execute(
            PART, [ONE, but(response_ids=[[1], [3, 2]], x=Ragged.from_rows([[1], [2, 3]], np.float32))]
        ),
        ValueError,
        "chunk 1: row 0 has 1 tokens (prompt and response), the plan has 2 for it",
    ),
    (
        lambda: execute(PART[1], [ONE, but(x=Ragged.from_rows([[1, 2], [3, 4]], np.float32))]),
        ValueError,
        "chunk 1: column 'x': row 1 has 2 elements; its prompt has 0 tokens, its response 1; to carry "
        "rows that are no tokens along, wrap each in a dict",
    ),
    (
        lambda: execute(PART, [ONE, but(response_ids=[[1, 2], [2**40]])]),
        OverflowError,
        "chunk 1: column 'response_ids': row 1, position 0: 1099511627776 does not fit int32",
    ),
    (
        lambda: execute(PART, [ONE, but(response_ids=[[1, 2], [-3]])], validate=True),
        ValueError,
        "chunk 1: column 'response_ids': row 1, position 0: -3 is wrong; expected a token id, 0 or more",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=range(len(REFUSALS)))
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    check_refusal(call, kind, message)


def test_a_lost_chunk_is_pickled() -> None:
    lost = pickle.loads(pickle.dumps(ChunkLost(3, "is gone")))
    assert (lost.chunk, str(lost)) == (3, "chunk 3 is gone")

"""`Bins`: what `pack` makes, one bin at a time."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from rollkit import Layout, Ragged, Rollouts, pack
from rollkit._loading.bins import Bins
from rollkit._loading.sampler import ShuffledSampler
from rollkit._rows.lists import Lists
from rollkit.testing import rollouts as drawn

CAPACITY = 48
options = st.fixed_dictionaries(
    {},
    optional={
        "oversize": st.sampled_from(["drop", "truncate", "split", "alone"]),
        "align": st.integers(1, 5),
        "max_segments": st.integers(1, 3),
        "bins_multiple_of": st.integers(1, 4),
        "algorithm": st.sampled_from(["first_fit", "best_fit_decreasing"]),
    },
)


def same(got: Any, wanted: Any) -> None:
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        found = got[name]
        if isinstance(array, Lists):
            assert isinstance(found, Lists)
            np.testing.assert_array_equal(found.offsets - found.offsets[0], array.offsets - array.offsets[0])
            found, array = (x.values[x.offsets[0] : x.offsets[-1]] for x in (found, array))
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_a_bin_of_pieces_may_be_there_twice() -> None:
    masks = [[[7], [], [8, 9], [1], [2, 2]], [[3]]]
    bins = Bins(
        {"response_ids": [[1, 2, 3, 4, 5], [6]], "sampling_masks": masks}, 3, oversize="split", order="opened"
    )
    batch = bins.batch([0, 1, 0])
    for i, number in enumerate([0, 1, 0]):
        same(line(batch, i), bins[number])


def line(batch: Any, i: int) -> dict[str, Any]:
    """A bin of a whole batch."""
    width = batch.layout.width
    return {
        name: array.part(i * width, (i + 1) * width) if isinstance(array, Lists) else array[i]
        for name, array in batch.items()
    }


@settings(max_examples=examples(150), deadline=None)
@given(drawn(), options, st.sampled_from(["rollkit", "hf", "grain"]), st.data())
def test_a_bin_is_that_of_pack(rollouts: Any, options: Any, names: str, data: st.DataObject) -> None:
    options = {"oversize": "split", **options}
    if names == "hf":
        options |= {"oversize": "drop"}  # pieces have no positions that models tell segments by
    whole = pack(rollouts, 20, pad_id=7, names=names, **options)
    bins = Bins(rollouts, 20, pad_id=7, names=names, **options)
    assert len(bins) == whole.layout.shape[0]
    assert tuple(bins.names) == tuple(whole)
    for i in range(len(bins)):
        same(bins[i], line(whole, i))
    chosen = data.draw(st.lists(st.integers(0, len(bins) - 1), max_size=5)) if len(bins) else []
    for i, found in zip(chosen, bins.__getitems__(chosen), strict=True):
        same(found, line(whole, i))
    for i, found in zip(chosen, bins.iterate(chosen), strict=True):
        same(found, line(whole, i))


@settings(max_examples=examples(80), deadline=None)
@given(drawn(), st.sampled_from(["drop", "truncate"]), st.data())
def test_a_batch_of_bins_has_their_rows(rollouts: Rollouts, oversize: str, data: st.DataObject) -> None:
    bins = Bins(rollouts, 20, oversize=oversize)
    whole = pack(rollouts, 20, oversize=oversize)
    chosen = data.draw(st.permutations(range(len(bins))))[:3]
    batch = bins.batch(chosen)
    rows = batch.rows["row_numbers"]
    again = whole.unpack("input_ids").to_list()
    assert batch.unpack("input_ids").to_list() == [again[row] for row in rows]
    for name, column in whole.rows.items():
        assert [str(entry) for entry in batch.rows[name]] == [str(column[row]) for row in rows]
    reused = bins.batch(chosen[:1], out=batch)
    for name, array in bins.batch(chosen[:1]).items():
        same({name: reused[name]}, {name: array})


def some(rows: int = 40, seed: int = 0) -> Rollouts:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 20, (rows, 2))
    return Rollouts({
        "prompt_token_ids": [rng.integers(0, 99, n) for n, _ in sizes],
        "response_ids": [rng.integers(0, 99, n) for _, n in sizes],
        "rollout_logprobs": [rng.normal(size=n) for _, n in sizes],
        "stop_reasons": [str(i) for i in range(rows)],
    })  # fmt: skip


def test_columns_are_exactly_those() -> None:
    bins = Bins(some(), CAPACITY, columns=["positions", "input_ids"])
    assert list(bins[0]) == list(bins.batch([0])) == ["positions", "input_ids"]
    hf = Bins(some(), CAPACITY, columns=["input_ids", "labels"], names="hf")
    assert list(hf[0]) == ["input_ids", "labels"]
    assert hf[0]["labels"].dtype == np.int64


def test_several_sources_and_a_layout() -> None:
    parts = [some(20, 1), some(20, 2)]
    layout = Layout.pack([len(p) + len(r) for part in parts for p, r in zip(
        part["prompt_token_ids"], part["response_ids"], strict=True)], CAPACITY)  # fmt: skip
    bins, whole = Bins(parts, layout=layout), pack(parts, layout=layout)
    for i in range(len(bins)):
        same(bins[i], line(whole, i))


def test_it_is_a_sequence() -> None:
    bins = Bins(some(), CAPACITY)
    assert len(list(bins)) == len(bins)
    same(bins[-1], bins[len(bins) - 1])
    assert len(bins[2:5]) == 3
    same(bins[2:5][1], bins[3])
    assert repr(bins) == (
        f"Bins({len(bins)} × 48: input_ids, segment_ids, positions, rollout_logprobs, loss_masks)"
    )
    same(pickle.loads(pickle.dumps(bins))[1], bins[1])


def test_what_is_held_is_not_written_again() -> None:
    bins = Bins(some(200), CAPACITY, columns=["input_ids"])
    kept = list(bins.iterate())
    for i, found in enumerate(kept):
        same(found, bins[i])
    views = [found["input_ids"][3:9] for found in bins.iterate()]
    for i, view in enumerate(views):
        np.testing.assert_array_equal(view, bins[i]["input_ids"][3:9])


def test_what_is_let_go_is_written_again() -> None:
    bins = Bins(some(200), CAPACITY, columns=["input_ids"])
    gc.collect()
    places = {found["input_ids"].ctypes.data for found in bins.iterate()}
    assert len(places) <= 2  # the loop still holds one while the next is written


def test_tensors_keep_what_they_hold() -> None:
    torch = pytest.importorskip("torch")
    bins = Bins(some(200), CAPACITY, columns=["input_ids"])
    tensors = [torch.from_numpy(found["input_ids"]) for found in bins.iterate()]
    for i, tensor in enumerate(tensors):
        np.testing.assert_array_equal(tensor.numpy(), bins[i]["input_ids"])


def test_costs_are_the_squares_of_segments() -> None:
    bins = Bins(some(), CAPACITY)
    for i, cost in enumerate(bins.costs):
        counts = np.bincount(bins[i]["segment_ids"])[1:]
        assert cost == (counts**2).sum()


def test_balanced_deals_each_bin_once() -> None:
    bins = Bins(some(300), CAPACITY)
    ranks = 7
    found = bins.balanced(ranks, seed=3)
    assert found.shape == (len(bins) // ranks, ranks)
    assert len(np.unique(found)) == found.size
    assert not np.array_equal(found, bins.balanced(ranks, seed=3, epoch=1))
    costs = bins.costs[found]
    random = bins.costs[np.random.default_rng(0).permutation(len(bins))[: found.size]].reshape(found.shape)

    def excess(costs: Any) -> float:
        return float(costs.max(1).sum() / costs.mean(1).sum() - 1)

    assert excess(costs) < 0.2 * excess(random)


def test_the_plan_tells_data_apart() -> None:
    bins = Bins(some(), CAPACITY)
    assert bins.plan == Bins(some(), CAPACITY).plan
    assert bins.plan != Bins(some(), CAPACITY + 1).plan
    assert bins.plan != Bins(some(seed=1), CAPACITY).plan
    state = ShuffledSampler(bins, seed=0).state_dict()
    with pytest.raises(ValueError, match="it was saved for another number of items, other data"):
        ShuffledSampler(Bins(some(seed=1), CAPACITY), seed=0).load_state_dict(state)


def test_other_data_of_the_same_lengths_has_another_plan() -> None:
    first, other, same = (Bins({"response_ids": [[n, 2], [3, 4]]}, 2) for n in (1, 5, 1))
    assert first.plan == same.plan == first.select(["positions"]).plan != other.plan
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor([1, 2]), torch.tensor([3, 4])]
    assert Bins({"response_ids": tensors}, 2).plan == first.plan


def test_maxtext_takes_whole_rows() -> None:
    """The target of a piece's last token is in another bin: which are asked for together would tell it."""
    rollouts = {"response_ids": [[1, 2], [3, 4, 5, 6]]}
    assert len(Bins(rollouts, 4, names="maxtext", oversize="split")) == 2
    with pytest.raises(ValueError, match=r"^names='maxtext' is for whole rows, and row 1 is in pieces: "):
        Bins(rollouts, 3, names="maxtext", oversize="split")


def test_the_ring_of_lists_does_not_grow() -> None:
    rollouts = {"response_ids": [[1, 2], [3]], "sampling_masks": [[[1, 2], [3]], [[4]]]}
    bins = Bins(rollouts, 4, columns=["sampling_masks"]).iterate([0] * 9)
    assert len([next(bins) for _ in range(8)]) == 8
    assert bins.gi_frame.f_locals["ring"] == []  # type: ignore[attr-defined]


def test_no_rollouts() -> None:
    bins = Bins({"response_ids": Ragged.from_rows([], np.int32)}, 8)
    assert len(bins) == 0
    assert list(bins) == list(bins.iterate()) == []
    assert bins.balanced(2).shape == (0, 2)
    assert bins.batch([]).num_rows == 0


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda _: Bins(some()), TypeError, "Bins needs a capacity, or a layout"),
        (lambda _: Bins(some(), 8, layout=Layout.concat([1])), TypeError,
         "Bins takes a capacity or a layout, not both: a layout has its capacity"),
        (lambda _: Bins({"response_ids": [[1, 2, 3]]}, 2), ValueError, None),
        (lambda _: Bins(some(), CAPACITY, columns=["labels"]), ValueError,
         "columns has 'labels', which is no array; there are 'input_ids', 'segment_ids', 'positions', "
         "'rollout_logprobs', 'loss_masks'"),
        (lambda x: x[99], IndexError, "bin 99 is out of range: there are 17"),
        (lambda x: x["a"], TypeError, "a bin's number must be an int, got str"),
        (lambda x: x.batch([0, 99]), IndexError, "bin 99 is out of range: there are 17"),
        (lambda x: x.batch([0.5]), TypeError, "numbers must hold integers, got float64"),
        (lambda x: x.batch([0], out=3), TypeError, "out must be a Batch, got int"),
        (lambda x: x.balanced(0), ValueError, "ranks must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_refusals(call: Any, kind: type[Exception], message: str | None) -> None:
    with pytest.raises(kind) as caught:
        call(Bins(some(), CAPACITY))
    assert message is None or str(caught.value.args[0]) == message

"""`Bins(share_prefixes=True)`: what `pack` makes, one bin at a time, and in every loader."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rollouts.sharing import LEVELS, lengths_of, shared_rollouts
from tests.thorough import examples

from rollkit import (
    Batch,
    Bins,
    Forest,
    Rollouts,
    ShuffledSampler,
    TreeLayout,
    next_token_logprobs,
    pack,
)
from rollkit._loading import planned_trees

ARRAYS = ["input_ids", "positions", "segment_ids", "visible_until", "multiplicity", "predecessors"]
PER_TOKEN = ("loss_masks", "rollout_logprobs", "prompt_kinds", "sampling_masks", "entropies", "kinds")


def columns(seed: int, rows: int = 12) -> dict[str, Any]:
    return shared_rollouts(np.random.default_rng(seed), rows)


ROWS, CAPACITY = 120, 32


def bins_of(seed: int = 0, **options: Any) -> Bins:
    return Bins(columns(seed, ROWS), CAPACITY, **{"share_prefixes": True, "levels": LEVELS, **options})


def same(got: Any, wanted: Any) -> None:
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, name)


def line(whole: Batch, i: int) -> dict[str, Any]:
    """A bin of a batch, by itself."""
    return {name: array[0] for name, array in whole[i : i + 1].items()}


@settings(max_examples=examples(120), deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.fixed_dictionaries(
        {},
        optional={
            "align": st.integers(1, 5),
            "max_segments": st.integers(1, 3),
            "bins_multiple_of": st.integers(1, 4),
            "oversize": st.sampled_from(["drop", "alone", "truncate"]),
            "groups": st.just("task_ids"),
            "match": st.just("kinds"),
        },
    ),
    st.data(),
)
@pytest.mark.filterwarnings("ignore:truncation leaves")
def test_a_bin_is_that_of_pack(seed: int, rows: int, options: dict[str, Any], data: st.DataObject) -> None:
    given_now = columns(seed, rows)
    longest = max(1, *lengths_of(given_now))
    capacity = max(1, longest // 2) if "oversize" in options else longest
    options |= {"share_prefixes": True, "levels": LEVELS, "pad_id": 7}
    whole = pack(given_now, capacity, **options)
    bins = Bins(given_now, capacity, **options)
    assert bins.layout.equals(whole.layout)
    assert list(bins.names) == ARRAYS
    assert len(bins) == whole.layout.shape[0]
    for i, found in enumerate(bins):
        same(found, line(whole, i))
    chosen = data.draw(st.lists(st.integers(0, len(bins) - 1), max_size=5)) if len(bins) else []
    for several in (bins.__getitems__(chosen), list(bins.iterate(chosen))):
        for i, one in zip(chosen, several, strict=True):
            same(one, line(whole, i))
    a_batch(bins.batch(chosen), whole, chosen)
    a_batch(bins.batch(chosen[:1], out=bins.batch(chosen)), whole, chosen[:1])


def a_batch(batch: Batch, whole: Batch, chosen: list[int]) -> None:
    """Bins of a whole batch, one of which may be there twice."""
    layout = batch.layout
    assert isinstance(layout, TreeLayout)
    assert isinstance(whole.layout, TreeLayout)
    assert TreeLayout(layout.nodes, layout.parents, layout.leaf).equals(layout)
    assert list(batch) == ARRAYS
    for name in ARRAYS[:-1]:
        np.testing.assert_array_equal(batch[name], whole[name][np.array(chosen, int)], name)
    np.testing.assert_array_equal(batch["predecessors"], layout.predecessors())
    rows = batch.rows["row_numbers"].tolist()
    assert rows == [row for i in chosen for row in whole.layout.rows_of([i])]
    for name in ("input_ids", "positions", *PER_TOKEN):
        wanted = whole.unpack(name).to_list()
        assert str(batch.unpack(name).to_list()) == str([wanted[row] for row in rows]), name
    for name in ("rewards", "task_ids"):
        assert list(batch.rows[name]) == [whole.rows[name][row] for row in rows]
    assert batch.prompt_lengths.tolist() == whole.prompt_lengths[rows].tolist()


def test_memory_is_filled_again() -> None:
    bins = bins_of()
    first = bins.batch([0, 1])
    arrays = {name: array.__array_interface__["data"][0] for name, array in first.items()}
    masks = first.rows["loss_masks"].values.__array_interface__["data"][0]
    wanted = bins.batch([1])
    again = bins.batch([1], out=first)
    same(again, wanted)
    assert again.unpack("loss_masks").equals(wanted.unpack("loss_masks"))
    assert {name: array.__array_interface__["data"][0] for name, array in again.items()} == arrays
    assert again.rows["loss_masks"].values.__array_interface__["data"][0] == masks


def test_costs_are_of_what_is_computed() -> None:
    bins = bins_of()
    for cost, bin in zip(bins.costs, bins, strict=True):
        assert cost == (2 * bin["positions"] + 1)[bin["multiplicity"] > 0].sum()
    apart = {"response_ids": [[i, 2, 3, 4][: 1 + i % 4] for i in range(20)]}
    shared, plain = (Bins(apart, 9, share_prefixes=once) for once in (True, False))
    assert shared.costs.sum() == plain.costs.sum() == sum((1 + i % 4) ** 2 for i in range(20))


def test_it_is_a_data_set_of_any_sampler() -> None:
    bins = bins_of()
    assert len(bins) >= 6
    same(bins[-1], bins[len(bins) - 1])
    same(bins[1:3][1], bins[2])
    assert list(bins.select(["input_ids"])[0]) == list(bins.select(["input_ids"]).batch([0])) == ["input_ids"]
    back = pickle.loads(pickle.dumps(bins))
    same(back[1], bins[1])
    assert back.plan == bins.plan == bins_of().plan
    assert len({bins.plan, bins_of(seed=1).plan, bins_of(groups="task_ids").plan}) == 3
    state = ShuffledSampler(bins, seed=0).state_dict()
    ShuffledSampler(back, seed=0).load_state_dict(state)
    with pytest.raises(ValueError, match="it was saved for another number of items, other data"):
        ShuffledSampler(bins_of(seed=1), seed=0).load_state_dict(state)
    dealt = bins.balanced(2, seed=1)
    assert len(np.unique(dealt)) == dealt.size == len(bins) // 2 * 2
    assert "predecessors" in repr(bins)


def test_other_names() -> None:
    bins = bins_of(names={"input_ids": "tokens"}, columns=["tokens", "predecessors"])
    assert list(bins[1]) == ["tokens", "predecessors"]
    np.testing.assert_array_equal(bins[1]["tokens"], bins_of()[1]["input_ids"])
    np.testing.assert_array_equal(bins[1]["predecessors"], bins_of()[1]["predecessors"])


def test_a_layout_made_before() -> None:
    given_now = columns(0, ROWS)
    layout = bins_of().layout
    for once in (False, True):
        found = Bins(given_now, layout=layout, levels=LEVELS, share_prefixes=once)
        assert found.plan == bins_of().plan
        same(found[2], bins_of()[2])


@pytest.mark.parametrize("at_once", [1, 100, 1 << 22])
def test_a_layout_of_other_rows_is_refused(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned_trees, "_AT_ONCE", at_once)
    rows = [[i, 2, 3, *range(i % 3)] for i in range(30) for _ in range(2)]
    layout = Forest.build(rows).pack(8)
    Bins({"response_ids": rows}, layout=layout)
    rows[41] = [*rows[41][:2], 9, *rows[41][3:]]
    with pytest.raises(ValueError, match=r"^row 41, position 2 differs from what another row has") as caught:
        Bins({"response_ids": rows}, layout=layout)
    assert caught.value.row == 41  # type: ignore[attr-defined]


def test_no_rollouts() -> None:
    bins = Bins({"response_ids": np.zeros((0, 3), np.int32)}, 8, share_prefixes=True)
    assert len(bins) == 0
    assert list(bins) == []
    assert bins.batch([]).num_rows == 0
    assert bins.costs.tolist() == []


def test_bins_in_a_loader_of_torch() -> None:
    """What is stacked is scored along its lines as the batch is by its layout."""
    torch = pytest.importorskip("torch")
    from rollkit.torch import PackedDataset

    bins = bins_of()
    for dataset in (
        PackedDataset(columns(0, ROWS), CAPACITY, share_prefixes=True, levels=LEVELS),
        PackedDataset(bins),
    ):
        assert dataset.plan == bins.plan
        kinds = {name: str(found.dtype) for name, found in dataset[0].items()}
        assert kinds == dict.fromkeys(ARRAYS, "torch.int32") | {"predecessors": "torch.int64"}
    order = list(ShuffledSampler(bins, seed=2))
    loader: Any = torch.utils.data.DataLoader(dataset, 3, sampler=order, drop_last=True)
    table = torch.randn(64, 64, 8, generator=torch.Generator().manual_seed(0))
    for numbers, found in zip(np.array(order[:6]).reshape(-1, 3), loader, strict=False):
        logits = table[found["input_ids"].long(), found["positions"].long()]
        before = found["predecessors"].clamp(min=0)
        scored = torch.take_along_dim(logits, before[..., None], 1).log_softmax(-1)
        scored = torch.take_along_dim(scored, found["input_ids"].long()[..., None], -1)[..., 0]
        wanted = next_token_logprobs(logits, bins.batch(numbers).to("torch"))
        np.testing.assert_allclose(scored * (found["predecessors"] >= 0), wanted, rtol=1e-5, atol=1e-5)


def test_batches_that_are_made_ahead() -> None:
    torch = pytest.importorskip("torch")
    from rollkit.torch import prefetch

    bins = bins_of()
    found = list(prefetch(bins.batch(numbers).to("torch") for numbers in ([0, 1], [2, 3])))
    for batch, numbers in zip(found, ([0, 1], [2, 3]), strict=True):
        assert isinstance(batch, Batch)
        assert isinstance(batch.unpack("loss_masks").flat, torch.Tensor)
        wanted = bins.batch(numbers)
        assert batch.unpack("input_ids").to_list() == wanted.unpack("input_ids").to_list()


def test_features_are_collated() -> None:
    torch = pytest.importorskip("torch")
    from rollkit.torch import Collator

    collate = Collator(pack=48, share_prefixes=True, labels=False, names="rollkit")
    made = Rollouts(columns(3)).drop("sampling_masks", "entropies", "kinds", "prompt_kinds")
    batch = collate(made.to_rows())
    wanted = pack(made, 48, share_prefixes=True)
    assert batch.layout.equals(wanted.layout)
    for name in ARRAYS:
        assert isinstance(batch[name], torch.Tensor)
        np.testing.assert_array_equal(batch[name].numpy(), wanted[name])
    assert batch.unpack("loss_masks").to_list() == wanted.unpack("loss_masks").to_list()
    renamed = Collator(pack=48, share_prefixes=True, labels=False, names={"input_ids": "tokens"})
    assert list(renamed(made.to_rows())) == ["tokens", *ARRAYS[1:]]
    assert pickle.loads(pickle.dumps(collate)) == collate


@pytest.mark.filterwarnings("ignore")
def test_bins_in_grain() -> None:
    grain = pytest.importorskip("grain")
    from rollkit.grain import PackedSource

    bins = bins_of()
    dataset = grain.MapDataset.source(PackedSource(bins))
    same(dict(sorted(dataset[3].items())), dict(sorted(bins[3].items())))
    found = dataset.batch(2)[1]
    for i in range(2):
        same({name: found[name][i] for name in ARRAYS}, bins[2 + i])


def test_bins_in_jax() -> None:
    jax = pytest.importorskip("jax")
    from rollkit.jax import batches, device_batch

    bins = bins_of()
    (found,) = batches(bins, [3, 1], lines=2)
    for i, number in enumerate([3, 1]):
        same({name: found[name][i] for name in ARRAYS}, bins[number])
    moved = device_batch(found, jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0]))
    assert {name: str(array.dtype) for name, array in moved.items()} == dict.fromkeys(ARRAYS, "int32")

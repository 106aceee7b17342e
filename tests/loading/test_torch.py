"""`rollkit.torch.PackedDataset` in torch's and torchdata's loaders: every bin once, cut anywhere."""

from __future__ import annotations

import itertools
import json
import pickle
from typing import Any

import numpy as np
import pytest
from tests.loading.some import key, rollouts
from tests.thorough import LEVEL

from rollkit import Bins, ShuffledSampler, labels, pack
from rollkit.torch import PackedDataset, collate_one

torch = pytest.importorskip("torch")
CAPACITY = 64
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital'")  # torchdata calls it
Loader: Any = torch.utils.data.DataLoader


def dataset(**options: Any) -> PackedDataset:
    return PackedDataset(rollouts(), CAPACITY, **options)


def same(got: Any, wanted: Any) -> None:
    np.testing.assert_array_equal(got.numpy(), np.asarray(wanted))
    assert str(got.dtype).removeprefix("torch.") == str(np.asarray(wanted).dtype)


@pytest.mark.parametrize("names", ["rollkit", "hf", "grain", "maxtext", {"input_ids": "tokens"}])
def test_a_bin_is_that_of_pack(names: Any) -> None:
    whole = pack(rollouts(), CAPACITY, names=names)
    found = dataset(names=names)
    assert len(found) == whole.layout.shape[0]
    if names == "hf":
        assert list(found[0]) == ["input_ids", "position_ids", "labels"]
    else:
        assert list(found[0]) == list(whole)
    for i in range(len(found)):
        for name, tensor in found[i].items():
            same(tensor, whole[name][i])
    for i, item in zip([3, 0, 3], found.__getitems__([3, 0, 3]), strict=True):
        for name, tensor in item.items():
            same(tensor, whole[name][i])


@pytest.mark.parametrize("columns", [None, ["labels", "input_ids"], ["segment_ids"]])
def test_labels_are_those_of_rollkit(columns: Any) -> None:
    whole = pack(rollouts(), CAPACITY)
    found = dataset(labels=True, columns=columns)
    wanted = labels(whole)
    for i in range(len(found)):
        same(found[i]["labels"], wanted[i])
        same(found.__getitems__([i, 0])[0]["labels"], wanted[i])
    rest = [name for name in columns or whole if name != "labels"]
    assert list(found[0]) == [*rest, "labels"]


def test_labels_of_the_data_stay() -> None:
    rows = {"input_ids": [[1, 2, 3], [4, 5]], "labels": [[-100, 2, -100], [4, 5]]}
    found = PackedDataset(rows, 5, labels=True)
    assert not found._labels
    assert sorted(found[0]["labels"].tolist()) == [-100, -100, 2, 4, 5]


def test_tensors_are_over_the_memory_of_the_bin() -> None:
    found = dataset(columns=["input_ids"])
    array = found.bins[2]["input_ids"]
    tensor = found[2]["input_ids"]
    assert tensor.numpy().base is not None
    same(tensor, array)


def test_bins_are_taken_as_they_are() -> None:
    bins = Bins(rollouts(), CAPACITY, columns=["input_ids", "positions"])
    found = PackedDataset(bins)
    assert list(found[0]) == ["input_ids", "positions"]
    assert list(PackedDataset(bins, columns=["positions"])[0]) == ["positions"]
    assert found.plan == bins.plan
    assert "rollkit" not in repr(found)
    assert repr(found).startswith("PackedDataset(Bins(")


def test_flash_kwargs_are_those_of_the_bin() -> None:
    found = dataset(names="hf", flash_kwargs=True)
    for i in (0, 5):
        item = found[i]
        bounds = item["cu_seq_lens_q"]
        assert bounds.dtype == torch.int32
        assert (bounds[0], bounds[-1]) == (0, CAPACITY)
        starts = (item["position_ids"] == 0).nonzero().reshape(-1).tolist()
        real = [int(b) for b in bounds[:-1]]
        assert set(real) <= set(starts)
        assert item["max_length_q"] == item["max_length_k"] == int(bounds.diff().max())
    assert isinstance(item["max_length_q"], int)
    loader = Loader(found, batch_size=1, collate_fn=collate_one)
    batch = next(iter(loader))
    assert batch["input_ids"].shape == (1, CAPACITY)
    assert batch["cu_seq_lens_q"].ndim == 1
    assert isinstance(batch["max_length_q"], int)
    with pytest.raises(ValueError, match="is for batches of one bin, got 2"):
        next(iter(Loader(found, batch_size=2)))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_the_order_is_that_of_any_number_of_workers(workers: int, batch_size: int | None) -> None:
    found = dataset(columns=["input_ids"])
    loader = Loader(found, batch_size, sampler=ShuffledSampler(found, seed=2), num_workers=workers)
    items = [row for batch in loader for row in batch["input_ids"].reshape(-1, CAPACITY)]
    order = list(ShuffledSampler(found, seed=2))
    assert [key({"input_ids": row}) for row in items] == [key(found.bins[i]) for i in order]


def test_spawned_workers_get_a_pickle() -> None:
    found = dataset(names="hf", flash_kwargs=True)
    after = pickle.loads(pickle.dumps(found))
    assert all(key(after[i]) == key(found[i]) for i in range(len(found)))


def stateful(data: Any, workers: int, seed: int = 1, **options: Any) -> Any:
    loader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    return loader(
        data, sampler=ShuffledSampler(data, seed=seed, **options), num_workers=workers, batch_size=2
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_is_cut_twice_anywhere(workers: int) -> None:
    """Two epochs, cut after any batch and once more later; and in between `iter` comes before the state."""
    data = dataset(columns=["input_ids"])
    loader = stateful(data, workers)
    whole = [[key(batch) for batch in loader] for _ in range(2)]
    count = len(whole[0])
    assert whole[0] != whole[1]
    few = [0, 1, count - 1, count] if workers == 0 else [1, count - 1]
    for first in range(count + 1) if LEVEL else few:
        loader, seen = stateful(data, workers), []
        it = iter(loader)
        seen += [key(next(it)) for _ in range(first)]
        state = pickle.loads(pickle.dumps(loader.state_dict()))
        after = stateful(data, workers)
        if first % 2:
            iter(after)
        after.load_state_dict(state)
        it = iter(after)
        more = min(2, count - len(seen))
        seen += [key(next(it)) for _ in range(more)]
        last = stateful(data, workers)
        last.load_state_dict(after.state_dict())
        rest = [key(batch) for batch in last]
        assert [*seen, *rest] in (whole[0], whole[0] + whole[1])  # after the last batch: the next epoch
        if [*seen, *rest] == whole[0]:
            assert [key(batch) for batch in last] == whole[1]


def test_what_a_stateful_loader_saves_of_ours_is_small() -> None:
    data = dataset()
    sampler = ShuffledSampler(data, seed=0)
    it = iter(sampler)
    next(it)
    assert len(json.dumps(sampler.state_dict())) <= 200


def test_another_data_set_is_refused() -> None:
    data = dataset()
    other = PackedDataset(rollouts(seed=5), CAPACITY)
    state = ShuffledSampler(data, seed=0).state_dict()
    for sampler in (ShuffledSampler(other, seed=0), ShuffledSampler(data, seed=1)):
        with pytest.raises(ValueError, match="state is of plan"):
            sampler.load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_rank_then_four_then_two(workers: int) -> None:
    """A plain DataLoader takes numbers ahead of its batches: the loop says how many were used."""
    data = dataset(columns=["input_ids"])
    seen: list[int] = []
    state: Any = None
    for ranks, steps in ((1, 3), (4, 2), (2, None)):
        samplers = [ShuffledSampler(data, seed=1, rank=rank, world_size=ranks) for rank in range(ranks)]
        for sampler in samplers if state else []:
            sampler.load_state_dict(state)
        for sampler in samplers:
            loader = Loader(data, sampler=sampler, num_workers=workers)
            found = [key(batch) for batch in itertools.islice(loader, steps)]
            seen += found
        states = [sampler.state_dict(taken=steps) for sampler in samplers] if steps else []
        assert all(other == states[0] for other in states)
        state = states[0] if states else None
    left = len(data) - len(seen)
    assert 0 <= left < 2
    assert len(set(seen)) == len(seen)


def test_folders_of_shards(tmp_path: Any) -> None:
    from rollkit import save
    from rollkit._cli import main

    save(rollouts(), tmp_path / "rows.jsonl")
    made = ["pack", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "out"), "--capacity", str(CAPACITY)]
    assert main(made) == 0
    found = PackedDataset(tmp_path / "out", names="hf")
    tokens = np.concatenate([item["input_ids"].numpy() for item in (found[i] for i in range(len(found)))])
    wanted = pack(rollouts(), CAPACITY)["input_ids"]
    assert sorted(tokens[tokens > 0]) == sorted(wanted[wanted > 0])


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: PackedDataset(rollouts()), TypeError, "Bins needs a capacity, or a layout"),
        (lambda: PackedDataset(Bins(rollouts(), 64), 64, align=2), TypeError,
         "bins are planned already; leave out capacity, align"),
        (lambda: PackedDataset(Bins(rollouts(), 64), names="hf"), TypeError,
         "bins are planned already; leave out names"),
        (lambda: PackedDataset("out", 64), TypeError,
         "a folder of bins is planned already; leave out capacity"),
        (lambda: dataset(labels=True, names="maxtext"), ValueError,
         "labels=True needs 'input_ids', which these bins lack; they have 'inputs', 'inputs_position', "
         "'inputs_segmentation', 'targets', 'targets_position', 'targets_segmentation', 'loss_masks'. Leave "
         "names='rollkit', or take names='hf', which has labels"),
        (lambda: dataset(columns=["labels"]), ValueError,
         "columns has 'labels', which is no array; there are 'input_ids', 'segment_ids', 'positions', "
         "'loss_masks'"),
        (lambda: dataset(labels=2), TypeError, "labels must be True or False, got int"),
        (lambda: dataset(names="trl"), ValueError,
         "names must be one of 'rollkit', 'hf', 'grain', 'maxtext', got 'trl'"),
        (lambda: dataset()[99], IndexError, None),
        (lambda: dataset(flash_kwargs=True).__getitems__([0, 1]), ValueError,
         "flash_kwargs=True is for batches of one bin, got 2: segments of several would be told by one; set "
         "batch_size=1 and pack to a larger capacity"),
        (lambda: dataset(share_prefixes=True, labels=True), ValueError,
         "labels=True is for bins of segments, and these share prefixes; `visible_until` is their mask, and "
         "`predecessors` say what predicts each token"),
        (lambda: PackedDataset(Bins(rollouts(), 64, share_prefixes=True), flash_kwargs=True), ValueError,
         "flash_kwargs=True is for bins of segments, and these share prefixes; `visible_until` is their "
         "mask, and `predecessors` say what predicts each token"),
        (lambda: dataset(share_prefixes=True, names="hf"), ValueError,
         "names='hf' is for batches of segments, and this one shares prefixes; rename its arrays by "
         "{old: new}, give the model a mask of rollkit.segments, and take the loss of next_token_logprobs"),
        (lambda: collate_one([{}, {}]), ValueError,
         "collate_one is for batches of one bin, got 2; set batch_size=1"),
    ],
)  # fmt: skip
def test_refusals(call: Any, kind: type[Exception], message: str | None) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert message is None or str(caught.value) == message

"""`rollkit.grain`: packed bins under grain's own order, shards and checkpoints."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.loading.some import key, rollouts
from tests.thorough import LEVEL

from rollkit import Bins

grain: Any = pytest.importorskip("grain")

from rollkit.grain import Pack, PackedSource  # noqa: E402  (without grain, the module is skipped)

CAPACITY = 48


def source(seed: int = 0) -> PackedSource:
    return PackedSource(Bins(rollouts(seed=seed), CAPACITY, names="maxtext"))


def elements(count: int = 100, seed: int = 0, longest: int = 20) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    ids = np.split(np.arange(1, 10**6), np.cumsum(rng.integers(1, longest, count)))[:count]
    return [{"inputs": x.astype(np.int32), "targets": x.astype(np.int16) % 99, "text": "a"} for x in ids]


def stream(rows: Any) -> Any:
    return grain.MapDataset.source(rows).to_iter_dataset(grain.ReadOptions(num_threads=1))


def told(bin: Any) -> bytes:
    return b"".join(np.ascontiguousarray(bin[name]).tobytes() for name in sorted(bin))


def test_a_source_has_the_bins() -> None:
    found = source()
    dataset = grain.MapDataset.source(found)
    assert isinstance(found, grain.sources.RandomAccessDataSource)
    assert len(dataset) == len(found) == len(found.bins)
    for i in range(len(found)):
        assert told(dataset[i]) == told(found.bins[i])
    batches = dataset.batch(3)
    assert batches[1]["inputs"].shape == (3, CAPACITY)
    np.testing.assert_array_equal(batches[1]["inputs"][2], found[5]["inputs"])


def test_a_source_names_its_data() -> None:
    """grain compares `repr` when it reads a checkpoint."""
    assert repr(source()) == repr(source())
    assert repr(source()) != repr(source(seed=1))
    after = pickle.loads(pickle.dumps(source()))
    assert repr(after) == repr(source())


def test_another_data_set_is_refused() -> None:
    def loader(seed: int) -> Any:
        sampler = grain.samplers.IndexSampler(
            num_records=len(source()), shuffle=True, seed=1, num_epochs=1,
            shard_options=grain.sharding.NoSharding(),
        )  # fmt: skip
        return grain.DataLoader(data_source=source(seed), sampler=sampler, worker_count=0)

    it = iter(loader(0))
    head = [key({"input_ids": next(it)["inputs"]}) for _ in range(4)]
    after = iter(loader(0))
    after.set_state(it.get_state())
    rest = [key({"input_ids": bin["inputs"]}) for bin in after]
    assert sorted(head + rest) == sorted(key({"input_ids": bin["inputs"]}) for bin in source().bins)
    with pytest.raises(ValueError, match="DataSource in checkpoint"):
        iter(loader(1)).set_state(it.get_state())


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_source_is_cut_twice_anywhere(shuffled: bool) -> None:
    dataset = grain.MapDataset.source(source())
    dataset = dataset.seed(1).shuffle() if shuffled else dataset
    dataset = dataset.repeat(2).to_iter_dataset()
    whole = [told(bin) for bin in dataset]
    for cut in range(len(whole) + 1) if LEVEL else [0, 3, len(source()), len(whole)]:
        check_cut(dataset, whole, cut)


def check_cut(dataset: Any, whole: list[bytes], cut: int) -> None:
    """Cut once, and again two bins later."""
    it = iter(dataset)
    seen = [told(next(it)) for _ in range(cut)]
    state = json.loads(json.dumps(it.get_state()))
    after = iter(dataset)
    after.set_state(state)
    seen += [told(bin) for _, bin in zip(range(min(2, len(whole) - cut)), after, strict=False)]
    last = iter(dataset)
    last.set_state(json.loads(json.dumps(after.get_state())))
    assert seen + [told(bin) for bin in last] == whole


@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=4),
    st.integers(0, 3),
)
def test_an_elastic_iterator_goes_on_with_any_number_of_hosts(doublings: list[int], steps: int) -> None:
    dataset = grain.MapDataset.source(source()).seed(3).shuffle()
    state: Any = None
    seen: list[int] = []
    for doubling in doublings:
        hosts = 2**doubling
        iterators: list[Any] = [
            iter(
                grain.experimental.ElasticIterator(
                    dataset, 8, grain.sharding.ShardOptions(shard_index=host, shard_count=hosts)
                )
            )
            for host in range(hosts)
        ]
        for it in iterators if state else []:
            it.set_state(state)
        left = (len(dataset) - len(seen)) // 8
        for _ in range(min(steps, left)):
            for it in iterators:
                seen += [key({"input_ids": row}) for row in next(it)["inputs"]]
        states = [it.get_state() for it in iterators]
        assert all(other == states[0] for other in states)
        state = json.loads(json.dumps(states[0]))
        assert len(json.dumps(state)) <= 200
    assert len(set(seen)) == len(seen)
    order = [key({"input_ids": dataset[i]["inputs"]}) for i in range(len(seen))]
    assert sorted(seen) == sorted(order)  # a step's are dealt as grain deals them


@pytest.mark.parametrize("names", ["grain", "maxtext"])
def test_bins_have_what_first_fit_has(names: str) -> None:
    """Names, dtypes and shapes of grain's; and each row whole, once, counted and numbered."""
    rows = elements()
    both = ["inputs", "targets"]
    found = list(Pack(stream(rows), features=both, capacity=CAPACITY, buffer=40, names=names))
    length = {"inputs": CAPACITY, "targets": CAPACITY}
    theirs = next(iter(grain.experimental.FirstFitPackIterDataset(
        stream(rows), length_struct=length, num_packing_bins=4)))  # fmt: skip
    if names == "maxtext":
        theirs = {
            name.replace("_segment_ids", "_segmentation").replace("_positions", "_position"): array
            for name, array in theirs.items()
        }
    assert found[0].keys() == theirs.keys()
    for name, array in theirs.items():
        assert (found[0][name].dtype, found[0][name].shape) == (array.dtype, array.shape)
    segments, places = ("segment_ids", "positions") if names == "grain" else ("segmentation", "position")
    seen = {}
    for bin in found:
        ids = bin[f"inputs_{segments}"]
        np.testing.assert_array_equal(ids, bin[f"targets_{segments}"])
        assert (bin["inputs"][ids == 0] == 0).all()
        for segment in range(1, ids.max() + 1):
            of_row = ids == segment
            np.testing.assert_array_equal(bin[f"inputs_{places}"][of_row], np.arange(of_row.sum()))
            seen[int(bin["inputs"][of_row][0])] = bin["inputs"][of_row], bin["targets"][of_row]
    assert len(seen) == len(rows)
    for row in rows:
        for got, wanted in zip(seen[int(row["inputs"][0])], (row["inputs"], row["targets"]), strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("buffer", [1, 7, 40, 100, 1000])
def test_a_packed_stream_is_cut_twice_anywhere(buffer: int) -> None:
    dataset = Pack(stream(elements()), features=["inputs"], capacity=CAPACITY, buffer=buffer)
    whole = [told(bin) for bin in dataset]
    it = iter(dataset)
    for _ in whole:
        assert len(json.dumps({**it.get_state(), "parent": None})) <= 60
        next(it)
    for cut in range(len(whole) + 1) if LEVEL else [0, 1, len(whole) // 2, len(whole) - 1, len(whole)]:
        check_cut(dataset, whole, cut)


def test_bins_are_full_and_in_another_order_for_another_seed() -> None:
    rows = elements(2000)
    packed: Any = lambda seed: Pack(stream(rows), features=["inputs"], capacity=256, seed=seed)  # noqa: E731
    found = list(packed(0))
    least = sum(len(row["inputs"]) for row in rows) / 256
    assert len(found) <= least + 2  # one that is not full in each of two windows
    assert [told(bin) for bin in found] != [told(bin) for bin in packed(1)]
    lengths = [np.bincount(bin["inputs_segment_ids"])[1:].max() for bin in found]
    assert np.corrcoef(lengths, np.arange(len(lengths)))[0, 1] > -0.3  # longest first would be -1


def test_a_stream_after_other_steps() -> None:
    rows = grain.MapDataset.source(elements()).shuffle(seed=1).repeat(2)
    dataset = Pack(rows, features=["inputs"], capacity=CAPACITY, fills={"inputs": -1}).batch(2)
    found = list(dataset)
    assert found[0]["inputs"].shape == (2, CAPACITY)
    assert all((bin["inputs"][bin["inputs_segment_ids"] == 0] == -1).all() for bin in found)


def test_no_elements() -> None:
    empty = [{"inputs": np.zeros(0, np.int32)}]
    dataset = Pack(stream(empty), features=["inputs"], capacity=4)
    assert all((bin["inputs_segment_ids"] == 0).all() for bin in dataset)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: PackedSource([1]), TypeError,  # type: ignore[arg-type]
         "bins must be rollkit.Bins, got list; Bins(rollouts, capacity)"),
        (lambda: source()[999], IndexError, None),
        (lambda: Pack([1], features=["a"], capacity=3), TypeError,
         "parent must be a dataset of grain, got list"),
        (lambda: Pack(stream([]), features=[], capacity=3), ValueError,
         "features is empty; a bin has at least one"),
        (lambda: Pack(stream([]), features="a", capacity=3), TypeError,
         "features must be a sequence, got str"),
        (lambda: Pack(stream([]), features=[1], capacity=3), TypeError,  # type: ignore[list-item]
         "features must be names, got int"),
        (lambda: Pack(stream([]), features=["a"], capacity=0), ValueError,
         "capacity must be at least 1, got 0"),
        (lambda: Pack(stream([]), features=["a"], capacity=3, names="hf"), ValueError,
         "names must be one of 'grain', 'maxtext', got 'hf'"),
        (lambda: Pack(stream([]), features=["a"], capacity=3, fills={"b": 1}), ValueError,
         "fills has 'b', which is no feature; there are 'a'"),
        (lambda: list(Pack(stream([{"a": np.ones(2)}, {"b": 1}]), features=["a"], capacity=3)), ValueError,
         "parent: row 1 has no feature 'a'; it has 'b'"),
        (lambda: list(Pack(stream([{"a": np.ones(2)}, {"a": 3}]), features=["a"], capacity=3)), TypeError,
         "feature 'a': row 1 is int, expected an array"),
        (lambda: list(Pack(stream([{"a": np.ones(2), "b": np.ones(3)}]), features=["a", "b"], capacity=3)),
         ValueError, "feature 'b': row 0 has 3 elements, 'a' has 2"),
        (lambda: list(Pack(stream([{"a": np.ones(2)}] * 3 + [{"a": np.ones(4)}]), features=["a"], capacity=3,
                           buffer=2)), ValueError, "row 3 has 4 elements, more than the capacity of 3"),
        (lambda: iter(Pack(stream([]), features=["a"], capacity=3)).set_state({}), ValueError,
         "state must have 'parent', 'window', 'bin', as get_state gives it, got []"),
    ],
)  # fmt: skip
def test_refusals(call: Any, kind: type[Exception], message: str | None) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert message is None or str(caught.value).startswith(message)

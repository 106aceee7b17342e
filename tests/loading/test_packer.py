"""`rollkit.torch.Packer`: the bins of a stream, cut anywhere, on any number of ranks."""

from __future__ import annotations

import itertools
import json
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.loading.some import features, key

from rollkit import OnlinePacker
from rollkit.torch import Packer

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital'")  # torchdata calls it
CAPACITY = 50
Loader: Any = torch.utils.data.DataLoader


def packers(source: Any, ranks: int, state: Any = None, **options: Any) -> list[Packer]:
    found = [
        Packer(source, CAPACITY, rank=rank, world_size=ranks, **{"buffer": 8, **options})
        for rank in range(ranks)
    ]
    for packer in found if state else []:
        packer.load_state_dict(state)
    return found


def test_bins_are_those_of_the_online_packer() -> None:
    source = features()
    packer = OnlinePacker(CAPACITY, buffer=8)
    numbers = [rows for i, x in enumerate(source) for rows in packer.add(i, len(x["input_ids"]))]
    numbers += packer.flush()
    found = list(Packer(source, CAPACITY, buffer=8, pad_id=-1))
    assert len(found) == len(numbers)
    for bin, rows in zip(found, numbers, strict=True):
        wanted = np.concatenate([source[i]["input_ids"] for i in sorted(rows, key=list(rows).index)])
        tokens = bin["input_ids"].numpy()
        assert tokens.shape == (CAPACITY,)
        assert sorted(tokens[tokens >= 0]) == sorted(wanted)
        assert list(bin) == ["input_ids", "position_ids", "labels"]


@given(
    st.integers(0, 70),
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), min_size=1, max_size=4),
    st.sampled_from([None, 3]),
    st.integers(0, 100),
    st.integers(1, 20),
)
def test_a_run_on_changing_ranks_loses_and_repeats_nothing(
    count: int, parts: list[tuple[int, int]], seed: int | None, data: int, buffer: int
) -> None:
    source = features(count, data)
    options: dict[str, Any] = {"seed": seed, "buffer": buffer}
    whole = [key(bin) for bin in Packer(source, CAPACITY, **options)]
    seen: list[int] = []
    state = None
    for ranks, steps in [*parts, (1, count + 1)]:
        found = packers(source, ranks, state, **options)
        iterators = [iter(packer) for packer in found]
        for _ in range(min(steps, (len(whole) - len(seen)) // ranks)):
            seen += [key(next(it)) for it in iterators]
        states = [packer.state_dict() for packer in found]
        assert all(other == states[0] for other in states)
        state = json.loads(json.dumps(states[0]))
        if state["epoch"] == 1:
            break
    assert seen == whole[: len(seen)]
    assert len(seen) > len(whole) - max(ranks for ranks, _ in [*parts, (1, 0)])


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_deal_the_bins(drop_last: bool) -> None:
    source = features(90)
    whole = [key(bin) for bin in Packer(source, CAPACITY, buffer=8)]
    found = [[key(bin) for bin in packer] for packer in packers(source, 4, drop_last=drop_last)]
    assert len(whole) % 4
    dealt = [x for step in itertools.zip_longest(*found) for x in step if x is not None]
    assert dealt == (whole[: len(whole) // 4 * 4] if drop_last else whole)


def test_epochs_follow_each_other() -> None:
    source = features()
    packer = Packer(source, CAPACITY, seed=1)
    epochs = [[key(bin) for bin in packer] for _ in range(2)]
    assert epochs[0] != epochs[1]
    after = Packer(source, CAPACITY, seed=1)
    after.load_state_dict(packer.state_dict())
    assert packer.state_dict()["epoch"] == 2
    third = [key(bin) for bin in after]
    assert third == [key(bin) for bin in Packer(source, CAPACITY, seed=1, epoch=2)]
    after.set_epoch(1)
    assert [key(bin) for bin in after] == epochs[1]
    for _ in packer:
        break
    assert [key(bin) for bin in packer] == third  # what is broken off begins anew


def test_the_last_bin_ends_the_epoch_before_the_loop_knows() -> None:
    packer = Packer(features(20), CAPACITY)
    it, count = iter(packer), len(list(Packer(features(20), CAPACITY)))
    for _ in range(count):
        next(it)
    assert packer.state_dict()["epoch"] == 1
    assert packer.state_dict() == {**Packer([], CAPACITY).state_dict(), "epoch": 1}


@pytest.mark.parametrize("told", [0, 3])
def test_the_epoch_of_a_state_wins(told: int) -> None:
    source = features()
    packer = Packer(source, CAPACITY, epoch=3, seed=1)
    it = iter(packer)
    head = [key(next(it)) for _ in range(4)]
    after = Packer(source, CAPACITY, seed=1)
    after.load_state_dict(packer.state_dict())
    after.set_epoch(told)
    after.set_epoch(told)
    whole = [key(bin) for bin in Packer(source, CAPACITY, epoch=3, seed=1)]
    assert head + [key(bin) for bin in after] == whole
    after.set_epoch(told + 1)
    assert after.state_dict()["epoch"] == 4


def test_a_source_may_be_a_function_and_may_skip() -> None:
    made = features()
    asked: list[tuple[int, int]] = []

    class Stream:
        def __init__(self, epoch: int, first: int = 0) -> None:
            self.epoch, self.first = epoch, first

        def skip(self, count: int) -> Stream:
            asked.append((self.epoch, count))
            return Stream(self.epoch, count)

        def __iter__(self) -> Iterator[Any]:
            return iter(made[self.first :])

    whole = [key(bin) for bin in Packer(made, CAPACITY, buffer=4)]
    packer = Packer(Stream, CAPACITY, buffer=4)
    it = iter(packer)
    head = [key(next(it)) for _ in range(12)]
    after = Packer(Stream, CAPACITY, buffer=4)
    after.load_state_dict(packer.state_dict())
    assert head + [key(bin) for bin in after] == whole
    ((epoch, first),) = asked
    assert epoch == 0
    assert first > 40  # what is in bins that were dealt is not read again


def test_per_feature_columns_stay_whole() -> None:
    source = [{**x, "score": float(i)} for i, x in enumerate(features(30))]
    found = list(Packer(source, CAPACITY, keep=["score"]))
    assert sorted(score for bin in found for score in bin["score"].tolist()) == [float(i) for i in range(30)]


def test_a_loader_batches_bins() -> None:
    source = features()
    whole = [key(bin) for bin in Packer(source, CAPACITY)]
    loader = Loader(Packer(source, CAPACITY), 2)
    found = [key({"input_ids": row}) for batch in loader for row in batch["input_ids"]]
    assert found == whole


def test_a_stateful_loader_is_cut_anywhere() -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    source = features()
    make: Any = lambda: stateful(Packer(source, CAPACITY, seed=1), batch_size=2)  # noqa: E731
    loader = make()
    whole = [[key(batch) for batch in loader] for _ in range(2)]
    for cut in [0, 3, len(whole[0]) - 1, len(whole[0])]:
        loader = make()
        it = iter(loader)
        head = [key(next(it)) for _ in range(cut)]
        after = make()
        after.load_state_dict(loader.state_dict())
        rest = [key(batch) for batch in after]
        if cut == len(whole[0]) and rest == whole[1]:
            continue
        assert head + rest == whole[0]
        assert [key(batch) for batch in after] == whole[1]


def test_workers_are_refused() -> None:
    with pytest.raises(RuntimeError, match="Packer takes no workers, got num_workers=1"):
        list(Loader(Packer(features(), CAPACITY), 2, num_workers=1))


def test_processes_of_accelerate_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state: Any = types.ModuleType("accelerate.state")
    state.PartialState = type("PartialState", (), {"_shared_state": {"num_processes": 2}})
    monkeypatch.setitem(sys.modules, "accelerate.state", state)
    with pytest.raises(RuntimeError, match=r"with 2 processes: .* take a PackedDataset"):
        next(iter(Packer(features(), CAPACITY)))
    state.PartialState._shared_state["num_processes"] = 1
    next(iter(Packer(features(), CAPACITY)))


STATE = Packer([], CAPACITY).state_dict()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Packer(iter([]), CAPACITY), TypeError,
         "source must be what can be iterated again, or a function of the epoch, got list_iterator"),
        (lambda: Packer([], 0), ValueError, "capacity must be at least 1, got 0"),
        (lambda: Packer([], 8, rank=2, world_size=2), ValueError, "rank must be below world_size=2, got 2"),
        (lambda: Packer([], 8, names="rollkit"), ValueError,
         "names='rollkit' is for a batch with its layout, and bins have none; take 'hf'"),
        (lambda: list(Packer([{"input_ids": [1]}, {"input_ids": [1] * 9}], 8)), ValueError,
         "row 1 has 9 elements, more than the capacity of 8; raise capacity, or cut the row"),
        (lambda: list(Packer([{"input_ids": [1]}, {"text": "a"}], 8)), ValueError,
         "source: row 1 has no 'input_ids' or 'response_ids'; it has 'text'"),
        (lambda: list(Packer([3], 8)), TypeError,  # type: ignore[list-item]
         "source: row 0 is int, expected a dict"),
        (lambda: Packer([], 8).load_state_dict(STATE), ValueError, None),
        (lambda: Packer([], CAPACITY).load_state_dict({"epoch": 1}), ValueError,
         "state must have 'plan', 'epoch', 'read', 'ready', 'packer', as state_dict gives it, got ['epoch']"),
        (lambda: Packer([], CAPACITY).load_state_dict({**STATE, "read": -1}), ValueError,
         "state['read'] must be at least 0, got -1"),
    ],
)  # fmt: skip
def test_refusals(call: Any, kind: type[Exception], message: str | None) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert message is None or str(caught.value) == message


def test_another_source_is_refused() -> None:
    packer = Packer(features(), CAPACITY)
    it = iter(packer)
    for _ in range(9):
        next(it)
    after = Packer(features(10), CAPACITY)
    after.load_state_dict(packer.state_dict())
    with pytest.raises(ValueError, match=r"source ended before feature \d+, which the state has read"):
        list(after)

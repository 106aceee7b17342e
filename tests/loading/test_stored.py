"""`Bins.open`: the bins of a folder are those that `Bins` makes of the rollouts that went into it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.loading.test_bins import options, same
from tests.thorough import examples

from rollkit import Ragged, Rollouts, save
from rollkit._files.stream import Options, write_shards
from rollkit._loading import stored
from rollkit._loading.bins import Bins
from rollkit.testing import rollouts as drawn

pytest.importorskip("safetensors")


@contextmanager
def packed(rollouts: Rollouts, capacity: int, **options: Any) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        save(rollouts, f"{folder}/rows.safetensors")
        write_shards([f"{folder}/rows.safetensors"], f"{folder}/out", Options(capacity=capacity, **options))
        yield Path(folder) / "out"


def with_lists(rollouts: Rollouts, seed: int, longest: int) -> Rollouts:
    """With a list for each token of the responses, and one of pairs for each of all tokens."""
    rng = np.random.default_rng(seed)
    prompts, responses = (rollouts[name] for name in ("prompt_token_ids", "response_ids"))
    assert isinstance(prompts, Ragged)
    assert isinstance(responses, Ragged)

    def lists(lengths: Any, *inner: int) -> Ragged:
        ends = np.append(0, rng.integers(0, longest + 1, lengths.sum()).cumsum())
        entries: Any = Ragged(rng.integers(0, 99, (ends[-1], *inner)).astype(np.int16), ends)
        return Ragged(entries, np.append(0, lengths.cumsum()))

    masks, pairs = lists(responses.lengths), lists(prompts.lengths + responses.lengths, 2)
    return rollouts.with_columns(sampling_masks=masks, pairs=pairs)


@settings(max_examples=examples(200), deadline=None)
@given(
    drawn(),
    options,
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from(["rollkit", "hf"]),
    st.sampled_from([None, 0, 3, 300]),
    st.data(),
)
def test_a_bin_is_that_of_the_rollouts(
    rollouts: Rollouts,
    options: Any,
    per_shard: int,
    derived: bool,
    names: Any,
    longest: int | None,
    data: st.DataObject,
) -> None:
    if longest is not None:
        rollouts = with_lists(rollouts, data.draw(st.integers(0, 99)), longest)
    options = {"oversize": "split" if names == "rollkit" else "drop", **options}
    if names == "hf" and options["oversize"] == "split":
        options["oversize"] = "truncate"
    options |= data.draw(st.sampled_from([{}, {"order": "shuffled", "seed": 3}]))
    wanted = Bins(rollouts, 20, pad_id=7, names=names, **options)
    if not len(wanted):
        return
    how = {"bins_per_shard": per_shard, "derived": derived, "pad_id": 7, **options}
    with packed(rollouts, 20, **how) as folder:
        bins = Bins.open(folder, names=names)
        assert len(bins) == len(wanted)
        assert bins.capacity == wanted.capacity
        assert bins.names == wanted.names
        assert bins.costs.tolist() == wanted.costs.tolist()
        if (wanted.layout.starts >= 0).all():
            assert bins.layout.equals(wanted.layout)
        for i in range(len(bins)):
            same(bins[i], wanted[i])
        chosen = data.draw(st.lists(st.integers(0, len(bins) - 1), max_size=5))
        for i, found in zip(chosen, bins.__getitems__(chosen), strict=True):
            same(found, wanted[i])
        for i, found in zip(chosen, bins.iterate(chosen), strict=True):
            same(found, wanted[i])
        ours, theirs = bins.batch(chosen), wanted.batch(chosen)
        same(ours, theirs)
        assert ours.layout.equals(theirs.layout)
        assert ours.prompt_lengths.tolist() == theirs.prompt_lengths.tolist()
        assert ours.rows.keys() == theirs.rows.keys()
        for name, column in theirs.rows.items():
            assert list(map(str, ours.rows[name])) == list(map(str, column))


def some(rows: int = 40) -> Rollouts:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 20, (rows, 2))
    return Rollouts({
        "prompt_token_ids": [rng.integers(0, 99, n) for n, _ in sizes],
        "response_ids": [rng.integers(0, 99, n) for _, n in sizes],
        "rollout_logprobs": [rng.normal(size=n) for _, n in sizes],
        "rewards": rng.normal(size=rows),
        "messages": [[{"role": "é"}] * (i % 3) for i in range(rows)],
    })  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with packed(some(), 48, bins_per_shard=4) as found:
        shutil.copytree(found, tmp_path / "out")
    return tmp_path / "out"


def test_columns_are_exactly_those(folder: Path) -> None:
    bins = Bins.open(folder, columns=["positions", "input_ids"])
    assert list(bins[0]) == list(bins.batch([0])) == ["positions", "input_ids"]
    assert list(Bins.open(folder, columns=["labels"], names="hf")[1]) == ["labels"]
    with pytest.raises(ValueError, match="columns has 'labels', which is no array; there are 'input_ids', "):
        Bins.open(folder, columns=["labels"])


def test_memory_is_used_again(folder: Path) -> None:
    bins = Bins.open(folder)
    batch = bins.batch([0, 1])
    again = bins.batch([5], out=batch)
    same(again, bins.batch([5]))
    assert all(np.shares_memory(again[name], batch[name]) for name in batch)
    kept = list(bins.iterate())
    for i, found in enumerate(kept):
        same(found, bins[i])
        assert all(array.flags.writeable for array in found.values())


def test_memory_of_lists_is_used_again() -> None:
    with packed(with_lists(some(), 0, 5), 48, bins_per_shard=4) as folder:
        bins = Bins.open(folder, columns=["sampling_masks", "pairs"])
        sizes = [len(bins[i]["pairs"].values) for i in range(len(bins))]
        batch = bins.batch([int(np.argmax(sizes))])
        again = bins.batch([int(np.argmin(sizes))], out=batch)
        same(again, bins.batch([int(np.argmin(sizes))]))
        assert all(np.shares_memory(again[name].values, batch[name].values) for name in batch)
        kept, wanted = [], list(map(bins.__getitem__, range(len(bins))))
        for i, found in enumerate(bins.iterate()):
            same(found, wanted[i])
            kept += [found] if i % 3 else []
        for found, i in zip(kept, (i for i in range(len(bins)) if i % 3), strict=True):
            same(found, wanted[i])


def test_it_pickles_as_a_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    bins = Bins.open("out", columns=["input_ids", "rewards"])
    wanted = bins[7]
    data = pickle.dumps(bins)
    assert len(data) < 1000
    monkeypatch.chdir("/")
    again = pickle.loads(data)
    assert again.plan == bins.plan
    assert again.names == bins.names
    same(again[7], wanted)
    with packed(some(50), 48) as other:
        shutil.rmtree(folder)
        shutil.copytree(other, folder)
    with pytest.raises(ValueError, match=f"{folder}: holds other bins than when it was pickled"):
        pickle.loads(data)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the maps of the process from /proc")
def test_a_data_set_of_torch_reads_no_layout_of_all_bins(folder: Path) -> None:
    pytest.importorskip("torch")
    from rollkit.torch import PackedDataset

    dataset = PackedDataset(folder, labels=True)
    assert "labels" in dataset[0]
    assert "layout" not in vars(dataset.bins._store)


def test_a_shard_is_mapped_when_it_is_first_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_MOST_MAPS", 2)

    def mapped() -> list[str]:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return [path.name for path in sorted(folder.iterdir()) if any(str(path) in line for line in lines)]

    bins = Bins.open(folder)
    assert len(bins) > 16
    assert bins.capacity == 48
    assert mapped() == []
    wanted = [bins[i] for i in (1, 0, 9)]
    assert mapped() == ["shard-00000.safetensors", "shard-00002.safetensors"]
    bins[16]
    assert mapped() == ["shard-00002.safetensors", "shard-00004.safetensors"]
    for i, found in zip((1, 0, 9), wanted, strict=True):
        same(bins[i], found)
    assert len(mapped()) == 2


# What is wrong with a folder.

Change = Callable[[Path], object]


def rewritten(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def foreign(path: Path) -> None:
    """A shard of another folder, with as many bytes."""
    rows = some()
    order = np.random.default_rng(1).permutation(len(rows))
    with packed(rows.take(order), 48, bins_per_shard=4) as other:
        data = (other / path.name).read_bytes()
    size = path.stat().st_size
    path.write_bytes(data[:size] + b"\0" * (size - len(data)))


def exchanged(path: Path) -> None:
    path.write_bytes(path.with_name("shard-00002.safetensors").read_bytes())
    index = json.loads((path.parent / "index.json").read_text())
    index["shards"][1]["bytes"] = path.stat().st_size
    (path.parent / "index.json").write_text(json.dumps(index))


BEFORE: dict[str, tuple[Change, str]] = {
    "missing": (lambda path: path.unlink(), r"missing$"),
    "short": (lambda path: os.truncate(path, path.stat().st_size - 1), r"[\d,]+ bytes, the index says"),
    "a folder": (a_folder, r"missing$"),
}
WHILE: dict[str, tuple[Change, str]] = {
    "missing": (lambda path: path.unlink(), "missing; it was moved or removed since its folder was opened"),
    "folder gone": (lambda path: shutil.rmtree(path.parent), "missing; it was moved or removed since"),
    "folder moved": (lambda path: path.parent.rename(path.parent.with_name("x")), "missing; it was moved"),
    "short": (lambda path: os.truncate(path, 100), "changed since its folder was opened; open the folder"),
    "written to": (rewritten, "changed since its folder was opened"),
}  # fmt: skip
INSIDE: dict[str, tuple[Change, str]] = {
    "foreign": (foreign, r"a shard of another run"),
    "exchanged": (exchanged, r"a shard of another run: number is 2, the index says 1"),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_folder_that_is_not_whole_is_refused(folder: Path, name: str) -> None:
    change, said = BEFORE[name]
    path = folder / "shard-00001.safetensors"
    change(path)
    with pytest.raises(ValueError, match=f"^{path}: {said}"):
        Bins.open(folder)


@pytest.mark.parametrize("name", WHILE)
def test_what_happens_to_a_folder_that_is_open_is_told(folder: Path, name: str) -> None:
    bins = Bins.open(folder)
    wanted = bins[0]
    change, said = WHILE[name]
    path = folder / "shard-00001.safetensors"
    change(path)
    for call in (lambda: bins[4], lambda: bins.__getitems__([0, 5]), lambda: bins.batch([7])):
        with pytest.raises(ValueError, match=f"^{path}: {said}"):
            call()
    same(bins[0], wanted)  # what is mapped stays


@pytest.mark.parametrize("name", INSIDE)
def test_a_shard_of_another_run_is_named(folder: Path, name: str) -> None:
    change, said = INSIDE[name]
    path = folder / "shard-00001.safetensors"
    change(path)
    bins = Bins.open(folder)
    bins[0]
    for call in (lambda: bins[4], lambda: bins.layout, lambda: bins.costs):
        with pytest.raises(ValueError, match=f"^{path}: {said}"):
            call()


def test_what_is_no_folder_of_shards_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        Bins.open(tmp_path)
    (folder / "index.json").unlink()
    (folder / ".rollkit").mkdir()
    with pytest.raises(ValueError, match="this run is unfinished; continue it with rollkit pack --resume"):
        Bins.open(folder)
    with pytest.raises(ValueError, match="URLs of s3 are not taken here"):
        Bins.open("s3://bucket/shards")


def with_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a shard, and the size that the index says."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    index = json.loads((path.parent / "index.json").read_text())
    index["shards"][1]["bytes"] = path.stat().st_size
    (path.parent / "index.json").write_text(json.dumps(index))


def ours(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(header: dict[str, Any]) -> None:
        found = json.loads(header["__metadata__"]["rollkit"])
        header["__metadata__"]["rollkit"] = json.dumps(found | {name: value})

    return change


def tensor(name: str, **entry: Any) -> Callable[[dict[str, Any]], object]:
    return lambda header: header[name].update(entry)


HEADERS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda header: header.pop("input_ids"), "input_ids is missing"),
    (lambda header: header.pop("layout.starts"), "layout.starts is missing"),
    (lambda header: header.pop("rows.messages"), "rows.messages is missing"),
    (tensor("input_ids", data_offsets=[0, 4]), "input_ids is not as long as its shape and dtype say"),
    (tensor("input_ids", data_offsets=[2**40, 2**40 + 768]), "it ends too early"),
    (tensor("input_ids", shape=[2, 96]), r"input_ids is int32 of shape \(2, 96\), the index says int32 of"),
    (tensor("input_ids", dtype="F32"), "input_ids is float32 of shape"),
    (tensor("layout.row_numbers", dtype="F64"), "layout.row_numbers must hold integers, got float64"),
    (tensor("layout.lengths", shape=[1], data_offsets=[0, 8]), "lengths has 1 rows, starts has"),
    (tensor("layout.prompt_lengths", shape=[1], data_offsets=[0, 8]), "prompt_lengths has 1 entries, "),
    (tensor("rows.rewards", shape=[1], data_offsets=[0, 8]), "rows.rewards does not have an entry for"),
    (ours("format", 4), "format 4; this rollkit reads 1, 2 and 3"),
    (ours("format", 3), "a shard of another run: format is 3, the index says 2"),
    (ours("number", 7), "a shard of another run: number is 7, the index says 1"),
    (ours("plan_sha256", "x"), "a shard of another run$"),
    (ours("derived", ["input_ids"]), "derived has 'input_ids', which nothing gives"),
    (ours("derived", []), "a shard of another run: derived is"),
    (ours("arrays", ["input_ids"]), "a shard of another run: arrays is"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), HEADERS, ids=range(len(HEADERS)))
def test_a_header_that_is_wrong_is_named(folder: Path, change: Any, said: str) -> None:
    path = folder / "shard-00001.safetensors"
    with_header(path, change)
    with pytest.raises(ValueError, match=f"^{path}: .*{said}"):
        Bins.open(folder)[4]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"derived": ["labels"]}, "derived has 'labels', which nothing gives"),
        ({"derived": "x"}, "derived is 'x', expected list"),
        ({"columns": {"input_ids": {"dtype": "int32", "shape": ["bins", 47]}}}, "columns.input_ids.shape is"),
        ({"columns": {"input_ids": {"dtype": "O", "shape": ["bins", 48]}}}, "columns.input_ids.dtype is 'O'"),
        ({"rows": {"rewards": "O"}}, "rows.rewards is 'O', expected json or one of"),
        ({"totals": {"bins": 3}}, "totals.bins is 3, and the shards have others"),
    ],
)
def test_an_index_that_is_wrong_is_named(folder: Path, change: Any, said: str) -> None:
    path = folder / "index.json"
    index = json.loads(path.read_text())
    if "totals" in change:
        change = {"totals": index["totals"] | change["totals"]}
    path.write_text(json.dumps(index | change))
    with pytest.raises(ValueError, match=f"^{path}: .*{said}"):
        Bins.open(folder)


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("one") / "out"
    with packed(some(12), 48) as found:
        shutil.copytree(found, path)
    return path / "shard-00000.safetensors"


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), min_size=1, max_size=8))
def test_garbage_is_read_or_refused(one_shard: Path, changes: list[tuple[int, int]]) -> None:
    whole = one_shard.read_bytes()
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    one_shard.write_bytes(data)
    bins = Bins.open(one_shard.parent)
    calls: list[Callable[[], Any]] = [
        lambda: [bins[i] for i in range(len(bins))],
        lambda: bins.batch(range(len(bins))),
        lambda: bins.layout,
    ]
    told = []
    try:
        for call in calls:
            try:
                call()
            except ValueError as error:
                told.append(str(error))
    finally:
        one_shard.write_bytes(whole)
    assert all(text.startswith(str(one_shard.parent)) for text in told)

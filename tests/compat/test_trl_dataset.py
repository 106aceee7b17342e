"""`pack_dataset` on every kind of dataset, beside TRL's where it is installed."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from tests.thorough import by_level

from rollkit.compat.trl import pack_dataset
from rollkit.testing import pack_table_reference

datasets: Any = pytest.importorskip("datasets")
Dataset = datasets.Dataset

STRATEGIES = ("bfd", "bfd_split", "wrapped")
RANDOM = random.Random(7)


def columns(count: int, longest: int = 25) -> dict[str, list[list[int]]]:
    rows = [[RANDOM.randrange(99) for _ in range(RANDOM.randrange(longest))] for _ in range(count)]
    return {"input_ids": rows, "labels": [[token + 1 for token in row] for row in rows]}


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def theirs() -> Any:
    if importlib.util.find_spec("trl") is None:
        pytest.skip("trl is not installed")
    return importlib.import_module("trl.data_utils").pack_dataset


def large(kind: str) -> Any:
    feature = datasets.LargeList(datasets.Value(kind))
    return datasets.Features({"input_ids": feature, "labels": feature})


def kinds() -> dict[str, Any]:
    """A dataset, and arguments of map, by what is special about them."""
    plain = Dataset.from_dict(columns(40))
    nulls = {"input_ids": [[1, 2, 3], None, [4, None], []]}
    return {
        "plain": (plain, {}),
        "torch": (plain.with_format("torch"), {}),
        "numpy, one column": (plain.with_format("numpy", columns=["labels"]), {}),
        "torch, with arguments": (plain.with_format("torch", columns=["labels"], dtype=torch.int32), {}),
        "batches": (plain, {"batch_size": 7}),
        "whole": (datasets.concatenate_datasets([plain, plain]), {"batch_size": None}),
        "chosen rows": (plain.select([5, 3, 9]), {}),
        "a slice": (plain.select(range(3, 30)), {}),
        "large lists": (Dataset.from_dict(columns(20), features=large("int16")), {}),
        "nulls": (Dataset.from_dict(nulls), {}),
        "in memory": (plain, {"keep_in_memory": True}),
        "a dict": (datasets.DatasetDict(a=plain, b=Dataset.from_dict(columns(9))), {}),
        "a stream": (plain.to_iterable_dataset(), {"batch_size": 9}),
        "a stream of tensors": (plain.to_iterable_dataset().with_format("torch"), {}),
        "a dict of streams": (datasets.IterableDatasetDict(a=plain.to_iterable_dataset()), {}),
    }


def content(dataset: Any) -> Any:
    """All that must be the same."""
    if isinstance(dataset, dict):
        return type(dataset), {name: content(one) for name, one in dataset.items()}
    if isinstance(dataset, Dataset):
        return dataset.to_dict(), dataset.format, dataset.features
    return type(dataset), [{name: list(map(int, row)) for name, row in entry.items()} for entry in dataset]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", list(kinds()))
def test_datasets_are_those_of_trl(theirs: Any, kind: str, strategy: str) -> None:
    dataset, options = kinds()[kind]
    found = pack_dataset(dataset, 10, strategy, map_kwargs=options)
    assert content(found) == content(theirs(dataset, 10, strategy, map_kwargs=options))


@pytest.mark.filterwarnings("ignore")
def test_tables_are_those_of_trl(theirs: Any) -> None:
    """Row for row, at capacities at which the tie shows."""
    data_utils: Any = importlib.import_module("trl.data_utils")
    for _ in range(by_level(60, 600)):
        seq_length = RANDOM.randrange(1, 60)
        found = columns(RANDOM.randrange(1, 60), RANDOM.choice([2, seq_length + 1, 3 * seq_length + 1]))
        table = pa.table(found | {"input_ids": pa.array(found["input_ids"], pa.list_(pa.int8()))})
        if not any(found["labels"]):
            continue
        for strategy in STRATEGIES:
            dataset = Dataset(table).with_format("arrow")
            ours = pack_dataset(dataset, seq_length, strategy, {"keep_in_memory": True})[:]
            if strategy == "wrapped":
                wanted = data_utils._pack_wrapped(table, seq_length)
            else:
                cut: Any = "split" if strategy == "bfd_split" else "truncate"
                wanted = data_utils._pack_bfd(table, seq_length, cut)
            assert ours.cast(wanted.schema).equals(wanted)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_values(strategy: str) -> None:
    found = columns(30)
    packed = pack_dataset(Dataset.from_dict(found), 10, strategy, {"batch_size": None})
    wanted, lengths = pack_table_reference(found["input_ids"], 10, strategy)
    assert packed["input_ids"][:] == wanted
    if lengths:
        assert packed["seq_lengths"][:] == lengths


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_datasets_without_tokens(strategy: str) -> None:
    """Where TRL fails, for want of a row or of a token."""
    rows: Any
    for rows in ([], [[], []]):
        assert len(pack_dataset(Dataset.from_dict({"input_ids": rows}), 4, strategy)) == 0


def test_several_processes_and_the_cache(tmp_path: Path) -> None:
    Dataset.from_dict(columns(40)).save_to_disk(tmp_path / "data")
    dataset = datasets.load_from_disk(tmp_path / "data")
    found = pack_dataset(dataset, 10, map_kwargs={"num_proc": 2})
    again = pack_dataset(dataset, 10, map_kwargs={"num_proc": 2})
    assert found.to_dict() == again.to_dict()
    assert found.cache_files == again.cache_files
    assert pack_dataset(dataset, 11).cache_files != pack_dataset(dataset, 10).cache_files

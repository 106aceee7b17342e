"""Columns of a list per token in shards: what comes out is what `Bins` has of the rollouts that went in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.files.test_formats import reader
from tests.files.test_parts import elsewhere, files_in
from tests.loading.test_bins import same
from tests.loading.test_stored import ours, tensor, with_header
from tests.thorough import examples

from rollkit import Ragged, Rollouts, save
from rollkit._cli import main
from rollkit._files.shards import check_shards, read_index, read_shards
from rollkit._files.stream import Options, write_shards
from rollkit._loading.bins import Bins

pytest.importorskip("safetensors")

LEVELS = {"more": "sequence[]", "images": "row[]"}
Row = dict[str, Any]
OF_LISTS = {"sampling_masks": "int", "more": "float", "images": "int", "a": "int", "b": "int"}
"""Columns of lists, and the dtype of their entries."""


def drawn_rows(sizes: Sequence[tuple[int, int]], longest: int, seed: int) -> list[Row]:
    """Rows with lists for the tokens of responses, for all tokens, and for what is no token."""
    rng = np.random.default_rng(seed)

    def lists(count: int, of: Callable[[int], Any]) -> list[Any]:
        return [of(int(n)).tolist() for n in rng.integers(0, longest + 1, count)]

    return [
        {
            "prompt_token_ids": rng.integers(0, 99, prompt).tolist(),
            "response_ids": rng.integers(0, 99, response).tolist(),
            "sampling_masks": lists(response, lambda n: rng.integers(0, 10**6, n)),
            "more": lists(prompt + response, lambda n: rng.integers(-9, 9, n) / 4),
            "images": lists(int(rng.integers(0, 3)), lambda n: rng.integers(0, 9, n)),
        }
        for prompt, response in sizes
    ]


def written(path: Path, rows: list[Row]) -> Path:
    """A file of rows, of the kind that its name says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":  # of another's making: nothing says there which columns are lists
        pa = pytest.importorskip("pyarrow")
        flat, nested = pa.list_(pa.int64()), {"int": pa.int64(), "float": pa.float64()}
        types = {name: pa.list_(pa.list_(nested[kind])) for name, kind in OF_LISTS.items()}
        table = pa.table(
            {name: pa.array([row[name] for row in rows], types.get(name, flat)) for name in rows[0]}
        )
        pytest.importorskip("pyarrow.parquet").write_table(table, path, row_group_size=3)
    else:
        save(columns_of(rows), path)
    return path


def columns_of(rows: list[Row], dtypes: Any = OF_LISTS) -> Rollouts:
    """Rows as rollouts, all of one kind."""
    found: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    for name in found.keys() & OF_LISTS.keys():
        found[name] = Ragged.from_rows(found[name], dtypes.get(name), lists=True)
    return Rollouts(found)


SIZES = st.lists(st.tuples(st.sampled_from([0, 0, 1, 5]), st.sampled_from([0, 1, 4, 9, 40])), max_size=9)


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sources=st.lists(SIZES, min_size=1, max_size=3),
    kind=st.sampled_from(["jsonl", "parquet", "safetensors"]),
    longest=st.sampled_from([0, 1, 3, 300]),
    oversize=st.sampled_from(["drop", "truncate", "alone", "split"]),
    per_shard=st.sampled_from([1, 2, 64]),
    chunk=st.sampled_from([1, 3, 256]),
    seed=st.integers(0, 99),
)
def test_lists_are_those_of_the_rollouts(
    tmp_path_factory: pytest.TempPathFactory,
    sources: Any,
    kind: str,
    longest: int,
    oversize: str,
    per_shard: int,
    chunk: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    filled = [drawn_rows(sizes, longest, seed + i) for i, sizes in enumerate(sources) if sizes]
    rows = [row for found in filled for row in found]
    if not rows:
        return
    paths = [written(folder / f"{i}.{kind}", found) for i, found in enumerate(filled)]
    if oversize == "truncate":
        for row in rows:
            row["images"] = []
        paths = [written(path, found) for path, found in zip(paths, filled, strict=True)]
    dtypes = {} if kind == "jsonl" else OF_LISTS  # text without a number has no dtype
    wanted = Bins(columns_of(rows, dtypes), 20, levels=LEVELS, oversize=oversize)
    if not len(wanted):
        return
    how: Any = {"levels": LEVELS, "oversize": oversize, "bins_per_shard": per_shard, "chunk_rows": chunk}
    write_shards(paths, folder / "out", Options(capacity=20, **how))
    bins = Bins.open(folder / "out")
    assert bins.names == wanted.names
    for i in range(len(wanted)):
        same(bins[i], wanted[i])
    some = [*range(0, len(bins), 2), 0]
    ours, theirs = bins.batch(some), wanted.batch(some)
    same(ours, theirs)
    assert ours.rows["images"] == theirs.rows["images"].to_list()
    for name in ("sampling_masks", "more"):
        assert ours.unpack(name).equals(theirs.unpack(name))
    for found, i in zip(bins.__getitems__(some), some, strict=True):
        same(found, wanted[i])
    done = 0
    for path, batch in zip(
        sorted((folder / "out").glob("*.safetensors")), read_shards(folder / "out"), strict=True
    ):
        lines = range(done, done + batch.layout.shape[0])
        same(batch, dict(wanted.batch(lines)))
        done = lines.stop
        check_reader(path, batch)
    write_shards(paths, folder / "parts", Options(capacity=20, **how), each=elsewhere)
    assert files_in(folder / "parts") == files_in(folder / "out")


def check_reader(path: Path, batch: Any) -> None:
    """What docs/shards.md says of the tensors of lists."""
    found = reader()(path)
    for name in ("sampling_masks", "more"):
        counts = found[f"layout.counts.{name}"]
        assert counts.shape == batch.layout.shape
        assert counts.dtype == np.min_scalar_type(counts.max())
        offsets = np.append(0, counts.cumsum(dtype=np.int64))
        np.testing.assert_array_equal(offsets, batch[name].offsets)
        np.testing.assert_array_equal(found[name], batch[name].values)
        np.testing.assert_array_equal(found[f"offsets.{name}"], offsets[:: batch.layout.width])


ROWS = drawn_rows([(i % 3, 1 + i % 7) for i in range(40)], 4, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = written(tmp_path / "a.jsonl", ROWS)
    write_shards([source], tmp_path / "out", Options(capacity=16, bins_per_shard=3, levels=LEVELS))
    return tmp_path / "out"


def test_a_run_that_ended_early_is_completed_to_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    options = Options(capacity=16, bins_per_shard=3, levels=LEVELS)

    def failing(function: Any, items: Any) -> Iterator[Any]:
        for item in items:
            if item == 2:
                raise OSError(28, "No space left on device")
            yield function(item)

    again = tmp_path / "again"
    with pytest.raises(OSError, match="No space left"):
        write_shards([tmp_path / "a.jsonl"], again, options, each=failing)
    assert len(list(again.glob("shard-*"))) == 2
    other = Options(capacity=16, bins_per_shard=3, levels=LEVELS | {"more": "sequence"})
    with pytest.raises(ValueError, match="cannot resume: --levels was "):
        write_shards([tmp_path / "a.jsonl"], again, other, resume=True)
    write_shards([tmp_path / "a.jsonl"], again, options, resume=True)
    assert files_in(again) == files_in(folder)
    index = read_index(folder)
    assert write_shards([tmp_path / "a.jsonl"], folder, options, resume=True) == index


def test_only_lists_need_a_newer_reader(tmp_path: Path, folder: Path) -> None:
    assert read_index(folder)["format"] == 3
    assert read_index(folder)["columns"]["more"] == {"dtype": "float32", "shape": ["bins", 16, "list"]}
    skip = Options(capacity=16, skip_columns=["sampling_masks", "more"], levels={"images": "row[]"})
    write_shards([tmp_path / "a.jsonl"], tmp_path / "skipped", skip)
    assert read_index(tmp_path / "skipped")["format"] == 2


def test_a_byte_that_changed_is_found(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    begin = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["sampling_masks"]["data_offsets"][0]
    data[8 + int.from_bytes(data[:8], "little") + begin] ^= 1
    path.write_bytes(data)
    assert check_shards(folder) == []
    assert check_shards(folder, verify=True) == [f"{path}: contents differ from what the index says (sha256)"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written(tmp_path / "a.jsonl", ROWS)
    levels = ["--level", "more=sequence[]", "--level", "images=row[]"]
    packing = ["--capacity", "16", "--bins-per-shard", "64", *levels]
    assert main(["pack", str(source), "-o", str(tmp_path / "out"), "--json", *packing]) == 0
    done = json.loads(capsys.readouterr().out)
    assert main(["pack", str(source), "--dry-run", "--json", *packing]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert {**planned, "bytes": 0, "seconds": 0, "out": 0} == {**done, "bytes": 0, "seconds": 0, "out": 0}
    data = done["bytes"] - 4096  # without header
    assert data < planned["bytes"] < 1.5 * done["bytes"]
    assert main(["verify", str(tmp_path / "out")]) == main(["inspect", str(tmp_path / "out")]) == 0
    assert "more            float32  [bins, 16, list]" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["pack", str(source), "-o", str(tmp_path / "x"), "--level", "more=tokens[]", *packing])
    assert (
        "a level of prompt, response, sequence, row, or one with [] behind it, got" in capsys.readouterr().err
    )


@pytest.mark.parametrize("loader", [False, True])
def test_a_data_set_of_torch_gives_lists_of_tensors(folder: Path, loader: bool) -> None:
    torch = pytest.importorskip("torch")
    from rollkit.torch import PackedDataset

    dataset = PackedDataset(folder)
    wanted = Bins.open(folder)
    found: Any = dataset.__getitems__([1, 2]) if loader else [dataset[1], dataset[2]]
    for i, bin in zip((1, 2), found, strict=True):
        assert isinstance(bin["more"].values, torch.Tensor)
        same(
            {
                name: type(x)(*(y.numpy() for y in x)) if isinstance(x, tuple) else x.numpy()
                for name, x in bin.items()
            },
            wanted[i],
        )


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "safetensors"])
def test_lists_under_another_name(tmp_path: Path, kind: str) -> None:
    masks = [
        (row["sampling_masks"], {name: row[name] for name in ROWS[0] if name.endswith("_ids")})
        for row in ROWS
    ]
    source = written(tmp_path / f"a.{kind}", [{**ids, "a": found, "b": found} for found, ids in masks])
    options: Any = {"rename": {"a": "theirs", "b": "kept_token_ids"}, "levels": {"theirs": "response[]"}}
    write_shards([source], tmp_path / "out", Options(capacity=16, **options))
    bin = Bins.open(tmp_path / "out")[0]
    assert bin["kept_token_ids"].dtype == np.int32
    for kept, theirs in zip(bin["kept_token_ids"], bin["theirs"], strict=True):
        np.testing.assert_array_equal(kept, theirs)


# What is refused.


def packed(folder: Path, *sources: list[Row], **options: Any) -> str:
    """What is said of rows that are not packed."""
    paths = [written(folder / f"{i}.jsonl", rows) for i, rows in enumerate(sources)]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        write_shards(paths, folder / "out", Options(capacity=16, **options))
    assert not (folder / "out").exists()
    return str(caught.value).replace(str(folder), "")


X: Row = {"response_ids": [1, 2]}


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([X | {"x": [[1], [2, 3]]}, X | {"x": [4, 5]}], {"levels": {"x": "response[]"}},
         "/0.jsonl:2: column 'x': this row, position 0 is int, expected a list, tuple or array"),
        ([X | {"x": [[1], [2, 3]]}, X | {"x": [[4]]}], {"levels": {"x": "response[]"}},
         "/0.jsonl:2: column 'x': this row has 1 elements; its prompt has 0 tokens, its response 2"),
        ([X | {"x": [[1], [2, 3]]}, X | {"x": None}], {"levels": {"x": "response[]"}},
         "/0.jsonl:2: column 'x': this row is NoneType; expected a list for each element"),
        ([{"response_ids": [[1], [2, 3]]}], {"levels": {"response_ids": "response[]"}},
         "/0.jsonl: column 'response_ids': expected token ids, got a list for each token"),
        ([X], {"levels": {"x": "response[]"}}, "levels has 'x', which is no column; there are 'response"),
        ([X | {"sampling_masks": [[1], [2]]}, {"response_ids": [3]}], {},
         "column 'sampling_masks' is missing or null in some rows"),
        ([{"response_ids": [1] * 20, "x": [[1]]}], {"levels": {"x": "row[]"}, "oversize": "truncate"},
         "/0.jsonl:1: column 'x': this row would be cut, and has 1 entries that may be of any of its"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, rows: list[Row], options: Any, said: str) -> None:
    assert said in packed(tmp_path, rows, chunk_rows=1, **options)


@pytest.mark.parametrize("first", [True, False])
def test_lists_in_one_source_and_none_in_another(tmp_path: Path, first: bool) -> None:
    lists = Rollouts({"response_ids": [[1, 2]], "x": Ragged.from_rows([[[1], [2, 3]]], lists=True)})
    save(lists, tmp_path / "lists.safetensors")
    written(tmp_path / "none.jsonl", [X | {"x": [4, 5]}])
    sources = [tmp_path / "lists.safetensors", tmp_path / "none.jsonl"][:: 1 if first else -1]
    said = "column 'x' has a list for each token in some rows, and none in others; --level x=response"
    with pytest.raises(ValueError, match=said):
        write_shards(sources, tmp_path / "out", Options(capacity=16))
    written(tmp_path / "none.jsonl", [{"response_ids": [], "x": []}])  # which says nothing
    write_shards(sources, tmp_path / "out", Options(capacity=16))
    assert Bins.open(tmp_path / "out").batch([0]).unpack("x").to_list() in (
        [[[1], [2, 3]], []],
        [[], [[1], [2, 3]]],
    )


HEADERS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda header: header.pop("layout.counts.more"), "a list of|more is float32 of shape"),
    (lambda header: header.pop("offsets.more"), "offsets.more is missing"),
    (tensor("layout.counts.more", dtype="I8"), "counts and offsets of lists are not those of their entries"),
    (tensor("layout.counts.more", shape=[16, 3]), "counts and offsets of lists are not those"),
    (tensor("offsets.more", dtype="U64"), "counts and offsets of lists are not those"),
    (ours("format", 2), "a shard of another run: format is 2, the index says 3"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), HEADERS, ids=range(len(HEADERS)))
def test_a_header_that_is_wrong_is_named(folder: Path, change: Any, said: str) -> None:
    path = folder / "shard-00001.safetensors"
    with_header(path, change)
    for call in (lambda: Bins.open(folder)[4], lambda: list(read_shards(folder))):
        with pytest.raises(ValueError, match=f"^{path}: .*({said})"):
            call()


def test_counts_that_are_wrong_are_named(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8:header])["layout.counts.more"]["data_offsets"]
    data[header + begin] += 1
    path.write_bytes(data)
    said = f"^{path}: .*'more': not the shard that rollkit wrote: counts and offsets of lists"
    for call in (lambda: Bins.open(folder)[3], lambda: list(read_shards(folder))):
        with pytest.raises(ValueError, match=said):
            call()
    assert end > begin


@settings(
    max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.lists(st.tuples(st.integers(0, 20000), st.integers(0, 255)), min_size=1, max_size=8))
def test_garbage_is_read_or_refused(folder: Path, changes: list[tuple[int, int]]) -> None:
    path = folder / "shard-00000.safetensors"
    whole = path.read_bytes()
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    bins, told = Bins.open(folder), []
    calls: list[Callable[[], Any]] = [lambda: [bins[i] for i in range(3)], lambda: list(read_shards(folder))]
    for call in calls:
        try:
            call()
        except ValueError as error:
            told.append(str(error))
    path.write_bytes(whole)
    assert all(text.startswith(str(folder)) for text in told)

"""What Ray does for datasets and files: tasks in order, batches to bins, shards of a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.loading.on_ray import PATHS, one_machine
from tests.thorough import by_level

import rollkit
from rollkit._files import spooling
from rollkit._files.stream import Options, write_shards

ray: Any = pytest.importorskip("ray")
pa: Any = pytest.importorskip("pyarrow")
torch: Any = pytest.importorskip("torch")

import rollkit.ray  # noqa: E402
from rollkit.ray import CollateArrow, PackBatches  # noqa: E402
from rollkit.ray._shards import written_at  # noqa: E402
from rollkit.ray._tasks import Tasks  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One machine; its workers import the package that is tested."""
    with one_machine(ray):
        yield


def made(rows: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "prompt_token_ids": rng.integers(0, 99, rng.integers(0, 9)).tolist(),
            "response_ids": rng.integers(0, 99, rng.integers(1, 40)).tolist(),
            "rewards": int(row % 2) if row < rows // 2 else 0.5,  # of two dtypes, in two parts
            "task": f"{seed}.{row}",
        }
        for row in range(rows)
    ]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def files_in_all(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file())


# Tasks.


class Squared:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, number: int) -> int:
        if number == 7 and not (self.folder / "dead").exists():
            (self.folder / "dead").touch()
            os._exit(1)  # as a machine does
        if number == 13:
            raise ValueError(f"number {number} is unlucky")
        return number**2


def test_results_come_in_order_and_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    assert list(Tasks(3)(Squared(tmp_path), range(13))) == [number**2 for number in range(13)]
    assert (tmp_path / "dead").exists()
    assert list(Tasks()(Squared(tmp_path), [])) == []


def test_an_error_is_the_one_of_the_task_and_nothing_runs_after_it(tmp_path: Path) -> None:
    (tmp_path / "dead").touch()
    found = Tasks(2)(Squared(tmp_path), range(30))
    with pytest.raises(ValueError, match=r"^number 13 is unlucky$") as caught:
        for _ in found:
            pass
    assert type(caught.value) is ValueError


class Slow:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, number: int) -> int:
        import time

        if number:
            time.sleep(30)
            (self.folder / str(number)).touch()
        return number


def test_who_asks_no_more_ends_what_runs(tmp_path: Path) -> None:
    found = Tasks(4)(Slow(tmp_path), range(100))
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


# Shards.


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_shards_of_a_cluster_are_those_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(spooling, "_PART", 4096)
    sources = []
    for number in range(2):
        path = written(tmp_path / f"{number}.jsonl", made(120, number))
        if kind == "parquet":
            rollkit.save(rollkit.read(path), path := path.with_suffix(".parquet"))
        sources.append(path)
    options: dict[str, Any] = {"capacity": 64, "bins_per_shard": 7, "chunk_rows": 16}
    index = write_shards(sources, tmp_path / "one", Options(**options))
    found = rollkit.ray.write_shards(sources, tmp_path / "ray", **options)
    assert found == index
    assert len(index["shards"]) > 5
    assert files_in(tmp_path / "ray") == files_in(tmp_path / "one")
    (tmp_path / "ray" / "index.json").unlink()  # as a run that is cut off
    assert rollkit.ray.write_shards(sources[0], tmp_path / "first", **options)["totals"]["rows"] == 120


def test_a_wrong_row_is_told_by_its_line_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "_PART", 1024)
    rows = made(100, 0)
    rows[90]["response_ids"] = ["a"]
    source = written(tmp_path / "a.jsonl", rows)
    with pytest.raises(ValueError, match=f"^{source}:91: ") as here:
        write_shards([source], tmp_path / "out", Options(capacity=64))
    with pytest.raises(ValueError, match=f"^{source}:91: ") as there:
        rollkit.ray.write_shards([source], tmp_path / "out", capacity=64)
    assert str(here.value) == str(there.value)
    assert not (tmp_path / "out").exists()


def test_the_command_line_writes_the_same_bytes_at_a_cluster(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", made(60, 3))
    address = ray.get_runtime_context().gcs_address
    words = [sys.executable, "-m", "rollkit", "pack", str(source), "--capacity", "64", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": PATHS}
    for more in (["-o", str(tmp_path / "one")], ["-o", str(tmp_path / "ray"), "--ray", address]):
        ended = subprocess.run([*words, *more], env=environment, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert files_in(tmp_path / "ray") == files_in(tmp_path / "one")


def test_sigterm_ends_a_run_at_a_cluster_and_what_is_whole_stays(tmp_path: Path) -> None:
    """Ray has its driver print a stack trace, while tasks run on."""
    source, out = written(tmp_path / "a.jsonl", made(2000, 3)), tmp_path / "ray"
    words = [sys.executable, "-m", "rollkit", "pack", str(source), "--capacity", "64", "--quiet"]
    words += ["--bins-per-shard", "1"]
    environment = {**os.environ, "PYTHONPATH": PATHS}
    at_cluster = [*words, "-o", str(out), "--ray", ray.get_runtime_context().gcs_address]
    with subprocess.Popen(at_cluster, env=environment, stdout=-1, stderr=-1, text=True) as run:
        while run.poll() is None and not (out / "shard-00000.safetensors").exists():
            time.sleep(0.01)
        run.terminate()
        said = run.communicate()
    assert (run.returncode, *said) == (128 + signal.SIGTERM, "", "")
    left = files_in_all(out)
    time.sleep(0.3)
    assert files_in_all(out) == left  # no task writes after it
    subprocess.run([*words, "-o", str(out), "--resume"], env=environment, check=True)
    subprocess.run([*words, "-o", str(tmp_path / "one")], env=environment, check=True)
    assert files_in(out) == files_in(tmp_path / "one")


def test_nobody_at_an_address(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", made(3, 3))
    words = [
        sys.executable,
        "-m",
        "rollkit",
        "pack",
        str(source),
        "--capacity",
        "64",
        "-o",
        str(tmp_path / "o"),
    ]
    environment = {**os.environ, "PYTHONPATH": PATHS}
    for address, said in (("127.0.0.1:1", "Connection refused"), ("nowhere", "address")):
        asked = [*words, "--ray", address]
        ended = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert ended.stderr.startswith(f"rollkit: no Ray at '{address}': ")
        assert said in ended.stderr
        assert ended.stderr.count("\n") == 1


def test_what_is_wrong_with_paths_is_told_before_ray_is_asked(tmp_path: Path) -> None:
    source, options = written(tmp_path / "a.jsonl", made(3, 3)), Options(capacity=64)
    with pytest.raises(FileNotFoundError):
        written_at("nowhere", [tmp_path / "b.jsonl"], tmp_path / "out", options)
    with pytest.raises(ValueError, match=r"^s3://bucket/out: URLs of s3 are not taken here"):
        written_at("nowhere", [source], "s3://bucket/out", options)


SOURCE = "rows.jsonl"
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"capacity": 0}, ValueError, "capacity must be at least 1, got 0"),
    ({"capacity": "8"}, TypeError, "capacity must be a number, got str"),
    ({"colour": 1}, TypeError, "'colour' is no option of shards; there are "),
    ({"packing": {}}, TypeError, "'packing' is no option of shards; there are "),
    ({"folder": ""}, ValueError, "a path is empty; give the name of a file"),
    ({"folder": "s3://bucket/out"}, ValueError, "s3://bucket/out: URLs of s3 are not taken here"),
    ({"sources": "nothing.jsonl"}, FileNotFoundError, ""),
    ({"sources": 3}, TypeError, "expected a path, got int"),
]


@pytest.mark.parametrize(("given", "kind", "said"), REFUSED)
def test_refusals_of_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], kind: type[Exception], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    written(Path(SOURCE), made(3, 0))
    arguments = {"sources": SOURCE, "folder": "out", "capacity": 64} | given
    write: Any = rollkit.ray.write_shards
    with pytest.raises(kind) as caught:
        write(**arguments)
    assert str(caught.value).startswith(said)
    assert not Path("out").exists()


# Datasets.

OF_RAY = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning:ray")
"""Ray Data warns of its own options."""


@OF_RAY
def test_a_dataset_becomes_bins_and_tensors() -> None:
    rows = made(by_level(300, 2000), 5)
    dataset = ray.data.from_arrow(pa.Table.from_pylist(rows))
    bins = dataset.map_batches(
        PackBatches,
        fn_constructor_args=(256,),
        fn_constructor_kwargs={"keep": ["task"]},
        batch_format="pyarrow",
        batch_size=100,
        concurrency=1,
    )
    found = []
    for batch in bins.iter_torch_batches(batch_size=4, collate_fn=CollateArrow()):
        assert batch["input_ids"].dtype == torch.int32
        for ids, segments, tasks in zip(batch["input_ids"], batch["segment_ids"], batch["task"], strict=True):
            assert len(ids) == 256
            assert len(tasks) == int(segments.max())
            found += [(task, ids[segments == i + 1].tolist()) for i, task in enumerate(tasks)]
    assert sorted(found) == sorted(
        (row["task"], row["prompt_token_ids"] + row["response_ids"]) for row in rows
    )


@OF_RAY
def test_steps_in_numpy_before_and_after_change_nothing() -> None:
    """Ray's default: rows of several lengths become tensors of Ray's, and so do bins."""
    rows = made(100, 6)
    dataset = ray.data.from_arrow(pa.Table.from_pylist(rows))
    how: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": 100}
    plain = dataset.map_batches(PackBatches(256), **how)
    steps = dataset.map_batches(lambda batch: batch).map_batches(PackBatches(256), **how)
    found = [
        list(bins.iter_torch_batches(batch_size=4, collate_fn=CollateArrow()))
        for bins in (plain, steps.map_batches(lambda batch: batch))
    ]
    for batch, wanted in zip(*found, strict=True):
        assert batch.keys() == wanted.keys()
        assert all(torch.equal(batch[name], wanted[name]) for name in wanted)


@OF_RAY
def test_rows_of_a_dataset_are_collated() -> None:
    from rollkit.torch import Collator

    rows = [{"input_ids": [1, 2]}, {"input_ids": [3]}, {"input_ids": [4, 5, 6]}]
    dataset = ray.data.from_arrow(pa.Table.from_pylist(rows))
    (batch,) = dataset.iter_torch_batches(batch_size=3, collate_fn=CollateArrow(Collator(pack=8)))
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 0, 0]]

"""Shard folders: what goes in comes out, whatever happens on the way."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.paths import SHARED
from tests.thorough import by_level

from rollkit import Bins, Layout, Ragged, Rollouts
from rollkit._files.read import read
from rollkit._files.shards import check_shards, read_index, read_layout, read_shards
from rollkit._files.spool import Spool
from rollkit._files.stream import Options, write_shards

pytest.importorskip("safetensors")

TAU = SHARED / "tau_airline.jsonl"
Row = dict[str, Any]


def make_rows(count: int = 60, seed: int = 0) -> list[Row]:
    rng = random.Random(seed)
    rows: list[Row] = []
    for i in range(count):
        prompt, response = rng.randint(0, 30), rng.randint(1, 60)
        rows.append(
            {
                "trajectory_ids": f"t{i}_é",
                "group": i // 4,
                "rewards": rng.choice([0.0, 0.1, 1.0]),
                "messages": [{"role": "user", "content": "x" * (i % 5)}],
                "prompt_token_ids": [rng.randint(0, 2**31 - 1) for _ in range(prompt)],
                "response_ids": [rng.randint(0, 1000) for _ in range(response)],
                "loss_masks": [rng.randint(0, 1) for _ in range(response)],
                "rollout_expert_indices": [[[i % 7, j % 5]] for j in range(prompt + response)],
                "advantages": [float(rng.random()) for _ in range(response)],
            }
        )
    return rows


def write_jsonl(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "rows.jsonl", make_rows())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones included."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def unpacked(folder: Path) -> Iterator[tuple[int, Row]]:
    """Row numbers and rows, as a reader gets them back."""
    for batch in read_shards(folder):
        tokens = {name: batch.unpack(name).to_list() for name in batch}
        for i, number in enumerate(batch.rows["row_numbers"].tolist()):
            row: Row = {name: column[i] for name, column in tokens.items()}
            cut = int(batch.prompt_lengths[i])
            row["prompt_token_ids"], row["response_ids"] = row["input_ids"][:cut], row["input_ids"][cut:]
            row["per row"] = {
                name: column.tolist()[i] if isinstance(column, np.ndarray) else column[i]
                for name, column in batch.rows.items()
            }
            yield number, row


def assert_holds(folder: Path, rows: list[Row]) -> None:
    found = dict(unpacked(folder))
    assert sorted(found) == list(range(len(rows)))
    for number, row in found.items():
        wanted = rows[number]
        cut = len(wanted["prompt_token_ids"])
        assert row["prompt_token_ids"] == wanted["prompt_token_ids"]
        assert row["response_ids"] == wanted["response_ids"]
        assert row["loss_masks"] == [0] * cut + wanted["loss_masks"]
        for name, value in row["per row"].items():
            assert name == "row_numbers" or value == wanted[name]
        for name in ("rollout_logprobs", "advantages"):
            if name in wanted:
                assert row[name] == np.float32([0.0] * cut + wanted[name]).tolist()
        if "rollout_expert_indices" in wanted:
            assert row["rollout_expert_indices"] == wanted["rollout_expert_indices"]
        if not isinstance(wanted["rewards"], list):
            assert row["rewards"][-1] == np.float32(wanted["rewards"])
            assert not any(row["rewards"][:-1])


@pytest.mark.parametrize("chunk_rows", [1, 7, 1000])
@pytest.mark.parametrize("bins_per_shard", [1, 5, 1000])
def test_round_trip(tmp_path: Path, source: Path, chunk_rows: int, bins_per_shard: int) -> None:
    out = tmp_path / "out"
    options = Options(capacity=128, chunk_rows=chunk_rows, bins_per_shard=bins_per_shard, pad_id=-1)
    index = write_shards([source], out, options)
    assert_holds(out, make_rows())
    assert check_shards(out, verify=True) == []
    assert index == read_index(out)
    assert {path.name for path in out.iterdir()} == {"index.json", *(s["file"] for s in index["shards"])}
    assert sum(shard["tokens"] for shard in index["shards"]) == index["totals"]["tokens"]
    for batch in read_shards(out):
        assert (batch["input_ids"][batch["segment_ids"] == 0] == -1).all()
        assert (batch["segment_ids"] == batch.layout.segment_ids()).all()
        assert (batch["positions"] == batch.layout.positions()).all()


def test_the_plan_is_that_of_all_rows(tmp_path: Path, source: Path) -> None:
    rollouts = read(source)
    lengths = rollouts["prompt_token_ids"].lengths + rollouts["response_ids"].lengths  # type: ignore[union-attr]
    for options in ({}, {"align": 16}, {"max_segments": 2}, {"algorithm": "first_fit"}):
        out = tmp_path / "-".join(map(str, ["out", *options.values()]))
        write_shards([source], out, Options(capacity=128, bins_per_shard=3, **options))
        planned = Layout.pack(lengths, 128, **options)
        found = read_layout(out)
        assert found.equals(planned)


def test_bytes_do_not_depend_on_chunks_nor_place(tmp_path: Path) -> None:
    rows = make_rows()
    folders = []
    for i, chunk_rows in enumerate((1, 13, 500)):
        place = tmp_path / str(i)
        place.mkdir()
        write_shards(
            [write_jsonl(place / "rows.jsonl", rows)],
            place / "out",
            Options(capacity=200, chunk_rows=chunk_rows),
        )
        folders.append(contents(place / "out"))
    assert folders[0] == folders[1] == folders[2]
    assert str(tmp_path).encode() not in b"".join(folders[0].values())


def test_several_sources_count_through(tmp_path: Path) -> None:
    rows = make_rows(30)
    sources = [write_jsonl(tmp_path / f"{i}.jsonl", rows[i : i + 10]) for i in (0, 10, 20)]
    write_shards(sources, tmp_path / "out", Options(capacity=128))
    assert_holds(tmp_path / "out", rows)


@pytest.mark.parametrize(
    ("oversize", "dropped", "truncated"), [("truncate", 0, 1), ("alone", 0, 0), ("drop", 1, 0)]
)
def test_oversize(tmp_path: Path, oversize: str, dropped: int, truncated: int) -> None:
    rows = [{"prompt_token_ids": [7], "response_ids": list(range(n))} for n in (3, 30, 5)]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    index = write_shards([source], tmp_path / "out", Options(capacity=16, oversize=oversize))
    assert (index["totals"]["dropped"], index["totals"]["truncated"]) == (dropped, truncated)
    assert index["totals"]["width"] == (31 if oversize == "alone" else 16)
    for number, row in unpacked(tmp_path / "out"):
        assert row["input_ids"] == ([7] + rows[number]["response_ids"])[: index["totals"]["width"]]
    assert index["totals"]["rows"] == 3


@pytest.mark.parametrize("bins_per_shard", [1, 2, 100])
@pytest.mark.parametrize("order", [{}, {"order": "shuffled", "seed": 4}])
def test_rows_in_pieces(tmp_path: Path, bins_per_shard: int, order: dict[str, Any]) -> None:
    rows = make_rows(20)
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    how: Any = {"capacity": 16, "bins_per_shard": bins_per_shard, "oversize": "split", **order}
    index = write_shards([source], tmp_path / "out", Options(**how))
    sizes = [len(row["prompt_token_ids"]) + len(row["response_ids"]) for row in rows]
    totals = index["totals"]
    assert (totals["rows"], totals["tokens"], totals["dropped"], totals["truncated"]) == (
        20,
        sum(sizes),
        0,
        0,
    )
    assert totals["split"] == sum(size > 16 for size in sizes)
    found: list[dict[int, int]] = [{} for _ in rows]
    rewards = np.zeros(20)
    for batch in read_shards(tmp_path / "out"):
        numbers = batch.rows["row_numbers"]
        for number, *columns in zip(
            numbers, *map(batch.unpack, ("positions", "input_ids", "rewards")), strict=True
        ):
            positions, ids, reward = (column.tolist() for column in columns)
            found[number].update(zip(positions, ids, strict=True))
            rewards[number] += sum(reward)
    wanted = [row["prompt_token_ids"] + row["response_ids"] for row in rows]
    assert [[row[i] for i in range(len(row))] for row in found] == wanted
    np.testing.assert_allclose(rewards, [row["rewards"] for row in rows], rtol=1e-6)
    layout = read_layout(tmp_path / "out")
    assert layout.row_lengths.tolist() == sizes
    whole = Layout.pack(sizes, 16, oversize="split", **order)
    assert np.array_equal(layout.positions(), whole.positions())
    assert check_shards(tmp_path / "out", verify=True) == []
    assert write_shards([source], tmp_path / "out", Options(**how), resume=True) == index


def test_a_file_is_no_folder_of_shards(source: Path) -> None:
    with pytest.raises(ValueError, match=r"jsonl: a file, expected a folder that rollkit pack wrote; "):
        Bins.open(source)


def test_another_source_of_the_same_lengths_is_another_run(tmp_path: Path) -> None:
    for name in "ab":
        tokens = [1, 2, 3] if name == "a" else [4, 5, 6]
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"response_ids": tokens}) + "\n")
        write_shards([tmp_path / f"{name}.jsonl"], tmp_path / name, Options(capacity=4))
    assert Bins.open(tmp_path / "a").plan != Bins.open(tmp_path / "b").plan
    shard = "shard-00000.safetensors"
    (tmp_path / "a" / shard).write_bytes((tmp_path / "b" / shard).read_bytes())
    with pytest.raises(ValueError, match=r"a shard of another run$"):
        Bins.open(tmp_path / "a")[0]


def test_another_seed_is_another_run(tmp_path: Path, source: Path) -> None:
    def write(folder: str, **order: Any) -> dict[str, Any]:
        return write_shards([source], tmp_path / folder, Options(capacity=128, **order), resume=True)

    plain = write("opened")
    first, second = write("a", order="shuffled", seed=0), write("b", order="shuffled", seed=1)
    assert len({index["plan_sha256"] for index in (plain, first, second)}) == 3
    assert plain["totals"] == first["totals"] == second["totals"]
    assert write("a", order="shuffled", seed=0) == first
    with pytest.raises(ValueError, match="cannot resume: --seed was 0, is 1"):
        write("a", order="shuffled", seed=1)
    with pytest.raises(ValueError, match="cannot resume: --order was 'opened', is 'shuffled'"):
        write("opened", order="shuffled", seed=1)


def test_empty_rows_at_the_end_of_a_full_bin(tmp_path: Path) -> None:
    rows = [{"prompt_token_ids": [], "response_ids": [1] * n} for n in (4, 0, 4, 0, 0, 4, 0)]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    write_shards([source], tmp_path / "out", Options(capacity=4, bins_per_shard=1))
    assert {number: row["input_ids"] for number, row in unpacked(tmp_path / "out")} == {
        i: row["response_ids"] for i, row in enumerate(rows)
    }


@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_entries_per_row_may_be_missing(tmp_path: Path, chunk_rows: int) -> None:
    scores = [1, None, 2.5, None, 3]
    rows = [{"response_ids": [1], **({} if s is None else {"score": s})} for s in scores]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    write_shards([source], tmp_path / "out", Options(capacity=8, chunk_rows=chunk_rows))
    (batch,) = read_shards(tmp_path / "out")
    assert batch.rows["score"] == scores


def test_input_ids(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"input_ids": [1, 2]}, {"input_ids": [3]}])
    write_shards([source], tmp_path / "out", Options(capacity=4))
    assert [row["input_ids"] for _, row in sorted(unpacked(tmp_path / "out"), key=lambda x: x[0])] == [
        [1, 2],
        [3],
    ]


def test_skip_columns(tmp_path: Path, source: Path) -> None:
    index = write_shards(
        [source], tmp_path / "out", Options(capacity=128, skip_columns=("messages", "advantages"))
    )
    assert "messages" not in index["rows"]
    assert "advantages" not in index["columns"]


# Levels.


def levelled_rows(count: int = 40) -> list[Row]:
    """Prompts and responses are of one length in the first rows, and only there; some prompts are empty."""
    rng = random.Random(5)
    rows: list[Row] = []
    for i in range(count):
        prompt = 3 if i < 8 else rng.randint(0, 4)
        response = 3 if i < 8 else rng.randint(1, 6)
        rows.append(
            {
                "prompt_token_ids": list(range(prompt)),
                "response_ids": list(range(response)),
                "loss_masks": [1] * response,
                "prompt_mask": [1] * prompt,
                "mine": [2] * prompt,
                "of_response": [3] * response,
                "of_both": [4] * (prompt + response),
                "image_size": [10, 20],
            }
        )
    return rows


@pytest.mark.parametrize("chunk_rows", [1, 8, 100])
def test_a_column_lands_at_one_level_in_every_shard(tmp_path: Path, chunk_rows: int) -> None:
    rows = levelled_rows()
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    levels = {"mine": "prompt", "image_size": "row"}
    options = Options(capacity=10, bins_per_shard=1, chunk_rows=chunk_rows, levels=levels)
    index = write_shards([source], tmp_path / "out", options)
    assert index["arguments"]["levels"] == levels
    assert index["rows"]["image_size"] == "json"
    found = dict(unpacked(tmp_path / "out"))
    assert len(found) == len(rows)
    for number, row in found.items():
        prompt, response = len(rows[number]["prompt_token_ids"]), len(rows[number]["response_ids"])
        assert row["prompt_mask"] == [1] * prompt + [0] * response
        assert row["mine"] == [2] * prompt + [0] * response
        assert row["of_response"] == [0] * prompt + [3] * response
        assert row["of_both"] == [4] * (prompt + response)
        assert row["per row"]["image_size"] == [10, 20]


@pytest.mark.parametrize("chunk_rows", [1, 8, 100])
def test_a_level_that_its_name_does_not_say_is_refused_by_all_rows(tmp_path: Path, chunk_rows: int) -> None:
    rows = [{name: row[name] for name in row if name != "image_size"} for row in levelled_rows()]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError, match="column 'mine': ") as caught:
        write_shards([source], tmp_path / "out", Options(capacity=10, chunk_rows=chunk_rows))
    assert caught.value.column == "mine"  # type: ignore[attr-defined]
    # Each chunk is fine by itself, all rows are not: half are as long as responses, half as sequences.
    odd = [{**row, "mine": row["of_response" if i < 16 else "of_both"]} for i, row in enumerate(rows)]
    source = write_jsonl(tmp_path / "odd.jsonl", odd)
    with pytest.raises(ValueError, match=r"odd\.jsonl:\d+: column 'mine': this row has \d+ elements"):
        write_shards([source], tmp_path / "out", Options(capacity=10, chunk_rows=chunk_rows))
    assert not (tmp_path / "out").exists()


def test_levels_of_no_column_are_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ValueError, match="levels has 'nothing', which is no column; there are "):
        write_shards([source], tmp_path / "out", Options(capacity=128, levels={"nothing": "row"}))
    with pytest.raises(ValueError, match="column 'group': levels has it per prompt token"):
        write_shards([source], tmp_path / "out", Options(capacity=128, levels={"group": "prompt"}))
    with pytest.raises(ValueError, match=r"levels\['x'\] must be one of"):
        Options(capacity=128, levels={"x": "token"})


def test_bins_that_are_added(tmp_path: Path, source: Path) -> None:
    plain = write_shards([source], tmp_path / "plain", Options(capacity=128))["totals"]["bins"]
    options = Options(capacity=128, bins_multiple_of=16, bins_per_shard=4)
    index = write_shards([source], tmp_path / "out", options)
    assert index["totals"]["bins"] == -(-plain // 16) * 16 > plain
    assert_holds(tmp_path / "out", make_rows())
    assert len({tuple(batch) for batch in read_shards(tmp_path / "out")}) == 1, "those without rows too"


GOOD: Row = {"prompt_token_ids": [1, 2], "response_ids": [3, 4, 5], "loss_masks": [1, 0, 1]}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ('{"prompt_token_ids": [1, 2], "respon', r"rows\.jsonl:4: "),
        ("", "no rollouts"),
        ({**GOOD, "loss_masks": [1]}, r"rows\.jsonl:4: column 'loss_masks': this row has 1 elements"),
        ({**GOOD, "loss_masks": [1, 0, 300]}, r"rows\.jsonl:4: .*300 does not fit uint8"),
        ({**GOOD, "response_ids": [2**40, 0, 0]}, r"rows\.jsonl:4: .*does not fit int32"),
        (
            {**GOOD, "response_ids": [1] * 98, "loss_masks": [1] * 98},
            r"rows\.jsonl:4: this row has 100 tokens",
        ),
        ({k: v for k, v in GOOD.items() if k != "loss_masks"}, r"rows\.jsonl.*loss_masks"),
        ({**GOOD, "extra": [1]}, r"rows\.jsonl.*extra"),
        ({**GOOD, "rewards": 1.0}, r"rows\.jsonl.*rewards"),
        ({**GOOD, "response_ids": "abc"}, r"rows\.jsonl"),
        ({**GOOD, "response_ids": None}, r"rows\.jsonl"),
    ],
    ids=["cut", "empty", "length", "mask", "id", "oversize", "missing", "extra", "reward", "string", "none"],
)
@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_what_is_wrong_is_named_and_nothing_is_written(
    tmp_path: Path, bad: Row | str, said: str, chunk_rows: int
) -> None:
    source = tmp_path / "rows.jsonl"
    line = bad if isinstance(bad, str) else json.dumps(bad)
    good = json.dumps(GOOD) + "\n"
    source.write_text((good * 2 + "\n" + line + "\n" + good) if line else "\n\n")
    with pytest.raises(ValueError, match=said):
        write_shards([source], tmp_path / "deep/out", Options(capacity=64, chunk_rows=chunk_rows))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("name", ["segment_ids", "positions", "row_numbers", "rows.x", "layout.starts"])
def test_names_that_are_taken(tmp_path: Path, name: str) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{**GOOD, name: [1, 2, 3]}])
    with pytest.raises(ValueError, match=f"column '{name}': this name has another meaning"):
        write_shards([source], tmp_path / "out", Options(capacity=64))
    write_shards([source], tmp_path / "out", Options(capacity=64, skip_columns=(name,)))


@pytest.mark.parametrize(
    "wrong", [{"capacity": 0}, {"algorithm": "best"}, {"align": 0}, {"oversize": "?"}, {"pad_id": 2**40}]
)
def test_options_are_checked_before_reading(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, OverflowError)):
        Options(**{"capacity": 8, **wrong})


def test_a_folder_in_use_is_refused(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(ValueError, match="choose another folder"):
            write_shards([source], out, Options(capacity=128), resume=resume)
    assert contents(out) == {"notes.txt": b"mine"}


def test_an_empty_folder_is_taken_and_kept(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ValueError, match="more than a capacity"):
        write_shards([source], out, Options(capacity=8))
    assert list(out.iterdir()) == []
    write_shards([source], out, Options(capacity=128))


def test_damage_is_found(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    write_shards([source], out, Options(capacity=128, bins_per_shard=4))
    first, second, third = sorted(out.glob("shard-*"))[:3]
    flipped = bytearray(first.read_bytes())
    flipped[-1] ^= 1
    first.write_bytes(flipped)
    assert check_shards(out) == []
    second.write_bytes(second.read_bytes()[:-1])
    third.unlink()
    wrong = check_shards(out, verify=True)
    assert [message.split(": ")[0] for message in wrong] == [str(first), str(second), str(third)]
    with pytest.raises(ValueError, match="the index says"):
        next(read_shards(out))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}'])
def test_no_index(tmp_path: Path, text: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_index(tmp_path)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ValueError, match="index"):
        read_index(tmp_path)


# Interruptions.

DIE = """
import os, sys
from pathlib import Path
from rollkit._files.stream import Options, write_shards
left = int(sys.argv[3])
def dying(call, before):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left == 0 and before: os._exit(9)
        found = call(*args, **kwargs)
        if left == 0: os._exit(9)
        return found
    return wrapped
for name in ("replace", "fsync"):
    setattr(os, name, dying(getattr(os, name), sys.argv[4] == "before"))
write_shards([sys.argv[1]], sys.argv[2], Options(capacity=128, bins_per_shard=8, chunk_rows=10), resume=True)
"""


def test_a_run_that_dies_anywhere_is_completed_to_the_same_bytes(tmp_path: Path, source: Path) -> None:
    options = Options(capacity=128, bins_per_shard=8, chunk_rows=10)
    write_shards([source], tmp_path / "whole", options)
    whole = contents(tmp_path / "whole")
    deaths = 0
    for when in ("before", "after"):
        for left in range(1, 100, by_level(9, 3)):
            out = tmp_path / f"{when}-{left}"
            command = [sys.executable, "-c", DIE, str(source), str(out), str(left), when]
            status = subprocess.run(command, check=False, timeout=60).returncode
            assert status in (0, 9)
            assert_only_whole_shards(out, whole)
            if status == 0:
                break
            deaths += 1
            write_shards([source], out, options, resume=True)
            assert contents(out) == whole
    assert deaths > by_level(2, 8)


def assert_only_whole_shards(out: Path, whole: dict[str, bytes]) -> None:
    for path in out.iterdir() if out.exists() else ():
        if path.name != ".rollkit":
            assert path.read_bytes() == whole[path.name]


@pytest.fixture
def unfinished(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of 8 bins a shard that failed when it had two shards."""
    replace, calls = os.replace, []

    def failing(a: Any, b: Any) -> None:
        calls.append(b)
        if sum(Path(name).suffix == ".safetensors" for name in calls) == 3:
            raise OSError(28, "No space left on device", str(b))
        replace(a, b)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(OSError, match="No space left") as caught:
            write_shards([source], out, Options(capacity=128, bins_per_shard=8))
    assert "2 of" in caught.value.__notes__[0]
    assert len(list(out.glob("shard-*"))) == 2
    assert not list(out.glob(".rollkit/*.tmp"))
    assert not (out / ".rollkit/spool").exists()
    return out


def test_an_unfinished_run_says_so(unfinished: Path, source: Path) -> None:
    with pytest.raises(ValueError, match="unfinished"):
        next(read_shards(unfinished))
    with pytest.raises(ValueError, match="--resume continues it"):
        write_shards([source], unfinished, Options(capacity=128, bins_per_shard=8))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"capacity": 256}, "--capacity was 128, is 256"),
        ({"pad_id": 3}, "--pad-id was 0, is 3"),
        ({"bins_per_shard": 4}, "--bins-per-shard was 8, is 4"),
        ({"skip_columns": ("messages",)}, "--skip-columns was"),
    ],
)
def test_resuming_another_run_is_refused(
    unfinished: Path, source: Path, change: dict[str, Any], said: str
) -> None:
    before = contents(unfinished)
    with pytest.raises(ValueError, match=said):
        write_shards(
            [source], unfinished, Options(**{"capacity": 128, "bins_per_shard": 8, **change}), resume=True
        )
    assert contents(unfinished) == before


@pytest.mark.parametrize(
    ("begun", "said"),
    [
        ({"derived": True}, "--derived was True, is None"),
        ({"nonfinite": "keep"}, "--nonfinite was 'keep', is None"),
        ({"rename": {"group": "g"}}, "--rename was {'group': 'g'}, is None"),
    ],
)
def test_an_option_that_is_left_out_is_another_run(
    tmp_path: Path, source: Path, begun: dict[str, Any], said: str
) -> None:
    write_shards([source], tmp_path / "out", Options(capacity=128, **begun))
    with pytest.raises(ValueError, match=f"cannot resume: {said}"):
        write_shards([source], tmp_path / "out", Options(capacity=128), resume=True)


def test_resuming_with_other_sources_is_refused(unfinished: Path, source: Path) -> None:
    options = Options(capacity=128, bins_per_shard=8)
    with pytest.raises(ValueError, match=r"source 2 file was None, is 'rows\.jsonl'"):
        write_shards([source, source], unfinished, options, resume=True)
    rows = source.read_text()
    source.write_text(rows.replace("user", "USER", 1))
    with pytest.raises(ValueError, match="source 1 sha256 was"):
        write_shards([source], unfinished, options, resume=True)
    source.write_text(rows)
    write_shards([source], unfinished, options, resume=True)
    assert_holds(unfinished, make_rows())


def test_a_damaged_shard_is_written_again(unfinished: Path, source: Path, tmp_path: Path) -> None:
    first = min(unfinished.glob("shard-*"))
    first.write_bytes(first.read_bytes()[:-8] + b"\1" * 8)
    options = Options(capacity=128, bins_per_shard=8)
    write_shards([source], unfinished, options, resume=True)
    write_shards([source], tmp_path / "whole", options)
    assert contents(unfinished) == contents(tmp_path / "whole")


def test_resuming_what_is_complete_changes_nothing(tmp_path: Path, source: Path) -> None:
    options = Options(capacity=128)
    index = write_shards([source], tmp_path / "out", options)
    before = contents(tmp_path / "out")
    assert write_shards([source], tmp_path / "out", options, resume=True) == index
    with pytest.raises(ValueError, match="--capacity was 128, is 64"):
        write_shards([source], tmp_path / "out", Options(capacity=64), resume=True)
    assert contents(tmp_path / "out") == before


def test_one_run_at_a_time(unfinished: Path, source: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (unfinished / ".rollkit/lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run"):
            write_shards([source], unfinished, Options(capacity=128, bins_per_shard=8), resume=True)


# The spool.

CHUNKS: list[tuple[list[Any], list[Any]]] = [
    ([1, 2], [3.5]),
    ([1, 2], [None, "a"]),
    ([True], [2]),
    (["a"], [1.5, 2.5]),
    ([[1], [2, 3]], [[0.5]]),
    ([[], []], [[0.5]]),
    ([[[1, 2]], [[3, 4], [5, 6]]], [[[7, 8]]]),
    ([["a"]], [[1], [2, 3]]),
    ([[1, 2]], [[{"a": 1}]]),
]


@pytest.mark.parametrize(("first", "second"), CHUNKS)
def test_chunks_give_what_all_rows_at_once_give(tmp_path: Path, first: list[Any], second: list[Any]) -> None:
    spool = Spool(tmp_path / "spool")
    for rows in (first, second):
        spool.append(Rollouts({"x": rows}))
    stored = spool.finish()
    every = np.arange(stored.rows)
    found = {**stored.tokens(every, {}), **stored.scalars(every, {})}["x"]
    whole = Rollouts({"x": first + second})["x"]
    if isinstance(whole, Ragged):
        assert whole.equals(found)
    elif isinstance(found, Ragged):
        assert [json.loads(text.tobytes()) for text in found] == first + second
    else:
        assert isinstance(found, np.ndarray)
        assert found.tolist() == first + second


@pytest.mark.parametrize(
    ("name", "first", "second", "said"),
    [
        ("x", [[[1, 2]]], [[[1, 2, 3]]], "inner shape"),
        ("rewards", [1.0], [[1.0]], "of another kind in some rows"),
        ("x", [[1], [2, 3]], [None], "needs an array in every row"),
        ("x", [None], [[1], [2, 3]], "needs an array in every row"),
        ("x", [2**63], [-1], "no integer dtype holds both"),
        ("x", [object()], [], "not JSON serializable"),
    ],
)
def test_chunks_that_do_not_fit(
    tmp_path: Path, name: str, first: list[Any], second: list[Any], said: str
) -> None:
    def append() -> None:
        spool = Spool(tmp_path / "spool")
        for rows in (first, second):
            spool.append(Rollouts({name: rows}))

    with pytest.raises(ValueError, match=said):
        append()


def test_any_dtype(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtypes: list[Any] = [np.uint8, np.float16, np.int64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]

    def make(dtype: Any) -> Ragged:
        return Ragged(np.arange(6).astype(dtype).reshape(3, 2), np.array([0, 1, 3]))

    spool = Spool(tmp_path / "spool")
    columns = {str(i): make(dtype) for i, dtype in enumerate(dtypes)}
    spool.append(Rollouts(columns))
    spool.append(Rollouts(columns))
    found = spool.finish().tokens(np.array([3, 0]), {})
    for name, column in columns.items():
        assert column.take([1, 0]).equals(found[name])


FEW_FILES = """
import resource, sys
from rollkit._files.stream import Options, write_shards
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
write_shards([sys.argv[1]], sys.argv[2], Options(capacity=64, bins_per_shard=2, chunk_rows=3))
"""


def test_there_may_be_more_columns_than_files_that_may_be_open(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    more = {f"of_{i}": [1, 2, 3] for i in range(100)} | {f"score_{i}": i for i in range(100)}
    # The second half has floats: what the spool holds of it is written anew.
    rows = [{**GOOD, **more}] * 6 + [{**GOOD, **more, "of_7": [0.5, 1, 2], "score_9": "x"}] * 6
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    command = [sys.executable, "-c", FEW_FILES, str(source), str(tmp_path / "out")]
    subprocess.run(command, check=True, timeout=60)
    write_shards([source], tmp_path / "many", Options(capacity=64, bins_per_shard=2, chunk_rows=3))
    assert contents(tmp_path / "out") == contents(tmp_path / "many")


# Real rollouts.


@pytest.mark.skipif(not TAU.exists(), reason="the rollouts of shared/data are not here")
def test_tau_airline(tmp_path: Path) -> None:
    index = write_shards([TAU], tmp_path / "out", Options(capacity=16384, bins_per_shard=16))
    assert index["totals"]["bins"] == 52
    assert index["totals"]["tokens"] == 836_774
    with TAU.open() as file:
        assert_holds(tmp_path / "out", [json.loads(line) for line in file])


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_row_without_a_reward_does_not_cost_the_column(tmp_path: Path, at: int) -> None:
    rows: list[Row] = [{**GOOD, "rewards": None if row == at else 0.5} for row in range(3)]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError, match=r"rows\.jsonl.*column 'rewards'"):
        write_shards([source], tmp_path / "out", Options(capacity=64))
    write_shards([source], tmp_path / "out", Options(capacity=64, skip_columns=("rewards",)))

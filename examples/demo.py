"""From rollouts to packed training shards and back, on the bundled sample: `make demo`."""

import shutil
import sys
from pathlib import Path

import numpy as np

import rollkit
from rollkit._cli import main as command_line
from rollkit._files.shards import read_shards

OUT = Path("demo-out")
CAPACITY = 2048


def heading(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m\n" if sys.stdout.isatty() else f"\n{text}\n", flush=True)


def shell(*arguments: str) -> None:
    print(f"$ rollkit {' '.join(arguments)}")
    if command_line(arguments):
        sys.exit("the demo stops here; the line above says why")


def check(claim: str, holds: object) -> None:
    if not holds:
        sys.exit(f"  WRONG  {claim}")
    print(f"  ok     {claim}")


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    source = shutil.copy(rollkit.sample_path(), OUT / "rollouts.jsonl")
    shards = OUT / "shards"

    heading("1. Rollouts, as an inference engine wrote them: one JSON object a line")
    rollouts = rollkit.read(source)
    for name, column in rollouts.items():
        kind = "list" if isinstance(column, list) else f"{column.dtype}"
        print(
            f"  {name:<24} {kind:<9} {'per token' if isinstance(column, rollkit.Ragged) else 'per rollout'}"
        )

    heading(f"2. Packed into bins of {CAPACITY:,} tokens")
    picture = () if importable("matplotlib") is None else ("--plot", str(OUT / "bins.png"))
    shell(
        "pack", str(source), "-o", str(shards), "--capacity", str(CAPACITY), "--bins-per-shard", "4", *picture
    )

    heading("3. What was written")
    shell("inspect", str(shards))
    shell("verify", str(shards))

    heading("4. One shard, as a trainer loads it")
    batch = next(read_shards(shards))
    print(f"  {batch!r}\n")
    ids, segments = batch["input_ids"], batch["segment_ids"]
    first = int((segments[0] == 1).sum())
    print(f"  bin 0 begins   {ids[0, :8].tolist()} …")
    print(f"  its rollouts   {[int(n) for n in np.bincount(segments[0])[1:]]} tokens long, then padding")
    print(f"  cu_seqlens     {batch.layout.cu_seqlens(line=0).tolist()}\n")

    numbers = batch.rows["row_numbers"]
    wanted = rollouts.take(numbers)
    prompts, responses = wanted["prompt_token_ids"], wanted["response_ids"]
    tokens = [np.concatenate(pair) for pair in zip(prompts, responses, strict=True)]
    unpacked = batch.unpack("input_ids")
    check(
        "unpacking gives every token back",
        all(np.array_equal(a, b) for a, b in zip(unpacked, tokens, strict=True)),
    )
    check(
        "positions begin again with each rollout", (batch["positions"][0, :first] == np.arange(first)).all()
    )
    check("the loss mask is 0 on padding", not batch["loss_masks"][segments == 0].any())
    check(
        "rewards are on last tokens, and add up",
        np.isclose(batch["rewards"].sum(), np.sum(np.asarray(wanted["rewards"]))),
    )
    check(
        "log-probabilities of the responses are unchanged",
        rollkit.take(batch["rollout_logprobs"], batch.responses).equals(wanted["rollout_logprobs"]),
    )
    check("columns per rollout came along", batch.rows["trajectory_ids"] == wanted["trajectory_ids"])
    print(f"\n  {OUT}/ holds it all" + (f"; {picture[1]} is a picture of the bins" if picture else ""))


def importable(name: str) -> object:
    import importlib.util

    return importlib.util.find_spec(name)


if __name__ == "__main__":
    main()

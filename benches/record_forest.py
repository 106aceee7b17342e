"""Forests: how long they take to find and to pack, how good the bins are, and what a model gains.

    python benches/record_forest.py [--no-write]

Turns of an agent are the tau-bench rollouts that lie beside the repository on some machines; without them
those parts are left out. Prints a table and writes it, with date and machine, to benches/results/.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import platform
import runpy
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import scaled_dot_product_attention

import rollkit
from record import machine
from rollkit import Batch, Forest, Layout, Ragged, Rollouts, TreeLayout, segments

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
EDITED_ROWS, VOCABULARY = 32, 4096
HOW = "Medians of runs in turns, of CPU time."

Line = tuple[str, str, str]
"""What, what was wanted, what came."""
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def medians(rounds: int = 9, **calls: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds of CPU for each call, run in turns, after one that is not timed."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            begun = time.process_time()
            call()
            if turn:
                found[name].append(time.process_time() - begun)
    return {name: median(times) * 1e3 for name, times in found.items()}


def building() -> Iterator[Line]:
    """Beside a copy of the tokens."""
    if DATA.exists():
        for name, rows in {"steps": steps(), "edited steps": edited_steps()}.items():
            tokens = whole(rows)
            forest = Forest.build(tokens)
            times = medians(
                15,
                rows=partial(Forest.build, tokens),
                halves=partial(Forest.build, rows),
                copy=tokens.flat.copy,
            )
            yield (
                f"build, {name}: {forest.tokens:,} tokens, {forest.unique:,} distinct",
                "≤ 2 × a copy",
                f"{times['rows'] / times['copy']:.2f} × ({times['rows']:.1f} of {times['copy']:.1f} ms); "
                f"of prompts and responses {times['halves'] / times['copy']:.2f} ×",
            )
        apart = Forest.build(steps(), groups="instance_ids")
        yield "distinct tokens, steps, shared within tasks alone", "644,323", f"{apart.unique:,}"
    short = short_rows(300_000)
    forest = Forest.build(short)
    took = medians(5, build=lambda: Forest.build(short))["build"]
    each = took * 1e3 / forest.nodes
    yield f"build, {len(short):,} short rows, {forest.nodes:,} nodes", "≤ 0.3 µs a node", f"{each:.2f} µs"


def bins() -> Iterator[Line]:
    """Beside the bound that no plan beats, and rows packed whole."""
    cases: dict[str, tuple[Forest, dict[int, str]]] = {}
    if DATA.exists():
        trajectories = rollkit.read(DATA / "tau_airline.jsonl")
        wanted = {16384: "≤ 40", 32768: "≤ 19"}
        cases["trajectories"] = Forest.build(trajectories), wanted
        cases["steps"] = Forest.build(steps()), wanted
        cases["edited steps"] = Forest.build(edited_steps()), {16384: "≤ 47", 32768: "≤ 22"}
    cases["GRPO, 64 prompts × 16 responses"] = Forest.build(grpo()), {65536: "≤ 1.03 × the bound + 1"}
    for name, (forest, capacities) in cases.items():
        for capacity, target in capacities.items():
            layout = forest.pack(capacity)
            least, tokens = forest.lower_bound(capacity)
            rows = Layout.pack(forest.row_lengths, capacity).shape[0]
            took = medians(5, pack=partial(forest.pack, capacity))["pack"]
            yield (
                f"bins of {capacity:,}, {name}",
                target,
                f"{layout.shape[0]} of ≥ {least}, {layout.num_placed:,} tokens of ≥ {tokens:,}; "
                f"rows whole take {rows}; {took:.1f} ms",
            )


def packing() -> Iterator[Line]:
    """All that a batch has, from rollouts that hold all columns."""
    if not DATA.exists():
        return
    rows = rollkit.read(DATA / "tau_airline_steps.parquet")
    buffer = rollkit.pack(rows, 16384, share_prefixes=True)
    moved = sum(np.asarray(array).nbytes for array in buffer.values())
    moved += sum(column.values.nbytes for column in buffer.rows.values() if isinstance(column, Ragged))
    times = medians(
        pack=lambda: rollkit.pack(rows, 16384, share_prefixes=True),
        again=lambda: rollkit.pack(rows, 16384, share_prefixes=True, out=buffer),
        whole=lambda: rollkit.pack(rows, 16384),
    )
    yield (
        f"pack, all steps with {len(rows.columns)} columns",
        "≤ 30 ms",
        f"{times['pack']:.0f} ms, into its memory again {times['again']:.0f} ms ({moved / 1e6:.0f} MB); "
        f"unshared {times['whole']:.0f} ms",
    )


def masks() -> Iterator[Line]:
    """Beside torch's own, of one bin."""
    if not DATA.exists():
        return
    one = Forest.build(steps()).pack(16384).bins([0])
    until = torch.from_numpy(one.visible_until()[0])
    theirs = partial(
        create_block_mask,
        lambda b, h, q, k: (k <= q) & (q < until[k]),
        None, None, 16384, 16384, device="cpu",
    )  # fmt: skip
    ours = partial(segments.block_mask, one)
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(ours(), name), getattr(theirs(), name)), name
    mine, others = medians(9, ours=ours)["ours"], medians(2, theirs=theirs)["theirs"]
    yield (
        "block_mask of a bin of 16,384, beside create_block_mask",
        "≥ 300 ×",
        f"{others / mine:,.0f} × ({mine:.2f} ms of {others:,.0f})",
    )


def training() -> Iterator[Line]:
    """Forward and backward, every kind of batch with the fastest attention that it has on a CPU."""
    if not DATA.exists():
        return
    rows = edited_steps()[:EDITED_ROWS].select("prompt_token_ids", "response_ids", "loss_masks")
    rows = rows.with_columns(loss_weights=rollkit.loss_weights(rows))
    forest = Forest.build(rows)
    packed = rollkit.pack(rows, forest.tokens).to("torch")  # one line without padding
    shared = rollkit.pack(rows, forest.unique, share_prefixes=True).to("torch")
    saved = (
        f"{forest.tokens:,} tokens, {forest.unique:,} distinct; attention {forest.saving((0, 1)):.1f} × less"
    )
    model, head = transformer()
    plain, trees = cast(Layout, packed.layout), cast(TreeLayout, shared.layout)
    mask = torch.from_numpy(segments.dense_mask(trees))[:, None]
    runs = {
        "packed": partial(gradient, model, head, packed, segment_by_segment(plain)),
        "shared": partial(gradient, model, head, shared, path_by_path(trees)),
        "dense": partial(
            gradient, model, head, shared, partial(scaled_dot_product_attention, attn_mask=mask)
        ),
    }
    wanted, found = runs["packed"](), runs["shared"]()
    apart = float((found - wanted).norm() / wanted.norm())
    assert apart < 2e-6, apart
    times = medians(3, **runs)
    part, dense = times["shared"] / times["packed"], times["dense"] / times["packed"]
    yield (
        f"forward and backward of the example's model, {EDITED_ROWS} edited steps: {saved}",
        "≤ 0.25 × packed",
        f"{part:.2f} × ({times['shared'] / 1e3:.2f} of {times['packed'] / 1e3:.2f} s), "
        f"gradients {apart:.0e} apart; by a dense mask {dense:.2f} ×",
    )


def steps() -> Rollouts:
    return rollkit.read(
        DATA / "tau_airline_steps.parquet",
        columns=["trajectory_ids", "instance_ids", "prompt_token_ids", "response_ids", "loss_masks"],
    )


def edited_steps() -> Rollouts:
    edited: Callable[[Rollouts], Rollouts] = runpy.run_path(str(ROOT / "tests" / "forest" / "edited.py"))[
        "edited"
    ]
    return edited(steps())


def whole(rows: Rollouts) -> Ragged:
    both = zip(rows["prompt_token_ids"], rows["response_ids"], strict=True)
    return Ragged.from_rows([np.concatenate(pair) for pair in both])


def short_rows(count: int) -> Ragged:
    """Half of them begin as another does, a few tokens in."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 50_000, (count, 60)).astype(np.int32)
    others, shared = rng.integers(0, count, count), rng.integers(0, 12, count) * rng.integers(0, 2, count)
    rows = np.where(np.arange(60) < shared[:, None], rows[others], rows)
    lengths = rng.integers(20, 60, count)
    return Ragged(rows[np.arange(60) < lengths[:, None]], np.append(0, np.cumsum(lengths)))


def grpo() -> Ragged:
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 90_000, int(n)) for n in rng.normal(2000, 100, 64)]
    lengths = rng.lognormal(8.0, 0.7, 1024).clip(16, 30_000).astype(np.int64)
    owners = rng.permutation(1024) % 64
    return Ragged.from_rows(
        [
            np.concatenate([prompts[owner], rng.integers(0, 90_000, n)]).astype(np.int32)
            for owner, n in zip(owners, lengths, strict=True)
        ]
    )


def transformer() -> tuple[nn.Module, nn.Module]:
    """The model of `examples/forest.py`, and its head apart: only what is trained goes through that."""
    spec = importlib.util.spec_from_file_location("forest", ROOT / "examples" / "forest.py")
    example: Any = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(example)  # type: ignore[union-attr]
    example.VOCABULARY = VOCABULARY
    model = example.small_model()
    head, model.head = model.head, nn.Identity()
    return model, head


def gradient(model: nn.Module, head: nn.Module, batch: Batch, attend: Attend) -> Tensor:
    """Of all parameters, for a loss on rows."""
    masks = batch["loss_masks"] if "loss_masks" in batch else batch.rows["loss_masks"]
    before, token = (torch.as_tensor(found) for found in batch.layout.edges(where=masks))
    ids = batch["input_ids"] % VOCABULARY
    hidden = model(ids, batch["positions"], attend).flatten(0, 1)
    logprobs = head(hidden[before]).log_softmax(-1).gather(1, ids.flatten()[token].long()[:, None])[:, 0]
    laid = logprobs.new_zeros(batch.layout.size).index_put((token,), logprobs).view(batch.layout.shape)
    loss = -(torch.as_tensor(batch.unpack("loss_weights").flat) * batch.unpack(laid).flat).sum()
    found = torch.autograd.grad(loss, [*model.parameters(), *head.parameters()])
    return torch.cat([part.flatten() for part in found])


def segment_by_segment(layout: Layout) -> Attend:
    """Causal attention of each row by itself: nothing is computed that is not seen."""
    sizes = layout.lengths[np.argsort(layout.starts)].tolist()

    def attend(*heads: Tensor) -> Tensor:
        rows = zip(*(torch.split(x, sizes, 2) for x in heads), strict=True)
        return torch.cat([scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in rows], 2)

    return attend


def path_by_path(layout: TreeLayout) -> Attend:
    """Attention of each node to its path, as varlen kernels do with `tree_varlen`."""
    sizes = layout.nodes.lengths.tolist()
    paths: list[list[int]] = []
    masks = []
    for node, parent in enumerate(layout.parents):
        paths.append([*(paths[parent] if parent >= 0 else []), node])
        keys = sum(sizes[above] for above in paths[node])
        masks.append(torch.ones(sizes[node], keys, dtype=torch.bool).tril(keys - sizes[node]))

    def attend(*heads: Tensor) -> Tensor:
        q, k, v = (torch.split(x, sizes, 2) for x in heads)
        seen = []
        for node, path in enumerate(paths):
            keys, values = (torch.cat([x[above] for above in path], 2) for x in (k, v))
            alone = len(path) == 1
            mask = None if alone else masks[node]
            seen.append(scaled_dot_product_attention(q[node], keys, values, mask, is_causal=alone))
        return torch.cat(seen, 2)

    return attend


SECTIONS = (building, bins, packing, masks, training)


def main() -> None:
    """Print a table, and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    torch.set_num_threads(1)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    head = f"# Forests {today}\n\n{machine()}, torch {torch.__version__}; one thread. {HOW}"
    lines = [head, "", "| what | wanted | got |", "|---|---|---|"]
    print("\n".join(lines))
    for section in SECTIONS:
        for line in section():
            lines.append(f"| {' | '.join(line)} |")
            print(lines[-1], flush=True)
    if not options.no_write:
        target = ROOT / "benches" / "results" / f"forest-{today}-{platform.machine()}.md"
        target.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

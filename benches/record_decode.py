"""Measure decoding in batches that shrink beside batches that do not: `python benches/record_decode.py`.

Times are medians of interleaved runs in one process, on one thread of torch. `--large` adds a model in the
shape of Qwen3-0.6B: 1.2 GB of random weights, and some minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import transformers

from record import Case, report
from record_segments import settled
from rollkit.decode import AllowedSet
from rollkit.decode._cached import cache_name
from rollkit.decode.generate import generate
from test_active import GUIDED, UNCOND, generates, jax_buckets, qwen3, row_moves
from test_sample import HEAT, SCALE, TOP_P, VOCAB, with_sort

assert (GUIDED["cfg_scale"], GUIDED["temperature"], GUIDED["top_p"]) == (SCALE, HEAT, TOP_P)

LIMITS = [64, 5, 8, 11, 16, 13, 32, 8]
PROMPTS = [list(range(i, i + 16)) for i in range(len(LIMITS))]
CODES = AllowedSet(range(VOCAB - 65_536, VOCAB), VOCAB)


def cases(large: bool) -> Iterator[Case]:
    """Rows, models, JAX."""
    what = "cache rows, 1 of 16 ended, 512 tokens, 4 layers, bfloat16"
    yield Case(what, row_moves(), "≥ 20 × index_select", 41)
    what = "small random Qwen3, 16 skewed sequences, guidance, 2 049 of 151 936 tokens"
    yield Case(what, generates(), "≥ 20 × transformers", 3)
    buckets = jax_buckets()
    shapes = buckets["rollkit"]().shapes
    what = f"JAX toy, 32 skewed sequences, warm, {len(shapes)} compiled shapes"
    yield Case(what, buckets, "≥ 3 × static shapes, ≤ 6 shapes", 9)
    if large:
        what = "Qwen3-0.6B's shape, 8 skewed sequences, guidance, 65 536 of 217 204 tokens, bfloat16"
        yield Case(what, at_scale(), "≥ 2.3 × a static loop", 1)


def at_scale() -> dict[str, Any]:
    """Decode with a model in which the head is no longer most of the work."""
    model = qwen3(
        vocab_size=VOCAB,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        dtype="bfloat16",
    )
    ours = partial(generate, model, PROMPTS, max_new_tokens=LIMITS, **GUIDED)
    return {
        "rollkit": partial(ours, allowed=CODES),
        "compaction=False": partial(ours, allowed=CODES, compaction=False),
        "a static loop, full head, torch sampler": partial(static_loop, model),
    }


@torch.inference_mode()
def static_loop(model: Any) -> torch.Tensor:
    """Decode all rows to the longest, with the whole head and then a mask."""
    n, width = len(PROMPTS), len(PROMPTS[0])
    tokens = torch.tensor([*PROMPTS, *[[0] * (width - len(UNCOND)) + UNCOND] * n])
    seen = torch.ones_like(tokens)
    seen[n:, : width - len(UNCOND)] = 0
    positions = (seen.cumsum(1) - 1).clamp(min=0)
    cache, name = transformers.DynamicCache(config=model.config), str(cache_name(model))
    masked = torch.ones(VOCAB, dtype=torch.bool)
    masked[torch.tensor(CODES.ids.tolist())] = False
    drawn = []
    for _ in range(max(LIMITS)):
        logits = model(
            input_ids=tokens,
            attention_mask=seen,
            position_ids=positions,
            **{name: cache},
            logits_to_keep=1,
        ).logits[:, -1]
        cond, uncond = logits.float().split(n)
        drawn.append(with_sort(cond, uncond, masked))
        tokens = drawn[-1].repeat(2)[:, None]
        seen = torch.nn.functional.pad(seen, (0, 1), value=1)
        positions = positions[:, -1:] + 1
    return torch.stack(drawn, 1)


def main() -> None:
    """Run the cases, print a table, and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", action="store_true", help="also the model in the shape of Qwen3-0.6B")
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    torch.set_num_threads(1)  # two on two busy cores are bimodal
    report("decode", cases(options.large), settled, write=not options.no_write)


if __name__ == "__main__":
    main()

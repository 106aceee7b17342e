"""Times on a device, beside a copy of the same bytes and torch's own ways; on a CPU tiny, only to run."""

# mypy: disable-error-code="arg-type, attr-defined, no-untyped-call"

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from gpu.cases import skewed_lengths
from gpu.setting import Setting, own_operations, placed
from gpu.timing import Run, Timing, timing
from rollkit import Layout, Ragged, next_token_logprobs, pack, pad, place, segments, take


def rows(setting: Setting) -> Iterator[Timing]:
    """`place` and `take`: rectangles and bins, of numbers and of hidden states."""
    with own_operations(setting, "torch"):
        yield from _rows(setting)


def _rows(setting: Setting) -> Iterator[Timing]:
    lengths = skewed_lengths(setting.on_gpu, 1024, 16_384)
    offsets = np.append(0, np.cumsum(lengths))
    values = torch.randn(int(offsets[-1]), device=setting.device)
    column, listed = Ragged(values, offsets), list(values.split(lengths.tolist()))
    layout = Layout.pad(lengths, side="right")  # as torch pads
    out = place(column, layout)
    bounds = torch.as_tensor(offsets, device=setting.device)
    longest = int(lengths.max())
    mask = torch.as_tensor(layout.attention_mask().astype(bool), device=setting.device)
    pad_sequence = torch.nn.utils.rnn.pad_sequence
    what = f"{len(lengths)} rows, {offsets[-1]:,} float32"

    def nested() -> Any:
        return torch.nested.nested_tensor_from_jagged(values, bounds, max_seqlen=longest).to_padded_tensor(
            0.0
        )

    def masked() -> Any:
        return torch.zeros_like(out).masked_scatter_(mask, values)

    assert torch.equal(out, pad_sequence(listed, batch_first=True))
    runs: dict[str, Run] = {
        "rollkit": lambda: place(column, layout),
        "rollkit, a list of tensors": lambda: place(listed, layout),
        "pad_sequence": lambda: pad_sequence(listed, batch_first=True),
        "nested to_padded_tensor": nested,
        "masked_scatter": masked,
        "copy of the output": out.clone,
    }
    yield timing(setting, f"place to a rectangle, {what} to {tuple(out.shape)}", runs, moved=out.nbytes)
    runs = {
        "rollkit": lambda: take(out, layout),
        "boolean index": lambda: out[mask],
        "slices and cat": lambda: torch.cat(
            [line[:n] for line, n in zip(out, lengths.tolist(), strict=True)]
        ),
        "copy of the rows": values.clone,
    }
    yield timing(setting, f"take from that rectangle, {what}", runs, moved=values.nbytes)

    bins = Layout.pack(lengths, longest)
    index = torch.as_tensor(bins.gather_indices(), device=setting.device)
    packed = place(column, bins)

    def indexed() -> Any:
        return torch.zeros(bins.size, device=setting.device).index_copy_(0, index, values)

    assert torch.equal(indexed(), packed.flatten())
    runs = {
        "rollkit": lambda: place(column, bins),
        "index_copy, its indices made before": indexed,
        "copy of the output": packed.clone,
    }
    yield timing(setting, f"place to {bins.shape[0]} bins of {longest}, {what}", runs, moved=packed.nbytes)
    some = skewed_lengths(setting.on_gpu, 128, 8192)
    few = Layout.pack(some, int(some.max()))
    hidden = torch.randn(
        *few.shape, 1024 if setting.on_gpu else 8, device=setting.device, dtype=torch.bfloat16
    )
    at = torch.as_tensor(few.gather_indices(), device=setting.device)
    taken = take(hidden, few).flat
    runs = {
        "rollkit": lambda: take(hidden, few),
        "index_select, its indices made before": lambda: hidden.flatten(0, 1).index_select(0, at),
        "copy of the rows": taken.clone,
    }
    what = f"take hidden states, bfloat16, {tuple(taken.shape)}"
    yield timing(setting, what, runs, moved=taken.nbytes)


def transfers(setting: Setting) -> Iterator[Timing]:
    """A batch from the host's memory."""
    lengths = skewed_lengths(setting.on_gpu, 256, 16_384)
    rng = np.random.default_rng(1)
    rollouts: dict[str, Any] = {
        "prompt_token_ids": [rng.integers(0, 99, 128).astype(np.int32) for _ in lengths],
        "response_ids": [rng.integers(0, 99, n).astype(np.int32) for n in lengths],
        "loss_masks": [np.ones(n, np.uint8) for n in lengths],
        "advantages": [rng.normal(size=n).astype(np.float32) for n in lengths],
    }
    batches = {"packed": pack(rollouts, int(lengths.max()) + 128), "padded": pad(rollouts)}
    size = {name: sum(np.asarray(batch[x]).nbytes for x in batch) for name, batch in batches.items()}
    host = torch.empty(size["packed"], dtype=torch.uint8, pin_memory=setting.on_gpu)
    runs: dict[str, Run] = {
        "rollkit": lambda: batches["packed"].to(setting.device),
        "its rectangle": lambda: batches["padded"].to(setting.device),
        "copy of as many pinned bytes": lambda: host.to(setting.device, copy=True),
    }
    shown = {name: f"{count / 1e6:.1f} MB" for name, count in size.items()}
    what = f"a packed batch to the device, {shown['packed']}, its rectangle {shown['padded']}"
    yield timing(setting, what, runs, moved=size["packed"])


def metadata(setting: Setting) -> Iterator[Timing]:
    """Lengths and offsets of segments, and block masks."""
    tokens = 1 << 17 if setting.on_gpu else 256
    for count in (16, 256):
        length = tokens // min(count, tokens // 4)
        positions = np.tile(np.arange(length, dtype=np.int32), tokens // length)
        ids = np.repeat(np.arange(1, tokens // length + 1, dtype=np.int32), length)
        ids[positions >= 0.88 * length] = 0
        arrays = [
            placed(setting, "torch", array[start::2].copy()[None])
            for array in (ids, positions)
            for start in (0, 1)
        ]
        runs: dict[str, Run] = {
            "rollkit": partial(ring_step, arrays, max(count, 8)),
            "copy of the four": partial(lambda four: [array.clone() for array in four], arrays),
        }
        what = f"thd of a ring step, 2 × {tokens // 2} tokens, {tokens // length} segments, torch"
        yield timing(setting, what, runs, moved=sum(array.nbytes for array in arrays))
    from torch.nn.attention.flex_attention import create_block_mask

    width = 16_384 if setting.on_gpu else 256
    layout = Layout.pack(np.random.default_rng(2).integers(1, width // 8, 40), width)
    rule = segments.block_mask(layout, device=setting.device).mask_mod
    lines = layout.shape[0]
    runs = {
        "rollkit": lambda: segments.block_mask(layout, device=setting.device),
        "create_block_mask": lambda: create_block_mask(
            rule, lines, None, width, width, device=setting.device
        ),
    }
    yield timing(setting, f"block_mask of {lines} bins of {width}, on the device", runs)


def ring_step(arrays: list[Any], count: int) -> Any:
    """`thd` of q and kv."""
    q, kv, q_at, kv_at = arrays
    return segments.thd(q, kv, positions_q=q_at, positions_kv=kv_at, max_segments=count)


def scores(setting: Setting) -> Iterator[Timing]:
    """Log-probabilities of the next tokens, forward and backward, and the memory that they take."""
    tokens, vocabulary = (8192, 151_936) if setting.on_gpu else (64, 50)
    rng = np.random.default_rng(3)
    rows = [rng.integers(0, vocabulary, tokens // 8 - 1).tolist() for _ in range(8)]
    batch = pack({"response_ids": rows}, tokens).to(setting.device)
    logits = torch.randn(1, tokens, vocabulary, device=setting.device, dtype=torch.bfloat16).requires_grad_()
    before, after = (torch.as_tensor(x, device=setting.device) for x in batch.layout.edges())
    ids = batch["input_ids"].flatten().long()

    def ours() -> None:
        logits.grad = None
        next_token_logprobs(logits, batch).sum().backward()

    def plain() -> None:
        logits.grad = None
        chances = logits[0, :-1].float().log_softmax(-1)
        chances.gather(1, ids[1:, None]).sum().backward()

    def entropy() -> None:
        logits.grad = None
        found = torch.nn.functional.cross_entropy(logits[0][before].float(), ids[after], reduction="none")
        found.sum().backward()

    runs: dict[str, Run] = {
        "rollkit": ours,
        "float, log_softmax, gather": plain,
        "float, cross_entropy": entropy,
        "copy of the logits": lambda: logits.detach().clone(),
    }
    found = timing(
        setting,
        f"next_token_logprobs and its gradient, {tokens} × {vocabulary} bfloat16",
        runs,
        moved=logits.nbytes,
    )
    if setting.on_gpu:
        found["peak GB"] = {name: _peak(run) for name, run in list(runs.items())[:3] if name in found["ms"]}
    yield found


def _peak(run: Run) -> float:
    """Memory beyond what there was, at most."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    begin = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - begin) / 1e9


SHAPES = ((16, 2049), (256, 2049), (16, 65_536), (256, 65_536), (64, 151_936))
FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "top-p 0.9": {"top_p": 0.9},
    "top-k 50": {"top_k": 50},
    "top-k 50, top-p 0.9": {"top_k": 50, "top_p": 0.9},
}


def sampler(setting: Setting) -> Iterator[Timing]:
    """Float32 logits to tokens, at temperature 1, as FlashInfer draws; with noise of its own."""
    from rollkit.decode import AllowedSet, sample
    from rollkit.decode import _torch as operations
    from rollkit.decode._request import make_request

    for number, columns in SHAPES if setting.on_gpu else ((3, 40),):
        logits = 3 * torch.randn(number, columns, device=setting.device)
        options: dict[str, Any] = {
            "allowed": AllowedSet.full(columns),
            "seeds": torch.arange(number, device=setting.device),
            "positions": 0,
            "logprobs": None,
        }
        for name, filters in FILTERS.items():
            request = make_request(logits, **options, **filters)
            runs: dict[str, Run] = {
                "rollkit": lambda: sample(logits, **options, **filters),  # noqa: B023
                "torch operations": lambda: operations.draw(request),  # noqa: B023
                "copy of the logits": logits.clone,
            }
            if setting.on_gpu and importlib.util.find_spec("flashinfer") is not None:
                runs["FlashInfer"] = by_flashinfer(logits, filters)
            yield timing(setting, f"sample, {number} × {columns}, {name}", runs, moved=logits.nbytes)


def by_flashinfer(logits: Any, options: dict[str, Any]) -> Run:
    """Draw as FlashInfer does, from probabilities or logits."""
    peer = importlib.import_module("flashinfer.sampling")
    k, p = options.get("top_k"), options.get("top_p")
    if k and p:
        return lambda: peer.top_k_top_p_sampling_from_logits(logits, k, p, filter_apply_order="top_k_first")
    if k:
        return lambda: peer.top_k_sampling_from_probs(logits.softmax(-1), k)
    if p:
        return lambda: peer.top_p_sampling_from_probs(logits.softmax(-1), p)
    return lambda: peer.sampling_from_logits(logits)

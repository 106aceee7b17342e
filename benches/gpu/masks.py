"""`flex_attention` with `segments.block_mask` of rows and forests, beside dense attention in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from gpu.cases import Rng
from gpu.setting import Faults, Setting
from rollkit import Batch, Forest, Layout, TreeLayout, segments

Attention = Callable[..., torch.Tensor]
WIDTHS = (256, 200, 1024, 640)  # 200 fills no block
HEADS, KEY_HEADS = 4, 2
BLOCKS = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
CASES: tuple[tuple[torch.dtype, int, float], ...] = (
    (torch.float32, 32, 1e-5),
    (torch.bfloat16, 64, 3e-2),
)
"""A dtype, the size of a head, and how far results may be off, of the largest value."""


def flex(setting: Setting) -> Iterator[str]:
    """Forward, and backward: on a CPU, where flex has none, by a plain form of the same rule."""
    yield from _flex(setting, WIDTHS if setting.on_gpu else WIDTHS[:2], 40, dynamic=True)


def flex_of_one_shape(setting: Setting) -> Iterator[str]:
    """Compiled for each shape anew: what is left to believe where a compiler fails on any shape."""
    if setting.on_gpu:
        yield from _flex(setting, WIDTHS[:2], 16, dynamic=False)
    else:
        yield "nothing is compiled on a CPU"


def _flex(setting: Setting, widths: tuple[int, ...], many: int, *, dynamic: bool) -> Iterator[str]:
    torch.set_float32_matmul_precision("highest")
    ours = compiled(setting, dynamic=dynamic)
    kinds, faults = CASES if setting.on_gpu else CASES[:1], Faults(setting)
    for backward in (False, True):
        for dtype, size, most in kinds:
            attention = by_rule if backward and not setting.on_gpu else ours
            worst, count = 0.0, 0
            for number in setting.tries(many, 4):
                rng = np.random.default_rng([7, number])
                width = widths[number // 2 % len(widths)]
                layout = some_layout(rng, width, forest=number % 2 == 1)
                mask = segments.block_mask(layout, device=setting.device)
                if not backward and dtype == torch.float32:
                    with faults.of("blocks"):
                        check_blocks(layout, mask, setting.device)
                with faults.of(f"{'backward' if backward else 'forward'}, {dtype}, {width} tokens"):
                    case = Case(setting, rng, layout, dtype, size)
                    worst = max(worst, case.compare(attention, mask, most, backward=backward))
                    count += 1
            how = "its rule in plain operations" if attention is by_rule else "flex_attention"
            how += " of any shape" if dynamic and setting.on_gpu else ""
            what = f"{how}, {'backward' if backward else 'forward'}, {str(dtype).removeprefix('torch.')}"
            beside = "of dense attention in float64"
            yield f"{what}, {count} packed and forest layouts: within {worst:.1e} {beside}"
    faults.check()


def compiled(setting: Setting, *, dynamic: bool = False) -> Attention:
    """Flex as it is used on a GPU; on a CPU, where compiling takes a minute, as it is."""
    if setting.on_gpu:
        return _compiled(dynamic)
    warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
    return flex_attention


@cache
def _compiled(dynamic: bool) -> Attention:
    torch._dynamo.config.recompile_limit = 64  # beyond it nothing would be compiled, without a word
    found: Attention = torch.compile(flex_attention, dynamic=dynamic, fullgraph=True)
    return found


def by_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    block_mask: Any,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention by the `mask_mod` of a block mask, which has a gradient on a CPU."""
    width = q.shape[2]
    places = torch.arange(width, device=q.device)
    lines = torch.arange(q.shape[0], device=q.device)[:, None, None, None]
    seen = block_mask.mask_mod(lines, 0, places[:, None], places[None])
    return dense_attention(q, k, v, seen=seen, scale=scale, enable_gqa=enable_gqa)


def dense_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    seen: torch.Tensor,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention with a mask of all pairs; a token that sees nothing sees itself, so that all is finite."""
    seen = seen | (~seen.any(-1, keepdim=True) & torch.eye(q.shape[2], dtype=torch.bool, device=q.device))
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    with sdpa_kernel(SDPBackend.MATH):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)


class Case:
    """Random queries, keys, values and weights of a layout."""

    def __init__(self, setting: Setting, rng: Rng, layout: Any, dtype: torch.dtype, size: int) -> None:
        lines, width = layout.shape
        shapes = [(lines, heads, width, size) for heads in (HEADS, KEY_HEADS, KEY_HEADS, HEADS)]
        arrays = [torch.from_numpy(rng.normal(size=shape)).to(setting.device, dtype) for shape in shapes]
        self.q, self.k, self.v, self.weights = arrays
        self.real = torch.from_numpy(layout.attention_mask().astype(bool)).to(setting.device)[
            :, None, :, None
        ]
        self.weights = self.weights * self.real
        self.seen = torch.from_numpy(np.asarray(segments.dense_mask(layout))).to(setting.device)[:, None]
        self.what = f"{dtype}, {layout!r}"

    def wide(self) -> list[torch.Tensor]:
        """The same in float64."""
        return [x.detach().double().requires_grad_() for x in (self.q, self.k, self.v)]

    def forward(self) -> torch.Tensor:
        """What dense attention has for an output."""
        with torch.no_grad():
            return dense_attention(*self.wide(), seen=self.seen, enable_gqa=True)

    def backward(self) -> tuple[torch.Tensor, ...]:
        """The gradients of dense attention."""
        inputs = self.wide()
        out = dense_attention(*inputs, seen=self.seen, enable_gqa=True)
        return torch.autograd.grad((out * self.weights.double()).sum(), inputs)

    def gradients(self, attention: Attention, mask: Any) -> tuple[torch.Tensor, ...]:
        """Those of an attention that takes a block mask."""
        inputs = [x.detach().requires_grad_() for x in (self.q, self.k, self.v)]
        out = attention(*inputs, block_mask=mask, enable_gqa=True)
        return torch.autograd.grad((out * self.weights).sum(), inputs)

    def compare(self, attention: Attention, mask: Any, most: float, *, backward: bool) -> float:
        """How far an attention is off."""
        if backward:
            found = zip("qkv", self.gradients(attention, mask), self.backward(), strict=True)
            return max(self.check(got, wanted, most, f"gradient of {name}") for name, got, wanted in found)
        with torch.no_grad():
            got = attention(self.q, self.k, self.v, block_mask=mask, enable_gqa=True)
        return self.check(got, self.forward(), most, "forward")

    def check(self, got: torch.Tensor, wanted: torch.Tensor, most: float, what: str) -> float:
        """How far off real tokens are, of the largest value."""
        found, right = (torch.where(self.real, x.double(), 0.0) for x in (got, wanted))
        off = float((found - right).abs().max() / right.abs().max().clamp(min=1e-30))
        assert off <= most, f"{what}, {self.what}: off by {off:.3g} of the largest value, more than {most:g}"
        return off


def some_layout(rng: Rng, width: int, *, forest: bool) -> Layout | TreeLayout:
    """Rows of up to `width` tokens, with padding between them or at the end of lines.

    Of four bins, or eight: a compiler takes each number, or one at least, for another case.
    """
    if not forest:
        lengths = rng.integers(1, width // 2, 7)
        return Layout.pack(lengths, width, align=int(rng.choice([1, 16])), bins_multiple_of=4)
    rows: list[list[int]] = []
    for _ in range(12):
        before = rows[int(rng.integers(len(rows)))] if rows and rng.random() < 0.8 else []
        kept = int(rng.integers(0, len(before) + 1))
        more = int(rng.integers(1, width // 3)) if kept < width // 2 else 1
        rows.append([*before[:kept], *rng.integers(0, 9, more).tolist()])
    return Forest.build(rows).pack(width, bins_multiple_of=4)


def check_blocks(layout: Layout | TreeLayout, mask: Any, device: str) -> None:
    """The blocks are those that torch finds by comparing all pairs of tokens, there."""
    lines, width = layout.shape
    wanted = create_block_mask(mask.mask_mod, lines, None, width, width, device=device)
    for name in BLOCKS:
        got, right = getattr(mask, name), getattr(wanted, name)
        assert got.device.type == device, f"{name} is on {got.device}"
        if "num" in name:
            assert torch.equal(got, right), f"{name}, {layout!r}"
            continue
        counts = getattr(wanted, name.replace("indices", "num_blocks"))[..., None]
        kept = torch.arange(right.shape[-1], device=device) < counts
        assert torch.equal(torch.where(kept, got, -1), torch.where(kept, right, -1)), f"{name}, {layout!r}"


def of_batch(setting: Setting) -> Iterator[str]:
    """Masks made of a batch on the device are there, and those of its layout."""
    from rollkit import pack

    for shared in (False, True):
        rng = np.random.default_rng(8)
        rows = [[1] * 9 + rng.integers(0, 9, int(n)).tolist() for n in rng.integers(1, 200, 9)]
        batch: Batch = pack({"response_ids": rows}, 512, share_prefixes=shared)
        mask = segments.block_mask(batch.to(setting.device))
        check_blocks(batch.layout, mask, setting.device)
        right: Any = segments.block_mask(batch.layout, device=setting.device)
        assert torch.equal(mask.kv_indices, right.kv_indices)
    yield "block_mask of batches on the device: torch's own blocks, on the device"
